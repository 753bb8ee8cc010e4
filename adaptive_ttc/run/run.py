"""One problem from its request to its solution: search, grade, vote."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, TypeVar

import anyio

from adaptive_ttc.driver.boundary import grading
from adaptive_ttc.driver.driver import Driver
from adaptive_ttc.errors import AdaptiveTTCError, GradingError
from adaptive_ttc.events import DecisionEvent, Event, ExpandEvent, Route, RunEvent, SampledEvent, SearchEvent
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.prm.base import traits_of
from adaptive_ttc.run.request import Resources, SolveRequest
from adaptive_ttc.run.verify import PATIENCE, Verifier, verify_of
from adaptive_ttc.run.vote import conclude, grade, grade_by_text
from adaptive_ttc.solution import Solution
from adaptive_ttc.strategies.adaptive import Adaptive
from adaptive_ttc.strategies.base import Strategy
from adaptive_ttc.tasks import Signal, watched
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import Candidate, Ending, Prefix, Stopped, Usage

Listener = Callable[[Event], None]
T = TypeVar("T")

VOTE_GRACE = 1.0  # seconds that answers have to be compared once a run was ended, by its deadline too


class ProblemRun:
    """State shared by runs on one problem: driver, trace, final vote. Made where an event loop runs."""

    def __init__(
        self,
        request: SolveRequest,
        resources: Resources,
        ledger: Ledger,
        stop: Signal,
        listener: Listener | None = None,
    ) -> None:
        resources.affinity.enter()
        self.request = request
        self.trace = Trace(anyio.current_time(), resources.unread.listening(request.answers, listener, resources.line))
        self._grader = resources.grader.for_problem(request.answers)
        verify = resources.verify or verify_of(request.answers)
        patience = PATIENCE if resources.verify else math.inf  # a space limits its own tests
        self._verifier = Verifier(verify, request.problem, stop, patience=patience, line=resources.line)
        self._ledger = ledger
        self._driver = Driver(
            request.problem,
            resources.policy,
            ledger,
            prm=resources.prm,
            seed=request.seed,
            answers=request.answers,
            price=request.price,
            trace=self.trace,
            stop=stop,
            config=resources.config,
            health=resources.health,
            logprobs=_reads_logprobs(request, resources),
        )
        self._stop = stop
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
                answers=request.answers.name,
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
        known. Where answers cannot be compared, those of the same text agree.
        """
        candidates, failure = await self._graded(prefixes, strategy)
        error = error or failure
        finished = any(one.prefix.finish in ("eos", "length") for one in candidates)
        if ending.stopped in (Stopped.BUDGET, Stopped.NO_OPTION_FITS) and not finished:
            error = error or self._driver.last_error  # which cost what would have paid for a solution
        candidates = await self._verifier.checked(candidates)
        usage = replace(self.usage, wall_time=self._now())
        request = replace(self.request, vote=strategy)
        told: dict[str, Any] = {"right": right, "difficulty": difficulty, "error": error}
        return conclude(request, candidates, usage, self.spent, self.trace, ending, **told)

    async def _graded(
        self, prefixes: Sequence[Prefix], strategy: Strategy
    ) -> tuple[tuple[Candidate, ...], GradingError | None]:
        """The candidates, and what kept their answers from being compared other than by their text."""
        try:
            candidates = await self._in_time(partial(grade, prefixes, strategy, self._grader))
        except GradingError as failure:
            return grade_by_text(prefixes, strategy, self._grader), failure
        if candidates is not None:
            return candidates, None
        why = "the run was ended: answers of the same text agree"
        self.trace.record(DecisionEvent(time=self._now(), what="compared answers by their text", why=why))
        return grade_by_text(prefixes, strategy, self._grader), None

    async def _in_time(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """What grading brings; None where it takes longer than a moment after the run was ended."""
        found: T | None = None
        with anyio.CancelScope() as scope:

            def end_soon() -> None:
                scope.deadline = anyio.current_time() + VOTE_GRACE

            with self._stop.calling(end_soon), grading():
                found = await work()
        return found

    def _now(self) -> float:
        return anyio.current_time() - self.trace.started


class Run(ProblemRun):
    """A named strategy at work on one problem; ``stop`` ends it early, and so does the deadline."""

    def __init__(
        self, request: SolveRequest, resources: Resources, stop: Signal, listener: Listener | None = None
    ) -> None:
        super().__init__(request, resources, Ledger(request.budget), stop, listener)

    async def solve(self, until: anyio.Event | None = None) -> Solution:
        """Search, grade, vote; ``until`` ends the search early as well and is never set here.

        EngineError, with the vote over what was finished: an engine failed for good.
        """
        strategy = self.request.strategy
        async with ending_early(self._stop, self.request.deadline, until) as early:
            self._record_search(strategy)
            found = await self._driver.attempt(strategy.search())
            ending = _ending(self.trace, early)
            solution = await self._vote(found.candidates, strategy, ending, error=found.error)
        return told(solution)


def told(solution: Solution) -> Solution:
    """The solution of one problem, unless something failed: its error is raised then, with the solution."""
    if solution.error is None:
        return solution
    solution.error.solution = solution
    raise solution.error


DONE = Ending(Stopped.SETTLED, "it did what it was asked for")
SPENT = Ending(Stopped.BUDGET, "the budget ended it")
OVERTIME = Ending(Stopped.DEADLINE, "the deadline came")
ENDED = Ending(Stopped.STOPPED, "it was stopped")


@dataclass(slots=True)
class Early:
    """Whether ``stop`` was set, and whether the deadline or an engine's outage set it."""

    stop: Signal
    overtime: bool = False
    error: AdaptiveTTCError | None = None

    def fail(self, error: AdaptiveTTCError) -> None:
        """End the run, as nothing more can be had of an engine."""
        self.error = self.error or (None if self.stop.is_set() else error)
        self.stop.set()

    @property
    def ending(self) -> Ending | None:
        """Why the run was ended before its time; None while it was not."""
        if self.error is not None:
            return Ending(Stopped.FAILED, f"the run was ended: {self.error}")
        return (OVERTIME if self.overtime else ENDED) if self.stop.is_set() else None


@asynccontextmanager
async def ending_early(stop: Signal, deadline: float | None, until: anyio.Event | None) -> AsyncIterator[Early]:
    """Meanwhile, set ``stop`` after ``deadline`` seconds, or when ``until`` is set."""
    if until is not None and until.is_set():
        stop.set()
    early = Early(stop)
    watchers = [] if deadline is None else [partial(_set_after, early, deadline)]
    watchers += [] if until is None else [partial(_set_with, stop, until)]
    async with watched(*watchers):
        yield early


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
    return SPENT if "budget" in cut.values() else DONE  # the others were aborted by the search itself


async def _set_after(early: Early, seconds: float) -> None:
    await anyio.sleep(seconds)
    early.overtime = not early.stop.is_set()
    early.stop.set()


async def _set_with(stop: Signal, other: anyio.Event) -> None:
    await other.wait()
    stop.set()


def _reads_logprobs(request: SolveRequest, resources: Resources) -> bool:
    """Whether anything of this run reads the log-probabilities of tokens."""
    if resources.config.logprobs is not None:
        return resources.config.logprobs
    votes = request.strategy.vote_logprob or request.strategy.vote_answer
    return isinstance(request.strategy, Adaptive) or bool(votes) or traits_of(resources.prm).logprobs
