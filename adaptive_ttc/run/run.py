"""One problem on its way from plan to solution: search, grade, vote; it knows no command line and no other problem."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields, replace

import anyio

from adaptive_ttc.answers import Grader
from adaptive_ttc.driver.driver import Driver
from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.errors import AdaptiveTTCError
from adaptive_ttc.events import Event, RunEvent, SearchEvent
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policy import Policy
from adaptive_ttc.prm.base import RewardModel
from adaptive_ttc.run.request import Plan
from adaptive_ttc.run.vote import conclude, grade
from adaptive_ttc.solution import Solution
from adaptive_ttc.strategies import Strategy
from adaptive_ttc.tasks import side_by_side
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import Prefix, Usage


class Undertaking:
    """Work on one problem; made where an event loop runs.

    Args:
        plan: what is to be done.
        policy, prm: with which models.
        seed: of all randomness.
        config: how requests are sent.
        stop: ends what runs early when set.
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
        self.plan = plan
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
        self._trace.record(
            RunEvent(
                time=0.0,
                problem=plan.problem.id,
                messages=tuple((turn.role, turn.content) for turn in plan.problem.messages),
                policy=policy.name,
                prm=None if prm is None else prm.name,
                seed=seed,
                budget=plan.budget,
                count=plan.count,
            )
        )

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

    def _begin(self, strategy: Strategy, start: Sequence[Prefix] = ()) -> None:
        """Tell the trace which search begins, and from what."""
        options = {part.name: getattr(strategy, part.name) for part in fields(strategy)}
        paths = tuple(prefix.path for prefix in start)
        self._trace.record(SearchEvent(time=self._now(), strategy=strategy.name, options=options, start=paths))

    async def _vote(
        self,
        prefixes: Sequence[Prefix],
        strategy: Strategy,
        grader: Grader,
        difficulty: tuple[float, ...] | None = None,
        error: AdaptiveTTCError | None = None,
    ) -> Solution:
        """Grade what was drawn, and vote over it."""
        candidates = await grade(prefixes, strategy, grader)
        usage = replace(self.usage, wall_time=self._now())
        plan = replace(self.plan, strategy=strategy)
        return conclude(plan, candidates, usage, self.spent, self._trace, difficulty=difficulty, error=error)

    def _now(self) -> float:
        return anyio.current_time() - self._trace.started


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
