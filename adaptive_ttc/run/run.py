"""One problem from its request to its solution: search, grade, vote."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields, replace

import anyio

from adaptive_ttc.driver.driver import Driver
from adaptive_ttc.errors import AdaptiveTTCError
from adaptive_ttc.events import Event, RunEvent, SearchEvent
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.run.request import Resources, SolveRequest
from adaptive_ttc.run.vote import conclude, grade
from adaptive_ttc.solution import Solution
from adaptive_ttc.strategies.base import Strategy
from adaptive_ttc.tasks import side_by_side
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import Prefix, Usage

Listener = Callable[[Event], None]


class ProblemRun:
    """State shared by runs on one problem: driver, trace, final vote. Made where an event loop runs."""

    def __init__(
        self,
        request: SolveRequest,
        resources: Resources,
        ledger: Ledger,
        stop: anyio.Event,
        listener: Listener | None = None,
    ) -> None:
        self.request = request
        self.trace = Trace(anyio.current_time(), listener)
        self._grader = resources.grader
        self._ledger = ledger
        self._driver = Driver(
            request.problem,
            resources.policy,
            ledger,
            prm=resources.prm,
            seed=request.seed,
            price=request.price,
            trace=self.trace,
            stop=stop,
            config=resources.config,
        )
        self.trace.record(
            RunEvent(
                time=0.0,
                problem=request.problem.id,
                messages=tuple((turn.role, turn.content) for turn in request.problem.messages),
                policy=resources.policy.name,
                prm=None if resources.prm is None else resources.prm.name,
                seed=request.seed,
                budget=request.budget,
                count=request.count,
            )
        )

    @property
    def usage(self) -> Usage:
        """What was computed so far."""
        return self._driver.usage

    @property
    def spent(self) -> int:
        """Units charged so far."""
        return self._ledger.spent

    def _record_search(self, strategy: Strategy, start: Sequence[Prefix] = ()) -> None:
        """Record in the trace which search begins, and from what."""
        options = {part.name: getattr(strategy, part.name) for part in fields(strategy)}
        paths = tuple(prefix.path for prefix in start)
        self.trace.record(SearchEvent(time=self._now(), strategy=strategy.name, options=options, start=paths))

    async def _vote(
        self,
        prefixes: Sequence[Prefix],
        strategy: Strategy,
        difficulty: tuple[float, ...] | None = None,
        error: AdaptiveTTCError | None = None,
    ) -> Solution:
        """Grade what was drawn, and vote over it."""
        candidates = await grade(prefixes, strategy, self._grader)
        usage = replace(self.usage, wall_time=self._now())
        request = replace(self.request, vote=strategy)
        return conclude(request, candidates, usage, self.spent, self.trace, difficulty=difficulty, error=error)

    def _now(self) -> float:
        return anyio.current_time() - self.trace.started


class Run(ProblemRun):
    """A named strategy at work on one problem; ``stop`` ends it early, and so does the deadline."""

    def __init__(
        self, request: SolveRequest, resources: Resources, stop: anyio.Event, listener: Listener | None = None
    ) -> None:
        super().__init__(request, resources, Ledger(request.budget), stop, listener)
        self._stop = stop

    async def solve(self, until: anyio.Event | None = None) -> Solution:
        """Search, grade, vote; ``until`` ends the search early as well and is never set here."""
        strategy = self.request.strategy
        async with ending_early(self._stop, self.request.deadline, until):
            self._record_search(strategy)
            prefixes = await self._driver.run(strategy.search())
        return await self._vote(prefixes, strategy)


@asynccontextmanager
async def ending_early(stop: anyio.Event, deadline: float | None, until: anyio.Event | None) -> AsyncIterator[None]:
    """Meanwhile, set ``stop`` after ``deadline`` seconds, or when ``until`` is set."""
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
