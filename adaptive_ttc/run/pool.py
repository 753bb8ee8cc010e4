"""Many problems from one budget, as their caller sees it: solutions as they settle, or all at once.

The work runs in a task of its own, so that whoever listens may stop listening at any solution.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Generator, Sequence
from dataclasses import replace
from typing import Any

import anyio

from adaptive_ttc.allocation.allocator import Allocator
from adaptive_ttc.allocation.report import AllocationReport
from adaptive_ttc.answers import Grader
from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.policy import Policy
from adaptive_ttc.prm.base import RewardModel
from adaptive_ttc.run.adaptive_problem import Pursuit
from adaptive_ttc.run.request import Errand, Question
from adaptive_ttc.run.run import ending_early
from adaptive_ttc.run.scheduler import Campaign, foresight_of
from adaptive_ttc.run.vote import conclude
from adaptive_ttc.solution import Solution
from adaptive_ttc.tasks import Background
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import Message, Problem, Usage


class SolutionPool(Background[Solution, None]):
    """Problems being solved from one budget; made by :meth:`adaptive_ttc.solver.Solver.solve_many`.

    Iterate over it, once, for the solutions as they settle, or await it for all of them in the order of the problems;
    or both, in this order. Work begins with either, or with ``async with``. Leaving the loop early ends the work::

        async with solver.solve_many(problems, budget_tokens=100_000) as pool:
            async for solution in pool:
                ...
        pool.report().save("allocation.json")

    Args:
        errand: what was asked for.
        calibrated: what was learned of the pair.
        policy, prm: with which models.
        grader: decides which answers are equal.
        config: how requests are sent.
    """

    _once = "solutions are iterated over once; await the pool for all of them"
    _left = "the work was ended before it was done: call stop() for what there is"

    def __init__(
        self,
        errand: Errand,
        calibrated: Calibrated,
        policy: Policy,
        prm: RewardModel | None,
        grader: Grader,
        config: DriverConfig,
    ) -> None:
        super().__init__()
        self._errand = errand
        self._calibrated = calibrated
        self._policy, self._prm = policy, prm
        self._grader = grader
        self._config = config
        self._allocator = Allocator(errand.budget, min_gain=errand.min_gain, per_problem_max=errand.per_problem_max)
        self._numbers: dict[Pursuit, int] = {}
        self._solutions: dict[int, Solution] = {}

    @property
    def spent(self) -> int:
        """Units charged so far, to all problems together; never more than the budget."""
        return sum(pursuit.spent for pursuit in self._numbers)

    @property
    def usage(self) -> Usage:
        """What was computed so far, for all problems together, without the wall time."""
        return sum((pursuit.usage for pursuit in self._numbers), Usage())

    def report(self) -> AllocationReport:
        """Who got what so far, and why."""
        return self._allocator.report()

    def stop(self) -> None:
        """End what runs; every problem that has arrived settles with the best that it has, as at the deadline."""
        self._stop.set()

    def __await__(self) -> Generator[Any, Any, list[Solution]]:
        return self._all().__await__()

    async def _all(self) -> list[Solution]:
        await self._wait()
        return [self._solutions[number] for number in sorted(self._solutions)]

    async def _listen(self) -> AsyncIterator[Solution]:
        self._start()
        try:
            with self._following():
                while (solution := await self._told.get()) is not None:
                    yield solution
                self._result()
        finally:
            if not self._followers:
                await self.aclose()

    async def _work(self) -> None:
        errand = self._errand
        campaign = Campaign(
            self._allocator,
            foresight_of(self._calibrated, errand.sample, self._policy, self._prm),
            self._calibrated.opening,
            self._grader,
            self._stop,
            max_concurrency=errand.max_concurrency,
            weigh=self._weigh if errand.priority else None,
        )
        async with ending_early(self._stop, errand.deadline, None):
            await campaign.run(self._pursuits(), self._keep)

    async def _keep(self, pursuit: Pursuit, solution: Solution) -> None:
        self._hand_out(self._numbers[pursuit], solution)

    def _hand_out(self, number: int, solution: Solution) -> None:
        self._solutions[number] = solution
        self._told.put_nowait(solution)

    def _weigh(self, pursuit: Pursuit) -> float:
        assert self._errand.priority is not None
        weight = self._errand.priority(pursuit.plan.problem)
        if not weight > 0:
            raise ConfigError(f"the priority of a problem is above 0; {pursuit.plan.problem.id!r} has {weight}")
        return weight

    async def _pursuits(self) -> AsyncIterator[Sequence[Pursuit]]:
        """Problems that are all there come together, so that the first is judged by what the last will want."""
        problems, number = self._errand.problems, 0
        if isinstance(problems, AsyncIterable):
            async for one in problems:
                yield self._pursue(number, one)
                number += 1
        else:
            yield [pursuit for number, one in enumerate(problems) for pursuit in self._pursue(number, one)]

    def _pursue(self, number: int, question: Question) -> list[Pursuit]:
        """A problem on its way; none, but its solution, where it is impossible."""
        errand, problem = self._errand, None
        try:
            problem = Problem.of(question)
            plan = replace(errand.plan(problem), budget=errand.per_problem_max)
            pursuit = Pursuit(
                plan,
                errand.voting,
                self._policy,
                self._prm,
                seed=errand.seed,
                config=self._config,
                stop=self._stop,
            )
        except ConfigError as error:
            problem = problem or Problem((Message("user", str(question)),), f"problem {number + 1}")
            plan = replace(errand.sample, problem=problem, strategy=errand.voting, budget=errand.per_problem_max)
            self._hand_out(number, conclude(plan, (), Usage(), 0, Trace(anyio.current_time()), error=error))
            return []
        self._numbers[pursuit] = number
        return [pursuit]
