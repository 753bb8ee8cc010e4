"""Fits a calibration: which strategy, N and M is best for which difficulty, at which budget.

    python -m calibration.fit --limit 60 --out runs/x

draws what the store lacks, learns from it, and writes a directory with ``table.json``, ``classifier.skops``,
``outlook.skops``, ``meta.json``, ``report.md`` and ``report.html``. After an interruption the same command goes on
where it stopped; other folds, budgets and seeds of the fit draw nothing anew.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from rich.console import Console
from rich.text import Text

from adaptive_ttc.calibration.collect.__main__ import add_drawing_options, arms_of
from adaptive_ttc.calibration.fit.inputs import COUNTS, FitData, from_store
from adaptive_ttc.calibration.fit.pipeline import Settings, calibrate
from adaptive_ttc.calibration.fit.recorded import from_recorded, name_of, recorded_arms
from adaptive_ttc.calibration.fit.save import save_calibration, write_reports
from adaptive_ttc.calibration.report.tables import show_calibration
from adaptive_ttc.cli import Parser, exit_code
from adaptive_ttc.display.progress import progress
from adaptive_ttc.errors import CalibrationError, ConfigError
from adaptive_ttc.estimate.artefact import META
from adaptive_ttc.evaluation.result_file import shown_command

# problems under which a calibration is too rough to rely on: bins of 40 leave pass rates uncertain by 15 points
FEW = 200
RUNS = Path("runs") / "calibration"
UNITS = "units.sqlite"
_PARTS = 7  # of a fit, beside its folds


def main(arguments: Sequence[str] | None = None, prog: str = "python -m adaptive_ttc.calibration.fit") -> int:
    """Run it: 0, 1 when an engine failed, 2 when what is asked for is impossible, 130 after Ctrl-C.

    ``prog``: how it was called, for its help and for the calibration's record.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parser(prog).parse_args(words)
    options.command = f"{prog} {shown_command(words)}".rstrip()
    if options.out is None:
        options.out = RUNS / default_name(options)
    if options.store is None:
        options.store = options.out / UNITS
    kept = "nothing was drawn" if options.replay else f"what was drawn is kept in {options.store}"
    return exit_code(
        lambda: run(options, Console()),
        interrupted=f"{kept}; the same command goes on",
        impossible=(ConfigError, CalibrationError),
    )


def parser(prog: str = "python -m calibration.fit") -> argparse.ArgumentParser:
    """The command line."""
    command = Parser(
        prog=prog,
        description=(__doc__ or "").replace("python -m calibration.fit", prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("--out", type=Path, metavar="DIR", help=f"(default: {RUNS}/POLICY-DATASET)")
    add("--store", type=Path, metavar="FILE", help=f"of drawn units (default: {UNITS} in --out)")
    add(
        "--resume",
        action="store_true",
        help="insist on going on from a store that was begun with these settings; without it the command goes on where "
        "it can, and begins where it cannot",
    )
    add(
        "--replay",
        type=Path,
        nargs="+",
        metavar="TRACES",
        help="fit recorded samples, of one file or several; draws nothing (docs/traces.md)",
    )
    add(
        "--budget-grid",
        nargs="+",
        type=float,
        metavar="UNITS",
        help="mean units a problem at which choices are judged (default: from the cheapest arm to the dearest)",
    )
    add(
        "--count",
        choices=COUNTS,
        help=f"what a unit is: {COUNTS[0]} weighs tokens by the models' parameters, in tokens of the policy "
        f"(default: {COUNTS[0]})",
    )
    add("--folds", type=int, default=5, metavar="K", help="of cross-fitting (default: %(default)s)")
    add("--seed", type=int, default=0, help="of folds, replays, estimators (default: %(default)s)")
    add("--sampling-seed", type=int, default=0, metavar="S", help="of the units (default: %(default)s)")
    add_drawing_options(command)
    return command


def run(options: argparse.Namespace, console: Console) -> None:
    """Gather, fit, write, and show."""
    if options.budget_grid is not None and not all(budget > 0 for budget in options.budget_grid):
        raise ConfigError(f"--budget-grid {options.budget_grid}: budgets are above 0")
    if options.replay and (options.second or options.second_weight is not None):
        raise ConfigError("--replay fits recorded samples, which a second policy adds nothing to: leave out --second")
    began = time.perf_counter()
    arms = arms_of(options)
    gathered = from_recorded(options) if options.replay else from_store(options, arms, console)
    if options.replay and not options.arms:
        arms = recorded_arms(gathered.records, options.most)
    for note in gathered.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    if gathered.second_weight is not None:
        arms = [*arms, *(replace(arm, second=True) for arm in arms)]
    asked = gathered.dataset["problems"]
    if len(gathered.records) < asked:
        told = f"note: {len(gathered.records)} of {asked} problems are complete; the fit is on these"
        console.print(Text(told, style="yellow"))
    if len(gathered.records) < FEW:
        told = f"note: {len(gathered.records)} problems tell little; what they choose may be worse than one fixed arm"
        console.print(Text(f"{told} (take {FEW} or more)", style="yellow"))
    if (options.out / META).exists():
        console.print(Text(f"note: the calibration that is in {options.out} will be replaced", style="yellow"))
    settings = settings_of(options, gathered)
    with progress("fitted", _PARTS + settings.folds, alike=False) as meter:
        number = count()
        calibration = calibrate(
            gathered.records, arms, settings, gathered.source, lambda what: meter.update(next(number), what)
        )
    calibrated = save_calibration(
        calibration,
        options.out,
        models=gathered.models,
        fingerprints=gathered.fingerprints,
        dataset=gathered.dataset,
        counts={**gathered.counts, "wall_seconds": round(time.perf_counter() - began)},
        command=options.command,
    )
    write_reports(calibration, calibrated.meta, options.out)
    show_calibration(calibration, console)
    console.print(Text(f"written to {options.out}: report.html, report.md, and what Calibrated.load reads"))


def settings_of(options: argparse.Namespace, gathered: FitData) -> Settings:
    """Settings of the fit."""
    budgets = None if options.budget_grid is None else tuple(sorted(set(options.budget_grid)))
    return Settings(
        gathered.weights,
        folds=options.folds,
        seed=options.seed,
        budgets=budgets,
        aggregations=gathered.aggregations,
        doubted=gathered.doubted,
    )


def default_name(options: argparse.Namespace) -> str:
    """``mini-minimath-calibration``; of the file where samples are replayed."""
    if options.replay:
        return name_of(options.replay)
    models = [options.recipe or options.policy or "mini", *([options.second] if options.second else [])]
    return "-".join(re.sub(r"[^\w.-]+", "-", Path(one).name or one) for one in (*models, options.dataset))


if __name__ == "__main__":
    sys.exit(main())
