"""Solves any number of problems from one budget: one task owns the allocator, slices run beside it.

The allocator decides what is done, and for which problem; the calibration estimates what more work gains. The scheduler
runs the slices, reports their results, and settles problems that get nothing more.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from adaptive_ttc.allocation.allocator import Allocator
from adaptive_ttc.allocation.options import Forecaster, Pace, families_of
from adaptive_ttc.allocation.queue import FLOOR
from adaptive_ttc.allocation.report import (
    NO_ROUNDS,
    NOTHING_FITS,
    NOTHING_LEFT,
    OVER,
    VERIFIED,
    AllocationReport,
    Decision,
    Standing,
)
from adaptive_ttc.errors import AdaptiveTTCError, CheckpointError
from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.estimate.features import Evidence
from adaptive_ttc.estimate.gain import Action
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policy import recorded_problem, second_policy
from adaptive_ttc.run.adaptive_problem import AdaptiveProblem
from adaptive_ttc.run.outage import Outages
from adaptive_ttc.run.request import Resources, SolveRequest, abilities
from adaptive_ttc.run.run import Early
from adaptive_ttc.solution import Solution
from adaptive_ttc.stopping.base import Pool
from adaptive_ttc.strategies.adaptive import SAMPLE
from adaptive_ttc.tasks import Signal, side_by_side, watched
from adaptive_ttc.types import Ending

_FIRST_LEARNED = 8  # slices after which forecasts learn from them for the first time
_REMEMBERED = 256  # settled problems that forecasts learn from

OnSolution = Callable[[AdaptiveProblem, Solution], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Ended:
    """A slice that came back, and whether anything was charged; what it failed with is the problem's error."""

    problem: AdaptiveProblem
    moved: bool


@dataclass(slots=True)
class _Inbox:
    """What the allocator's task has not seen yet; ``news`` is set when something is put in."""

    arrived: list[AdaptiveProblem] = field(default_factory=list)
    ended: list[_Ended] = field(default_factory=list)
    closed: bool = False
    news: anyio.Event = field(default_factory=anyio.Event)


class Scheduler:
    """Problems being solved from one budget; one that is ``alone`` begins with whatever there is."""

    def __init__(
        self,
        request: SolveRequest,
        resources: Resources,
        calibrated: Calibrated,
        stop: Signal,
        *,
        alone: bool = False,
    ) -> None:
        price, least = request.price, request.min_gain
        self._allocator = Allocator(
            request.budget,
            min_gain=calibrated.least_gain(price.decode, price.score, alone=alone) if least is None else least,
            per_problem_max=request.per_problem_max,
            floor=0.0 if alone else FLOOR,
        )
        policy = resources.policy
        recorded = recorded_problem(policy) is not None
        calibrated = replace(calibrated, gain=calibrated.gain.pool(request.vote, self._pool))
        able, second = families_of(**abilities(policy, resources.prm)), second_policy(policy)
        of_second = set() if second is None else families_of(**abilities(second, resources.prm))
        self._forecaster = Forecaster(calibrated, request.price, able, of_second)
        self._losses = [one.losses for one in (resources.health, resources.second_health)]
        self._outages = Outages(resources, alone=alone)
        self._request = request
        self._opening = replace(calibrated.opening, kind=SAMPLE) if recorded else calibrated.opening
        self._stop = stop
        self._unopened: deque[AdaptiveProblem] = deque()
        self._live: dict[str, AdaptiveProblem] = {}
        self._running: set[str] = set()
        self._names: Counter[str] = Counter()
        self._arrived = 0
        self._expected = request.expected  # until the allocator was told
        self._slices, self._seconds = 0, 0.0  # that came back, and how long they took together
        self._began = 0.0
        self._looks, self._due = 0, _FIRST_LEARNED  # slices that ended, and how many before forecasts learn from them
        self._ended: deque[Evidence] = deque(maxlen=_REMEMBERED)

    @property
    def ledger(self) -> Ledger:
        """The account of the whole budget."""
        return self._allocator.ledger

    def report(self) -> AllocationReport:
        """Which problem got what so far, and why."""
        return self._allocator.report()

    async def run(
        self, source: AsyncIterator[Sequence[AdaptiveProblem]], on_solution: OnSolution, early: Early
    ) -> None:
        """Solve all problems of a source; called once.

        Problems that are known together come together; ``on_solution`` is called with every solution, and its failure
        ends the run, as ``early`` does. GradingError: the grader cannot be started.
        """
        self._early = early
        self._began = anyio.current_time()
        self._inbox = inbox = _Inbox()
        self._on_solution = on_solution
        try:
            async with side_by_side() as work:
                with self._stop.calling(self._wake):
                    async with watched(partial(self._take_in, source)):
                        await self._allocate(work)
                for problem in tuple(self._live.values()):
                    self._settle(problem, work)
        finally:
            for one in inbox.ended:
                self._allocator.charged(one.problem.name)
            inbox.ended.clear()

    async def _allocate(self, work: TaskGroup) -> None:
        inbox = self._inbox
        await checkpoint()  # a stop that was set before finds here what has arrived, and settles it
        while True:
            await self._look(work)
            while len(self._running) < self._request.max_concurrency and not self._stop.is_set():
                decision = self._allocator.next()
                if decision is None:
                    break
                self._start(decision, work)
            self._settle_unopened(work)
            for name in self._allocator.ended():
                self._settle(self._live[name], work)
            idle = not (self._running or inbox.ended or inbox.arrived)
            if idle and (inbox.closed or self._stop.is_set()):
                return
            if idle and len(self._live) >= self._request.max_concurrency:  # worth less than those still to come
                for problem in tuple(self._live.values()):
                    self._settle(problem, work)
            await inbox.news.wait()
            inbox.news = anyio.Event()

    async def _look(self, work: TaskGroup) -> None:
        """Process arrivals and ended slices, and offer the allocator what may be done next."""
        arrived, self._inbox.arrived = self._inbox.arrived, []
        ended, self._inbox.ended = self._inbox.ended, []
        for one in ended:
            self._running.discard(one.problem.name)
            self._allocator.charged(one.problem.name)
            if one.problem.error is not None:
                self._fail(one.problem, work)
        going = [one.problem for one in ended if one.moved and one.problem.error is None]
        self._looks += len(going)
        learned, outage = self._learn(), self._outages.news()
        if learned or outage:  # what may be done next is to be offered anew
            going += [one for one in self._live.values() if self._standing(one) in ("ready", "parked")]
        going += [self._go_on(one) for one in arrived if self._begun_before(one)]
        arrived = [one for one in arrived if not self._begun_before(one)]
        at_work = len(self._running) + len(arrived) + len(going)
        paces = [self._pace(one, at_work) for one in (*arrived, *going)]
        forecasts = await self._forecaster.forecasts([one.evidence for one in (*arrived, *going)], paces)
        for problem, forecast in zip((*arrived, *going), forecasts, strict=True):
            problem.look(forecast)
        self._arrive(arrived)
        self._reopen([one for one in going if one.came_to_nothing], others=outage)
        opened = self._unopened if outage else arrived
        for problem in [one for one in opened if one.error and self._standing(one) == "waiting"]:
            self._fail(problem, work)
        for problem in going:
            if problem.error is not None:
                self._fail(problem, work)
            elif self._standing(problem) == "waiting":
                continue
            elif problem.verified or self._allocator.offer(problem.name, problem.options()) in OVER:
                self._settle(problem, work)
            elif (most := self._request.max_rounds) is not None and problem.rounds >= most:
                self._settle(problem, work, NO_ROUNDS)
        for problem in (one.problem for one in ended if not one.moved and one.problem.error is None):
            self._settle(problem, work)

    def _learn(self) -> bool:
        """Whenever slices have doubled, let the forecasts learn from how all problems stand; whether they did."""
        if not self._forecaster.learns or self._looks < self._due:
            return False
        self._due = 2 * self._looks
        self._forecaster.learn([*self._ended, *(one.evidence for one in self._live.values())])
        return True

    def _standing(self, problem: AdaptiveProblem) -> Standing:
        return self._allocator.standing(problem.name)

    def _arrive(self, arrived: Sequence[AdaptiveProblem]) -> None:
        for problem in arrived:
            problem.name = self._unused(problem.name)
            self._live[problem.name] = problem
        coming, self._arrived = self._expected - self._arrived, self._arrived + len(arrived)
        prompts = _mean_prompts(arrived)
        for problem in arrived:
            self._open(problem, prompts)
            units, options = problem.opening_units(), problem.options()
            if self._expected:  # those to come are like the first
                self._allocator.expect(coming, units, options)
                self._expected = 0
            self._allocator.arrive(problem.name, units, options, spent=problem.spent_before)
            self._unopened.append(problem)
        if self._inbox.closed:
            self._allocator.expect(0)
        for losses in self._losses:
            losses.width = max(1, min(self._request.max_concurrency, self._known))

    def _reopen(self, failed: Sequence[AdaptiveProblem], *, others: bool) -> None:
        """Open problems whose openings failed by the policy that is there, and the ``others`` that wait for theirs."""
        waiting = [one for one in self._unopened if others and self._standing(one) == "waiting"]
        again = [*waiting, *failed]
        self._expected = self._request.expected if others else self._expected  # the next that come are told anew
        prompts = _mean_prompts(again)
        for problem in again:
            assert problem.forecast is not None
            problem.look(problem.forecast)
            self._open(problem, prompts)
            if problem.error is not None:
                continue
            if problem in failed:
                self._unopened.appendleft(problem)
            self._allocator.reopen(problem.name, problem.opening_units(), problem.options())

    def _begun_before(self, problem: AdaptiveProblem) -> bool:
        """Whether an earlier run has opened it, and something came of it, or has left it nothing to be opened with."""
        most = problem.request.budget
        return problem.in_hand or (most is not None and problem.spent_before >= most)

    def _go_on(self, problem: AdaptiveProblem) -> AdaptiveProblem:
        """Take in a problem that an earlier run has opened."""
        problem.name = self._unused(problem.name)
        self._live[problem.name] = problem
        self._arrived += 1
        self._allocator.go_on(problem.name, problem.spent_before)
        return problem

    @property
    def learns(self) -> bool:
        """Whether forecasts learn from the evidence of other problems."""
        return self._forecaster.learns

    def settled_before(self, problem: AdaptiveProblem, ending: Ending) -> None:
        """Take in a problem that an earlier run has settled."""
        name = self._unused(problem.name)
        self._arrived += 1
        self._allocator.go_on(name, problem.spent_before)
        self._allocator.settled(name, ending)
        if self.learns:
            self._ended.append(problem.evidence)

    def _unused(self, name: str) -> str:
        """The name, numbered if it was given before."""
        given = name
        while self._names[given]:
            self._names[name] += 1
            given = f"{name}#{self._names[name]}"
        self._names[given] = 1
        return given

    @property
    def _known(self) -> int:
        """Problems at hand or announced."""
        return len(self._live) + max(0, self._request.expected - self._arrived)

    def _open(self, problem: AdaptiveProblem, mean_prompts: tuple[float, float]) -> None:
        """With what the budget of each known problem affords: on a shared one, all that came together are alike."""
        left, most = self._allocator.available, problem.request.budget
        shared = math.inf if left is None else left / self._known
        each = shared if most is None else min(most, shared)
        problem.opened_by(self._opening, each, mean_prompts if each == shared else problem.prompts)

    def _pool(self, tokens: float) -> Pool:
        """How the budget stands, where a sample takes so many tokens."""
        whole, left = self._request.budget, self._allocator.available
        if whole is None or left is None:
            return Pool()
        price = self._request.price
        return Pool(left / whole, max(1, self._known), left / (tokens * (price.decode + price.score)))

    def _pace(self, problem: AdaptiveProblem, at_work: int) -> Pace:
        """What the other problems ``at_work``, the rounds and the deadline leave it."""
        request, rounds = self._request, math.inf
        if request.max_rounds is not None:
            rounds = max(1, request.max_rounds - problem.rounds)
        if request.deadline is not None and self._slices:
            left = request.deadline - (anyio.current_time() - self._began)
            turns = math.ceil(at_work / request.max_concurrency)  # those that wait for a place take their turns
            rounds = min(rounds, max(1, left * self._slices // (self._seconds * turns + 1e-9)))
        return Pace(max(1, request.max_concurrency // max(1, at_work)), rounds)

    def _start(self, decision: Decision, work: TaskGroup) -> None:
        problem = self._live[decision.problem]
        self._running.add(problem.name)
        problem.record_decision(decision)
        work.start_soon(self._slice, problem, decision)

    async def _slice(self, problem: AdaptiveProblem, decision: Decision) -> None:
        option, moved = decision.option, False
        todo = Action(problem.opening.kind, 1) if option is None else Action(option.action.kind, option.at_once)
        started = anyio.current_time()
        try:
            if not problem.is_there(todo.kind):  # it went after that was chosen
                moved, problem.came_to_nothing = True, option is None
                return
            moved = await problem.advance(todo, self._allocator.promise(problem.name), opening=option is None)
        except CheckpointError:
            raise
        except AdaptiveTTCError as failure:
            problem.error = failure
            if problem.ends_run:
                self._early.fail(failure)
        finally:
            self._slices, self._seconds = self._slices + 1, self._seconds + anyio.current_time() - started
            self._inbox.ended.append(_Ended(problem, moved))
            self._inbox.news.set()

    def _settle_unopened(self, work: TaskGroup) -> None:
        """Settle those whose opening cannot be paid for any more; openings go in order of arrival."""
        while self._unopened and (standing := self._allocator.standing(self._unopened[0].name)) != "waiting":
            problem = self._unopened.popleft()
            if standing == "short":
                self._settle(problem, work)

    def _settle(self, problem: AdaptiveProblem, work: TaskGroup, given: Ending | None = None) -> None:
        standing = self._allocator.standing(problem.name)
        if standing != "content":
            problem.error = problem.error or self._early.error
        ending = None if standing == "content" else self._early.ending  # it had got all that would have helped
        if ending is None and standing == "open":  # what it was given did not pay for a token
            left = self._allocator.available
            ending = NOTHING_LEFT if left is not None and left < problem.least(1) else NOTHING_FITS
        ending = ending or given or self._allocator.ending(problem.name, problem.least(1))
        ending = VERIFIED if problem.verified else ending
        self._allocator.settled(problem.name, ending)
        self._conclude(problem, ending, work)

    def _fail(self, problem: AdaptiveProblem, work: TaskGroup) -> None:
        self._allocator.failed(problem.name)
        self._conclude(problem, self._allocator.ending(problem.name), work)

    def _conclude(self, problem: AdaptiveProblem, ending: Ending, work: TaskGroup) -> None:
        del self._live[problem.name]
        if self._forecaster.learns:
            self._ended.append(problem.evidence)
        work.start_soon(self._hand_over, problem, ending, self._allocator.price)

    async def _hand_over(self, problem: AdaptiveProblem, ending: Ending, price: float) -> None:
        await self._on_solution(problem, await problem.conclude(ending, price))

    async def _take_in(self, source: AsyncIterator[Sequence[AdaptiveProblem]]) -> None:
        async for problems in source:
            self._inbox.arrived += problems
            self._inbox.news.set()
        self._inbox.closed = True
        self._inbox.news.set()

    def _wake(self) -> None:
        self._inbox.news.set()


def _mean_prompts(problems: Sequence[AdaptiveProblem]) -> tuple[float, float]:
    """Units for a problem's prompt by the first policy, and by the second."""
    first, second = (sum(units) for units in zip((0, 0), *(one.prompts for one in problems), strict=True))
    return first / max(1, len(problems)), second / max(1, len(problems))
