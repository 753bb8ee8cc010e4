"""One problem on its way from a budget to its solution: a campaign of one; it knows no command line.

It has the face of :class:`adaptive_ttc.run.run.Run`, so that streams and callers need not tell the two apart.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import anyio

from adaptive_ttc.allocation.allocator import Allocator
from adaptive_ttc.allocation.foresight import Foresight
from adaptive_ttc.answers import Grader
from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.events import Event
from adaptive_ttc.policy import Policy
from adaptive_ttc.prm.base import RewardModel
from adaptive_ttc.run.adaptive_problem import Pursuit
from adaptive_ttc.run.request import Plan
from adaptive_ttc.run.run import ending_early
from adaptive_ttc.run.scheduler import Campaign
from adaptive_ttc.solution import Solution
from adaptive_ttc.strategies import Strategy
from adaptive_ttc.strategies.adaptive import Adaptive
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import Usage


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


def foresight_of(calibrated: Calibrated, plan: Plan, policy: Policy, prm: RewardModel | None) -> Foresight:
    """What looks ahead for a pair of models."""
    revises = policy.revision_prompt is not None
    return Foresight(calibrated, plan.price, scores=prm is not None, revises=revises)


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
