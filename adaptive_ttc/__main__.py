"""The command ``python -m adaptive_ttc``."""

import sys

from adaptive_ttc.cli import main

if __name__ == "__main__":
    sys.exit(main())
