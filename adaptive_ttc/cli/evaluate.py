"""``eval``: measures a strategy on a data set: accuracy with an interval, tokens, wall time."""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from adaptive_ttc.cli import interruption
from adaptive_ttc.cli.options import (
    add_model_options,
    add_request_options,
    answers_of,
    check_request,
    load_solver,
    request_of,
    shared,
)
from adaptive_ttc.errors import ConfigError, RevisionWarning
from adaptive_ttc.evaluation.datasets import MINIMATH, Row, load_problems
from adaptive_ttc.evaluation.evaluate import CONCURRENCY, Outcome, solve_rows, solve_rows_together
from adaptive_ttc.evaluation.metrics import interval
from adaptive_ttc.evaluation.result_file import writable, write_record
from adaptive_ttc.evaluation.traces import holds_traces
from adaptive_ttc.loading import REPLAY
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies import Strategy, make_strategy, strategy_names
from adaptive_ttc.tracing.tree_text import printable
from adaptive_ttc.types import Usage

FIGURES = """figures in the JSON file:
  accuracy, accuracy_low, accuracy_high  share of right answers with its 95 % bootstrap interval over problems
  problems, failed, unfinished           problems that ended; of these, failed ones (they count as wrong); cut off ones
  unanswered                             solved problems without an answer
  candidates, effective_n                means over the solved problems: solutions that a search handed in, and those
                                         of them that hold an answer, copies of one sample counted once
  generated_tokens, prm_tokens, flops    sums over the problems
  generated_tokens_per_problem, wall_time
  overspent                              problems that cost more than their budget: always 0
  correct, tokens                        lists over the problems that ended, in the order of the data set
"""

_SHORTFALLS = {
    "failed": " (count as wrong)",
    "unfinished": " (interrupted; those that ended first are the easier ones)",
    "unanswered": "",
}


def add(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "eval",
        help="measure a strategy on a data set",
        description="Measure a strategy on a data set.",
        epilog=f"{_options_of_strategies()}\n\n{FIGURES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option(
        "--dataset",
        help=f"{', '.join(MINIMATH)}, a JSON Lines file, or a Hub name owner/name[:split] "
        "(default with --engine replay: the problems of the traces)",
    )
    option("--limit", type=int, metavar="K", help="the first K problems only")
    option("--seed", type=int, help="draw fresh problems (of a file: another order) and other samples")
    option("--sampling-seed", type=int, metavar="S", help="draw other samples of the same problems")
    option("--concurrency", type=int, default=CONCURRENCY, metavar="K", help="problems at work at once (%(default)s)")
    option("--json", metavar="FILE", help="write the figures to this file")
    add_request_options(parser)
    option(
        "--shared-budget",
        type=int,
        metavar="T",
        help="most that may be spent on all problems together (see --count), where it is expected to bring most "
        "(in place of --budget-tokens)",
    )
    option(
        "--checkpoint",
        metavar="FILE",
        help="with --shared-budget: keep what is done in this file; the same command goes on from it, within the one "
        "budget, whatever ended it",
    )
    add_model_options(parser)
    parser.set_defaults(run=run)


def _options_of_strategies() -> str:
    """The help text on what ``--option`` can set for each strategy, with the defaults."""
    common = {part.name for part in fields(Strategy)}
    lines = [
        "options of the strategies, for --option NAME=VALUE (those of all: top_p, agg_strategy, vote, vote_b, "
        "vote_power, vote_logprob, vote_length, vote_answer):"
    ]
    for name in strategy_names():
        strategy = make_strategy(name)
        own = [part.name for part in fields(strategy) if part.name not in common]
        values = {key: getattr(strategy, key) for key in ("vote", *own)}
        lines.append(f"  {name:<20}" + ", ".join(key if of is None else f"{key}={of}" for key, of in values.items()))
    return "\n".join(lines)


def run(options: argparse.Namespace) -> int:
    """Solve all problems, print and write the figures; after Ctrl-C, those of the problems that ended."""
    if options.json is not None:
        writable(options.json)
    request = request_of(options)
    if options.checkpoint is not None:
        if options.shared_budget is None:
            raise ConfigError("--checkpoint keeps what one budget has bought for all problems: give --shared-budget")
        writable(options.checkpoint)
    if options.dataset is None:
        if options.engine != REPLAY or options.policy is None or not holds_traces(options.policy):
            raise ConfigError(f"--dataset says what is solved: {', '.join(MINIMATH)}, or a file")
        options.dataset = options.policy
    rows = load_problems(options.dataset, options.limit, options.seed, answers_of(options))
    seed = options.seed if options.sampling_seed is None else options.sampling_seed
    with Console(stderr=True).status("loading the models"):
        solver = load_solver(options, seed)
    outcomes: dict[int, Outcome] = {}
    started, interrupted = time.perf_counter(), None
    try:
        Console(stderr=True).print(f"solving {len(rows):,} problems")
        interruption.run(_evaluate, solver, rows, request, options, outcomes)
    except KeyboardInterrupt as error:
        interrupted = error
    ended = [outcomes[index] for index in sorted(outcomes)]
    figures = figures_of(ended, len(rows), time.perf_counter() - started)
    if options.shared_budget is not None:
        spent = sum(outcome.solution.spent for outcome in ended if outcome.solution is not None)
        figures["overspent"] = int(spent > options.shared_budget)
        request["shared_budget"] = options.shared_budget
    named = {name: value for name, value in request.items() if name != "strategy"}
    asked = [request.get("strategy", "default strategy"), *(f"{name}={value}" for name, value in named.items())]
    show(f"{options.dataset}: {', '.join(asked)}", figures, ended, Console())
    if options.json is not None:
        write_record(options.json, f"eval {options.dataset}", options.command, figures)
    if interrupted is not None:
        raise interrupted
    return 1 if figures["failed"] == len(rows) else 0


async def _evaluate(
    solver: Solver,
    rows: Sequence[Row],
    request: dict[str, Any],
    options: argparse.Namespace,
    outcomes: dict[int, Outcome],
) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("solving", total=len(rows))
        right = 0

        def report(outcome: Outcome) -> None:
            nonlocal right
            outcomes[outcome.index] = outcome
            right += outcome.correct
            progress.update(task, advance=1, description=f"{right / len(outcomes):.1%} right")

        solve: Callable[..., Awaitable[None]] = solve_rows
        if options.shared_budget is not None:
            solve = partial(solve_rows_together, budget=options.shared_budget, checkpoint=options.checkpoint)
        async with solver:
            with warnings.catch_warnings():
                warnings.simplefilter("once", RevisionWarning)  # it is the same for all problems
                check_request(solver, {**request, **shared(options)}, rows)
                await solve(solver, rows, request, report, concurrency=options.concurrency)


def figures_of(ended: Sequence[Outcome], asked: int, wall_time: float) -> dict[str, Any]:
    """The figures of :data:`FIGURES`; means of no problems are None."""
    solved = [outcome.solution for outcome in ended if outcome.solution is not None]
    usage = sum((solution.usage for solution in solved), Usage())
    correct = [outcome.correct for outcome in ended]
    accuracy = interval(correct) if ended else None

    def mean(values: Iterable[int]) -> float | None:
        return sum(values) / len(solved) if solved else None

    return {
        "accuracy": accuracy and accuracy.mean,
        "accuracy_low": accuracy and accuracy.low,
        "accuracy_high": accuracy and accuracy.high,
        "problems": len(ended),
        "failed": sum(outcome.error is not None for outcome in ended),
        "unfinished": asked - len(ended),
        "unanswered": sum(solution.answer is None for solution in solved),
        "generated_tokens": usage.completion_tokens,
        **({"thinking_tokens": usage.thinking_tokens} if usage.thinking_tokens else {}),
        "prm_tokens": usage.prm_tokens,
        "flops": usage.flops,
        "generated_tokens_per_problem": mean([usage.completion_tokens]),
        "candidates": mean(len(one.candidates) for one in solved),
        "effective_n": mean(one.effective_n for one in solved),
        "wall_time": wall_time,
        "overspent": sum(solution.budget is not None and solution.spent > solution.budget for solution in solved),
        "correct": [int(one) for one in correct],
        "tokens": [outcome.solution.usage.completion_tokens if outcome.solution else 0 for outcome in ended],
    }


def show(title: str, figures: dict[str, Any], ended: Sequence[Outcome], console: Console) -> None:
    """Print the figures, and why problems failed."""
    console.print(Text(printable(title)), soft_wrap=True)  # a table's own title is folded at the table's width
    table = Table("figure", show_header=False)
    table.add_column(justify="right")
    if figures["accuracy"] is not None:
        between = f"[{figures['accuracy_low']:.3f}, {figures['accuracy_high']:.3f}]"
        table.add_row("accuracy [95 % interval]", Text(f"{figures['accuracy']:.3f} {between}"))
    table.add_row("problems", f"{figures['problems']:,}")
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
    reasons = Counter(f"{type(one.error).__name__}: {one.error}" for one in ended if one.error is not None)
    for reason, number in reasons.most_common(5):
        console.print(Text(printable(f"{number} failed: {reason}")))
