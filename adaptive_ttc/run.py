"""One problem on its way from plan to solution: search, grade, vote; it knows no command line and no other problem."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import fields, replace

import anyio

from adaptive_ttc.driver import Driver
from adaptive_ttc.engines import DriverConfig
from adaptive_ttc.events import Event, RunEvent, SearchEvent
from adaptive_ttc.flights import side_by_side
from adaptive_ttc.grading import Grader
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.plan import Plan
from adaptive_ttc.policy import Policy
from adaptive_ttc.prm.base import RewardModel
from adaptive_ttc.solution import Solution
from adaptive_ttc.strategies import Strategy
from adaptive_ttc.trace import Trace
from adaptive_ttc.types import Prefix, Usage
from adaptive_ttc.verdict import conclude, grade


class Run:
    """A plan being carried out; made where an event loop runs.

    Args:
        plan: what is to be done.
        policy, prm: with which models.
        seed: of all randomness.
        config: how requests are sent.
        stop: ends the run early when set; the run sets it too.
        listener: told of every event of the trace.
    """

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
        self._plan = plan
        self._stop = stop
        self._ledger = Ledger(plan.budget)
        self._trace = Trace(anyio.current_time(), listener)
        self._driver = Driver(
            plan.problem,
            policy,
            self._ledger,
            prm=prm,
            seed=seed,
            price=plan.price,
            trace=self._trace,
            stop=stop,
            config=config,
        )
        self._opening = RunEvent(
            time=0.0,
            problem=plan.problem.id,
            messages=tuple((turn.role, turn.content) for turn in plan.problem.messages),
            policy=policy.name,
            prm=None if prm is None else prm.name,
            seed=seed,
            budget=plan.budget,
            count=plan.count,
        )

    @property
    def strategy(self) -> Strategy:
        """What was asked for."""
        return self._plan.strategy

    @property
    def usage(self) -> Usage:
        """What was computed so far."""
        return self._driver.usage

    @property
    def spent(self) -> int:
        """What the ledger was charged so far."""
        return self._ledger.spent

    @property
    def trace(self) -> Trace:
        """What happened so far."""
        return self._trace

    async def solve(self, grader: Grader, deadline: float | None = None, until: anyio.Event | None = None) -> Solution:
        """Search, grade, vote.

        Args:
            grader: decides which answers are equal.
            deadline: seconds after which the search is stopped.
            until: stops it as well; it is only listened to.
        """
        self._trace.record(self._opening)
        async with ending_early(self._stop, deadline, until):
            prefixes = await self._search()
        candidates = await grade(prefixes, self.strategy, grader)
        usage = replace(self.usage, wall_time=self._now())
        return conclude(self._plan, candidates, usage, self._ledger.spent, self._trace)

    async def _search(self) -> tuple[Prefix, ...]:
        strategy = self.strategy
        options = {part.name: getattr(strategy, part.name) for part in fields(strategy)}
        self._trace.record(SearchEvent(time=self._now(), strategy=strategy.name, options=options, start=()))
        return await self._driver.run(strategy.search())

    def _now(self) -> float:
        return anyio.current_time() - self._trace.started


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
