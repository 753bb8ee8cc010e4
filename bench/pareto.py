"""Accuracy against compute, beside strategies, published rules and oracles: ``adaptive-ttc pareto`` from a clone.

What it measures and its figures are told by ``python bench/pareto.py --help`` (``calibration/pareto``).
"""

import sys

from adaptive_ttc.calibration.pareto.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
