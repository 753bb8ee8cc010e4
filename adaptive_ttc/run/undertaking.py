"""What whoever works on one problem has: a ledger, a driver, a trace, and how they are opened and closed.

It decides nothing of what is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from adaptive_ttc.strategies.base import Strategy
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
