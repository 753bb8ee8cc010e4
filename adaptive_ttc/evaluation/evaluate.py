"""Solves many problems side by side through one solver, and grades the answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.answers import Grader
from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.errors import AdaptiveTTCError, ConfigError
from adaptive_ttc.evaluation.datasets import Row, problem_of
from adaptive_ttc.evaluation.metrics import NO_ANSWER, best_of_k, pass_at_k, vote_at_k
from adaptive_ttc.solution import Solution
from adaptive_ttc.solver import Solver
from adaptive_ttc.tasks import side_by_side
from adaptive_ttc.types import Problem, Usage

CONCURRENCY = 32  # problems at work at once: enough to fill an engine's batch, few enough that results come steadily


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The solution of one problem, graded."""

    index: int  # of the row
    row: Row  # the problem and its right answer
    solution: Solution | None  # None where solving failed; with a shared budget, what there was until then
    correct: bool | None  # whether the answer is right; None where the row has no right answer
    error: AdaptiveTTCError | None = None  # why solving failed, or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Graded samples of one problem, all arrays of shape [samples]."""

    row: Row  # the problem and its right answer
    correct: NDArray[np.bool_]  # whether the sample's answer is right
    classes: NDArray[np.int64]  # number of its answer class, or :data:`~adaptive_ttc.evaluation.metrics.NO_ANSWER`
    scores: NDArray[np.float64]  # its score in [0, 1]; nan where it was not scored
    tokens: NDArray[np.int64]  # its generated tokens
    texts: tuple[str, ...]  # what was written
    usage: Usage = field(default_factory=Usage)  # of drawing and scoring all of them; equal samples are scored once

    def pass_at(self, k: int) -> float:
        """See :func:`~adaptive_ttc.evaluation.metrics.pass_at_k`."""
        return pass_at_k(self.correct, k)

    def accuracy(self, strategy: str, k: int, seed: int | Sequence[int] = 0) -> float:
        """Probability that a sampling strategy with k of these samples finds the right answer; ``seed``: of the
        subsets.

        ``strategy`` is ``majority``, ``best_of_n`` or ``weighted_best_of_n``; the last two ignore unscored samples, as
        votes do.
        """
        if strategy == "majority":
            return vote_at_k(self.classes, self.correct, k, seed=seed)
        voting = (self.classes != NO_ANSWER) & ~np.isnan(self.scores)
        if strategy == "best_of_n":
            return best_of_k(self.correct & voting, np.where(voting, self.scores, -np.inf), k)
        if strategy == "weighted_best_of_n":
            classes, weights = np.where(voting, self.classes, NO_ANSWER), np.where(voting, self.scores, 0.0)
            return vote_at_k(classes, self.correct, k, weights=weights, seed=seed)
        raise ConfigError(f"no estimate of {strategy!r} from a pool; known: majority, best_of_n, weighted_best_of_n")


async def solve_rows(
    solver: Solver,
    rows: Sequence[Row],
    request: Mapping[str, Any],
    report: Callable[[Outcome], None],
    *,
    concurrency: int = CONCURRENCY,
) -> None:
    """Solve and grade every problem; a problem that fails is reported and stops no other.

    Args:
        solver: its engines batch across the problems.
        rows: the problems; their ``unique_id`` names them in seeds.
        request: keyword arguments of :meth:`~adaptive_ttc.solver.Solver.solve`.
        report: called with each outcome as it comes, so that what is done is known when the rest is cancelled.
        concurrency: problems at work at once.
    """

    async def one(index: int, row: Row) -> None:
        try:
            solution = await solver.solve(problem_of(row), **request)
            correct = await _graded(solver, row, solution)
        except AdaptiveTTCError as error:
            report(Outcome(index=index, row=row, solution=None, correct=_wrong(row), error=error))
        else:
            report(Outcome(index=index, row=row, solution=solution, correct=correct))

    await _side_by_side(rows, one, concurrency)


async def solve_rows_together(
    solver: Solver,
    rows: Sequence[Row],
    request: Mapping[str, Any],
    report: Callable[[Outcome], None],
    *,
    budget: int,
    concurrency: int = CONCURRENCY,
    checkpoint: str | Path | None = None,
    per_problem_max: int | None = None,
) -> None:
    """Solve all problems from one shared ``budget``, and grade them; further arguments as for :func:`solve_rows`.

    Rows of the same ``unique_id`` get a number in seeds; ``concurrency`` counts slices at work at once. ``checkpoint``,
    ``per_problem_max``: see :meth:`~adaptive_ttc.solver.Solver.solve_many`.
    """
    numbers = {name: index for index, name in enumerate(names_of(rows))}
    problems = [Problem.of(problem_of(row), name) for row, name in zip(rows, numbers, strict=True)]
    asked: dict[str, Any] = {"budget_tokens": budget, "max_concurrency": concurrency, "checkpoint": checkpoint}
    asked |= {"per_problem_max": per_problem_max, **request}
    async with solver.solve_many(problems, **asked) as pool:
        async for solution in pool:
            index = numbers[solution.problem.id]
            correct = await _graded(solver, rows[index], solution)
            report(Outcome(index=index, row=rows[index], solution=solution, correct=correct, error=solution.error))


def grader_of(solver: Solver, row: Row) -> Grader:
    """The solver's grader for answers to one problem."""
    return solver.grader.for_problem(space_of(row.get("answers"), solver.grader.space))


async def _graded(solver: Solver, row: Row, solution: Solution) -> bool | None:
    """Whether the answer is right; None where that is not known."""
    return await grader_of(solver, row).equal(row["answer"], solution.answer) if "answer" in row else None


def _wrong(row: Row) -> bool | None:
    """What a problem that failed counts as."""
    return False if "answer" in row else None


def names_of(rows: Sequence[Row]) -> list[str]:
    """A unique name for every row: its ``unique_id``, with a number where an earlier row has the same."""
    names: dict[str, None] = {}
    for row in rows:
        name, number = row["unique_id"], 1
        while name in names:
            number += 1
            name = f"{row['unique_id']}#{number}"
        names[name] = None
    return list(names)


async def draw_pools(
    solver: Solver,
    rows: Sequence[Row],
    samples: int,
    report: Callable[[Pool], None],
    *,
    temperature: float = 0.8,
    concurrency: int = CONCURRENCY,
) -> list[Pool]:
    """Draw, score (where there is a PRM) and grade ``samples`` solutions of every problem, with no token limit.

    ``report`` is called with each pool as it comes; the pools are returned in the order of the rows. Raises
    AdaptiveTTCError where a problem failed.
    """
    strategy = "weighted_best_of_n" if solver.prm else "majority"
    request: dict[str, Any] = {"strategy": strategy, "n": samples, "temperature": temperature}
    pools: dict[int, Pool] = {}

    async def one(index: int, row: Row) -> None:
        solution = await solver.solve(problem_of(row), **request)
        pools[index] = await _pool(row, solution, grader_of(solver, row))
        report(pools[index])

    await _side_by_side(rows, one, concurrency)
    return [pools[index] for index in range(len(rows))]


async def _pool(row: Row, solution: Solution, grader: Grader) -> Pool:
    names = sorted({candidate.answer_class for candidate in solution.candidates if candidate.answer_class})
    right = {name: await grader.equal(row["answer"], name) for name in names}
    number = {name: index for index, name in enumerate(names)}
    held = [candidate.answer_class or "" for candidate in solution.candidates]
    return Pool(
        row=row,
        correct=np.array([right.get(name, False) for name in held], dtype=bool),
        classes=np.array([number.get(name, NO_ANSWER) for name in held]),
        scores=np.array([np.nan if score is None else score for score in solution.scores]),
        tokens=np.array([len(candidate.prefix.token_ids) for candidate in solution.candidates]),
        texts=tuple(candidate.prefix.text for candidate in solution.candidates),
        usage=solution.usage,
    )


async def _side_by_side(rows: Sequence[Row], work: Callable[[int, Row], Awaitable[None]], concurrency: int) -> None:
    if concurrency < 1:
        raise ConfigError(f"concurrency={concurrency} must be at least 1")
    places = anyio.CapacityLimiter(concurrency)

    async def take_place(index: int, row: Row) -> None:
        async with places:
            await work(index, row)

    async with side_by_side() as group:
        for index, row in enumerate(rows):
            group.start_soon(take_place, index, row)
