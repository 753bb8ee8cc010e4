"""One problem that is solved slice by slice: it runs a slice, keeps its results, and concludes.

The scheduler says what is done next, and for how many units. A solution that a budget cut may be handed in, but is not
evidence until it is continued and ends: calibration knows no half unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from adaptive_ttc.allocation.options import MARGIN, with_prompt, within_record
from adaptive_ttc.allocation.report import Decision
from adaptive_ttc.errors import AdaptiveTTCError, EngineError
from adaptive_ttc.estimate.artefact import Opening
from adaptive_ttc.estimate.features import NAN, Attempt, Evidence, FirstStep, Unit, family_of, first_step_length
from adaptive_ttc.estimate.gain import Action, Forecast, Option, answered
from adaptive_ttc.events import (
    AllocationEvent,
    DecisionEvent,
    Event,
    ExpandedEvent,
    ForkEvent,
    RequestEvent,
    Route,
    SampledEvent,
    ScoredEvent,
)
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policy import recorded_samples, whole_samples
from adaptive_ttc.prm.base import traits_of
from adaptive_ttc.run.request import Resources, SolveRequest
from adaptive_ttc.run.run import Listener, ProblemRun
from adaptive_ttc.run.writer import writers_of
from adaptive_ttc.solution import Solution
from adaptive_ttc.strategies.adaptive import GREEDY, SAMPLE, SECOND, Slice, is_sample, plain
from adaptive_ttc.tasks import Signal
from adaptive_ttc.types import Ending, Prefix, split_steps


@dataclass(frozen=True, slots=True)
class _Search:
    """A tree, a search or a chain: the paths of its solutions, all its first steps, and the tokens that it took."""

    kind: str
    attempts: tuple[Route, ...]
    first_steps: tuple[FirstStep, ...]
    generated: int
    prm: int


class AdaptiveProblem(ProblemRun):
    """A problem being solved; made where an event loop runs. Every slice brings a child of the budget's account."""

    def __init__(
        self,
        request: SolveRequest,
        resources: Resources,
        ledger: Ledger,
        stop: Signal,
        listener: Listener | None = None,
    ) -> None:
        super().__init__(request, resources, ledger, stop, listener)
        self.name = request.problem.id  # in the allocator
        self.weight = request.weight()
        self.opening = Opening()  # its first slice
        self.forecast: Forecast | None = None  # gains expected of further slices; None before the first look
        self.error: AdaptiveTTCError | None = None  # what ended it
        self.came_to_nothing = False  # whether its opening failed, and another policy may open it
        self.spent_before = 0  # units charged by earlier runs
        self._writers = writers_of(self._driver, request, resources)
        self._first, self._second = self._writers.first, self._writers.second
        self._has_prm, self._free = resources.prm is not None, traits_of(resources.prm).free
        self._recorded = recorded_samples(resources.policy, request.problem)
        self._nothing = Evidence(request.problem.question, self._first.prompt)
        self._accounts: list[Ledger] = []
        self._candidates: dict[Route, Prefix] = {}
        self._cut: dict[Route, str] = {}  # solutions that a budget cut, and the kind of their unit
        self._units: list[tuple[str, Route] | _Search] = []
        self._step_lengths: dict[Route, tuple[int, bool]] = {}
        self._answers: dict[Route, str | None] = {}
        self._class_of: dict[str, str | None] = {}
        self._slices: dict[tuple[Action, bool], Slice] = {}  # begun before
        self._samples: dict[Route, tuple[Prefix, Unit]] = {}  # that were read before

    @property
    def spent(self) -> int:
        """Units charged so far, by all its slices."""
        return sum(account.spent for account in self._accounts)

    @property
    def evidence(self) -> Evidence:
        """The evidence so far, as calibration reads it."""
        begun = tuple(self._half(path, kind) for path, kind in self._cut.items() if self.is_there(kind))
        units = tuple(self._unit(one) for one in self._units)
        return replace(self._nothing, units=units, begun=begun, verified=self._verifier.right)

    @property
    def verified(self) -> bool:
        """Whether an answer was found to be right."""
        return self._verifier.right is not None

    def opening_units(self) -> int:
        """Units to set aside for its first slice."""
        price, writer = self.request.price, self._writers.of(self.opening.kind)
        least = writer.shortest + (writer.scoring if self.opening.scored else 0)
        return writer.prompt_due + max(self.opening.promise(price.decode, price.score), least)

    @property
    def prompts(self) -> tuple[int, int]:
        """Units for its prompt, by the first policy and by the second; 0 where there is none."""
        return self._first.prompt_units, 0 if self._second is None else self._second.prompt_units

    def opened_by(self, opening: Opening, each: float, prompts: tuple[float, float]) -> None:
        """Open it as ``each`` units afford, of which ``prompts`` are for one by the first policy or by the second; by
        the second only where these units can begin it, or the first is gone. ``error`` says where nothing can open it.
        """
        price, second = self.request.price, self._second
        if not self.is_there(GREEDY):
            opening = self._of_second_alone(opening)
        elif second is None or not self.is_there(SECOND) or each < second.least(1):
            opening = replace(opening, second_from=0.0)
        self.opening = opening.within(each, price.decode, price.score, *prompts)
        self.came_to_nothing = False

    def _of_second_alone(self, opening: Opening) -> Opening:
        """By the second policy, and by a solution of the size that is expected of it, where none was measured."""
        if opening.second_generated:
            return opening.always_by_second()
        assert self.forecast is not None
        for kind in (opening.kind, SAMPLE):
            for one in self.forecast.options:
                if one.action.kind == SECOND + kind:
                    tokens, scored = (math.ceil(MARGIN * part / one.action.count) for part in (one.generated, one.prm))
                    return replace(opening, kind=kind).always_by_second(tokens, scored)
        self.error = self._first.driver.given_up
        return opening

    def least(self, count: int, kind: str | None = None) -> int:
        """Units under which a slice of so many units of a kind, by default of any, cannot even begin."""
        able = self._writers.able if kind is None else (self._writers.of(kind),)
        return min(writer.least(count) for writer in able)

    def is_there(self, kind: str) -> bool:
        """Whether what draws units of a kind can be asked."""
        return self._writers.draw(kind)

    def look(self, forecast: Forecast) -> None:
        """Take in what is expected of more work, as far as there is what draws it, and a record has it."""
        for name, error in self._writers.gone():
            self.trace.record(DecisionEvent(time=self._now(), what=f"went on without the {name}", why=str(error)))
        options = [one for one in forecast.options if self.is_there(one.action.kind)]
        if self._recorded is not None:
            drawn = sum(not isinstance(one, _Search) for one in self._units)
            options = within_record(options, self._recorded - drawn)
        self.forecast = replace(forecast, options=tuple(options))

    def options(self) -> list[Option]:
        """What may be done next, by the last forecast: gains count by its weight, and the prompt's units are in the
        costs of what begins with one; that of the opening's policy is the opening's.
        """
        assert self.forecast is not None
        found, opener = [], self._writers.of(self.opening.kind)
        for one in self.forecast.options:
            writer = self._writers.of(one.action.kind)
            told = with_prompt(one, 0 if writer is opener else writer.prompt_due)
            slice_cost = max(told.slice_cost, writer.least(1))
            found.append(replace(told, gain=self.weight * one.gain, slice_cost=slice_cost))
        return found

    def record_decision(self, decision: Decision) -> None:
        """Record in the trace what was decided, and on what grounds."""
        option = decision.option
        action = f"1 x {self.opening.kind}" if option is None else str(option.action)
        at_once = 1 if option is None else option.at_once
        self._record(action, option is None, decision.units, decision.price, at_once=at_once)

    @property
    def in_hand(self) -> bool:
        """Whether anything was drawn that counts or can be gone on with."""
        return bool(self._units or self._cut)

    @property
    def rounds(self) -> int:
        """Slices that were begun."""
        return len(self._accounts)

    async def advance(self, todo: Action, account: Ledger, *, opening: bool = False) -> bool:
        """Run a slice on ``account``; whether it was charged anything, or its policy failed and there is another one.
        AdaptiveTTCError: what was drawn is kept.
        """
        # the rest of an opening that was cut is one too
        ended = any(not isinstance(one, _Search) or one.attempts for one in self._units)
        opening = opening or (todo.kind == self.opening.kind and not ended)
        part = self._slice(todo, scored=self.opening.scored if opening else True)
        cut = [self._candidates[path] for path, kind in self._cut.items() if kind == todo.kind][: todo.count]
        start = (*(self._unscored() if part.vote != "majority" else ()), *cut)
        self._accounts.append(account)
        self._record_search(part, start)
        events = len(self.trace)
        found = await self._writers.of(part.kind).driver.attempt(part.search(start), account)
        self._take(part, cut, found.candidates, self.trace.since(events))
        await self._in_time(self._read_answers)
        if found.error is None:
            return account.spent > 0
        if not found.of_policy or self._writers.are_gone:
            raise found.error
        self._driver.go_on()
        self.came_to_nothing = not (self._units or any(map(self.is_there, self._cut.values())))
        return True

    @property
    def ends_run(self) -> bool:
        """Whether what ended it ends the run."""
        return self._writers.end_run(self.error)

    async def conclude(self, ending: Ending, price: float) -> Solution:
        """Vote over all that was drawn; the ``price`` is the one at which it was decided that it gets no more."""
        self._record(None, False, 0, price, ending.why)
        prefixes = tuple(self._candidates.values())
        voting = replace(self.request.vote, n=max(1, len(prefixes)))
        self._record_search(voting, prefixes)
        known = self.forecast if answered(self.evidence) else None  # calibration knows no half-written solution
        right, difficulty = known.right if known else None, self.forecast.difficulty if self.forecast else None
        return await self._vote(prefixes, voting, ending, right=right, difficulty=difficulty, error=self.error)

    def _slice(self, todo: Action, *, scored: bool) -> Slice:
        known = self._slices.get((todo, scored))
        if known is None:
            known = self._slices[todo, scored] = self._new_slice(todo, scored=scored)
        return known

    def _new_slice(self, todo: Action, *, scored: bool) -> Slice:
        asked = self.request.strategy
        return Slice(
            kind=todo.kind,
            units=todo.count,
            temperature=asked.temperature,
            top_p=asked.top_p,
            max_tokens=asked.max_tokens,
            **asked.thinking,
            agg_strategy=asked.agg_strategy,
            vote="weighted" if self._has_prm and (scored or self._free) else "majority",
        )

    def _unscored(self) -> tuple[Prefix, ...]:
        """Solutions that have ended and that no PRM has seen."""
        return tuple(one for one in self._candidates.values() if one.finish in ("eos", "length") and not one.scores)

    def _take(self, part: Slice, cut: Iterable[Prefix], found: Sequence[Prefix], events: Sequence[Event]) -> None:
        """Store the results of a slice: solutions in hand that are scored now, and new ones in place of cut ones."""
        scored = {one.path: one for one in found if one.path in self._candidates and one.path not in self._cut}
        new = {one.path: one for one in found if one.path not in scored and one.token_ids}
        for parent in cut:
            if any(path[: len(parent.path)] == parent.path for path in new):
                self._candidates.pop(parent.path, None)
                self._cut.pop(parent.path, None)
        self._candidates |= scored | new
        if plain(part.kind) == GREEDY or is_sample(part.kind):
            for path, one in new.items():
                if one.finish not in ("budget", "abort"):
                    self._units.append((part.kind, path))
                elif not whole_samples(self._writers.of(part.kind).policy):
                    self._cut[path] = part.kind
        else:
            for of_unit in _unit_events(events, part.units):
                drawn = {event.path for event in of_unit if isinstance(event, SampledEvent)}
                mine = {path: prefix for path, prefix in new.items() if path in drawn}
                self._take_search(part.kind, mine, of_unit)

    def _take_search(self, kind: str, new: Mapping[Route, Prefix], events: Sequence[Event]) -> None:
        steps = self._first_steps(kind, new, events)
        if steps or (new and family_of(kind) == "short_m_at_k"):
            generated = self._weighed(kind, *(e.token_ids for e in events if isinstance(e, RequestEvent)))
            prm = sum(event.prm_tokens for event in events if isinstance(event, ScoredEvent))
            self._units.append(_Search(kind, tuple(new), steps, generated, prm))

    async def _read_answers(self) -> None:
        """Compare the answers, and have those that are new checked."""
        await self._compare_answers()
        await self._verifier.ask(self._class_of)

    async def _compare_answers(self) -> None:
        """Extract the answers of new solutions, and put all answers of the problem into classes."""
        for path, one in self._candidates.items():
            if path not in self._answers:
                self._answers[path] = self._grader.read(one.answer_text, one.finish)
        texts = sorted({answer for answer in self._answers.values() if answer is not None})
        if any(text not in self._class_of for text in texts):
            self._class_of = dict(zip(texts, await self._grader.classes(texts), strict=True))

    def _unit(self, held: tuple[str, Route] | _Search) -> Unit:
        if isinstance(held, _Search):
            attempts = tuple(self._attempt(self._candidates[path]) for path in held.attempts)
            return Unit(held.kind, attempts, held.first_steps, held.generated, held.prm)
        kind, path = held
        one = self._candidates[path]
        answer, known = self._answer(one), self._samples.get(path)
        if known is not None and known[0] is one and known[1].attempts[0].answer == answer:
            return known[1]
        sample = plain(kind) == SAMPLE
        steps = (self._first_step(one, kind),) if sample else ()
        unit = Unit(kind, (self._attempt(one),), steps, self._weighed(kind, one.token_ids), self._scored_tokens(one))
        if not sample or path in self._step_lengths:  # else its first step is yet to be read
            self._samples[path] = one, unit
        return unit

    def _weighed(self, kind: str, *parts: Sequence[int]) -> int:
        """How many tokens these are, in tokens of the first policy."""
        tokens = sum(map(len, parts))
        return round(tokens * self._writers.of(kind).weight)

    def _first_step(self, one: Prefix, kind: str) -> FirstStep:
        """The first step of a whole solution; all of it, not scored, where the policy cannot decode it now."""
        if one.path not in self._step_lengths:
            decode = self._writers.of(kind).policy.decode
            try:
                length = first_step_length(one, decode)
                blank = not split_steps(decode(one.token_ids[:length]))  # the PRM scores no empty step
            except EngineError:
                return FirstStep(NAN, len(one.token_ids), one.logprob)
            self._step_lengths[one.path] = length, blank
        length, blank = self._step_lengths[one.path]
        score = NAN if blank or not one.scores else one.scores[0]
        return FirstStep(score, length, math.fsum(one.logprobs[:length]))

    def _first_steps(self, kind: str, new: Mapping[Route, Prefix], events: Sequence[Event]) -> tuple[FirstStep, ...]:
        """All first steps that a search drew, kept or pruned; a chain's is its first attempt's, a race has none."""
        if family_of(kind) == "short_m_at_k":
            return ()
        if family_of(kind) == "revision":
            return tuple(self._first_step(one, kind) for one in new.values())[:1]
        scores = {event.path: event.scores[0] for event in events if isinstance(event, ScoredEvent) and event.scores}
        return tuple(
            FirstStep(scores.get(event.path, NAN), event.tokens, event.logprob)
            for event in events
            if isinstance(event, SampledEvent) and len(event.path) == 1 and event.tokens
        )

    def _half(self, path: Route, kind: str) -> Unit:
        """A solution that a budget cut."""
        one = self._candidates[path]
        return Unit(kind, generated=self._weighed(kind, one.token_ids), prm=self._scored_tokens(one))

    def _scored_tokens(self, one: Prefix) -> int:
        """PRM tokens for it, the prompt included, as calibration counts them."""
        return self._nothing.prompt_tokens + len(one.token_ids) if one.scores else 0

    def _answer(self, one: Prefix) -> str | None:
        """The class of its answer, unless that was found to be wrong."""
        answer = self._class_of.get(self._answers[one.path] or "")
        return None if self._verifier.refuted(answer) else answer

    def _attempt(self, one: Prefix) -> Attempt:
        finish = one.finish or "abort"
        return Attempt(self._answer(one), one.scores, len(one.token_ids), one.logprob, finish, one.answer_logprob)

    def _record(
        self, action: str | None, opening: bool, units: int, price: float, why: str = "", at_once: int = 0
    ) -> None:
        known = self.forecast
        self.trace.record(
            AllocationEvent(
                time=self._now(),
                action=action,
                opening=opening,
                units=units,
                price=price,
                right=known.right if known else None,
                difficulty=known.difficulty if known else None,
                considered=tuple((str(one.action), one.gain, one.cost) for one in known.options) if known else (),
                why=why,
                note=known.note if known else "",
                at_once=at_once,
                beyond=tuple(str(one.action) for one in known.options if one.beyond) if known else (),
            )
        )


def _unit_events(events: Sequence[Event], units: int) -> Iterator[Sequence[Event]]:
    """The samples, requests and scores of every unit of a slice; several units are searches of its one outer fork."""
    kinds = (SampledEvent, RequestEvent, ScoredEvent)
    mine = [event for event in events if isinstance(event, kinds)]
    if units == 1:
        yield mine
        return
    (fork,) = {event.number for event in events if isinstance(event, ForkEvent) and event.branch == ()} or (None,)
    for unit in range(units):
        drawn = {
            path
            for event in events
            if isinstance(event, ExpandedEvent) and event.branch[:2] == (fork, unit)
            for path in event.children
        }
        yield [event for event in mine if event.path in drawn]
