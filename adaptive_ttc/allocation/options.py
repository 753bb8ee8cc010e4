"""Options in units of the budget, the slice of each that is done next, and forecasts beside an event loop."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from anyio import to_thread

from adaptive_ttc.cost import Price
from adaptive_ttc.driver.scoring import PRM_TOKENS_PER_TOKEN
from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.estimate.features import LOOKS, Evidence, family_of
from adaptive_ttc.estimate.gain import Action, Forecast, Option, unseen
from adaptive_ttc.strategies.adaptive import is_second

SLICE: Mapping[str, int] = {"sample": 4}  # least units of a slice, by family, where a forecast names none; else one

FAR = 0.25
"""Units are done side by side as long as they are expected to bring no more than this share of the gain in view.

What is left of the gain after them is then still worth going on for, most likely: the evidence would be looked at for
nothing. Measured by ``bench/rounds.py``, see ``bench/LOG.md``.
"""


GROWTH = 0.75
"""Units are done side by side up to this share of those that were not enough yet: the look after each of them would
most likely ask for more, and no more than this share is wasted where it would not.
"""


@dataclass(frozen=True, slots=True)
class Pace:
    """How far a problem may go before its evidence is looked at again."""

    at_once: int = 1  # units that may be done side by side
    rounds: float = math.inf  # slices that it may still have, this one included; at least 1


MARGIN = 2.0
"""A slice is promised so many times the amount expected to be set aside for it; the rest comes back.

Before a sample is drawn, more is set aside for its scores than they will cost (`driver/scoring.py`): a slice that was
promised only what it costs would not begin all of its samples.
"""

AGEING = 0.1
"""Share of its cost so far that is expected to be still needed by a solution that has outlived its expected cost.

A solution that is longer than nine in ten is mostly near its end; where it is not, it takes more and shorter slices.
"""


def priced(
    options: Iterable[Option], evidence: Evidence, generated: float, prm: float, pace: Pace | None = None
) -> list[Option]:
    """Options of a forecast in units, where a token of the policy costs ``generated`` and one of the PRM ``prm``.

    While there is no solution at all, a solution that a budget cut is finished before anything else: the rest of it is
    the cheapest way to an answer, and a search beside it is another way to the same end. Unscored solutions in the
    evidence are scored with the first slice.
    """
    solved = any(unit.attempts for unit in evidence.units)
    kinds = {unit.kind for unit in evidence.begun}
    able = [one for one in options if solved or not kinds or one.action.kind in kinds]
    first, done = unseen(evidence), evidence.counts()
    gains: dict[str, dict[int, float]] = {}
    for one in able:
        gains.setdefault(one.action.kind, {})[one.action.count] = one.gain
    told = (first, evidence, generated, prm)
    return [
        _priced(one, slice_units(one.action, gains[kind], done[kind], pace or Pace(), one.look), *told)
        for one, kind in ((one, one.action.kind) for one in able)
    ]


def _priced(option: Option, units: int, first: int, evidence: Evidence, generated: float, prm: float) -> Option:
    gain, kind = option.gain, option.action.kind
    begun = [unit for unit in evidence.begun if unit.kind == kind][:units]
    whole = len(begun) == option.action.count
    share = units / option.action.count
    of_scores, set_aside = option.prm, (option.prm - first) * share + first
    if whole and not evidence.units and not any(unit.prm for unit in begun):
        of_scores = set_aside = 0.0  # an opening that was begun without scores ends without
    cost = generated * option.generated + prm * of_scores
    planned = generated * option.generated * share + prm * PRM_TOKENS_PER_TOKEN * set_aside
    paid = sum(generated * unit.generated + prm * unit.prm for unit in begun)
    return replace(
        option,
        cost=_rest(cost, paid),
        # what has outlived its expected cost is seldom right: it errs, or runs on without an end
        gain=gain * cost / paid if whole and paid > cost and gain > 0 else gain,
        slice_cost=math.ceil(MARGIN * _rest(planned, paid)),
        least=1 if whole else math.inf,  # what was begun may end with its next token
        at_once=units,
    )


def with_prompt(option: Option, units: int) -> Option:
    """An option that begins with a prompt of so many units."""
    return replace(option, cost=option.cost + units, slice_cost=option.slice_cost + units, prompt=units)


def _rest(cost: float, paid: float) -> float:
    return max(cost - paid, AGEING * paid)


def slice_units(action: Action, gains: Mapping[int, float], done: int, pace: Pace, look: int | None = None) -> int:
    """Units of an action that are done before the evidence is looked at again, not earlier than after ``look``.

    ``gains`` are those of its kind, by units; so many units of it are ``done``.
    """
    least = look or SLICE.get(family_of(action.kind), 1)
    near = FAR * gains[action.count]
    far = max((count for count, gain in gains.items() if count < action.count and gain <= near), default=1)
    planned = max(least, min(pace.at_once, far), math.ceil(action.count / pace.rounds))
    grown = max(min(int(GROWTH * done), pace.at_once), done // LOOKS)
    return max(min(action.count, planned), min(grown, max(gains)))


def within_record(options: Iterable[Option], left: int) -> list[Option]:
    """Options of independent samples, of which only so many are left; a larger one shrinks to these, and its gain."""
    found: dict[Action, Option] = {}
    for one in sorted(options, key=lambda one: one.action.count):
        share = min(1.0, left / one.action.count)
        action, units = Action(one.action.kind, min(left, one.action.count)), min(left, one.at_once)
        if left > 0:
            cut = replace(one, action=action, cost=share * one.cost, gain=share * one.gain, at_once=units)
            found.setdefault(action, cut)
    return list(found.values())


def families_of(*, steps: bool, revises: bool, greedy: bool = True, thinks: bool = False) -> set[str]:
    """Families of units that a policy can draw: ``steps`` says whether steps can be searched (there is a PRM, and the
    policy continues begun solutions), ``revises`` whether it was trained to revise its solutions, ``greedy`` whether it
    takes the likeliest tokens, ``thinks`` whether its thoughts can be ended.
    """
    families = {"greedy", "sample", "short_m_at_k"} if greedy else {"sample"}
    families |= {"think"} if thinks else set()
    families |= {"dvts", "beam_search"} if steps else set()
    return families | ({"revision"} if revises else set())


QUICK = 0.01  # seconds for which an event loop may be held up; longer work runs in a thread
FIRST_GUESS = 0.002  # seconds that the prediction for one state takes, until one was seen


class Forecaster:
    """Forecasts many problems at once, in the event loop where that is quick, else in a thread.

    The gains of ``calibrated`` are those of one pool; options are of the ``families`` that the policy can draw, and of
    those that its ``second`` policy can.
    """

    def __init__(
        self, calibrated: Calibrated, price: Price, families: Collection[str], second: Collection[str] = ()
    ) -> None:
        self._gain = calibrated.gain
        self._difficulty = calibrated.difficulty
        self._price = price
        self._families, self._second = frozenset(families), frozenset(second)
        self._seconds = FIRST_GUESS  # for one state

    @property
    def learns(self) -> bool:
        """Whether :meth:`learn` changes what is forecast."""
        return self._gain.learns

    def learn(self, states: Sequence[Evidence]) -> None:
        """Take in how all problems stand, see :meth:`adaptive_ttc.estimate.gain.GainModel.learn`."""
        self._gain.learn(states)

    async def forecasts(self, states: Sequence[Evidence], paces: Sequence[Pace]) -> list[Forecast]:
        """One for each, its options in units, each going on at its own pace."""
        if not states:
            return []
        if self._seconds * len(states) > QUICK:
            return await to_thread.run_sync(self._forecasts, states, paces)
        return self._forecasts(states, paces)

    def _forecasts(self, states: Sequence[Evidence], paces: Sequence[Pace]) -> list[Forecast]:
        started = time.perf_counter()
        forecasts = self._gain.forecasts(states)
        model = self._difficulty
        unknown = [place for place, forecast in enumerate(forecasts) if forecast.difficulty is None]
        if model is not None and unknown:
            for place, bins in zip(unknown, model.posteriors([states[place] for place in unknown]), strict=True):
                forecasts[place] = replace(forecasts[place], difficulty=bins)
        found = [
            replace(forecast, options=self._options(forecast, state, pace))
            for state, forecast, pace in zip(states, forecasts, paces, strict=True)
        ]
        self._seconds = (time.perf_counter() - started) / len(states)
        return found

    def _options(self, forecast: Forecast, state: Evidence, pace: Pace) -> tuple[Option, ...]:
        able = (one for one in forecast.options if self._able(one.action.kind))
        return tuple(priced(able, state, self._price.decode, self._price.score, pace))

    def _able(self, kind: str) -> bool:
        """Whether the policies can draw units of a kind."""
        return family_of(kind) in (self._second if is_second(kind) else self._families)
