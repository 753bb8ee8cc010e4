"""Runs strategies at several N on many problems and keeps what came of each; it knows no estimator and no picture.

Independent samples are drawn once: one pool a problem serves majority, best-of-N and weighted best-of-N at every N.
Searches are run anew for every N, since the first steps of a wide search are not those of a narrow one. Every arm has
engines of its own: their prefix caches would answer for a search what an earlier one had computed, and its cost would
be told too low.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from journal import Entry, Journal

from adaptive_ttc.cost import flops
from adaptive_ttc.errors import AdaptiveTTCError, ConfigError, EngineError
from adaptive_ttc.evaluation.datasets import Row
from adaptive_ttc.evaluation.evaluate import Outcome, Pool, draw_pools, solve_rows
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies import make_strategy, strategy_names
from adaptive_ttc.tasks import side_by_side
from adaptive_ttc.types import Usage, split_steps

POOL = "pool"
SAMPLES = 64
POOLED = ("majority", "best_of_n", "weighted_best_of_n")
BEAM_WIDTH = 4
WITH_BEAMS = ("beam_search", "dvts")


@dataclass(frozen=True, slots=True)
class Arm:
    """A strategy at one N.

    Raises:
        ConfigError: no such strategy, or it cannot be run at that N.
    """

    strategy: str
    n: int

    def __post_init__(self) -> None:
        if self.strategy != POOL:
            make_strategy(self.strategy, n=self.n, **self.width)
        if not 1 <= self.n <= SAMPLES and self.strategy in (POOL, *POOLED):
            raise ConfigError(f"--n {self.n}: a pool holds {SAMPLES} samples a problem; take n from 1 to {SAMPLES}")

    @property
    def request(self) -> dict[str, Any]:
        """What ``Solver.solve`` is asked for."""
        return {"strategy": self.strategy, "n": self.n, **self.width}

    @property
    def width(self) -> dict[str, int]:
        """M, for the strategies that have one."""
        return {"beam_width": BEAM_WIDTH} if self.strategy in WITH_BEAMS else {}


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

    seconds: dict[str, float] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)

    def note(self, arm: Arm, problems: int, seconds: float) -> None:
        """Add the work on so many problems."""
        self.seconds[arm.strategy] = self.seconds.get(arm.strategy, 0.0) + seconds
        self.samples[arm.strategy] = self.samples.get(arm.strategy, 0) + problems * arm.n

    def forecast(self, arms: Iterable[Arm], problems: int) -> float | None:
        """Seconds that these arms take on so many problems; None where one of their strategies was not timed."""
        total = 0.0
        for arm in to_run(arms):
            if not self.samples.get(arm.strategy):
                return None
            total += self.seconds[arm.strategy] / self.samples[arm.strategy] * arm.n * problems
        return total


def to_run(arms: Iterable[Arm]) -> list[Arm]:
    """What has to be sampled: the pool, always (it tells how hard a problem is), and what no pool answers."""
    return [Arm(POOL, SAMPLES), *(arm for arm in arms if arm.strategy not in POOLED)]


async def run_arm(solver: Solver, rows: Sequence[Row], arm: Arm, journal: Journal, report: Callable[[], None]) -> float:
    """Do what is missing in the journal.

    Args:
        solver: with empty caches; stays open.
        rows: the problems.
        arm: one of :func:`to_run`.
        journal: gets an entry the moment a problem is done.
        report: called after each.

    Returns:
        The seconds that it took.

    Raises:
        AdaptiveTTCError: problems failed; the others are kept, and the next run goes on with these.
    """
    missing = set(journal.missing(arm.strategy, arm.n, (row["unique_id"] for row in rows)))
    rest = [row for row in rows if row["unique_id"] in missing]
    started = time.perf_counter()
    if arm.strategy == POOL:
        await _draw(solver, rest, journal, report)
    else:
        await _search(solver, rest, arm, journal, report)
    return time.perf_counter() - started


async def _draw(solver: Solver, rows: Sequence[Row], journal: Journal, report: Callable[[], None]) -> None:
    def keep(pool: Pool) -> None:
        journal.add(pool_entry(pool, solver))
        report()

    await draw_pools(solver, rows, SAMPLES, keep)


async def _search(solver: Solver, rows: Sequence[Row], arm: Arm, journal: Journal, report: Callable[[], None]) -> None:
    failures: list[AdaptiveTTCError] = []

    async def keep(outcome: Outcome) -> None:
        journal.add(await search_entry(outcome, arm, solver))
        report()

    async with side_by_side() as keeping:

        def take(outcome: Outcome) -> None:
            if outcome.error is not None:
                failures.append(outcome.error)
            else:
                keeping.start_soon(keep, outcome)

        await solve_rows(solver, rows, arm.request, take)
    if failures:
        raise EngineError(
            f"{len(failures)} of {len(rows)} problems failed under {arm.strategy} with n={arm.n}, the first with: "
            f"{failures[0]}; the same command goes on with them"
        )


def pool_entry(pool: Pool, solver: Solver) -> Entry:
    """A pool as JSON: its samples, and where its floating-point operations went."""
    question, usage = pool.row["problem"], pool.usage
    decoded = Usage(completion_tokens=usage.completion_tokens, discarded_tokens=usage.discarded_tokens)
    return {
        "strategy": POOL,
        "n": SAMPLES,
        "problem": pool.row["unique_id"],
        "correct": pool.correct.astype(int).tolist(),
        "classes": pool.classes.tolist(),
        "scores": [None if np.isnan(score) else score for score in pool.scores.tolist()],
        "tokens": pool.tokens.tolist(),
        "question_tokens": _score_tokens(solver, question, ("?",)),
        "score_tokens": [_tokens_by_step(solver, question, text) for text in pool.texts],
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


def _tokens_by_step(solver: Solver, question: str, text: str) -> list[int]:
    """Tokens that the PRM reads of a solution's first step, its first two, and so on to all of it."""
    steps = split_steps(text)
    return [_score_tokens(solver, question, steps[: number + 1]) for number in range(len(steps))]


def _score_tokens(solver: Solver, question: str, steps: tuple[str, ...]) -> int:
    return 0 if solver.prm is None else solver.prm.count_tokens(ScoreRequest(question, steps))
