"""``doctor``: checks a pair of models, and says what to change."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from adaptive_ttc.cli import interruption
from adaptive_ttc.cli.options import add_model_options, answers_of, load_solver, second_of
from adaptive_ttc.configuration.recipe import read_recipe
from adaptive_ttc.doctor.check import Check
from adaptive_ttc.doctor.examine import examine
from adaptive_ttc.doctor.problems import rows as worked_rows
from adaptive_ttc.errors import AdaptiveTTCError, ConfigError
from adaptive_ttc.evaluation.datasets import Row, load_problems
from adaptive_ttc.loading import REPLAY, mini_calibration
from adaptive_ttc.solver import Solver
from adaptive_ttc.tracing.tree_text import printable

FAULTS = 1
"""Exit code where a check found a fault; an impossible request has 2."""

_STYLES = {"ok": "green", "warning": "yellow", "fault": "bold red"}


def add(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "doctor",
        help="check a pair of models, and say what to change",
        description="Check a pair: chat template, steps, answers, ends, PRM, prefix caches, speed, memory, calibration."
        " Ends with code 0, or 1 if there is a fault.",
    )
    option = parser.add_argument
    option("--json", action="store_true", help="print a JSON object with all checks in place of a table")
    option("--samples", type=int, default=4, metavar="K", help="drawn for each problem (default: %(default)s)")
    option("--max-tokens", type=int, default=512, metavar="T", help="most tokens of a sample (default: %(default)s)")
    option("--dataset", metavar="FILE|NAME", help="problems of your own, as for eval (default: five built-in ones)")
    option("--limit", type=int, default=8, metavar="K", help="of these the first K (default: %(default)s)")
    option("--seed", type=int, default=0, help="of the samples (default: %(default)s)")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check, and print; see :func:`add`."""
    for name in ("samples", "max_tokens", "limit"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is at least 1; got {getattr(options, name)}")
    if options.engine == REPLAY:
        raise ConfigError(
            "--engine replay answers from a record, and runs no model that could be checked: name the models themselves"
        )
    if second_of(options) is not None:
        raise ConfigError("doctor checks one policy and its PRM: name either policy as --policy, in a call of its own")
    rows = (
        worked_rows()
        if options.dataset is None
        else load_problems(options.dataset, options.limit, 0, answers_of(options))
    )
    calibration = _calibration(options)
    bare = argparse.Namespace(**{key: value for key, value in vars(options).items() if key not in _OF_CALIBRATIONS})
    console = Console(stderr=True)
    try:
        with console.status("loading the models"):
            solver = load_solver(bare, options.seed)
    except AdaptiveTTCError as error:
        checks = [Check(name="models", status="fault", found=str(error))]
    else:
        checks = interruption.run(_examine, solver, rows, options, calibration)
    if options.json:
        print(json.dumps({"checks": [one.as_json() for one in checks]}, indent=1, ensure_ascii=False))
    else:
        show(checks, Console())
    return FAULTS if any(one.status == "fault" for one in checks) else 0


_OF_CALIBRATIONS = ("calibration", "rule", "allow_mismatch")


def _calibration(options: argparse.Namespace) -> str | Path | None:
    """The folder that a solver of these options would use."""
    if options.calibration is not None:
        return str(options.calibration)
    if options.recipe is not None:
        return read_recipe(options.recipe).calibration
    named = options.policy or options.prm or options.answers not in (None, "math")
    return None if named else mini_calibration()


async def _examine(
    solver: Solver, rows: Sequence[Row], options: argparse.Namespace, calibration: str | Path | None
) -> list[Check]:
    found = []
    asked = {"samples": options.samples, "max_tokens": options.max_tokens, "calibration": calibration}
    async with solver:
        with Console(stderr=True).status("checking") as status:
            async for one in examine(solver, rows, **asked):
                status.update(f"checking; last: {one.name}")
                found.append(one)
    return found


def show(checks: Sequence[Check], console: Console) -> None:
    """Print a line for each check, as a table in a terminal; control characters of models are neutralised."""
    if not console.is_terminal:
        for one in checks:
            told = f"{one.status:<8} {one.name}: {printable(one.found)}"
            print(told + (f" -- {printable(one.remedy)}" if one.remedy else ""), file=sys.stdout)
        return
    table = Table("check", "", "found", "what to change")
    for one in checks:
        status = Text(one.status, style=_STYLES[one.status])
        table.add_row(one.name, status, Text(printable(one.found)), Text(printable(one.remedy)))
    console.print(table)
