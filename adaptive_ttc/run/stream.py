"""The events of a problem being solved, as they happen, and its solution."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from adaptive_ttc.answers import Grader
from adaptive_ttc.driver.boundary import grading
from adaptive_ttc.errors import GradingError
from adaptive_ttc.events import (
    AllocationEvent,
    DecisionEvent,
    DoneEvent,
    Event,
    FinishedEvent,
    PrunedEvent,
    SampledEvent,
    ScoredEvent,
    VoteEvent,
)
from adaptive_ttc.run.adaptive_run import AdaptiveRun
from adaptive_ttc.run.run import Run
from adaptive_ttc.run.vote import grade_by_text, poll
from adaptive_ttc.solution import Solution
from adaptive_ttc.strategies import Strategy
from adaptive_ttc.tasks import Background, Signal
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import Candidate, Prefix, Usage

STREAMED = (SampledEvent, ScoredEvent, PrunedEvent, FinishedEvent, VoteEvent, DecisionEvent, AllocationEvent, DoneEvent)
"""The kinds of events that are told; the trace has the others too."""

Begin = Callable[[Signal, Callable[[Event], None] | None], Run | AdaptiveRun]


class SolutionStream(Background[Event, Solution]):
    """A problem being solved; made by :meth:`adaptive_ttc.solver.Solver.stream`.

    Iterate over it once for the events: a sample (a step, in a search over steps) ended, was scored, was
    pruned, finished a solution; a vote whose leader changed; what was decided; done. Work begins with the
    iteration, or with :meth:`solution`.

    Leaving the loop early cancels what the engines still do, and counts it. Python closes an iteration that
    was left a little later, though, so that :attr:`usage` and :attr:`spent` are final only once the stream is
    closed (:attr:`final` tells)::

        async with solver.stream(problem, budget_tokens=2000) as stream:
            async for event in stream:
                break
        print(stream.usage)  # everything; without ``async with``, call ``await stream.aclose()`` first
    """

    _once = "a stream is listened to once; call solver.stream(...) again for another run"
    _left = "the stream was left before it was done: listen to its end, or call stop() for an answer"

    def __init__(self, begin: Begin, grader: Grader) -> None:
        super().__init__()
        self._begin = begin
        self._grader = grader
        self._run: Run | AdaptiveRun | None = None

    @property
    def usage(self) -> Usage:
        """What was computed so far, without the wall time; it may still grow until the stream is :attr:`final`."""
        return Usage() if self._run is None else self._run.usage

    @property
    def spent(self) -> int:
        """What the ledger was charged so far; it may still grow until the stream is :attr:`final`."""
        return 0 if self._run is None else self._run.spent

    @property
    def trace(self) -> Trace | None:
        """What happened so far, also of a run that failed or was cancelled; None before it begins."""
        return None if self._run is None else self._run.trace

    def stop(self) -> None:
        """End the search; the best answer so far comes with full accounting, as at a deadline."""
        self._stop.set()

    async def solution(self) -> Solution:
        """Wait for the solution, whether or not anybody listens.

        Cancelling the only waiter cancels the work, as with ``solve``: it is aborted and counted before the
        cancellation goes on. While others listen or wait, the work goes on for them.

        Raises:
            EngineError: an engine failed for good.
            ConfigError: the stream was left or closed before it was done.
        """
        return await self._wait()

    def _work(self) -> Coroutine[Any, Any, Solution]:
        self._run = self._begin(self._stop, self._hear)
        return self._run.solve()

    def _hear(self, event: Event) -> None:
        if isinstance(event, STREAMED):
            self._told.put_nowait(event)

    async def _listen(self) -> AsyncIterator[Event]:
        self._start()
        assert self._run is not None
        request = self._run.request
        vote = RunningVote(self._grader.for_problem(request.answers), request.vote)
        try:
            with self._following():
                while (event := await self._told.get()) is not None:
                    yield event
                    if isinstance(event, FinishedEvent) and (change := await vote.after(event)):
                        yield change
                self._result()
        finally:
            await self.aclose()


class RunningVote:
    """The vote over the solutions finished so far; each answer is read once, each text classified once. Where answers
    cannot be compared, those of the same text agree: the run's own vote tells the error.
    """

    def __init__(self, grader: Grader, strategy: Strategy) -> None:
        self._grader = grader
        self._strategy = strategy
        self._finished: dict[tuple[int, ...], Candidate] = {}
        self._class_of: dict[str, str | None] = {}
        self._leader: str | None = None

    async def after(self, event: FinishedEvent) -> VoteEvent | None:
        """The vote with one more solution, if it changes the leader."""
        prefix = Prefix(text=event.text, scores=event.scores, finish="eos", path=event.path)
        (candidate,) = grade_by_text([prefix], self._strategy, self._grader)
        if candidate.answer is None:
            return None
        await self._classify(candidate.answer)
        # one that was told before comes again with its scores
        self._finished[event.path] = replace(candidate, answer_class=self._class_of[candidate.answer])
        method, classes = poll(tuple(self._finished.values()), self._strategy)
        if not classes or classes[0].answer == self._leader:
            return None
        self._leader = classes[0].answer
        return VoteEvent(time=event.time, method=method, classes=classes, answer=self._leader)

    async def _classify(self, answer: str) -> None:
        """Find the class of an answer; a new text may rename its class, as the shortest text stands for it."""
        if answer in self._class_of:
            return
        before, texts = self._class_of, [*self._class_of, answer]
        self._class_of = dict(zip(texts, await self._classes(texts), strict=True))
        if any(self._class_of[text] != name for text, name in before.items()):
            self._finished = {
                path: replace(one, answer_class=self._class_of[one.answer or ""])
                for path, one in self._finished.items()
            }

    async def _classes(self, texts: Sequence[str]) -> Sequence[str | None]:
        try:
            with grading():
                return await self._grader.classes(texts)
        except GradingError:
            return texts
