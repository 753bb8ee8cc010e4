"""Replays the adaptive solver on recorded units, with the very allocator and outlook that run live; no model.

Exact while no more units are drawn than were recorded: a deck hands out units without replacement, and the allocator
sees of them what it would see live. A slice that what was promised to it does not cover is finished with the next
promise, as a live one is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from adaptive_ttc.allocation.allocator import Allocator
from adaptive_ttc.allocation.options import priced, slice_of
from adaptive_ttc.calibration.decks import Ballots, Deck, State, Vote, unscored
from adaptive_ttc.calibration.records import Weights
from adaptive_ttc.estimate.artefact import Opening
from adaptive_ttc.estimate.features import Evidence, Unit
from adaptive_ttc.estimate.gain import Action, Forecast, Option

AT_ONCE = 32
"""Problems at work at once, as live."""

Forecaster = Callable[[Sequence[Evidence]], list[Forecast]]


@dataclass(frozen=True, slots=True)
class Replayed:
    """How one problem ended.

    Attributes:
        accuracy: 1 where its answer is right, between 0 and 1 where answers tie.
        generated, prm: tokens.
        cost: weighted.
        state: where it ended.
    """

    accuracy: float
    generated: int
    prm: int
    cost: int
    state: State


@dataclass(frozen=True, slots=True)
class _Begun:
    """What was paid of a unit that its promise did not cover; live it is gone on with from where it was cut."""

    paid: int
    scored: bool


@dataclass(slots=True)
class _Run:
    """A problem on its way: its units, those that it has, what it spent, and the next of every kind if it was begun."""

    deck: Deck
    state: State = field(default_factory=State)
    spent: int = 0
    begun: dict[str, _Begun] = field(default_factory=dict)


def replay(
    decks: Sequence[Deck],
    forecast: Forecaster,
    vote: Vote,
    budget: int | None,
    weights: Weights,
    opening: Opening,
    *,
    min_gain: float = 0.0,
    per_problem_max: int | None = None,
) -> list[Replayed]:
    """Spend one budget over many problems.

    Args:
        decks: one of each problem.
        forecast: states -> what may be done next.
        vote: over all attempts of a problem.
        budget: units that may be spent in all; None for no limit.
        weights: units a token.
        opening: what every problem begins with, as far as the budget pays for its scoring.
        min_gain: gain per 1,000 units under which nothing is bought.
        per_problem_max: most units for one problem.
    """
    allocator = Allocator(budget, min_gain=min_gain, per_problem_max=per_problem_max)
    each = math.inf if budget is None else budget / max(1, len(decks))
    each = min(each, math.inf if per_problem_max is None else per_problem_max)
    begin = opening.within(each, weights.generated, weights.prm)
    return _played([(allocator, decks)], forecast, vote, weights, begin)


def replay_each(
    decks: Sequence[Deck],
    forecast: Forecaster,
    vote: Vote,
    budget: int | None,
    weights: Weights,
    opening: Opening,
    *,
    min_gain: float = 0.0,
) -> list[Replayed]:
    """Spend a budget of its own on every problem; takes the arguments of :func:`replay`."""
    alone = [(Allocator(budget, min_gain=min_gain, floor=0.0), [deck]) for deck in decks]
    begin = opening.within(math.inf if budget is None else budget, weights.generated, weights.prm)
    return _played(alone, forecast, vote, weights, begin)


def _played(
    groups: Sequence[tuple[Allocator, Sequence[Deck]]],
    forecast: Forecaster,
    vote: Vote,
    weights: Weights,
    opening: Opening,
) -> list[Replayed]:
    """Let every allocator spend its budget on its decks; what all of them ask next is forecast together."""
    runs = [(allocator, {deck.record.id: _Run(deck) for deck in decks}) for allocator, decks in groups]
    nothing = [run.deck.record.nothing() for _, part in runs for run in part.values()]
    expected = iter(zip(nothing, forecast(nothing), strict=True))
    for allocator, part in runs:
        for id, run in part.items():
            options = _options(run, *next(expected), weights)
            allocator.arrive(id, opening.promise(weights.generated, weights.prm), options)
    live = runs
    while live:
        moved = [
            (allocator, run, spent)
            for allocator, part in live
            for run, spent in _round(allocator, part, opening, weights)
        ]
        live = [(allocator, part) for allocator, part in live if any(allocator is one for one, _, _ in moved)]
        evidence = [_evidence(run, weights) for _, run, _ in moved]
        for (allocator, run, spent), known, outlook in zip(moved, evidence, forecast(evidence), strict=True):
            allocator.charged(run.deck.record.id, spent)
            allocator.offer(run.deck.record.id, _options(run, known, outlook, weights))
    ballots = Ballots(vote)
    return [_ended(run, ballots) for _, part in runs for run in part.values()]


def _round(
    allocator: Allocator, runs: Mapping[str, _Run], opening: Opening, weights: Weights
) -> list[tuple[_Run, int]]:
    """What is done at once, and what it cost."""
    moved: list[tuple[_Run, int]] = []
    while len(moved) < AT_ONCE and (decision := allocator.next()) is not None:
        run = runs[decision.problem]
        action = Action(opening.kind, 1) if decision.option is None else decision.option.action
        opens = action.kind == opening.kind and not run.state.taken  # the rest of an opening that was cut is one too
        scored = opening.scored if opens else True
        moved.append((run, _advance(run, action, scored, decision.units, weights)))
    return moved


def _options(run: _Run, known: Evidence, outlook: Forecast, weights: Weights) -> list[Option]:
    """What may be done next, as far as the record goes."""
    able = (
        one
        for one in outlook.options
        if run.deck.has(one.action.kind, run.state.count(one.action.kind) + one.action.count)
    )
    return priced(able, known, weights.generated, weights.prm)


def _evidence(run: _Run, weights: Weights) -> Evidence:
    """What is known, and what was begun."""
    known = run.state.evidence(run.deck)
    return replace(known, begun=tuple(_half(run, kind, begun, weights) for kind, begun in run.begun.items()))


def _half(run: _Run, kind: str, begun: _Begun, weights: Weights) -> Unit:
    """The part of a unit that was paid for."""
    (one,) = run.deck.units(kind, run.state.count(kind), 1)
    whole = one.unit if begun.scored else unscored(one.unit)
    share = begun.paid / max(1, _cost(whole, weights))
    return Unit(kind, generated=round(share * whole.generated), prm=round(share * whole.prm))


def _advance(run: _Run, action: Action, scored: bool, promised: int, weights: Weights) -> int:
    """Do a slice, unit by unit, or as much of it as the promise covers; what it cost."""
    part, left = slice_of(action), promised
    before = _total(run, run.state, weights)
    for _ in range(part.count):
        after = run.state.plus(part.kind, 1, scored)
        total = _total(run, after, weights)
        paid = run.begun.pop(part.kind, _Begun(0, scored)).paid
        due = max(0, total - before - paid)
        if due > left:
            run.begun[part.kind] = _Begun(paid + left, scored)
            left = 0
            break
        left -= due
        run.state, before = after, total
    spent = promised - left
    run.spent += spent
    return spent


def _total(run: _Run, state: State, weights: Weights) -> int:
    return sum(_cost(unit, weights) for unit in state.evidence(run.deck).units)


def _cost(unit: Unit, weights: Weights) -> int:
    return math.ceil(weights.cost(unit))


def _ended(run: _Run, ballots: Ballots) -> Replayed:
    generated, prm = run.state.tokens(run.deck)
    accuracy = run.deck.accuracy(ballots.totals(run.deck, run.state))
    return Replayed(accuracy, generated, prm, run.spent, run.state)
