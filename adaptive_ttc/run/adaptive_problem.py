"""One problem that is solved slice by slice: runs a slice on the driver, keeps what came of it, and concludes.

It decides nothing: what is done next, and for how many units, it is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import anyio

from adaptive_ttc.allocation.options import slice_of
from adaptive_ttc.allocation.report import Decision
from adaptive_ttc.answers import Grader, extract_answer
from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.driver.scoring import least_score
from adaptive_ttc.errors import AdaptiveTTCError
from adaptive_ttc.estimate.artefact import Opening
from adaptive_ttc.estimate.features import Attempt, Evidence, FirstStep, Unit, first_step_of
from adaptive_ttc.estimate.gain import Action, Forecast
from adaptive_ttc.events import AllocationEvent, Event
from adaptive_ttc.policy import Policy
from adaptive_ttc.prm.base import RewardModel
from adaptive_ttc.run.request import Plan
from adaptive_ttc.run.run import Undertaking
from adaptive_ttc.solution import Solution
from adaptive_ttc.strategies.adaptive import Adaptive, Drawn, Slice
from adaptive_ttc.strategies.units import GREEDY, SAMPLE
from adaptive_ttc.types import Prefix

Route = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Held:
    """A unit by the paths of its solutions and first steps; ``generated`` and ``prm`` tokens as :class:`Unit`."""

    kind: str
    attempts: tuple[Route, ...]
    first_steps: tuple[Route, ...]
    generated: int
    prm: int


class Holdings:
    """Candidates and evidence of one problem.

    Args:
        question: its text.
        prompt_tokens: of the rendered problem.
    """

    def __init__(self, question: str, prompt_tokens: int) -> None:
        self._nothing = Evidence(question, prompt_tokens)
        self._candidates: dict[Route, Prefix] = {}
        self._first_steps: dict[Route, Prefix] = {}
        self._cut: dict[Route, str] = {}
        self._units: list[_Held] = []
        self._answers: dict[Route, str | None] = {}
        self._class_of: dict[str, str | None] = {}

    @property
    def candidates(self) -> tuple[Prefix, ...]:
        """What there is to hand in, in the order in which it was first drawn."""
        return tuple(self._candidates.values())

    @property
    def evidence(self) -> Evidence:
        """What is known; :meth:`read` has to have read the answers."""
        begun = tuple(self._half(path, kind) for path, kind in self._cut.items())
        return replace(self._nothing, units=tuple(self._unit(one) for one in self._units), begun=begun)

    def unscored(self) -> tuple[Prefix, ...]:
        """Solutions that have ended and that no PRM has seen."""
        return tuple(one for one in self._candidates.values() if one.finish in ("eos", "length") and not one.scores)

    def cut(self, kind: str, most: int) -> tuple[Prefix, ...]:
        """Solutions of a kind that a budget cut, the first ones."""
        return tuple(self._candidates[path] for path, of in self._cut.items() if of == kind)[:most]

    def take(self, part: Slice, begun: Iterable[Prefix], drawn: Drawn, generated: int, prm: int) -> None:
        """Put in what a slice brought.

        Args:
            part: the slice.
            begun: the cut solutions that it went on with.
            drawn: what it brought.
            generated, prm: tokens that it took; independent samples share them.
        """
        self._candidates.update((one.path, one) for one in drawn.scored)
        self._first_steps.update((one.path, one) for one in drawn.first_steps)
        found = {one.path: one for one in drawn.found if one.token_ids}
        for parent in begun:
            if any(path[: len(parent.path)] == parent.path for path in found):
                self._candidates.pop(parent.path, None)
                self._cut.pop(parent.path, None)
        self._candidates.update(found)
        whole = part.kind in (GREEDY, SAMPLE)
        cut = [path for path, one in found.items() if whole and one.finish in ("budget", "abort")]
        self._cut.update((path, part.kind) for path in cut)
        ended = [path for path in found if path not in self._cut]
        if ended and whole:
            self._units += [
                _Held(part.kind, (path,), self._first_of(path), generated // len(ended), prm // len(ended))
                for path in ended
            ]
        elif not whole and (ended or drawn.first_steps):
            firsts = tuple(one.path for one in drawn.first_steps if one.token_ids)
            self._units.append(_Held(part.kind, tuple(ended), firsts, generated, prm))

    async def read(self, grader: Grader) -> None:
        """Extract the answers of new solutions and put them into classes, over all answers of the problem."""
        for path, one in self._candidates.items():
            if path not in self._answers:
                self._answers[path] = extract_answer(one.text)
        texts = sorted({answer for answer in self._answers.values() if answer is not None})
        if any(text not in self._class_of for text in texts):
            self._class_of = dict(zip(texts, await grader.classes(texts), strict=True))

    def _first_of(self, path: Route) -> tuple[Route, ...]:
        """The first step of a sample, if it was drawn by itself and not cut."""
        first = self._first_steps.get(path[:1])
        return (first.path,) if first is not None and first.finish in ("eos", "stop", "length") else ()

    def _unit(self, held: _Held) -> Unit:
        attempts = tuple(self._attempt(self._candidates[path]) for path in held.attempts)
        steps = tuple(self._step(path, held.attempts) for path in held.first_steps)
        return Unit(held.kind, attempts, steps, held.generated, held.prm)

    def _half(self, path: Route, kind: str) -> Unit:
        """A solution that a budget cut; what its PRM tokens were, for the steps that have a score."""
        one = self._candidates[path]
        tokens = len(one.token_ids)
        return Unit(kind, generated=tokens, prm=tokens if one.scores else 0)

    def _attempt(self, one: Prefix) -> Attempt:
        answer = self._class_of.get(self._answers[one.path] or "")
        return Attempt(answer, one.scores, len(one.token_ids), one.logprob, one.finish or "abort")

    def _step(self, path: Route, attempts: tuple[Route, ...]) -> FirstStep:
        """A first step; one that was not scored by itself has the score that its solution's first step got later."""
        step = first_step_of(self._first_steps[path])
        if not math.isnan(step.score):
            return step
        later = (self._candidates[one].scores for one in attempts if one[: len(path)] == path)
        return replace(step, score=next((scores[0] for scores in later if scores), step.score))


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
        self.view: Forecast | None = None
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
        action = None if decision.option is None else str(decision.option.action)
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
                right=view.right if view else None,
                difficulty=view.difficulty if view else None,
                considered=tuple((str(one.action), one.gain, one.cost) for one in view.options) if view else (),
                why=why,
            )
        )
