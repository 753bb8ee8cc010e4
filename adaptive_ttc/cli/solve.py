"""``solve``: solves one problem, and prints its answer, the votes and the cost; or the problems of a file."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from adaptive_ttc.cli import interruption
from adaptive_ttc.cli.batch import add_batch_options, run_batch, show_settled
from adaptive_ttc.cli.options import (
    EXIT_CODES,
    NOTHING_ANSWERED,
    add_model_options,
    add_request_options,
    load_solver,
    request_of,
)
from adaptive_ttc.cli.reachable import check_servers
from adaptive_ttc.display.progress import progress
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.result_file import STDOUT, writable
from adaptive_ttc.solution import Solution
from adaptive_ttc.solver import Solver
from adaptive_ttc.tracing.page import render
from adaptive_ttc.tracing.tree import search_tree
from adaptive_ttc.tracing.tree_text import legible, printable
from adaptive_ttc.types import Problem

SHOWN_CLASSES = 12


EXAMPLE = """examples:
  adaptive-ttc solve 'Evaluate $6 \\cdot 3 - 8$.' --budget-tokens 2000
  adaptive-ttc solve --dataset problems.jsonl --shared-budget 40000 --out answers.jsonl
"""


def add(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "solve",
        help="solve one problem, or those of a file",
        description="Solve one problem, or with --dataset those of a file, with or without right answers.",
        epilog=f"{EXAMPLE}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("problem", nargs="?", help="the problem, or - to read it from standard input")
    option("--seed", type=int, help="of all randomness, to repeat a run (default: 0; none on vLLM and servers)")
    option(
        "--json",
        metavar="FILE",
        help="write the solution, or with --dataset the figures, to this file, or with - only that to stdout",
    )
    option(
        "--trace",
        metavar="FILE",
        help="save the trace to this file, for the command show; also after Ctrl-C or an error",
    )
    add_batch_options(parser)
    add_request_options(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Solve, and print; see :func:`add`."""
    if options.dataset is not None:
        return _run_many(options)
    if options.problem is None:
        raise ConfigError("give the problem, or - to read it from standard input, or --dataset FILE for many")
    for name in ("limit", "out", "shared_budget", "per_problem_max", "checkpoint"):
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')} is for many problems: give --dataset, or leave it out")
    if options.json not in (None, STDOUT):
        writable(options.json)
    for path in (options.trace, options.html):
        if path is not None:
            writable(path)
    request = request_of(options)
    problem = Problem.of(sys.stdin.read() if options.problem == "-" else options.problem)
    with Console(stderr=True).status("loading the models"):
        solver = load_solver(options, options.seed)
    solution = interruption.run(_solve, solver, problem, request, options.trace)
    code = NOTHING_ANSWERED if solution.answer is None else 0
    if options.html is not None:
        Path(options.html).write_text(render(search_tree(solution.trace)), encoding="utf-8", errors="replace")
    if options.json is not None:
        text = json.dumps(as_json(solution), indent=1, ensure_ascii=False) + "\n"
        if options.json == STDOUT:
            sys.stdout.write(text)
            return code
        Path(options.json).write_text(text, encoding="utf-8")
    show(solution, Console())
    return code


def _run_many(options: argparse.Namespace) -> int:
    """Solve the problems of a data set; without a file for the answers, print them."""
    if options.problem is not None:
        raise ConfigError("give one problem or --dataset, not both")
    if options.trace is not None:
        raise ConfigError("--trace is of one problem: leave it out, or --dataset; --out tells why each one stopped")
    batch, code = run_batch(options, seed=None, sampling_seed=options.seed)
    if options.out is None:
        show_settled(batch.ended, Console(stderr=options.json == STDOUT))
    return code


async def _solve(solver: Solver, problem: Problem, request: dict[str, Any], trace: str | None) -> Solution:
    """Solve; the trace is saved even after an error or Ctrl-C."""
    async with solver:
        stream = solver.stream(problem, **request)
        await check_servers(solver)
        with progress("requests", tokens=lambda: stream.usage.completion_tokens):
            try:
                return await stream.solution()
            finally:
                if trace is not None and stream.trace is not None:
                    stream.trace.save(trace)
                    print(f"the trace is in {trace}: adaptive-ttc show {trace}", file=sys.stderr)


def show(solution: Solution, console: Console) -> None:
    """Print answer, answer classes, usage and explanation; control characters of the model are neutralised."""
    answer = "no answer" if solution.answer is None else printable(solution.answer)
    console.print(Text.assemble(("Answer: ", "bold"), (answer, "bold green" if solution.answer else "bold red")))
    if solution.answer_classes:
        console.print(classes_table(solution))
    console.print(usage_table(solution))
    console.print(Text(legible(solution.explain())))


def classes_table(solution: Solution) -> Table:
    """The answer classes, best first, with votes and weight."""
    table = Table("answer", title=f"Answers ({solution.vote} vote)", title_justify="left")
    table.add_column("votes", justify="right")
    table.add_column("weight", justify="right")
    for one in solution.answer_classes[:SHOWN_CLASSES]:
        style = "green" if one.answer == solution.answer else ""
        table.add_row(Text(printable(one.answer)), str(one.votes), f"{one.weight:.3f}", style=style)
    hidden = solution.answer_classes[SHOWN_CLASSES:]
    if hidden:
        votes, weight = sum(one.votes for one in hidden), sum(one.weight for one in hidden)
        table.add_row(f"{len(hidden)} more", str(votes), f"{weight:.3f}", style="dim")
    return table


def usage_table(solution: Solution) -> Table:
    """Tokens, calls, FLOPs and time."""
    usage, budget = solution.usage, "" if solution.budget is None else f" of {solution.budget:,}"
    table = Table("figure", title="Usage", title_justify="left", show_header=False)
    table.add_column(justify="right")
    table.add_row(f"charged ({solution.count})", f"{solution.spent:,}{budget}")
    table.add_row("generated tokens", f"{usage.completion_tokens:,}")
    if usage.thinking_tokens:
        table.add_row("of them thinking", f"{usage.thinking_tokens:,}")
    table.add_row("prompt tokens (cached)", f"{usage.prompt_tokens:,} ({usage.cached_prompt_tokens:,})")
    written = f" ({usage.prm_written_tokens:,} of them written)" if usage.prm_written_tokens else ""
    table.add_row("PRM tokens", f"{usage.prm_tokens:,}{written}")
    table.add_row("calls (PRM)", f"{usage.num_calls:,} ({usage.num_prm_calls:,})")
    table.add_row("FLOPs", f"{usage.flops:.3g}")
    table.add_row("wall time", f"{usage.wall_time:.2f} s")
    return table


def as_json(solution: Solution) -> dict[str, Any]:
    """The solution without its trace."""
    return {
        "answer": solution.answer,
        "abstained": solution.abstained,
        "stopped": solution.stopped.value,
        "confidence": solution.confidence,
        "strategy": solution.strategy.name,
        "n": solution.strategy.n,
        "vote": solution.vote,
        "budget": solution.budget,
        "spent": solution.spent,
        "answer_classes": [asdict(one) for one in solution.answer_classes],
        "usage": asdict(solution.usage),
        "candidates": [
            {
                "text": candidate.prefix.text,
                "answer": candidate.answer,
                "answer_class": candidate.answer_class,
                "score": candidate.score,
                "step_scores": candidate.prefix.scores,
                "finish": candidate.prefix.finish,
                "tokens": len(candidate.prefix.token_ids),
            }
            for candidate in solution.candidates
        ],
    }
