"""One problem from its request to its solution: search, grade, vote."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import anyio

from adaptive_ttc.driver.driver import Driver
from adaptive_ttc.errors import AdaptiveTTCError
from adaptive_ttc.events import Event, ExpandEvent, Route, RunEvent, SampledEvent, SearchEvent
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.run.request import Resources, SolveRequest
from adaptive_ttc.run.verify import Verifier
from adaptive_ttc.run.vote import conclude, grade
from adaptive_ttc.solution import Solution
from adaptive_ttc.strategies.base import Strategy
from adaptive_ttc.tasks import side_by_side
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import Ending, Prefix, Stopped, Usage

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
        self._grader = resources.grader.for_problem()
        self._verifier = Verifier(resources.verify, request.problem, stop)
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
        ending: Ending,
        *,
        difficulty: tuple[float, ...] | None = None,
        right: float | None = None,
        error: AdaptiveTTCError | None = None,
    ) -> Solution:
        """Grade and check what was drawn, and vote over it; ``right`` is the probability that the answer is right, if
        known.
        """
        candidates = await self._verifier.checked(await grade(prefixes, strategy, self._grader))
        usage = replace(self.usage, wall_time=self._now())
        request = replace(self.request, vote=strategy)
        told: dict[str, Any] = {"right": right, "difficulty": difficulty, "error": error}
        return conclude(request, candidates, usage, self.spent, self.trace, ending, **told)

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
        async with ending_early(self._stop, self.request.deadline, until) as early:
            self._record_search(strategy)
            prefixes = await self._driver.run(strategy.search())
            ending = _ending(self.trace, early)
        return await self._vote(prefixes, strategy, ending)


DONE = Ending(Stopped.SETTLED, "it did what it was asked for")
SPENT = Ending(Stopped.BUDGET, "the budget ended it")
OVERTIME = Ending(Stopped.DEADLINE, "the deadline came")
ENDED = Ending(Stopped.STOPPED, "it was stopped")


@dataclass(slots=True)
class Early:
    """Whether ``stop`` was set, and whether the deadline set it."""

    stop: anyio.Event
    overtime: bool = False

    @property
    def ending(self) -> Ending | None:
        """Why the run was ended before its time; None while it was not."""
        return (OVERTIME if self.overtime else ENDED) if self.stop.is_set() else None


@asynccontextmanager
async def ending_early(stop: anyio.Event, deadline: float | None, until: anyio.Event | None) -> AsyncIterator[Early]:
    """Meanwhile, set ``stop`` after ``deadline`` seconds, or when ``until`` is set."""
    if until is not None and until.is_set():
        stop.set()
    early = Early(stop)
    async with side_by_side() as watch:
        if deadline is not None:
            watch.start_soon(_set_after, early, deadline)
        if until is not None:
            watch.start_soon(_set_with, stop, until)
        yield early
        watch.cancel_scope.cancel()


def _ending(trace: Trace, early: Early) -> Ending:
    """Why a named strategy got no more: a run that was ended early may have been done already."""
    cut: dict[Route, str] = {}
    for event in trace:
        if isinstance(event, SampledEvent) and event.finish in ("budget", "abort"):
            cut[event.path] = event.finish
        elif isinstance(event, ExpandEvent):  # the search goes on from what was cut
            cut = {path: finish for path, finish in cut.items() if not {path, path[:-1]} & {*event.paths}}
    if early.ending and ("abort" in cut.values() or trace.last(SampledEvent) is None):
        return early.ending
    return SPENT if cut else DONE


async def _set_after(early: Early, seconds: float) -> None:
    await anyio.sleep(seconds)
    early.overtime = not early.stop.is_set()
    early.stop.set()


async def _set_with(stop: anyio.Event, other: anyio.Event) -> None:
    await other.wait()
    stop.set()
