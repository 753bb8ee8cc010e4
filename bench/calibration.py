"""How good a calibration is on problems that it has not seen, and how long it takes to fit from a full store.

    python bench/calibration.py [--json FILE] [--store FILE] [--limit K] [--seed S] [--folds K] [...]

What the store lacks is drawn first; ``--help`` lists the options of drawing, which are those of
``python -m calibration.fit``. ``--seed`` is of folds, replays and estimators. All figures but the times are
cross-fitted: what decides on a problem was fitted without it.

Figures; a stage is one of ``prompt``, ``first_steps_2``, ``first_steps_4``, ``unscored_1``, ``unscored_2``,
``unscored_4``, ``unscored_greedy``, ``unscored_8``, ``greedy``, ``finished_4``, ``finished_8``:

``log_loss.<stage>``, ``brier.<stage>``, ``ece.<stage>``, ``spearman.<stage>``, ``spearman_ceiling.<stage>``
    of the posterior over five bins of difficulty; the first in nats, with its least possible value beside it
    (``log_loss_floor.<stage>``) and that of one who knows nothing but the shares (``log_loss_of_shares.<stage>``).
``fit_seconds``, ``fit_cpu_seconds``
    from a full store to a calibration in memory, reading included: by the clock, and of this process's CPU time.
``optimism_gap``
    accuracy that the table promises of its choices less what these reach on unseen problems.
``oracle_gain_kept``, ``kept_at_best``
    (predicted - best fixed arm) / (oracle - best fixed arm) with difficulty predicted from four first steps, at equal
    mean cost: over the budgets at which the oracle gains at least 5 points, and at the one where it gains most;
    ``null`` where there is none. ``oracle_gain`` is the most that it gains.
``outlook_less_table``, ``outlook_less_table_low``, ``outlook_less_table_high``
    accuracy of adaptive runs by the learned outlook less that by the table's forecasts, with its 95 % interval.
``vote_optimism``
    how much better the chosen vote looks where it was chosen.
``problems``, ``samples``
    of the fit, and samples a problem.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from measuring import parser_of, report
from rich.console import Console

from adaptive_ttc.calibration.collect.__main__ import add_drawing_options, arms_of
from adaptive_ttc.calibration.fit import __main__ as fit
from adaptive_ttc.calibration.fit.inputs import COUNTS, from_store
from adaptive_ttc.calibration.fit.pipeline import Calibration, calibrate
from adaptive_ttc.errors import AdaptiveTTCError

OF_STAGES = (
    "log_loss", "log_loss_of_shares", "log_loss_floor", "brier", "ece", "spearman", "spearman_ceiling",
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command, default = parser_of(__doc__), Path("runs/bench/calibration.sqlite")
    command.add_argument("--store", type=Path, default=default, metavar="FILE", help="of units (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="of folds, replays, estimators (default: %(default)s)")
    command.add_argument("--folds", type=int, default=5, metavar="K", help="of cross-fitting (default: %(default)s)")
    command.add_argument("--count", choices=COUNTS, help=f"what a unit is (default: {COUNTS[0]})")
    command.add_argument("--sampling-seed", type=int, default=0, metavar="S", help="of the units (%(default)s)")
    add_drawing_options(command)
    command.set_defaults(resume=False, budget_grid=None)
    return command


def measure(options: argparse.Namespace) -> dict[str, float | int]:
    """Draw what is missing, fit, and read the figures off."""
    arms = arms_of(options)
    gathered = from_store(options, arms, Console(stderr=True))
    started, cpu = time.perf_counter(), time.process_time()
    calibration = calibrate(gathered.records, arms, fit.settings_of(options, gathered), gathered.source)
    return {
        **figures_of(calibration),
        "fit_seconds": gathered.reading_seconds + time.perf_counter() - started,
        "fit_cpu_seconds": gathered.reading_cpu_seconds + time.process_time() - cpu,
        "problems": len(gathered.records),
        "samples": min(len(record.units.get("sample", ())) for record in gathered.records),
    }


def figures_of(calibration: Calibration) -> dict[str, float | int]:
    """All figures but the times; nan for what these problems do not tell."""
    gain, difference = calibration.gain, calibration.adaptive.difference
    stages = {
        f"{figure}.{stage}": float(getattr(found, figure))
        for figure in OF_STAGES
        for stage, found in calibration.stages.items()
    }
    return {
        **stages,
        "optimism_gap": gain.optimism,
        "oracle_gain_kept": math.nan if gain.kept is None else gain.kept,
        "kept_at_best": math.nan if gain.kept_at_best is None else gain.kept_at_best,
        "oracle_gain": max(oracle - fixed for oracle, fixed in zip(gain.oracle, gain.fixed, strict=True)),
        "outlook_less_table": difference.mean,
        "outlook_less_table_low": difference.low,
        "outlook_less_table_high": difference.high,
        "vote_optimism": calibration.vote.optimism,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it; what is impossible is said in one line."""
    options = parser().parse_args(arguments)
    try:
        figures = measure(options)
    except AdaptiveTTCError as error:
        sys.exit(f"error: {error}")
    report(options.json, "calibration", figures)


if __name__ == "__main__":
    main()
