"""Replays the adaptive solver on recorded units, with the very allocator and outlook that run live; no model.

Exact while no more units are drawn than were recorded: a deck hands out units without replacement, and the allocator
sees of them what it would see live. A slice that would have overrun what was promised to it counts as spent and lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from adaptive_ttc.allocator import Allocator
from adaptive_ttc.calibrated import Opening
from adaptive_ttc.envelope import Option
from adaptive_ttc.evidence import Evidence, Unit, family_of
from adaptive_ttc.outlook import Action, Forecast, unseen
from calibration.decks import Ballots, Deck, State, Vote
from calibration.records import Weights

SLICE: Mapping[str, int] = {"sample": 4}
"""Units of a slice, by family; one of all others."""

AT_ONCE = 32
"""Problems at work at once, as live."""

MARGIN = 2.0
"""A slice is promised so many times what it is expected to cost; what it leaves comes back."""

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


@dataclass(slots=True)
class _Run:
    deck: Deck
    state: State = field(default_factory=State)
    spent: int = 0


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
        opening: what every problem begins with.
        min_gain: gain per 1,000 units under which nothing is bought.
        per_problem_max: most units for one problem.
    """
    allocator = Allocator(budget, min_gain=min_gain, per_problem_max=per_problem_max)
    runs = {deck.record.id: _Run(deck) for deck in decks}
    expected = forecast([deck.record.nothing() for deck in decks])
    for run, outlook in zip(runs.values(), expected, strict=True):
        options = options_of(outlook, run.deck.record.nothing(), weights)
        allocator.arrive(run.deck.record.id, opening.units(weights.generated, weights.prm), options)
    while True:
        moved = []
        while len(moved) < AT_ONCE and (decision := allocator.next()) is not None:
            run = runs[decision.problem]
            action = Action(opening.kind, 1) if decision.option is None else decision.option.key
            assert isinstance(action, Action)
            scored = opening.scored if decision.option is None else True
            moved.append((run, _advance(run, action, scored, decision.units, weights)))
        if not moved:
            break
        evidence = [run.state.evidence(run.deck) for run, _ in moved]
        for (run, spent), known, outlook in zip(moved, evidence, forecast(evidence), strict=True):
            allocator.charged(run.deck.record.id, spent)
            allocator.offer(run.deck.record.id, options_of(outlook, known, weights))
    ballots = Ballots(vote)
    return [_ended(run, ballots) for run in runs.values()]


def options_of(forecast: Forecast, evidence: Evidence, weights: Weights) -> list[Option]:
    """A forecast in the allocator's terms; a slice holds at most :data:`SLICE` units."""
    options = []
    first = weights.prm * unseen(evidence)
    for prospect in forecast.prospects:
        cost = weights.generated * prospect.generated + weights.prm * prospect.prm
        count = slice_of(prospect.action).count
        one = (cost - first) / prospect.action.count * count + first
        options.append(Option(prospect.action, cost, prospect.right - forecast.right, math.ceil(MARGIN * one)))
    return options


def slice_of(action: Action) -> Action:
    """The part of an action that is done before the evidence is looked at again."""
    return Action(action.kind, min(action.count, SLICE.get(family_of(action.kind), 1)))


def _advance(run: _Run, action: Action, scored: bool, promised: int, weights: Weights) -> int:
    """Do a slice; what it cost."""
    part = slice_of(action)
    after = run.state.plus(part.kind, part.count, scored)
    before = sum(_cost(unit, weights) for unit in run.state.evidence(run.deck).units)
    spent = sum(_cost(unit, weights) for unit in after.evidence(run.deck).units) - before
    run.spent += min(spent, promised)
    if spent <= promised:
        run.state = after
    return min(spent, promised)


def _cost(unit: Unit, weights: Weights) -> int:
    return math.ceil(weights.cost(unit))


def _ended(run: _Run, ballots: Ballots) -> Replayed:
    generated, prm = run.state.tokens(run.deck)
    accuracy = run.deck.accuracy(ballots.totals(run.deck, run.state))
    return Replayed(accuracy, generated, prm, run.spent, run.state)
