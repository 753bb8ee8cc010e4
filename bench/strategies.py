"""Every strategy at N = 4, 16, 64 (M = 4) with the mini models on MiniMath test problems, by oracle difficulty.

    python bench/strategies.py [--json FILE] [--out DIR] [--results FILE] [--pictures DIR]
                               [--strategies NAME ...] [--n N ...] [--limit K] [--seed S]

Strategies are compared at the same N, and what that N cost stands beside it. Greedy is one sample; majority, best-of-N
and weighted best-of-N share one pool of 64 samples a problem and are expectations over its subsets; beam search, DVTS
and revision are run for every N. Difficulty is the quintile of pass@1 in the pool, the easiest first. A run that ends
early, in whatever way, goes on when the same command is given again: all that it has found is in DIR/journal.jsonl.
With ``--results`` the tables are written into their section of that file, with ``--pictures`` the two figures
(``strategies_by_n`` and ``strategies_by_difficulty``, PNG and SVG) into that folder instead of DIR.

Figures; all are means over problems, lists go from the easiest quintile to the hardest, ``null`` where one is empty:

``accuracy.<strategy>.<n>``, ``accuracy.<strategy>.<n>_by_quintile``
    share of right answers; ``accuracy_low`` and ``accuracy_high`` in place of ``accuracy`` are the ends of its 95 %
    bootstrap interval over problems, in both forms.
``difference.<strategy>.<n>``, ``difference.<strategy>.<n>_by_quintile``
    accuracy less that of weighted best-of-N at the same N, paired by problem, with ``difference_low`` and
    ``difference_high``; ``middle_difference`` (``_low``, ``_high``) over quintiles 2 to 4 together.
``dvts_minus_beam_search.<n>``
    the paired difference of these two, with ``dvts_minus_beam_search_low`` and ``_high``.
``coverage.<strategy>.<n>``
    share of problems with a right answer among the candidates: what a perfect vote would find.
``generated_tokens.<strategy>.<n>``, ``prm_tokens.<strategy>.<n>``, ``flops.<strategy>.<n>``
    a problem.
``candidates.<strategy>.<n>``, ``effective_n.<strategy>.<n>``
    solutions handed in a problem, and those of them that voted.
``pass_at_1``, ``pass_at_1_by_quintile``, ``problems``, ``problems_by_quintile``
    of the pool.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from arms import BEAM_WIDTH, SAMPLES, Arm, Pace, arms_of, run_arm, to_run
from comparison import compare, figures_of
from journal import Journal
from measuring import add_json_option, write_report, write_section
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text
from strategy_report import draw_pictures, overview, section

from adaptive_ttc.cli import exit_code
from adaptive_ttc.errors import ConfigError, RevisionWarning
from adaptive_ttc.evaluation.datasets import Row, load_problems
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies import strategy_names

SIZES = (4, 16, 64)
PROBLEMS = 200
DATASET = "minimath-500"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it: 0, 1 when an engine failed, 2 when what is asked for is impossible, 130 after Ctrl-C."""
    options = parser().parse_args(arguments)
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of reading small files are noise here
    again = f"the same command goes on from {options.out}"
    return exit_code(lambda: run(options, Console()), interrupted=again)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--strategies", nargs="+", default=strategy_names(), metavar="NAME", help="(default: all)")
    command.add_argument("--n", nargs="+", type=int, default=SIZES, metavar="N", help="(default: 4 16 64)")
    command.add_argument("--limit", type=int, default=PROBLEMS, metavar="K", help="problems (default: %(default)s)")
    command.add_argument("--seed", type=int, help="draw fresh problems and other samples")
    command.add_argument("--out", type=Path, default=Path("runs/strategies"), metavar="DIR", help="(%(default)s)")
    command.add_argument("--results", type=Path, metavar="FILE", help="write the tables into this Markdown file")
    command.add_argument("--pictures", type=Path, metavar="DIR", help="where the figures go (default: --out)")
    add_json_option(command)
    return command


def run(options: argparse.Namespace, console: Console) -> None:
    """Measure what is missing, then print, draw and write.

    Raises:
        AdaptiveTTCError: what is asked for is impossible, or problems failed.
    """
    arms, problems = arms_of(options.strategies, options.n), load_problems(DATASET, seed=options.seed)
    if options.limit < 1:
        raise ConfigError(f"--limit {options.limit} must be at least 1")
    rows, load = problems[: options.limit], partial(Solver.mini, seed=options.seed or 0)
    with load() as solver:
        journal = Journal(options.out / "journal.jsonl", settings_of(solver, problems))
        notes = notes_on(solver, arms)
    for note in notes:
        console.print(Text(note, style="yellow"))
    pace = asyncio.run(measure(load, rows, arms, journal, console))
    comparison = compare(journal, rows, arms)
    console.print(overview(comparison))
    pictures = draw_pictures(comparison, options.pictures or options.out)
    console.print(Text(f"drawn: {', '.join(map(str, pictures))}"))
    write_report(options.json, "strategies", figures_of(comparison))
    if options.results is not None:
        write_section(options.results, "strategies", section(comparison, pictures, options.results, notes))
    seconds = pace.forecast(arms_of(strategy_names(), SIZES), PROBLEMS)
    if seconds is not None:
        console.print(Text(f"At this pace all strategies at all N take about {seconds / 60:.0f} min on 200 problems."))


def settings_of(solver: Solver, problems: Sequence[Row]) -> dict[str, str | int | None]:
    """What every entry of a journal depends on; fewer or more problems of the same set do not change it."""
    text = json.dumps([[row["unique_id"], row["problem"], row["answer"]] for row in problems])
    return {
        "problems": f"{DATASET} {hashlib.sha256(text.encode()).hexdigest()[:16]}",
        "policy": solver.policy.fingerprint,
        "prm": None if solver.prm is None else solver.prm.fingerprint,
        "seed": solver.seed,
        "samples": SAMPLES,
        "beam_width": BEAM_WIDTH,
    }


def notes_on(solver: Solver, arms: Sequence[Arm]) -> list[str]:
    """What a reader of the figures must know about these models."""
    if solver.policy.revision_prompt is None and any(arm.strategy == "revision" for arm in arms):
        return ["This policy was not trained to revise: `revision` asks it in words that it never saw."]
    return []


async def measure(
    load: Callable[[], Solver], rows: Sequence[Row], arms: Sequence[Arm], journal: Journal, console: Console
) -> Pace:
    """Run what is missing in the journal, the pool first, every arm on engines of its own. The bar counts samples."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    pace, ids = Pace(), [row["unique_id"] for row in rows]
    missing = {arm: len(journal.missing(arm.strategy, arm.n, ids)) for arm in to_run(arms)}
    with (
        warnings.catch_warnings(),
        Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress,
    ):
        warnings.simplefilter("ignore", RevisionWarning)  # said once, in the notes
        task = progress.add_task("", total=sum(arm.n * number for arm, number in missing.items()))
        for arm, number in missing.items():
            if number:
                progress.update(task, description=f"{arm.strategy}, N={arm.n}, {number} problems")
                async with load() as solver:
                    seconds = await run_arm(solver, rows, arm, journal, partial(progress.advance, task, arm.n))
                pace.note(arm, number, seconds)
    return pace


if __name__ == "__main__":
    sys.exit(main())
