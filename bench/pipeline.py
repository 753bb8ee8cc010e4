"""Beam search over many problems by the solver, against strict rounds: the same searches, seeds and models.

    python bench/pipeline.py --json FILE [--limit PROBLEMS] [--rounds R] [--seed S]

One run. The solver works on all problems at once, and scores every step when it ends. The reference does what batch
scripts do: for all problems together, sample every beam's next step, then score every step, then ask the searches how
to go on. Both drive the same search generators (beam search, n=16, M=4) over the mini models, derive the same seeds,
score equal solutions of a problem once, grade and vote. The two are measured in turn, each time on models loaded anew,
so that neither finds the other's work in a cache, and each keeps its best round.

Figures: ``wall_ratio`` (solver to strict rounds; the one to look at), ``policy_busy_share`` and
``strict_policy_busy_share`` (of wall time, in which the policy had at least one request), ``seconds`` and
``strict_seconds``, ``concurrency`` and ``strict_concurrency`` (mean requests in flight while there was one),
``same_candidates`` (share of problems with the same solutions on both sides), ``tokens``, ``strict_rounds`` (in which
some search was still going on), ``problems``, ``rounds``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from measuring import LoadMeter, run_measurement, sample_of

from adaptive_ttc.driver.growing_sample import Sample
from adaptive_ttc.driver.state import PathNumbering
from adaptive_ttc.evaluation.datasets import Row, load_problems
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.run.vote import grade, poll
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies import BeamSearch
from adaptive_ttc.strategies.requests import Expand, Search
from adaptive_ttc.types import Prefix, Problem

STRATEGY = BeamSearch(n=16, beam_width=4)

Solutions = list[tuple[Prefix, ...]]
"""The candidates of every problem."""


@dataclass(frozen=True, slots=True)
class Round:
    """One side, once over all problems; ``steps`` is the number of strict rounds that it took, 0 for the solver."""

    seconds: float
    busy: float
    concurrency: float
    tokens: int
    steps: int
    solutions: Solutions


@dataclass(slots=True)
class Walk:
    """One problem's search in the hands of the reference.

    Attributes:
        prompt: token ids of the problem.
        request: what the search asks for now; None when it has returned its ``candidates``.
        samples: the children that are being made for it.
        scores: of the solutions that were scored, by their steps.
    """

    problem: Problem
    prompt: tuple[int, ...]
    search: Search
    request: Expand | None = None
    numbering: PathNumbering = field(default_factory=PathNumbering)
    samples: list[Sample] = field(default_factory=list)
    scores: dict[tuple[str, ...], tuple[float, ...]] = field(default_factory=dict)
    candidates: tuple[Prefix, ...] = ()

    def go_on(self, reply: tuple[Prefix, ...] | None) -> None:
        """Tell the search what came of its request, and take its next one."""
        try:
            request = self.search.send(reply)
            assert isinstance(request, Expand), "a beam search forks nothing"
            self.request = request
        except StopIteration as returned:
            self.request, self.candidates = None, returned.value


class StrictRounds:
    """The reference: every round is sampled in full, then scored in full, for all problems together.

    Args:
        solver: whose policy and PRM are asked.
        problems: what is to be solved.
        seed: of the run; the samples' seeds are those of the solver's.
    """

    def __init__(self, solver: Solver, problems: Sequence[Problem], seed: int) -> None:
        self._solver = solver
        self._seed = seed
        self._walks = [Walk(one, solver.policy.encode(one), STRATEGY.search()) for one in problems]
        self.steps = 0

    async def run(self) -> Solutions:
        """The candidates of every problem."""
        for walk in self._walks:
            walk.go_on(None)
        while live := [walk for walk in self._walks if walk.request is not None]:
            self.steps += 1
            for walk in live:
                walk.samples = self._children(walk)
            await asyncio.gather(*(self._grow(sample) for walk in live for sample in walk.samples))
            await asyncio.gather(*(self._score(walk, steps) for walk in live for steps in self._unscored(walk)))
            for walk in live:
                for sample in walk.samples:
                    sample.scores = walk.scores.get(sample.steps, sample.scores)
                walk.go_on(tuple(sample.child() for sample in walk.samples))
        return [walk.candidates for walk in self._walks]

    def _children(self, walk: Walk) -> list[Sample]:
        request, take = walk.request, walk.numbering.take
        assert request is not None
        return [
            sample_of(self._solver.policy, walk.problem, walk.prompt, request, parent, take(parent.path), self._seed)
            for parent in request.prefixes
            for _ in range(request.n)
        ]

    async def _grow(self, sample: Sample) -> None:
        if sample.ended is None:
            granted = sample.remaining
            sample.absorb(await self._solver.policy.sample(sample.ask(granted, priority=0)), granted)

    def _unscored(self, walk: Walk) -> list[tuple[str, ...]]:
        grown = (sample.steps for sample in walk.samples if sample.grown and sample.steps)
        return list(dict.fromkeys(steps for steps in grown if steps not in walk.scores))

    async def _score(self, walk: Walk, steps: tuple[str, ...]) -> None:
        assert self._solver.prm is not None
        walk.scores[steps] = (await self._solver.prm.score(ScoreRequest(walk.problem.question, steps))).scores


async def pipelined(solver: Solver, problems: Sequence[Problem], seed: int) -> tuple[Solutions, int]:
    """All problems at once through the solver."""
    solutions = await asyncio.gather(*(solver.solve(one, strategy=STRATEGY, seed=seed) for one in problems))
    return [tuple(one.prefix for one in solution.candidates) for solution in solutions], 0


async def strict(solver: Solver, problems: Sequence[Problem], seed: int) -> tuple[Solutions, int]:
    """All problems in strict rounds, graded and voted on in the same way."""
    reference = StrictRounds(solver, problems, seed)
    solutions = await reference.run()
    for candidates in solutions:
        poll(await grade(candidates, STRATEGY, solver.grader), STRATEGY)
    return solutions, reference.steps


Side = Callable[[Solver, Sequence[Problem], int], Awaitable[tuple[Solutions, int]]]


async def time_round(side: Side, problems: Sequence[Problem], other: Row, seed: int) -> Round:
    """Load the models, warm them up on another problem, then time one side."""
    async with Solver.mini() as solver:
        solver.policy = meter = LoadMeter(solver.policy)
        solver.grader.start()
        await solver.solve(other["problem"], strategy=STRATEGY)
        meter.reset()
        start = time.perf_counter()
        solutions, steps = await side(solver, problems, seed)
        seconds = time.perf_counter() - start
        return Round(seconds, meter.busy, meter.concurrency, meter.tokens, steps, solutions)


async def measure(limit: int, rounds: int, seed: int | None) -> dict[str, float]:
    """Both sides in turn; the figures that the module describes."""
    *rows, other = load_problems("minimath-500", limit=limit + 1, seed=seed)
    problems = [Problem.of(row["problem"], row["unique_id"]) for row in rows]
    ours: list[Round] = []
    theirs: list[Round] = []
    for number in range(rounds):
        for side, results in ((pipelined, ours), (strict, theirs))[:: 1 if number % 2 == 0 else -1]:
            results.append(await time_round(side, problems, other, seed or 0))
    best, reference = (min(results, key=lambda one: one.seconds) for results in (ours, theirs))
    return {
        "wall_ratio": best.seconds / reference.seconds,
        "policy_busy_share": best.busy / best.seconds,
        "strict_policy_busy_share": reference.busy / reference.seconds,
        "seconds": best.seconds,
        "strict_seconds": reference.seconds,
        "concurrency": best.concurrency,
        "strict_concurrency": reference.concurrency,
        "same_candidates": sum(map(same, best.solutions, reference.solutions)) / len(problems),
        "tokens": best.tokens,
        "strict_rounds": reference.steps,
        "problems": len(problems),
        "rounds": rounds,
    }


def same(ours: tuple[Prefix, ...], theirs: tuple[Prefix, ...]) -> bool:
    """Whether two sides handed in the same tokens by the same paths."""
    return [(one.path, one.token_ids) for one in ours] == [(one.path, one.token_ids) for one in theirs]


if __name__ == "__main__":
    run_measurement(
        "pipeline",
        __doc__,
        measure,
        limit=(64, "problems, all at once (%(default)s)"),
        rounds=(3, "%(default)s"),
        seed=(None, "draw fresh problems and other samples"),
    )
