"""Many problems from one budget, as their caller sees it: solutions as they settle, or all at once."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Sequence,
    Sized,
)
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import anyio

from adaptive_ttc.allocation.report import FAILED, AllocationReport
from adaptive_ttc.display.progress import Meter, progress
from adaptive_ttc.errors import AdaptiveTTCError, CheckpointError, ConfigError, SourceError
from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.run.adaptive_problem import AdaptiveProblem
from adaptive_ttc.run.checkpoint import REMEDY, Checkpoint, call_of
from adaptive_ttc.run.checkpointed import CheckpointedProblem, settled_before
from adaptive_ttc.run.request import Question, Questions, Resources, SolveRequest, check_opening
from adaptive_ttc.run.run import ending_early
from adaptive_ttc.run.scheduler import Scheduler
from adaptive_ttc.run.statistics import PoolStatistics
from adaptive_ttc.run.vote import conclude
from adaptive_ttc.solution import Solution
from adaptive_ttc.tasks import Background
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import Message, Problem, Usage

_log = logging.getLogger(__package__)
_SOURCE_FAILURES = 3  # failures of a source, one after the other, after which it is asked no more


@dataclass(frozen=True, slots=True)
class _Settled:
    """A solution that nobody has taken yet, of the problem of that number."""

    number: int
    solution: Solution
    has_place: bool  # whether its problem counts as open until it is taken


class SolutionPool(Background[Solution, None]):
    """Problems being solved from one budget; made by :meth:`adaptive_ttc.solver.Solver.solve_many`.

    Iterate over it, once, for the solutions as they settle, or await it for all of them in the order of the problems.
    A loop is handed every solution and the pool keeps none of them, so that only a line of the report stays of each.
    Work begins with either, or with ``async with``. Leaving the loop early ends the work::

        async with solver.solve_many(problems, budget_tokens=100_000) as pool:
            async for solution in pool:
                ...
        pool.report().save("allocation.json")
    """

    _once = "solutions are iterated over once; collect them in the loop, or await the pool in place of it"
    _left = "the work was ended before it was done: call stop() for what there is"

    def __init__(
        self,
        problems: Questions,
        request: SolveRequest,
        resources: Resources,
        calibrated: Calibrated,
        *,
        checkpoint: str | Path | None = None,
        keep_traces: bool = True,
        tokens: Callable[[], int] | None = None,
    ) -> None:
        super().__init__()
        check_opening(request, resources, calibrated.opening)
        self._checkpoint = checkpoint
        self._keep_traces = keep_traces
        self._tokens = tokens  # generated so far, where progress is shown
        self._meter: Meter | None = None
        if checkpoint is not None:
            listed = None if isinstance(problems, AsyncIterable) else [Problem.of(one) for one in problems]
            problems = problems if listed is None else listed
            self._call = call_of(request, resources, calibrated, listed)
            with Checkpoint(checkpoint) as file:
                file.claim(self._call)
        self._problems = problems
        self._request = request
        self._resources = resources
        self._scheduler = Scheduler(request, resources, calibrated, self._stop)
        self._places = anyio.Semaphore(request.max_concurrency)  # for problems of an asynchronous source
        self._open: dict[AdaptiveProblem, int] = {}
        self._settled_usage = Usage()
        self._arrived = self._settled_number = self._failed = 0  # problems
        self._settled_ones: deque[_Settled] = deque()  # those in the queue
        self._awaited = False

    @property
    def spent(self) -> int:
        """Units charged so far, to all problems together; never more than the budget."""
        return self._scheduler.ledger.spent

    @property
    def usage(self) -> Usage:
        """What was computed so far, for all problems together, without the wall time."""
        return sum((problem.usage for problem in self._open), self._settled_usage)

    @property
    def solutions(self) -> list[Solution]:
        """Those that have settled, in the order of the problems, whatever else happened; a loop's are not kept."""
        return [one.solution for one in sorted(self._settled_ones, key=attrgetter("number"))]

    def report(self) -> AllocationReport:
        """Who got what so far, and why."""
        return self._scheduler.report()

    def _repr_html_(self) -> str:
        """What a notebook shows: the report so far."""
        return self.report()._repr_html_()

    def statistics(self) -> PoolStatistics:
        """How many problems are open, have settled and have failed, and how the budget stands."""
        ledger = self._scheduler.ledger.statistics()
        return PoolStatistics(
            arrived=self._arrived,
            open=len(self._open),
            settled=self._settled_number,
            failed=self._failed,
            slices=ledger.open_children,
            budget=ledger.limit,
            spent=ledger.spent,
            promised=ledger.reserved,
            lost_tokens=self.usage.lost_tokens,
        )

    def stop(self) -> None:
        """End what runs; every problem that has arrived settles with the best that it has, as at the deadline."""
        self._stop.set()

    def __aiter__(self) -> AsyncIterator[Solution]:
        if self._awaited:
            raise ConfigError(self._once)
        return super().__aiter__()

    def __await__(self) -> Generator[Any, Any, list[Solution]]:
        return self._all().__await__()

    async def _all(self) -> list[Solution]:
        if self._iterated and not self.final:
            raise ConfigError(self._once)
        self._awaited = True
        await self._wait()
        if self._iterated:
            raise ConfigError(self._once)
        return self.solutions

    async def _listen(self) -> AsyncIterator[Solution]:
        self._start()
        try:
            with self._following():
                while (solution := await self._told.get()) is not None:
                    if self._settled_ones.popleft().has_place:  # a problem is open until its solution is taken
                        self._places.release()
                    yield solution
                self._result()
        finally:
            if not self._followers:
                await self.aclose()

    async def _work(self) -> None:
        self._resources.affinity.enter()
        with ExitStack() as stack:
            file = None if self._checkpoint is None else stack.enter_context(Checkpoint(self._checkpoint))
            if file is not None:
                file.claim(self._call)
                self._charge(file.spent)
            if self._tokens is not None:
                known = len(self._problems) if isinstance(self._problems, Sized) else self._request.expected or None
                self._meter = stack.enter_context(progress("settled", known, tokens=self._tokens))
            async with ending_early(self._stop, self._request.deadline, None) as early:
                await self._scheduler.run(self._arrivals(file), self._settled, early)

    def _charge(self, units: int) -> None:
        """Charge what earlier runs have spent, or may have; within the budget, as that was theirs too."""
        _log.info("going on from %s: %d units are spent", self._checkpoint, units)
        money = self._scheduler.ledger.reserve(units)
        if money is None:
            raise CheckpointError(f"{self._checkpoint} holds more than the budget, {units:,} units: {REMEDY}")
        money.settle(units)

    async def _settled(self, problem: AdaptiveProblem, solution: Solution) -> None:
        self._hand_out(self._open.pop(problem), solution)

    def _hand_out(self, number: int, solution: Solution) -> None:
        self._settled_usage += replace(solution.usage, wall_time=0.0)
        self._settled_number += 1
        self._failed += solution.error is not None
        if solution.error is not None:
            _log.warning("problem %s failed: %s", solution.problem.id, solution.error)
        if not self._keep_traces:
            solution = replace(solution, trace=Trace(solution.trace.started))
        if self._meter is not None:
            self._meter.advance(note=f"{self._failed:,} failed" if self._failed else "")
        self._settled_ones.append(_Settled(number, solution, has_place=self._iterated))
        self._told.put_nowait(solution)
        if not self._iterated:
            self._places.release()

    async def _arrivals(self, file: Checkpoint | None) -> AsyncIterator[Sequence[AdaptiveProblem]]:
        """Problems as they come, those of a list together; of an async source, no more than may be open at once."""
        if not isinstance(self._problems, AsyncIterable):
            begun = [await self._begun(number, one, file) for number, one in enumerate(_guarded(self._problems))]
            yield [problem for found in begun for problem in found]
            return
        source, number, failures = aiter(self._problems), 0, 0
        try:
            while failures < _SOURCE_FAILURES:
                await self._places.acquire()
                question: Question | SourceError
                try:
                    question, failures = await anext(source), 0
                except StopAsyncIteration:
                    return
                except Exception as error:
                    question, failures = _source_error(error), failures + 1
                yield await self._begun(number, question, file)
                number += 1
        finally:
            if isinstance(source, AsyncGenerator):
                with anyio.CancelScope(shield=True), suppress(Exception):
                    await source.aclose()

    async def _begun(
        self, number: int, question: Question | SourceError, file: Checkpoint | None
    ) -> list[AdaptiveProblem]:
        """The problem, begun; none where it is impossible, did not come, or was settled: its solution says so."""
        problem = None
        self._arrived += 1
        try:
            if isinstance(question, SourceError):
                raise question
            problem = Problem.of(question)
            request = self._request.of_problem(problem, self._resources)
            begun = await self._taken_up(number, request, file)
        except CheckpointError:
            raise
        except Exception as failure:
            error = failure if isinstance(failure, AdaptiveTTCError) else ConfigError(f"this is no problem: {failure}")
            problem = problem or Problem((Message("user", str(question)),), f"problem {number + 1}")
            request = replace(self._request, problem=problem, budget=self._request.per_problem_max)
            self._hand_out(number, conclude(request, (), Usage(), 0, Trace(anyio.current_time()), FAILED, error=error))
            return []
        if begun is not None:
            self._open[begun] = number
        return [] if begun is None else [begun]

    async def _taken_up(self, number: int, request: SolveRequest, file: Checkpoint | None) -> AdaptiveProblem | None:
        """The problem where it was left off; None where it was settled."""
        told = (request, self._resources, self._scheduler.ledger, self._stop)
        if file is None:
            return AdaptiveProblem(*told)
        stored = file.enter(number, request.problem)
        begun = CheckpointedProblem(file, number, *told)
        await begun.go_on_from(stored, evidence=stored.closing is None or self._scheduler.learns)
        if stored.closing is None:
            return begun
        solution = settled_before(stored, request.answers, file.path)
        self._scheduler.settled_before(begun, stored.ending)
        self._hand_out(number, solution)
        return None


def _source_error(error: Exception) -> SourceError:
    failure = SourceError(f"the source of problems failed in place of this one ({type(error).__name__}: {error})")
    failure.__cause__ = error
    return failure


def _guarded(problems: Iterable[Question]) -> Iterator[Question | SourceError]:
    """The problems, and the failures of what brings them."""
    failures, source = 0, iter(problems)
    while failures < _SOURCE_FAILURES:
        try:
            question, failures = next(source), 0
        except StopIteration:
            return
        except Exception as error:
            failures += 1
            yield _source_error(error)
        else:
            yield question
