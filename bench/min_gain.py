"""What single budgets lose in accuracy and save in tokens where small gains buy nothing; replays of the embedded pair.

    python bench/min_gain.py [--store FILE] [--limit K] [--seed S] [--budgets U,U,...] [--shares E,E,...] [--json FILE]

Units that the store lacks are drawn (greedy and trees of width 4); every problem has a budget of its own in generated
tokens, and is replayed over ``--decks`` random orders of its units with the shipped calibration. A share is the least
rise of the probability of a right answer for what a problem's opening costs; the default one is
:data:`adaptive_ttc.estimate.artefact.LEAST_GAIN`.

Figures: ``problems``; ``accuracy.<budget>``, ``tokens.<budget>``, ``difference.<budget>``, ``low.<budget>``,
``high.<budget>``, each a list with an entry for every share: mean accuracy and tokens a problem, and the paired
difference in accuracy from the first share with its 95 % interval.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from measuring import parser_of, report
from rich.console import Console

from adaptive_ttc.calibration.collect.arms import Arm
from adaptive_ttc.calibration.collect.records import ProblemRecord, Weights
from adaptive_ttc.calibration.judge.replay import UnitOrder, replay_each
from adaptive_ttc.calibration.pareto.inputs import collected
from adaptive_ttc.cli import exit_code
from adaptive_ttc.cli.options import add_model_options
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.estimate.artefact import LEAST_GAIN, Calibrated
from adaptive_ttc.evaluation.metrics import paired_interval
from adaptive_ttc.loading import mini_calibration

WEIGHTS = Weights(1.0, 0.0)
SHARES = (0.0, 0.0003, LEAST_GAIN, 0.004, 0.016)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 130 after Ctrl-C."""
    parser = parser_of(__doc__)
    parser.add_argument("--dataset", default="minimath-500", help="name or file (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=60, metavar="K", help="problems (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="draw fresh problems and other samples")
    parser.add_argument("--store", type=Path, default=Path("runs/pareto/units.sqlite"), metavar="FILE")
    parser.add_argument("--workers", type=int, default=1, metavar="W", help="processes that draw")
    parser.add_argument("--concurrency", type=int, default=8, metavar="K", help="problems at once, a worker")
    parser.add_argument("--trees", type=int, default=16, metavar="N", help="trees a problem (default: %(default)s)")
    parser.add_argument("--decks", type=int, default=3, metavar="K", help="orders of a problem's units")
    parser.add_argument("--budgets", type=_numbers, default=(500, 1000, 2000, 6000), help="generated tokens a problem")
    parser.add_argument("--shares", type=_numbers, default=SHARES, help="of gain, for what an opening costs")
    add_model_options(parser)
    options = parser.parse_args(arguments)
    return exit_code(lambda: run(options), interrupted="what was drawn is kept")


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in text.split(","))


def run(options: argparse.Namespace) -> None:
    """Draw what is missing, replay, print. ConfigError: there is no calibration."""
    folder = mini_calibration() if options.calibration is None else Path(options.calibration)
    if folder is None:
        raise ConfigError("the embedded pair has no calibration here: name one with --calibration DIR")
    records = collected(options, [Arm("greedy"), Arm("dvts", 4 * options.trees, 4)], Console(stderr=True)).records
    calibrated, figures = Calibrated.load(folder), {"problems": len(records), "shares": list(options.shares)}
    for budget in options.budgets:
        figures |= at_budget(calibrated, records, int(budget), options.shares, options.decks)
    report(options.json, "min_gain", figures)


def at_budget(
    calibrated: Calibrated, records: Sequence[ProblemRecord], budget: int, shares: Sequence[float], decks: int
) -> dict[str, list[float]]:
    """The figures of one budget."""
    unit = calibrated.opening.units(WEIGHTS.generated, WEIGHTS.prm)
    accuracy, tokens = np.zeros((len(shares), len(records))), np.zeros((len(shares), len(records)))
    for row, share in enumerate(shares):
        for deck in range(decks):
            orders = [UnitOrder(record, deck) for record in records]
            forecast, ballot = calibrated.gain.forecasts, calibrated.table.ballot
            runs = replay_each(orders, forecast, ballot, budget, WEIGHTS, calibrated.opening, 1_000 * share / unit)
            accuracy[row] += [run.accuracy / decks for run in runs]
            tokens[row] += [run.cost / decks for run in runs]
    paired = [paired_interval(one, accuracy[0]) for one in accuracy]
    return {
        f"accuracy.{budget}": accuracy.mean(axis=1).tolist(),
        f"tokens.{budget}": tokens.mean(axis=1).tolist(),
        f"difference.{budget}": [one.mean for one in paired],
        f"low.{budget}": [one.low for one in paired],
        f"high.{budget}": [one.high for one in paired],
    }


if __name__ == "__main__":
    sys.exit(main())
