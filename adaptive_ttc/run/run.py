"""One problem on its way from plan to solution: search, grade, vote; it knows no command line and no other problem."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from adaptive_ttc.answers import Grader
from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.driver.flights import side_by_side
from adaptive_ttc.events import Event
from adaptive_ttc.policy import Policy
from adaptive_ttc.prm.base import RewardModel
from adaptive_ttc.run.request import Plan
from adaptive_ttc.run.undertaking import Undertaking
from adaptive_ttc.solution import Solution
from adaptive_ttc.strategies import Strategy


class Run(Undertaking):
    """A plan being carried out: search, grade, vote. It sets ``stop`` too; its arguments are those of its base."""

    def __init__(
        self,
        plan: Plan,
        policy: Policy,
        prm: RewardModel | None,
        *,
        seed: int,
        config: DriverConfig,
        stop: anyio.Event,
        listener: Callable[[Event], None] | None = None,
    ) -> None:
        super().__init__(plan, policy, prm, seed=seed, config=config, stop=stop, listener=listener)
        self._stop = stop

    @property
    def strategy(self) -> Strategy:
        """What was asked for."""
        return self.plan.strategy

    async def solve(self, grader: Grader, deadline: float | None = None, until: anyio.Event | None = None) -> Solution:
        """Search, grade, vote.

        Args:
            grader: decides which answers are equal.
            deadline: seconds after which the search is stopped.
            until: stops it as well; it is only listened to.
        """
        async with ending_early(self._stop, deadline, until):
            self._begin(self.strategy)
            prefixes = await self._driver.run(self.strategy.search())
        return await self._vote(prefixes, self.strategy, grader)


@asynccontextmanager
async def ending_early(stop: anyio.Event, deadline: float | None, until: anyio.Event | None) -> AsyncIterator[None]:
    """Meanwhile, set ``stop`` after ``deadline`` seconds, or when ``until`` is set, which is only listened to."""
    if until is not None and until.is_set():
        stop.set()
    async with side_by_side() as watch:
        if deadline is not None:
            watch.start_soon(_set_after, stop, deadline)
        if until is not None:
            watch.start_soon(_set_with, stop, until)
        yield
        watch.cancel_scope.cancel()


async def _set_after(stop: anyio.Event, seconds: float) -> None:
    await anyio.sleep(seconds)
    stop.set()


async def _set_with(stop: anyio.Event, other: anyio.Event) -> None:
    await other.wait()
    stop.set()
