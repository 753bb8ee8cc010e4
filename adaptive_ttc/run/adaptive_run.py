"""One problem that a budget is spent on adaptively: a scheduler of its own, which solves nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import anyio

from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.run.adaptive_problem import AdaptiveProblem
from adaptive_ttc.run.request import Resources, SolveRequest
from adaptive_ttc.run.run import Listener, ending_early, told
from adaptive_ttc.run.scheduler import Scheduler
from adaptive_ttc.solution import Solution
from adaptive_ttc.tasks import Signal


class AdaptiveRun(AdaptiveProblem):
    """A budget spent adaptively on one problem; like :class:`~adaptive_ttc.run.run.Run` to its callers."""

    def __init__(
        self,
        request: SolveRequest,
        resources: Resources,
        calibrated: Calibrated,
        stop: Signal,
        listener: Listener | None = None,
    ) -> None:
        self._scheduler = Scheduler(request, resources, calibrated, stop, alone=True)
        super().__init__(request, resources, self._scheduler.ledger, stop, listener)

    async def solve(self, until: anyio.Event | None = None) -> Solution:
        """Spend the budget, and vote; ``until`` ends the run early as well. EngineError: an engine failed for good."""
        found: list[Solution] = []

        async def keep(problem: AdaptiveProblem, solution: Solution) -> None:
            found.append(solution)

        async with ending_early(self._stop, self.request.deadline, until) as early:
            await self._scheduler.run(_all_at_once([self]), keep, early)
        return told(found[0])


async def _all_at_once(problems: Sequence[AdaptiveProblem]) -> AsyncIterator[Sequence[AdaptiveProblem]]:
    yield problems
