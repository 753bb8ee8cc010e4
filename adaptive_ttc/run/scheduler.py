"""Solves any number of problems from one budget: one task owns the allocator, slices run beside it.

What is done, and for whom, the allocator decides; what more work brings, the calibration tells. This only carries it
out: problems come in, slices go out, what they bring is looked at, and who gets nothing more is settled.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from adaptive_ttc.allocation.allocator import Allocator
from adaptive_ttc.allocation.options import Forecaster
from adaptive_ttc.allocation.report import OVER, WHY, AllocationReport, Decision
from adaptive_ttc.answers import Grader
from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.errors import AdaptiveTTCError, ConfigError, EngineError
from adaptive_ttc.estimate.artefact import Calibrated, Opening
from adaptive_ttc.estimate.gain import Action, Option
from adaptive_ttc.events import Event
from adaptive_ttc.policy import Policy
from adaptive_ttc.prm.base import RewardModel
from adaptive_ttc.run.adaptive_problem import Pursuit
from adaptive_ttc.run.request import Plan
from adaptive_ttc.run.run import ending_early
from adaptive_ttc.solution import Solution
from adaptive_ttc.strategies import Strategy
from adaptive_ttc.strategies.adaptive import Adaptive
from adaptive_ttc.tasks import side_by_side
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import Usage

Weigh = Callable[[Pursuit], float]
Settled = Callable[[Pursuit, Solution], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Ended:
    """A slice that came back: what it was charged, whether it brought anything, what went wrong."""

    pursuit: Pursuit
    spent: int
    moved: bool = False
    error: AdaptiveTTCError | None = None


@dataclass(slots=True)
class _Inbox:
    """What the allocator's task has not seen yet; ``news`` is set when something is put in."""

    arrived: list[Pursuit] = field(default_factory=list)
    ended: list[_Ended] = field(default_factory=list)
    closed: bool = False
    news: anyio.Event = field(default_factory=anyio.Event)


class Campaign:
    """Problems being solved; made where an event loop runs, and run once.

    Args:
        allocator: decides; nobody else may call it meanwhile.
        foresight: looks ahead.
        opening: what every problem is begun with, if the budget pays for its scoring.
        grader: decides which answers are equal.
        stop: when set, what runs is ended and everything is settled with what it has.
        max_concurrency: slices at once.
        weigh: how much a problem's gain counts.
    """

    def __init__(
        self,
        allocator: Allocator,
        foresight: Forecaster,
        opening: Opening,
        grader: Grader,
        stop: anyio.Event,
        *,
        max_concurrency: int = 32,
        weigh: Weigh | None = None,
    ) -> None:
        self._allocator = allocator
        self._foresight = foresight
        self._opening = opening
        self._grader = grader
        self._stop = stop
        self._most = max_concurrency
        self._weigh = weigh
        self._inbox = _Inbox()
        self._unopened: deque[Pursuit] = deque()
        self._live: dict[str, Pursuit] = {}
        self._running: set[str] = set()
        self._names: Counter[str] = Counter()

    def report(self) -> AllocationReport:
        """Who got what so far, and why."""
        return self._allocator.report()

    async def run(self, source: AsyncIterator[Sequence[Pursuit]], settled: Settled) -> None:
        """Take all problems of a source in, and solve them.

        Args:
            source: problems as they arrive; those that are known together come together.
            settled: told of every solution; its failure ends the campaign.

        Raises:
            GradingError: the grader cannot be started.
        """
        try:
            async with side_by_side() as work:
                async with side_by_side() as watch:
                    watch.start_soon(self._take_in, source)
                    watch.start_soon(self._wake_when_stopped)
                    await self._allocate(work, settled)
                    watch.cancel_scope.cancel()
                for pursuit in tuple(self._live.values()):
                    self._settle(pursuit, work, settled)
        finally:
            for one in self._inbox.ended:
                self._allocator.charged(one.pursuit.name, one.spent)
            self._inbox.ended.clear()

    async def _allocate(self, work: TaskGroup, settled: Settled) -> None:
        inbox = self._inbox
        await checkpoint()  # a stop that was set before finds here what has arrived, and settles it
        while True:
            await self._look(work, settled)
            while len(self._running) < self._most and not self._stop.is_set():
                decision = self._allocator.next()
                if decision is None:
                    break
                self._start(decision, work)
            self._settle_unopened(work, settled)
            for name in self._allocator.ended():
                self._settle(self._live[name], work, settled)
            idle = not (self._running or inbox.ended or inbox.arrived)
            if idle and (inbox.closed or self._stop.is_set()):
                return
            await inbox.news.wait()
            inbox.news = anyio.Event()

    async def _look(self, work: TaskGroup, settled: Settled) -> None:
        """Take note of what arrived and what ended, and say what may be done next."""
        arrived, self._inbox.arrived = self._inbox.arrived, []
        ended, self._inbox.ended = self._inbox.ended, []
        for one in ended:
            self._running.discard(one.pursuit.name)
            if one.error is None:
                self._allocator.charged(one.pursuit.name, one.spent)
            else:
                one.pursuit.error = one.error
                self._allocator.failed(one.pursuit.name, one.spent)
                self._conclude(one.pursuit, str(one.error), work, settled)
        going = [one.pursuit for one in ended if one.error is None and one.moved]
        views = await self._foresight.forecasts([one.evidence for one in (*arrived, *going)])
        for pursuit, view in zip((*arrived, *going), views, strict=True):
            pursuit.view = view
        self._arrive(arrived)
        for pursuit in going:
            if self._allocator.offer(pursuit.name, self._options(pursuit)) in OVER:
                self._settle(pursuit, work, settled)
        for one in ended:
            if one.error is None and not one.moved:
                self._settle(one.pursuit, work, settled, why="what it was given did not pay for a token")

    def _arrive(self, arrived: Sequence[Pursuit]) -> None:
        for pursuit in arrived:
            pursuit.name = self._unused(pursuit.name)
            self._live[pursuit.name] = pursuit
        for pursuit in arrived:
            pursuit.opening = self._opening_of(pursuit)
            self._allocator.arrive(pursuit.name, pursuit.opening_units(), self._options(pursuit))
            self._unopened.append(pursuit)

    def _unused(self, name: str) -> str:
        """The name, or what tells it from those that were given before."""
        given = name
        while self._names[given]:
            self._names[name] += 1
            given = f"{name}#{self._names[name]}"
        self._names[given] = 1
        return given

    def _opening_of(self, pursuit: Pursuit) -> Opening:
        """Scored where the budget of each problem that is known pays for several of that."""
        price, left, most = pursuit.plan.price, self._allocator.available, pursuit.plan.budget
        if not price.score:
            return self._opening
        each = min(math.inf if left is None else left / len(self._live), math.inf if most is None else most)
        return self._opening.within(each - pursuit.prompt_units, price.decode, price.score)

    def _options(self, pursuit: Pursuit) -> list[Option]:
        assert pursuit.view is not None
        weight = 1.0 if self._weigh is None else self._weigh(pursuit)
        options = []
        for one in pursuit.view.options:
            slice_cost = max(one.slice_cost, pursuit.least(1))
            options.append(replace(one, gain=weight * one.gain, slice_cost=slice_cost))
        return options

    def _start(self, decision: Decision, work: TaskGroup) -> None:
        pursuit = self._live[decision.problem]
        self._running.add(pursuit.name)
        pursuit.note(decision)
        work.start_soon(self._slice, pursuit, decision)

    async def _slice(self, pursuit: Pursuit, decision: Decision) -> None:
        action = Action(self._opening.kind, 1) if decision.option is None else decision.option.action
        before, moved = pursuit.spent, False
        error: AdaptiveTTCError | None = None
        try:
            moved = await pursuit.advance(action, decision.units, self._grader, opening=decision.option is None)
        except (EngineError, ConfigError) as failure:
            error = failure
        finally:
            self._inbox.ended.append(_Ended(pursuit, pursuit.spent - before, moved, error))
            self._inbox.news.set()

    def _settle_unopened(self, work: TaskGroup, settled: Settled) -> None:
        """Settle those whose opening cannot be paid for any more; openings go in order of arrival."""
        while self._unopened and (standing := self._allocator.standing(self._unopened[0].name)) != "waiting":
            pursuit = self._unopened.popleft()
            if standing == "short":
                self._settle(pursuit, work, settled, WHY["waiting"])

    def _settle(self, pursuit: Pursuit, work: TaskGroup, settled: Settled, why: str = "") -> None:
        standing = WHY[self._allocator.standing(pursuit.name)]
        why = "it was stopped" if self._stop.is_set() else why or standing
        self._allocator.settled(pursuit.name)
        self._conclude(pursuit, why, work, settled)

    def _conclude(self, pursuit: Pursuit, why: str, work: TaskGroup, settled: Settled) -> None:
        del self._live[pursuit.name]
        work.start_soon(self._hand_over, pursuit, why, self._allocator.price, settled)

    async def _hand_over(self, pursuit: Pursuit, why: str, price: float, settled: Settled) -> None:
        await settled(pursuit, await pursuit.conclude(self._grader, why, price))

    async def _take_in(self, source: AsyncIterator[Sequence[Pursuit]]) -> None:
        async for pursuits in source:
            self._inbox.arrived += pursuits
            self._inbox.news.set()
        self._inbox.closed = True
        self._inbox.news.set()

    async def _wake_when_stopped(self) -> None:
        await self._stop.wait()
        self._inbox.news.set()


class AdaptiveRun:
    """A budget being spent on one problem; made where an event loop runs.

    Args:
        plan: what is to be done.
        voting: the vote over all that is drawn.
        calibrated: what was learned of the pair, or a prior.
        policy, prm: with which models.
        min_gain: gain per 1,000 units under which nothing is bought.
        seed: of all randomness.
        config: how requests are sent.
        stop: ends the run early when set; the run sets it too.
        listener: told of every event of the trace.
    """

    def __init__(
        self,
        plan: Plan,
        voting: Adaptive,
        calibrated: Calibrated,
        policy: Policy,
        prm: RewardModel | None,
        *,
        min_gain: float,
        seed: int,
        config: DriverConfig,
        stop: anyio.Event,
        listener: Callable[[Event], None] | None = None,
    ) -> None:
        self._stop = stop
        self._pursuit = Pursuit(plan, voting, policy, prm, seed=seed, config=config, stop=stop, listener=listener)
        # alone, it begins with whatever there is
        self._allocator = Allocator(plan.budget, min_gain=min_gain, floor=0.0)
        self._foresight = foresight_of(calibrated, plan, policy, prm)
        self._begun_with = calibrated.opening

    @property
    def strategy(self) -> Strategy:
        """The vote that will be taken."""
        return self._pursuit.voting

    @property
    def usage(self) -> Usage:
        """What was computed so far."""
        return self._pursuit.usage

    @property
    def spent(self) -> int:
        """What the ledger was charged so far."""
        return self._pursuit.spent

    @property
    def trace(self) -> Trace:
        """What happened so far."""
        return self._pursuit.trace

    async def solve(self, grader: Grader, deadline: float | None = None, until: anyio.Event | None = None) -> Solution:
        """Spend the budget as evidence says, and vote; see :meth:`adaptive_ttc.run.run.Run.solve`.

        Raises:
            EngineError: an engine failed for good.
        """
        campaign = Campaign(self._allocator, self._foresight, self._begun_with, grader, self._stop, max_concurrency=1)
        found: list[Solution] = []

        async def keep(pursuit: Pursuit, solution: Solution) -> None:
            found.append(solution)

        async with ending_early(self._stop, deadline, until):
            await campaign.run(_alone(self._pursuit), keep)
        if self._pursuit.error is not None:
            raise self._pursuit.error
        return found[0]


def foresight_of(calibrated: Calibrated, plan: Plan, policy: Policy, prm: RewardModel | None) -> Forecaster:
    """What looks ahead for a pair of models."""
    revises = policy.revision_prompt is not None
    return Forecaster(calibrated, plan.price, scores=prm is not None, revises=revises)


def voting_of(asked: Strategy, given: Mapping[str, Any], calibrated: Calibrated, *, prm: bool) -> Adaptive:
    """The vote that was chosen for the pair, but for what the caller chose.

    Args:
        asked: with the caller's options.
        given: those options.
        calibrated: what was learned of the pair.
        prm: whether there is one; without scores all votes count alike.
    """
    assert isinstance(asked, Adaptive)
    ballot = calibrated.table.ballot
    chosen: dict[str, Any] = {
        "vote": ballot.name if prm else "majority",
        "vote_b": ballot.b,
        "agg_strategy": ballot.agg_strategy,
    }
    return replace(asked, **{name: value for name, value in chosen.items() if name not in given})


async def _alone(pursuit: Pursuit) -> AsyncIterator[Sequence[Pursuit]]:
    yield (pursuit,)
