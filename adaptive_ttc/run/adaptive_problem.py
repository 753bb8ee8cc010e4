"""One problem that is solved slice by slice: runs a slice on the driver, keeps what came of it, and concludes.

It decides nothing: what is done next, and for how many units, it is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import anyio

from adaptive_ttc.allocation.foresight import View
from adaptive_ttc.allocation.options import slice_of
from adaptive_ttc.allocation.report import Decision
from adaptive_ttc.answers import Grader
from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.driver.scoring import least_score
from adaptive_ttc.errors import AdaptiveTTCError
from adaptive_ttc.estimate.artefact import Opening
from adaptive_ttc.estimate.features import Evidence
from adaptive_ttc.estimate.gain import Action
from adaptive_ttc.events import AllocationEvent, Event
from adaptive_ttc.policy import Policy
from adaptive_ttc.prm.base import RewardModel
from adaptive_ttc.run.holdings import Holdings
from adaptive_ttc.run.request import Plan
from adaptive_ttc.run.undertaking import Undertaking
from adaptive_ttc.solution import Solution
from adaptive_ttc.strategies.adaptive import Adaptive, Drawn, Slice

SHORTEST = 16
"""Tokens under which a slice is not worth a request."""


class Pursuit(Undertaking):
    """A problem on its way; made where an event loop runs.

    Args:
        plan: what was asked for; its strategy says how samples are drawn.
        voting: the vote over all that was drawn.
        policy, prm: with which models.
        seed: of all randomness.
        config: how requests are sent.
        stop: ends what runs early when set.
        listener: told of every event of the trace.

    Attributes:
        name: its name in the allocator.
        opening: what it is begun with.
        view: what is thought of it, None before the first look.
        prompt_units: what its prompt costs, once.
        error: what ended it, or None.
    """

    def __init__(
        self,
        plan: Plan,
        voting: Adaptive,
        policy: Policy,
        prm: RewardModel | None,
        *,
        seed: int,
        config: DriverConfig,
        stop: anyio.Event,
        listener: Callable[[Event], None] | None = None,
    ) -> None:
        super().__init__(plan, policy, prm, seed=seed, config=config, stop=stop, listener=listener)
        self.voting = voting
        self.name = plan.problem.id
        self.opening = Opening()
        self.view: View | None = None
        self.error: AdaptiveTTCError | None = None
        prompt = len(policy.encode(plan.problem))
        self._holdings = Holdings(plan.problem.question, prompt)
        self.prompt_units = plan.price.prompt * prompt
        scoring = 0 if prm is None or not plan.price.score else least_score(prm, plan.problem.question, plan.price)
        self._least = plan.price.decode * SHORTEST + scoring
        self._scored = prm is not None

    @property
    def evidence(self) -> Evidence:
        """What is known of it."""
        return self._holdings.evidence

    def opening_units(self) -> int:
        """Units to set aside for its first work."""
        price = self.plan.price
        least = self._least if self.opening.scored else price.decode * SHORTEST
        return self.prompt_units + max(self.opening.promise(price.decode, price.score), least)

    def least(self, count: int) -> int:
        """Units under which a slice of so many units of work cannot even begin."""
        return (0 if self.spent else self.prompt_units) + count * self._least

    def note(self, decision: Decision) -> None:
        """Tell the trace what was decided, and on what grounds."""
        action = None if decision.option is None else str(decision.option.key)
        self._record(action or f"1 x {self.opening.kind}", decision.option is None, decision.units, decision.price)

    async def advance(self, action: Action, units: int, grader: Grader, *, opening: bool = False) -> bool:
        """Do a slice of an action, spending at most ``units``; whether that brought anything.

        Raises:
            EngineError: an engine failed for good; what was drawn before this slice is still in hand.
        """
        todo = slice_of(action)
        # the rest of an opening that was cut is one too
        opening = opening or (todo.kind == self.opening.kind and not any(one.attempts for one in self.evidence.units))
        part = self._slice(todo, scored=self.opening.scored if opening else True)
        begun = self._holdings.cut(todo.kind, todo.count)
        start = (*(self._holdings.unscored() if part.vote != "majority" else ()), *begun)
        ledger = self._ledger.child(units)
        if ledger is None:
            return False
        before, drawn = self.usage, Drawn()
        self._begin(part, start)
        await self._driver.run(part.draw(start, drawn), ledger)
        spent = self.usage
        generated, prm = (getattr(spent, name) - getattr(before, name) for name in ("completion_tokens", "prm_tokens"))
        self._holdings.take(part, begun, drawn, generated, prm)
        await self._holdings.read(grader)
        return ledger.spent > 0

    async def conclude(self, grader: Grader, why: str, price: float) -> Solution:
        """Vote over all that was drawn.

        Args:
            grader: decides which answers are equal.
            why: it gets no more.
            price: at which that was decided.
        """
        self._record(None, False, 0, price, why)
        prefixes = self._holdings.candidates
        voting = replace(self.voting, n=max(1, len(prefixes)))
        self._begin(voting, prefixes)
        difficulty = self.view.difficulty if self.view else None
        return await self._vote(prefixes, voting, grader, difficulty=difficulty, error=self.error)

    def _slice(self, todo: Action, *, scored: bool) -> Slice:
        asked = self.plan.strategy
        return Slice(
            kind=todo.kind,
            units=todo.count,
            temperature=asked.temperature,
            top_p=asked.top_p,
            max_tokens=asked.max_tokens,
            agg_strategy=asked.agg_strategy,
            vote="weighted" if scored and self._scored else "majority",
        )

    def _record(self, action: str | None, opening: bool, units: int, price: float, why: str = "") -> None:
        view = self.view
        self._trace.record(
            AllocationEvent(
                time=self._now(),
                action=action,
                opening=opening,
                units=units,
                price=price,
                right=view.forecast.right if view else None,
                difficulty=view.difficulty if view else None,
                considered=view.considered if view else (),
                why=why,
            )
        )
