"""``doctor``: checks a pair of models or a cascade, and says what to change."""

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
from adaptive_ttc.cli.options import add_model_options, answers_of, calibration_of, load_solver
from adaptive_ttc.doctor.check import Check
from adaptive_ttc.doctor.examine import examine
from adaptive_ttc.doctor.problems import rows as worked_rows
from adaptive_ttc.errors import AdaptiveTTCError, ConfigError
from adaptive_ttc.estimate.pair_calibration import selected_rule
from adaptive_ttc.evaluation.datasets import Row, load_problems, spaces_of
from adaptive_ttc.loading import REPLAY
from adaptive_ttc.solver import Solver
from adaptive_ttc.stopping.base import StoppingRule
from adaptive_ttc.tracing.tree_text import printable

FAULTS = 1
"""Exit code where a check found a fault; an impossible request has 2."""

_STYLES = {"ok": "green", "warning": "yellow", "fault": "bold red"}


def add(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "doctor",
        help="check a pair of models or a cascade, and say what to change",
        description="Check a pair: PRM, chat template, steps, answers, ends, caches, speed, memory, calibration; with "
        "--second both policies, what a token of the second counts, and the calibration of both. Ends with code 0, or "
        "1 if there is a fault.",
    )
    option = parser.add_argument
    option("--json", action="store_true", help="print a JSON object with all checks in place of a table")
    option(
        "--samples",
        type=int,
        default=4,
        metavar="K",
        help="drawn for each problem by each policy (default: %(default)s)",
    )
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
    rows = (
        worked_rows()
        if options.dataset is None
        else load_problems(options.dataset, options.limit, 0, answers_of(options))
    )
    calibration = calibration_of(options)
    rule = selected_rule(options.rule, calibration)
    console = Console(stderr=True)
    try:
        with console.status("loading the models"):
            solver = load_solver(options, options.seed, spaces=spaces_of(rows), calibrated=False)
    except AdaptiveTTCError as error:
        checks = [Check(name="models", status="fault", found=str(error))]
    else:
        checks = interruption.run(_examine, solver, rows, options, calibration, rule)
    if options.json:
        print(json.dumps({"checks": [one.as_json() for one in checks]}, indent=1, ensure_ascii=False))
    else:
        show(checks, Console())
    return FAULTS if any(one.status == "fault" for one in checks) else 0


async def _examine(
    solver: Solver,
    rows: Sequence[Row],
    options: argparse.Namespace,
    calibration: str | Path | None,
    rule: StoppingRule | None,
) -> list[Check]:
    found = []
    asked = {"samples": options.samples, "max_tokens": options.max_tokens, "allow_mismatch": options.allow_mismatch}
    asked |= {"calibration": calibration, "rule": rule}
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
