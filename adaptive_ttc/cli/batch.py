"""Many problems of a data set, for ``eval`` and ``solve --dataset``: solved, graded where that can be, written down."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from adaptive_ttc.cli import interruption
from adaptive_ttc.cli.options import (
    NOTHING_ANSWERED,
    answers_of,
    check_request,
    load_solver,
    request_of,
    shared,
    units,
)
from adaptive_ttc.cli.reachable import check_servers
from adaptive_ttc.display.progress import Meter, progress
from adaptive_ttc.errors import ConfigError, RevisionWarning
from adaptive_ttc.evaluation.datasets import MINIMATH, Row, load_problems, spaces_of
from adaptive_ttc.evaluation.evaluate import CONCURRENCY, Outcome, names_of, solve_rows, solve_rows_together
from adaptive_ttc.evaluation.result_file import STDOUT, without_user, writable, write_record
from adaptive_ttc.evaluation.run_page import page_of_run
from adaptive_ttc.evaluation.settled import Settled, SettledFile, figures_of
from adaptive_ttc.evaluation.traces import holds_traces
from adaptive_ttc.loading import REPLAY
from adaptive_ttc.solver import Solver
from adaptive_ttc.tracing.page.summary import as_drawn
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.tracing.tree_text import printable

SHOWN = 40
"""Problems that a table lists."""

_ASKED = (
    *("dataset", "recipe", "policy", "prm", "engine", "dtype", "system_prompt", "answers", "calibration", "rule"),
    *("second", "second_weight", "base_url", "max_model_len"),
    *("seed", "sampling_seed", "shared_budget", "per_problem_max"),
)
"""Options that decide what comes out: a run goes on from a file that was begun with the same."""

_SHORTFALLS = {
    "failed": " (without an answer they count as wrong)",
    "unfinished": " (interrupted; those that ended first are the easier ones)",
    "unanswered": "",
}


def add_batch_options(parser: argparse.ArgumentParser) -> None:
    """Add what is solved, from which budget, and where what comes of it goes."""
    option = parser.add_argument_group("many problems").add_argument
    option(
        "--dataset",
        metavar="FILE|NAME",
        help=f"{', '.join(MINIMATH)}, a JSON Lines file with a problem a line (problem or question; answer and id if "
        "there are), or a Hub name owner/name[:split] (default with --engine replay: the problems of the traces)",
    )
    option("--limit", type=int, metavar="K", help="the first K problems only")
    option(
        "--out",
        metavar="FILE",
        help="write a JSON line for each problem as it settles; the same command goes on from it (docs/batch.md)",
    )
    option("--concurrency", type=int, default=CONCURRENCY, metavar="K", help="problems at work at once (%(default)s)")
    option(
        "--shared-budget",
        type=units,
        metavar="T",
        help="most that may be spent on all problems together (see --count), where it is expected to bring most "
        "(in place of --budget-tokens)",
    )
    option("--per-problem-max", type=units, metavar="T", help="of --shared-budget: most that one problem gets")
    option(
        "--checkpoint",
        metavar="FILE",
        help="with --shared-budget: keep what is done in this file; the same command goes on from it, within the one "
        "budget, whatever ended it (default with --out: beside that file)",
    )
    option(
        "--html", metavar="FILE", help="write all of it, with the search trees, to this file: a page without network"
    )


class Batch:
    """What has become of the problems of a data set so far.

    Args:
        options: of the command.
        rows: the problems.
        file: where each is written as it settles; None for nowhere.

    Raises:
        ConfigError: the file holds another problem under the name of one of these.
    """

    def __init__(self, options: argparse.Namespace, rows: Sequence[Row], file: SettledFile | None) -> None:
        self.options, self.rows, self.file = options, rows, file
        self.names = names_of(rows)
        self._numbers = {name: number for number, name in enumerate(self.names)}
        before = {} if file is None else file.settled
        for name, row in zip(self.names, rows, strict=True):
            if name in before and before[name].problem != row["problem"]:
                raise ConfigError(
                    f"{options.out} answers another problem of the id {name}: the data set has changed; name another "
                    "file with --out"
                )
        self.settled: dict[int, Settled] = {}
        self.answered = 0  # of them, how many have an answer
        self._graded = self._right = 0  # how many were checked, and were right
        for name, one in before.items():
            if name in self._numbers:
                self._settle(self._numbers[name], one)
        self.traces: dict[int, Trace] = {}  # for the page

    @property
    def ended(self) -> list[Settled]:
        """Those that have settled, in the order of the data set."""
        return [self.settled[number] for number in sorted(self.settled)]

    def add(self, number: int, outcome: Outcome) -> None:
        """A problem has settled; one that is in the file was settled by an earlier run, and is there for its checks."""
        if self.options.html is not None and outcome.solution is not None:
            self.traces[number] = as_drawn(outcome.solution.trace, outcome.solution.trace.started)
        if number in self.settled:
            return
        one = Settled.of(outcome, self.names[number])
        self._settle(number, one)
        if self.file is not None:
            self.file.write(one)

    def _settle(self, number: int, one: Settled) -> None:
        self.settled[number] = one
        self.answered += one.answer is not None
        self._graded += one.correct is not None
        self._right += bool(one.correct)

    def note(self) -> str:
        """How many were right, or have an answer."""
        if self._graded:
            return f"{self._right / self._graded:.1%} right"
        return f"{self.answered / max(len(self.settled), 1):.1%} answered"

    def figures(self, seconds: float) -> dict[str, Any]:
        """See :func:`figures_of`; what is spent counts against the budget of all."""
        figures = figures_of(self.ended, len(self.rows), seconds)
        if self.options.shared_budget is not None:
            spent = sum(one.spent for one in self.ended)
            figures["overspent"] = int(spent > self.options.shared_budget)
        return figures


def run_batch(options: argparse.Namespace, *, seed: int | None, sampling_seed: int | None) -> tuple[Batch, int]:
    """Solve all problems, print and write the figures; after Ctrl-C, those of the problems that ended.

    Returns what became of them, and the exit code. ``seed`` draws other problems, ``sampling_seed`` other samples.
    """
    for path in (options.json, options.html):
        if path is not None and path != STDOUT:
            writable(path)
    request = request_of(options)
    if options.checkpoint is not None and options.shared_budget is None:
        raise ConfigError("--checkpoint keeps what one budget has bought for all problems: give --shared-budget")
    if options.per_problem_max is not None and options.shared_budget is None:
        raise ConfigError("--per-problem-max is of a shared budget: give --shared-budget, or --budget-tokens alone")
    if options.dataset is None:
        if options.engine != REPLAY or options.policy is None or not holds_traces(options.policy):
            raise ConfigError(f"--dataset says what is solved: {', '.join(MINIMATH)}, or a file")
        options.dataset = options.policy
    rows = load_problems(options.dataset, options.limit, seed, answers_of(options), gold="optional")
    file = None if options.out is None else SettledFile(options.out, {**asked_of(options), **request})
    try:
        batch = Batch(options, rows, file)
        options.checkpoint = _checkpoint_of(options, batch)
        return batch, _solved(batch, request, sampling_seed)
    finally:
        if file is not None:
            file.close()


def asked_of(options: argparse.Namespace) -> dict[str, Any]:
    """The options that decide what comes out, but for those that were left out."""
    asked = {name: value for name in _ASKED if (value := getattr(options, name, None)) not in (None, [])}
    if options.shared_budget is not None and options.limit is not None:
        asked["limit"] = options.limit  # one budget for more problems is another one
    if "base_url" in asked:
        asked["base_url"] = without_user(asked["base_url"])  # it stands in every line of the file
    return {name: str(value) if isinstance(value, Path) else value for name, value in asked.items()}


def _checkpoint_of(options: argparse.Namespace, batch: Batch) -> str | None:
    """The file that knows what of a shared budget is spent; ConfigError where it cannot be written, or is gone."""
    if options.shared_budget is None:
        return None
    if options.checkpoint is None and options.out is None:
        return None
    checkpoint = options.checkpoint or f"{options.out}.checkpoint"
    if batch.settled and not Path(checkpoint).exists():
        raise ConfigError(
            f"{options.out} holds {len(batch.settled)} problems of a shared budget, and {checkpoint}, which knows what "
            "of it is spent, is not there: put it back, or name another file with --out"
        )
    writable(checkpoint)
    return str(checkpoint)


def _solved(batch: Batch, request: dict[str, Any], seed: int | None) -> int:
    options, console = batch.options, Console(stderr=True)
    before = len(batch.settled)
    started, interrupted = time.perf_counter(), None
    if before < len(batch.rows):
        with console.status("loading the models"):
            solver = load_solver(options, seed, spaces=spaces_of(batch.rows))
        settled = f" ({before:,} are settled)" if before else ""
        started = time.perf_counter()
        try:
            console.print(f"solving {len(batch.rows):,} problems{settled}", highlight=False)
            interruption.run(_solve, solver, batch, request)
        except KeyboardInterrupt as error:
            interrupted = error
    figures = batch.figures(time.perf_counter() - started)
    together = {name: getattr(options, name) for name in ("shared_budget", "per_problem_max")}
    named = {**request, **{name: value for name, value in together.items() if value is not None}}
    strategy = named.pop("strategy", "default strategy")
    title = f"{options.dataset}: {', '.join([strategy, *(f'{name}={value}' for name, value in named.items())])}"
    show_figures(title, figures, batch.ended, Console(stderr=options.json == STDOUT))
    if options.json is not None:
        write_record(options.json, f"eval {options.dataset}", options.command, figures)
    if options.html is not None:
        _write_page(batch, request.get("count", "generated"))
    if options.out is not None:
        print(f"the answers are in {options.out}: adaptive-ttc show {options.out}", file=sys.stderr)
    if interrupted is not None:
        raise interrupted
    if figures["failed"] == len(batch.rows):
        return 1
    return 0 if batch.answered else NOTHING_ANSWERED


def _write_page(batch: Batch, count: str) -> None:
    options = batch.options
    title = f"{options.dataset}: {len(batch.settled):,} of {len(batch.rows):,} problems"
    page = page_of_run(title, batch.settled, batch.traces, budget=options.shared_budget, count=count)
    Path(options.html).write_text(page, encoding="utf-8", errors="replace")
    print(f"the page is {options.html}", file=sys.stderr)


async def _solve(solver: Solver, batch: Batch, request: dict[str, Any]) -> None:
    options = batch.options
    together = options.shared_budget is not None
    # of one budget all problems are told again, so that what is known of them counts for the others
    waiting = [number for number in range(len(batch.rows)) if together or number not in batch.settled]
    rows = [batch.rows[number] for number in waiting]
    solve: Callable[..., Awaitable[None]] = solve_rows
    if together:
        own = {"budget": options.shared_budget, "checkpoint": options.checkpoint}
        solve = partial(solve_rows_together, **own, per_problem_max=options.per_problem_max)
    async with solver:
        with warnings.catch_warnings():
            warnings.simplefilter("once", RevisionWarning)  # it is the same for all problems
            check_request(solver, {**request, **shared(options)}, rows)
            await check_servers(solver)
            with progress("settled", len(batch.rows), tokens=lambda: solver.statistics().policy.tokens) as meter:
                meter.start_at(len(batch.settled))
                report = partial(_report, batch, meter, waiting)
                await solve(solver, rows, request, report, concurrency=options.concurrency)


def _report(batch: Batch, meter: Meter, waiting: Sequence[int], outcome: Outcome) -> None:
    batch.add(waiting[outcome.index], outcome)
    meter.update(len(batch.settled), batch.note())


def show_figures(title: str, figures: Mapping[str, Any], ended: Sequence[Settled], console: Console) -> None:
    """Print the figures, and why problems failed."""
    console.print(Text(printable(title)), soft_wrap=True)  # a table's own title is folded at the table's width
    table = Table("figure", show_header=False)
    table.add_column(justify="right")
    if figures["accuracy"] is not None:
        between = f"[{figures['accuracy_low']:.3f}, {figures['accuracy_high']:.3f}]"
        table.add_row("accuracy [95 % interval]", Text(f"{figures['accuracy']:.3f} {between}"))
    table.add_row("problems", f"{figures['problems']:,}")
    if figures["graded"] < figures["problems"]:
        answered = sum(one.answer is not None for one in ended)
        table.add_row("answered", f"{answered:,}")
        table.add_row("with a right answer to compare", f"{figures['graded']:,}")
    for name, meaning in _SHORTFALLS.items():
        if figures[name]:
            table.add_row(f"{name}{meaning}", f"{figures[name]:,}")
    if figures["generated_tokens_per_problem"] is not None:
        table.add_row("generated tokens a problem", f"{figures['generated_tokens_per_problem']:,.0f}")
        voted = f"{figures['candidates']:,.1f} ({figures['effective_n']:,.1f})"
        table.add_row("candidates a problem (with an answer)", voted)
    table.add_row("generated tokens", f"{figures['generated_tokens']:,}")
    table.add_row("PRM tokens", f"{figures['prm_tokens']:,}")
    table.add_row("FLOPs", f"{figures['flops']:.3g}")
    table.add_row("wall time", f"{figures['wall_time']:.1f} s")
    console.print(table)
    for reason, number in Counter(one.error for one in ended if one.error is not None).most_common(5):
        console.print(Text(printable(f"{number} failed: {reason}")))


def show_settled(settled: Sequence[Settled], console: Console, most: int | None = SHOWN) -> None:
    """Print a table of problems: what each was answered, what it cost, and why it got no more."""
    graded = any(one.correct is not None for one in settled)
    table = Table("problem", "answer", *(["right"] if graded else []))
    for name in ("confidence", "tokens"):
        table.add_column(name, justify="right")
    table.add_column("strategy")
    table.add_column("why it stopped")
    marks = {True: "yes", False: "no", None: ""}
    for one in settled[:most]:
        answer = "no answer" if one.answer is None else printable(one.answer)
        sure = "" if one.confidence is None else f"{one.confidence:.2f}"
        judged = [marks[one.correct]] if graded else []
        cost, reason = f"{one.tokens['generated']:,}", f"{one.stopped}: {one.why}"
        cells = [printable(one.id), answer, *judged, sure, cost, printable(one.strategy or ""), printable(reason)]
        table.add_row(*map(Text, cells))
    console.print(table)
    if most is not None and len(settled) > most:
        console.print(f"and {len(settled) - most:,} more", highlight=False)
    stopped = Counter(one.stopped for one in settled).most_common()
    console.print(Text("stopped: " + printable(", ".join(f"{number:,} {name}" for name, number in stopped))))
