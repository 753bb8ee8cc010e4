"""``export``: writes graded solutions as data for training, from files of samples or from a run over a data set."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from adaptive_ttc.answers import Grader
from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.cli import interruption
from adaptive_ttc.cli.batch import asked_of
from adaptive_ttc.cli.options import (
    NOTHING_ANSWERED,
    add_model_options,
    add_request_options,
    answers_of,
    check_request,
    load_solver,
    request_of,
    shared,
    units,
)
from adaptive_ttc.cli.reachable import check_servers
from adaptive_ttc.display.progress import Meter, progress
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.datasets import MINIMATH, Row, load_problems, spaces_of
from adaptive_ttc.evaluation.evaluate import CONCURRENCY
from adaptive_ttc.export.card import LEFT_OUT, card_paths, write_card
from adaptive_ttc.export.exporter import ROLLOUT_SHARE, Exporter, Plan, export_pool, export_run, export_source
from adaptive_ttc.export.file import ExportFile
from adaptive_ttc.export.first_error import LABELS
from adaptive_ttc.export.formats import FORMATS, MOST
from adaptive_ttc.export.labels import RolloutSettings, check_goes_on
from adaptive_ttc.export.sources import Excluded, named_rows, open_sources, rows_digest
from adaptive_ttc.policy import strategy_defaults
from adaptive_ttc.solver import Solver
from adaptive_ttc.tracing.tree_text import printable

SAMPLES = 16
"""Solutions of a problem that are drawn where nothing says how many."""

EXAMPLE = """examples:
  adaptive-ttc export --format rollouts --dataset minimath-train --limit 200 --n 16 --out samples.jsonl
  adaptive-ttc export --format sft samples.jsonl --out sft.jsonl
  adaptive-ttc export --format prm samples.jsonl --budget-tokens 3000 --out steps.jsonl

exit codes:
  0 something was written, 1 an engine failed, 2 an impossible request, 3 nothing was found to write, 130 Ctrl-C,
  143 SIGTERM; after all but 2 the same command goes on
"""

_ASKED = ("format", "sources", "exclude", "most", "per_bin", "least_shared", "labels", "rollouts", "limit")


def add(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "export",
        help="write graded solutions as data for training",
        description="Write right solutions, preference pairs, step labels or all samples as data for training: from "
        "files of samples, or with --dataset and no file from solutions drawn now (docs/training.md).",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("sources", nargs="*", metavar="SOURCE", help="a store, traces, a record, or what --format rollouts wrote")
    option("--format", required=True, choices=FORMATS, help="what a line is")
    option("--out", required=True, metavar="FILE", help="JSON Lines, or Parquet where it ends in .parquet")
    option(
        "--dataset",
        metavar="FILE|NAME",
        help=f"whose problems are solved: {', '.join(MINIMATH)}, a file or a Hub name; with a store or record, where "
        "its right answers are",
    )
    option("--limit", type=int, metavar="K", help="the first K problems of the data set only")
    option("--seed", type=int, help="of what is drawn")
    option(
        "--exclude",
        action="append",
        default=[],
        metavar="FILE|NAME",
        help="leave out the problems of this data set, such as a test set; may be repeated",
    )
    each = ", ".join(f"{name} {most or 'all'}" for name, most in MOST.items())
    option("--most", type=int, metavar="K", help=f"lines of one problem (default: {each})")
    option("--per-bin", type=int, metavar="K", help="lines of each of five bins of difficulty, by pass rate")
    option("--least-shared", type=int, default=0, metavar="S", help="of dpo: first steps that a pair has in common")
    option("--labels", choices=LABELS, default="hard", help="of prm (default: %(default)s; docs/training.md)")
    option("--rollouts", type=int, default=8, metavar="K", help="of prm: most from one step (default: %(default)s)")
    option(
        "--shared-budget",
        type=units,
        metavar="T",
        help="most that may be spent on all problems together (see --count; in place of --budget-tokens); of prm, half "
        "of it on roll-outs",
    )
    option("--concurrency", type=int, default=CONCURRENCY, metavar="K", help="problems at work at once (%(default)s)")
    add_request_options(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Export, write the card, print what there is."""
    drawn, rolled = not options.sources, options.format == "prm" and options.labels != "outcome"
    if drawn and options.dataset is None:
        raise ConfigError("name files of samples, or with --dataset the problems that are to be solved")
    _refuse_what_is_not_drawn(options, drawn, rolled)
    if all(one is None for one in (options.strategy, options.n, options.budget_tokens, options.shared_budget)):
        options.n = SAMPLES
    request = request_of(options) if drawn or rolled else {}
    asked = {name: value for name in _ASKED if (value := getattr(options, name)) not in (None, [])}
    with ExportFile(options.out, {**asked, **asked_of(options), **request}) as file:
        if file.complete:
            print(f"{options.out} is complete", file=sys.stderr)
            failed = 0
        else:
            with ExitStack() as stack:
                failed = _Work(options, request, file, stack, drawn=drawn, rolled=rolled).run()
        _show(file, Console())
    print(f"the card is {card_paths(options.out)[1]}", file=sys.stderr)
    if failed:
        return 1
    return 0 if file.counts["lines"] else NOTHING_ANSWERED


def _refuse_what_is_not_drawn(options: argparse.Namespace, drawn: bool, rolled: bool) -> None:
    """ConfigError: an option is about what is drawn, and it is not."""
    of_solutions, of_all = ("strategy", "n"), ("budget_tokens", "shared_budget")
    foreign = () if drawn else of_solutions if rolled else (*of_solutions, *of_all)
    named = ", ".join(f"--{name.replace('_', '-')}" for name in foreign if getattr(options, name) is not None)
    if named:
        raise ConfigError(f"these files bring the solutions, and none is drawn: leave out {named}")


class _Work:
    """One export: its models, its source, what is told of it on the card.

    Args:
        options: of the command.
        request: keyword arguments of ``Solver.solve``.
        file: where to.
        stack: closes what is opened.
        drawn: whether solutions are drawn now.
        rolled: whether steps are labelled by roll-outs.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        request: dict[str, Any],
        file: ExportFile,
        stack: ExitStack,
        *,
        drawn: bool,
        rolled: bool,
    ) -> None:
        self.options, self.request, self.file = options, request, file
        self.drawn, self.rolled = drawn, rolled
        excluded = Excluded.of(options.exclude)
        own = Grader(space=space_of(answers_of(options)))
        stack.callback(own.close)
        self.source = None if drawn else open_sources(options.sources, self._rows if options.dataset else None, own)
        self.rows = named_rows(self._rows()) if drawn else []
        self.solver = self._loaded() if drawn or rolled else None
        self.grader = own if self.solver is None else self.solver.grader
        size = len(self.rows) if self.source is None else self.source.size
        resources = self.solver.resources if self.solver and rolled else None
        self.exporter = Exporter(file, self._plan(), excluded, size, resources)

    def run(self) -> int:
        """Export what is not exported yet, and write the card, also after a signal; how many problems failed."""
        try:
            interruption.run(self._export)
            if not self.exporter.failed:
                self.file.finish()
        finally:
            write_card(self.file, self.options.command, self._told())
        for why, number in self.exporter.failed.most_common(5):
            print(f"{number} failed: {printable(why)}", file=sys.stderr)
        return sum(self.exporter.failed.values())

    async def _export(self) -> None:
        solver = self.solver
        tokens = None if solver is None else lambda: solver.statistics().policy.tokens
        with progress("exported", self.exporter.size, tokens=tokens) as meter:
            meter.start_at(len(self.file.done))
            self.exporter.report = partial(_report, meter, self.exporter)
            concurrency = self.options.concurrency
            if solver is None:
                await self._read(concurrency)
                return
            async with solver:
                await check_servers(solver)
                if self.drawn:
                    await self._draw(solver, concurrency)
                else:
                    await self._read(concurrency)

    async def _draw(self, solver: Solver, concurrency: int) -> None:
        check_request(solver, {**self.request, **shared(self.options)}, self.rows)
        total = self.options.shared_budget
        if total is None:
            await export_run(solver, self.rows, self.request, self.exporter, concurrency)
            return
        budget = total - (self.exporter.plan.rollout_budget or 0)
        checkpoint = f"{self.options.out}.checkpoint"
        kept: dict[str, Any] = {"budget": budget, "checkpoint": checkpoint, "concurrency": concurrency}
        await export_pool(solver, self.rows, self.request, self.exporter, **kept)

    async def _read(self, concurrency: int) -> None:
        assert self.source is not None
        await export_source(self.source, self.exporter, self.grader, concurrency)

    def _loaded(self) -> Solver:
        spaces = spaces_of(self.rows) if self.source is None else self.source.spaces
        with Console(stderr=True).status("loading the models"):
            return load_solver(self.options, self.options.seed, spaces=spaces)

    def _rows(self) -> list[Row]:
        options = self.options
        return load_problems(options.dataset, options.limit, answers=answers_of(options), gold="optional")

    def _plan(self) -> Plan:
        options, policy = self.options, None if self.solver is None else self.solver.policy
        total = options.shared_budget
        if self.drawn and total is not None:
            total = int(total * ROLLOUT_SHARE)
        source = self.source
        if source is None:
            assert policy is not None
            first = getattr(policy, "first", policy)  # of a cascade
            writer, system = policy.fingerprint, str(getattr(first, "system_prompt", ""))
        else:
            writer, system = source.policy, source.system
        if options.system_prompt is not None:
            system = options.system_prompt
        return Plan(
            format=options.format,
            most=options.most,
            per_bin=options.per_bin,
            least_shared=options.least_shared,
            system=system,
            origin={"policy": writer, "system": system} if options.format == "rollouts" else {},
            rollouts=self._rollouts() if self.rolled else None,
            problem_budget=options.budget_tokens,
            rollout_budget=total if self.rolled else None,
        )

    def _rollouts(self) -> RolloutSettings:
        """How roll-outs are drawn: as the solutions are. ConfigError: this policy cannot, or did not write these."""
        assert self.solver is not None
        policy = self.solver.policy
        check_goes_on(policy)
        if self.source is not None and self.source.policy not in ("", policy.fingerprint):
            raise ConfigError(
                f"these solutions are not by {policy.name}, whose roll-outs would go on from their tokens: name their "
                "own model with --policy, or take --labels outcome"
            )
        how = {**strategy_defaults(policy), **self.request}
        given = {name: how[name] for name in ("temperature", "top_p", "max_tokens", "count") if name in how}
        return RolloutSettings(labels=self.options.labels, most=self.options.rollouts, seed=self.options.seed, **given)

    def _told(self) -> dict[str, Any]:
        """What the card says beside its counts."""
        options, solver = self.options, self.solver
        told: dict[str, Any] = {"format": options.format, "seed": options.seed}
        told["filters"] = {"most": options.most or MOST[options.format] or "all", "per_bin": options.per_bin or "none"}
        if options.format == "dpo":
            told["filters"]["least_shared"] = options.least_shared
        if options.format == "prm":
            told["filters"] |= {"labels": options.labels} | ({"rollouts": options.rollouts} if self.rolled else {})
        told["excluded_data"] = options.exclude
        told["budget"] = options.shared_budget or options.budget_tokens or "none"
        if solver is not None:
            told["policy"] = {"name": solver.policy.name, "fingerprint": solver.policy.fingerprint}
            told["prm"] = {"name": solver.prm.name, "fingerprint": solver.prm.fingerprint} if solver.prm else "none"
        told["data"] = (
            self.source.told
            if self.source
            else {
                "dataset": str(options.dataset),
                "limit": options.limit or "none",
                "fingerprint": rows_digest(self.rows),
            }
        )
        return told


def _report(meter: Meter, exporter: Exporter) -> None:
    failed = sum(exporter.failed.values())
    note = f"{exporter.file.counts['lines']:,} lines" + (f", {failed:,} failed" if failed else "")
    meter.update(len(exporter.file.done) + failed, note)


def _show(file: ExportFile, console: Console) -> None:
    """Print how much there is, and what was left out."""
    counts = file.counts
    table = Table("figure", show_header=False)
    table.add_column(justify="right")
    shown = {"lines": "lines", "steps": "steps", "problems": "problems", "samples": "solutions", "right": "right ones"}
    spent = {"units_of_solutions": "spent on solutions", "units_of_rollouts": "spent on roll-outs"}
    rolled = {"labels_drawn": "roll-outs", "labels_exhaustive": "roll-outs of every step"}
    for name, words in {**shown, **LEFT_OUT, **spent, **rolled}.items():
        if counts[name] or name == "lines":
            table.add_row(words, f"{counts[name]:,}")
    console.print(table)
