"""Measures a calibration for ``bench/calibration.py``, which lists the figures; it fits nothing by itself."""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

from report import add_json_option, report
from rich.console import Console

from adaptive_ttc.calibration import fit
from adaptive_ttc.calibration.calibrate import Calibration, calibrate
from adaptive_ttc.calibration.collect_command import add_drawing_options, arms_of
from adaptive_ttc.calibration.gathering import COUNTS, from_store
from adaptive_ttc.errors import AdaptiveTTCError

OF_STAGES = (
    "log_loss", "log_loss_of_shares", "log_loss_floor", "brier", "ece", "spearman", "spearman_ceiling",
)  # fmt: skip


def main(description: str) -> None:
    """Run it; what is impossible is said in one line."""
    options = parser(description).parse_args()
    try:
        figures = measure(options)
    except AdaptiveTTCError as error:
        sys.exit(f"error: {error}")
    report(options.json, "calibration", figures)


def parser(description: str) -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path("runs") / "bench" / "adaptive_ttc.calibration.sqlite"
    command.add_argument("--store", type=Path, default=default, metavar="FILE", help="of units (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="of folds, replays, estimators (default: %(default)s)")
    command.add_argument("--folds", type=int, default=5, metavar="K", help="of cross-fitting (default: %(default)s)")
    command.add_argument("--count", choices=COUNTS, help=f"what a unit is (default: {COUNTS[0]})")
    command.add_argument("--sampling-seed", type=int, default=0, metavar="S", help="of the units (%(default)s)")
    add_json_option(command)
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
    gain, difference = calibration.gain, calibration.contest.difference
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
