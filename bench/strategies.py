"""Every strategy at N = 4, 16, 64 (M = 4) with the mini models on MiniMath test problems, by oracle difficulty.

    python bench/strategies.py [--json FILE] [--out DIR] [--results FILE] [--pictures DIR]
                               [--strategies NAME ...] [--n N ...] [--limit K] [--seed S]

Strategies are compared at the same N, and what that N cost stands beside it. Greedy is one sample; majority, best-of-N
and weighted best-of-N share one pool of 64 samples a problem and are expectations over its subsets; beam search, DVTS
and revision are run for every N, each on engines of its own, so that no prefix cache answers for one what another
computed. Difficulty is the quintile of pass@1 in the pool, the easiest first. A run that ends
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
import hashlib
import json
import os
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from measuring import Entry, Journal, parser_of, progress_bar, write_report, write_section
from rich.console import Console
from rich.text import Text
from strategies_comparison import (
    BEAM_WIDTH,
    POOL,
    POOLED,
    SAMPLES,
    Arm,
    compare,
    draw_pictures,
    figures_of,
    overview,
    section,
)

from adaptive_ttc.cli import exit_code, interruption
from adaptive_ttc.cost import flops
from adaptive_ttc.errors import AdaptiveTTCError, ConfigError, EngineError, RevisionWarning
from adaptive_ttc.evaluation.datasets import Row, load_problems
from adaptive_ttc.evaluation.evaluate import Outcome, Pool, draw_pools, solve_rows
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies import strategy_names
from adaptive_ttc.tasks import side_by_side
from adaptive_ttc.types import Usage, split_steps

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
    command = parser_of(__doc__)
    apart = "short_m_at_k"  # for models that think, which these do not
    all_others = [one for one in strategy_names() if one != apart]
    command.add_argument(
        "--strategies", nargs="+", default=all_others, metavar="NAME", help=f"(default: all but {apart})"
    )
    command.add_argument("--n", nargs="+", type=int, default=SIZES, metavar="N", help="(default: 4 16 64)")
    command.add_argument("--limit", type=int, default=PROBLEMS, metavar="K", help="problems (default: %(default)s)")
    command.add_argument("--seed", type=int, help="draw fresh problems and other samples")
    command.add_argument("--out", type=Path, default=Path("runs/strategies"), metavar="DIR", help="(%(default)s)")
    command.add_argument("--results", type=Path, metavar="FILE", help="write the tables into this Markdown file")
    command.add_argument("--pictures", type=Path, metavar="DIR", help="where the figures go (default: --out)")
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
        revises = solver.policy.revision_prompt is not None or all(arm.strategy != "revision" for arm in arms)
    notes = [] if revises else ["This policy was not trained to revise: `revision` asks it in words that it never saw."]
    for note in notes:
        console.print(Text(note, style="yellow"))
    pace = interruption.run(measure, load, rows, arms, journal, console)
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


async def measure(
    load: Callable[[], Solver], rows: Sequence[Row], arms: Sequence[Arm], journal: Journal, console: Console
) -> Pace:
    """Run what is missing in the journal, the pool first, every arm on engines of its own. The bar counts samples."""
    pace, ids = Pace(), [row["unique_id"] for row in rows]
    missing = {arm: len(journal.missing(arm.strategy, arm.n, ids)) for arm in to_run(arms)}
    with warnings.catch_warnings(), progress_bar(console) as progress:
        warnings.simplefilter("ignore", RevisionWarning)  # said once, in the notes
        task = progress.add_task("", total=sum(arm.n * number for arm, number in missing.items()))
        for arm, number in missing.items():
            if number:
                progress.update(task, description=f"{arm.strategy}, N={arm.n}, {number} problems")
                async with load() as solver:
                    started = time.perf_counter()
                    await run_arm(solver, rows, arm, journal, partial(progress.advance, task, arm.n))
                pace.note(arm, number, time.perf_counter() - started)
    return pace


def arms_of(strategies: Iterable[str], sizes: Iterable[int]) -> list[Arm]:
    """Every strategy at every N, in the order of the library; greedy is one sample whatever N is.

    Raises:
        ConfigError: an unknown strategy, or an N at which one cannot be run.
    """
    asked, sizes = list(strategies), sorted(set(sizes))
    for name in asked:
        if name not in strategy_names():
            raise ConfigError(f"unknown strategy {name!r}; choose from {', '.join(strategy_names())}")
    named = [name for name in strategy_names() if name in asked]
    return [Arm(name, n) for name in named for n in ([1] if name == "greedy" else sizes)]


@dataclass(slots=True)
class Pace:
    """Seconds and samples of every strategy in this run, from which other runs' times are told beforehand."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    samples: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def note(self, arm: Arm, problems: int, seconds: float) -> None:
        """Add the work on so many problems."""
        self.seconds[arm.strategy] += seconds
        self.samples[arm.strategy] += problems * arm.n

    def forecast(self, arms: Iterable[Arm], problems: int) -> float | None:
        """Seconds that these arms take on so many problems; None where one of their strategies was not timed."""
        asked = to_run(arms)
        if not all(self.samples[arm.strategy] for arm in asked):
            return None
        return sum(self.seconds[arm.strategy] / self.samples[arm.strategy] * arm.n * problems for arm in asked)


def to_run(arms: Iterable[Arm]) -> list[Arm]:
    """What has to be sampled: the pool, always (it tells how hard a problem is), and what no pool answers."""
    return [Arm(POOL, SAMPLES), *(arm for arm in arms if arm.strategy not in POOLED)]


async def run_arm(solver: Solver, rows: Sequence[Row], arm: Arm, journal: Journal, report: Callable[[], None]) -> None:
    """Do what is missing in the journal.

    Args:
        solver: with empty caches; stays open.
        rows: the problems.
        arm: one of :func:`to_run`.
        journal: gets an entry the moment a problem is done.
        report: called after each.

    Raises:
        AdaptiveTTCError: problems failed; the others are kept, and the next run goes on with these.
    """
    missing = set(journal.missing(arm.strategy, arm.n, (row["unique_id"] for row in rows)))
    rest = [row for row in rows if row["unique_id"] in missing]
    failures: list[AdaptiveTTCError] = []

    def keep(entry: Entry) -> None:
        journal.add(entry)
        report()

    async def grade(outcome: Outcome) -> None:
        keep(await search_entry(outcome, arm, solver))

    if arm.strategy == POOL:
        await draw_pools(solver, rest, SAMPLES, lambda pool: keep(pool_entry(pool, solver)))
        return
    async with side_by_side() as grading:

        def take(outcome: Outcome) -> None:
            if outcome.error is not None:
                failures.append(outcome.error)
            else:
                grading.start_soon(grade, outcome)

        await solve_rows(solver, rest, {"strategy": arm.strategy, **arm.options}, take)
    if failures:
        raise EngineError(
            f"{len(failures)} of {len(rest)} problems failed under {arm.strategy} with n={arm.n}, the first with: "
            f"{failures[0]}; the same command goes on with them"
        )


def pool_entry(pool: Pool, solver: Solver) -> Entry:
    """A pool as JSON: its samples, and where its floating-point operations went."""
    question, usage = pool.row["problem"], pool.usage
    decoded = Usage(completion_tokens=usage.completion_tokens, discarded_tokens=usage.discarded_tokens)

    def score_tokens(*steps: str) -> int:
        return 0 if solver.prm is None else solver.prm.count_tokens(ScoreRequest(question, steps))

    def tokens_by_step(text: str) -> list[int]:
        """Of a solution's first step, its first two, and so on to all of it."""
        steps = split_steps(text)
        return [score_tokens(*steps[: number + 1]) for number in range(len(steps))]

    return {
        "strategy": POOL,
        "n": SAMPLES,
        "problem": pool.row["unique_id"],
        "correct": pool.correct.astype(int).tolist(),
        "classes": pool.classes.tolist(),
        "scores": [None if np.isnan(score) else score for score in pool.scores.tolist()],
        "tokens": pool.tokens.tolist(),
        "question_tokens": score_tokens("?"),
        "score_tokens": [tokens_by_step(text) for text in pool.texts],
        "texts": list(pool.texts),
        "prm_tokens": usage.prm_tokens,
        "prm_cached_tokens": usage.prm_cached_tokens,
        "prompt_flops": flops(Usage(prompt_tokens=usage.prompt_tokens), solver.policy, solver.prm),
        "decode_flops": flops(decoded, solver.policy, solver.prm),
        "score_flops": flops(Usage(prm_tokens=usage.prm_tokens), solver.policy, solver.prm),
    }


async def search_entry(outcome: Outcome, arm: Arm, solver: Solver) -> Entry:
    """A search as JSON: its candidates, whether a right one is among them, and what it took."""
    solution = outcome.solution
    assert solution is not None
    covered = outcome.correct
    for name in sorted({candidate.answer_class for candidate in solution.candidates if candidate.answer_class}):
        covered = covered or await solver.grader.equal(outcome.row["answer"], name)
    return {
        "strategy": arm.strategy,
        "n": arm.n,
        "problem": outcome.row["unique_id"],
        "correct": int(outcome.correct),
        "covered": int(covered),
        "answer": solution.answer,
        "candidates": len(solution.candidates),
        "effective_n": solution.effective_n,
        "generated_tokens": solution.usage.completion_tokens,
        "prm_tokens": solution.usage.prm_tokens,
        "flops": solution.usage.flops,
        "scores": list(solution.scores),
        "finishes": [candidate.prefix.finish for candidate in solution.candidates],
        "texts": [candidate.prefix.text for candidate in solution.candidates],
    }


if __name__ == "__main__":
    sys.exit(main())
