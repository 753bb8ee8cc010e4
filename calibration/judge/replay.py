"""Replays adaptive runs on recorded units, with the allocator and the forecasts of live runs, without a model.

An order is one random order of a problem's units, which are taken without replacement. Samples and trees that began
with the same first steps lie in one block; samples are taken from one end of the order of blocks and trees from the
other, so that a state that holds both is one that a live run could be in. A slice that its promise does not cover is
finished with the next promise, as a live one is.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from adaptive_ttc.allocation.allocator import Allocator
from adaptive_ttc.allocation.options import Pace, priced, with_prompt
from adaptive_ttc.calibration.collect.records import ProblemRecord, UnitRecord, Weights
from adaptive_ttc.estimate.artefact import Opening
from adaptive_ttc.estimate.features import Attempt, Evidence, Unit, family_of
from adaptive_ttc.estimate.gain import Action, Forecast, Option
from adaptive_ttc.estimate.table import Vote
from adaptive_ttc.strategies.adaptive import SAMPLE, is_second
from adaptive_ttc.voting import total_of

_TIE = 1e-9


def vote_totals(attempts: Iterable[Attempt], vote: Vote) -> dict[str, float]:
    """Total weight of every answer, over the scored attempts; by the majority where none is scored."""
    able = [attempt for attempt in attempts if attempt.answer is not None]
    return _totals(able, vote) or _totals(able, vote.unscored)


def _totals(attempts: Iterable[Attempt], vote: Vote) -> dict[str, float]:
    """Total weight of every answer, over the attempts that have a say."""
    weights: dict[str, list[float]] = {}
    for attempt in attempts:
        if attempt.answer is not None and not math.isnan(weight := vote.weight(attempt)):
            weights.setdefault(attempt.answer, []).append(weight)
    return {answer: total_of(found, vote.name) for answer, found in weights.items()}


class VoteTotals:
    """Weights of recorded units in a vote, cached by identity."""

    def __init__(self, vote: Vote) -> None:
        self.vote = vote
        self._known: dict[tuple[int, Vote], tuple[UnitRecord, dict[str, float]]] = {}

    def totals(self, order: UnitOrder, state: State, *further: UnitRecord) -> dict[str, float]:
        """Weight of every answer in a state, and with further scored units; the majority while none is scored."""
        units = (*state.units(order), *further)
        found = self._over(units, self.vote) if state.scored or further else {}
        return found or self._over(units, self.vote.unscored)

    def _over(self, units: Sequence[UnitRecord], vote: Vote) -> dict[str, float]:
        totals: dict[str, float] = {}
        for one in units:
            for answer, weight in self._of(one, vote).items():
                before = totals.get(answer)
                larger = before is not None and vote.name == "best"
                totals[answer] = max(before or 0.0, weight) if larger else (before or 0.0) + weight
        return totals

    def _of(self, one: UnitRecord, vote: Vote) -> dict[str, float]:
        found = self._known.get((id(one), vote))
        if found is None:
            # The unit is kept, and so its identity.
            found = self._known[id(one), vote] = (one, _totals(one.unit.attempts, vote))
        return found[1]


class UnitOrder:
    """One random order of a problem's units; compare states under the same seed.

    ``block``: first steps that a tree and as many samples share.
    """

    def __init__(self, record: ProblemRecord, seed: int | str, block: int = 4) -> None:
        self.record = record
        self.units_of_kind = _orders(record, random.Random(f"{seed}/{record.id}"), block)
        # share of an answer's attempts that are right: all or none, but where answers stand for programs
        self.right = record.right()

    def units(self, kind: str, first: int, count: int) -> tuple[UnitRecord, ...]:
        """Up to ``count`` units of a kind from index ``first`` on."""
        return self.units_of_kind.get(kind, ())[first : first + count]

    def has(self, kind: str, count: int) -> bool:
        """Whether so many were recorded."""
        return len(self.units_of_kind.get(kind, ())) >= count

    def accuracy(self, totals: Mapping[str, float]) -> float:
        """1 where the answer with the largest total is right; answers that tie share the win."""
        return share_right(totals, self.right)


def share_right(totals: Mapping[str, float], right: Mapping[str, float]) -> float:
    """How right the answer with the largest total is, the mean of those that tie; 0 where there is none."""
    if not totals:
        return 0.0
    best = max(totals.values())
    tied = [answer for answer, total in totals.items() if total >= best - _TIE * max(1.0, abs(best))]
    return sum(right[answer] for answer in tied) / len(tied)


@dataclass(frozen=True, slots=True)
class State:
    """Where a replayed run stands: how many units of every kind it took from its order."""

    taken: tuple[tuple[str, int], ...] = ()  # kind -> units, in the order in which they were begun
    scored: bool = False  # whether the PRM has seen the attempts; before that their scores are not known

    def plus(self, kind: str, count: int, scored: bool = True) -> State:
        """State after more units; once scored, it stays so."""
        counts = dict(self.taken)
        counts[kind] = counts.get(kind, 0) + count
        return State(tuple(counts.items()), self.scored or scored)

    def count(self, kind: str) -> int:
        """Units of a kind."""
        return dict(self.taken).get(kind, 0)

    def units(self, order: UnitOrder) -> list[UnitRecord]:
        """The units in hand."""
        return [one for kind, count in self.taken for one in order.units(kind, 0, count)]

    def evidence(self, order: UnitOrder) -> Evidence:
        """Evidence in this state."""
        units = [one.unit for one in self.units(order)]
        if not self.scored:
            units = [unscored(unit) for unit in units]
        return Evidence(order.record.question, order.record.prompt_tokens, tuple(units))

    def tokens(self, order: UnitOrder) -> tuple[int, int]:
        """Tokens of the policy and of the PRM spent so far."""
        units = self.evidence(order).units
        return sum(unit.generated for unit in units), sum(unit.prm for unit in units)


def unscored(unit: Unit) -> Unit:
    """The unit before a PRM saw it, without that cost; only whole solutions can be: searches choose by scores."""
    if family_of(unit.kind) not in ("greedy", "sample"):
        raise ValueError(f"a unit of {unit.kind} cannot be had without scores")
    return unit.unscored()


def _orders(record: ProblemRecord, rng: random.Random, block: int) -> dict[str, tuple[UnitRecord, ...]]:
    """Units of every kind by the place of their block; samples from the last block on, at random within one."""
    place = list(range(max((len(units) for units in record.units.values()), default=0)))
    rng.shuffle(place)
    found = {}
    for kind, units in record.units.items():
        indices = range(len(units))
        if family_of(kind) == "sample":
            order = sorted(indices, key=lambda index: (-place[index // block], rng.random()))
        else:
            order = sorted(indices, key=lambda index: place[index])
        found[kind] = tuple(units[index] for index in order)
    return found


AT_ONCE = 32  # problems at work at once, as live

Forecaster = Callable[[Sequence[Evidence]], list[Forecast]]


@dataclass(frozen=True, slots=True)
class Replayed:
    """How one problem ended."""

    accuracy: float  # 1 where its answer is right, between 0 and 1 where answers tie
    # generated, prm: tokens
    generated: int
    prm: int
    cost: int  # weighted
    state: State  # where it ended
    rounds: int  # slices, one after the other


@dataclass(frozen=True, slots=True)
class _Begun:
    """Units paid for a unit that its promise did not cover; live it goes on from where it was cut."""

    paid: int
    scored: bool


@dataclass(slots=True)
class _Run:
    """A replayed problem: its units, state, spending, and the begun unit of every kind."""

    order: UnitOrder
    prompt: int  # units due for the second policy's prompt, with its first unit
    state: State = field(default_factory=State)
    spent: int = 0
    rounds: int = 0
    begun: dict[str, _Begun] = field(default_factory=dict)


def replay(
    orders: Sequence[UnitOrder],
    forecast: Forecaster,
    vote: Vote,
    budget: int | None,
    weights: Weights,
    opening: Opening,
    min_gain: float = 0.0,
) -> list[Replayed]:
    """Spend one budget (None: no limit) over many problems; the opening is scored as far as the budget pays for it.

    ``min_gain`` is per 1,000 units; in live runs with a calibration it is that of its opening by default.
    """
    each = math.inf if budget is None else budget / max(1, len(orders))
    begin = _within(opening, each, orders, weights)
    allocator = Allocator(budget, min_gain=min_gain)
    return _played([(allocator, orders)], forecast, vote, weights, begin)


def replay_each(
    orders: Sequence[UnitOrder],
    forecast: Forecaster,
    vote: Vote,
    budget: int | None,
    weights: Weights,
    opening: Opening,
    min_gain: float = 0.0,
) -> list[Replayed]:
    """Spend a budget of its own on every problem, see :func:`replay`."""
    alone = [(Allocator(budget, floor=0.0, min_gain=min_gain), [order]) for order in orders]
    begin = _within(opening, math.inf if budget is None else budget, orders, weights)
    return _played(alone, forecast, vote, weights, begin)


def _within(opening: Opening, each: float, orders: Sequence[UnitOrder], weights: Weights) -> Opening:
    """What ``each`` units a problem afford, where all have the mean prompt."""
    prompt = sum(order.record.prompt_tokens for order in orders) / max(1, len(orders))
    return opening.within(each, weights.generated, weights.prm, second_prompt=weights.second_prompt * prompt)


def _played(
    groups: Sequence[tuple[Allocator, Sequence[UnitOrder]]],
    forecast: Forecaster,
    vote: Vote,
    weights: Weights,
    opening: Opening,
) -> list[Replayed]:
    """Let every allocator spend its budget on its orders; what all of them ask next is forecast together."""
    runs = [(allocator, {order.record.id: _begin(order, weights) for order in orders}) for allocator, orders in groups]
    nothing = [run.order.record.nothing() for _, part in runs for run in part.values()]
    expected = iter(zip(nothing, forecast(nothing), strict=True))
    for allocator, part in runs:
        for id, run in part.items():
            prompt = run.prompt if is_second(opening.kind) else 0
            options = _options(run, *next(expected), weights, len(part), prompt=run.prompt - prompt)
            allocator.arrive(id, prompt + opening.promise(weights.generated, weights.prm), options)
    live = runs
    while live:
        moved = [(one, *move) for one, part in live for move in _round(one, part, opening, weights)]
        live = [(allocator, part) for allocator, part in live if any(allocator is one for one, _, _ in moved)]
        evidence, at_work = [_evidence(run, weights) for _, run, _ in moved], Counter(one for one, _, _ in moved)
        for (allocator, run, spent), known, expects in zip(moved, evidence, forecast(evidence), strict=True):
            allocator.charged(run.order.record.id, spent)
            options = _options(run, known, expects, weights, at_work[allocator], prompt=run.prompt)
            allocator.offer(run.order.record.id, options)
    votes, ended = VoteTotals(vote), []
    for run in (run for _, part in runs for run in part.values()):
        accuracy = run.order.accuracy(votes.totals(run.order, run.state))
        ended.append(Replayed(accuracy, *run.state.tokens(run.order), run.spent, run.state, run.rounds))
    return ended


def _round(
    allocator: Allocator, runs: Mapping[str, _Run], opening: Opening, weights: Weights
) -> list[tuple[_Run, int]]:
    """Work done at once, and its cost."""
    moved: list[tuple[_Run, int]] = []
    while len(moved) < AT_ONCE and (decision := allocator.next()) is not None:
        run = runs[decision.problem]
        # greedy solutions are recorded apart, and of traces there are none
        first = opening.kind if run.order.has(opening.kind, 1) else SAMPLE
        option = decision.option
        action = Action(first, 1) if option is None else Action(option.action.kind, option.at_once)
        opens = action.kind == first and not run.state.taken  # the rest of an opening that was cut is one too
        scored = opening.scored if opens else True
        moved.append((run, _advance(run, action, scored, decision.units, weights)))
    return moved


def _begin(order: UnitOrder, weights: Weights) -> _Run:
    return _Run(order, round(weights.second_prompt * order.record.prompt_tokens))


def _options(
    run: _Run, known: Evidence, expected: Forecast, weights: Weights, live: int, *, prompt: int
) -> list[Option]:
    """Next actions that the record can answer, with ``live`` problems at work; those of the second policy begin with
    ``prompt`` units.
    """
    actions = ((one, one.action) for one in expected.options)
    able = (one for one, more in actions if run.order.has(more.kind, run.state.count(more.kind) + more.count))
    found = priced(able, known, weights.generated, weights.prm, Pace(max(1, AT_ONCE // live)))
    return [with_prompt(one, prompt) if is_second(one.action.kind) else one for one in found]


def _evidence(run: _Run, weights: Weights) -> Evidence:
    """Evidence with begun units."""
    known = run.state.evidence(run.order)
    return replace(known, begun=tuple(_half(run, kind, begun, weights) for kind, begun in run.begun.items()))


def _half(run: _Run, kind: str, begun: _Begun, weights: Weights) -> Unit:
    """The part of a unit that was paid for."""
    (one,) = run.order.units(kind, run.state.count(kind), 1)
    whole = one.unit if begun.scored else unscored(one.unit)
    share = begun.paid / max(1, _cost(whole, weights))
    return Unit(kind, generated=round(share * whole.generated), prm=round(share * whole.prm))


def _advance(run: _Run, action: Action, scored: bool, promised: int, weights: Weights) -> int:
    """Do a slice, or the part of it that the promise covers; returns its cost."""
    first = min(promised, run.prompt) if is_second(action.kind) else 0
    run.prompt -= first
    left = promised - first
    before = _total(run, run.state, weights)
    for _ in range(action.count):
        after = run.state.plus(action.kind, 1, scored)
        total = _total(run, after, weights)
        paid = run.begun.pop(action.kind, _Begun(0, scored)).paid
        due = max(0, total - before - paid)
        if due > left:
            run.begun[action.kind] = _Begun(paid + left, scored)
            left = 0
            break
        left -= due
        run.state, before = after, total
    spent = promised - left
    run.spent += spent
    run.rounds += 1
    return spent


def _total(run: _Run, state: State, weights: Weights) -> int:
    return sum(_cost(unit, weights) for unit in state.evidence(run.order).units)


def _cost(unit: Unit, weights: Weights) -> int:
    return math.ceil(weights.cost(unit))
