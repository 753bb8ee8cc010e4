"""Options in units of the budget, and the slice of each that is done before evidence is looked at again.

Live solving and replays of it share this; it knows no problem and no engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from adaptive_ttc.driver.scoring import PRM_TOKENS_PER_TOKEN
from adaptive_ttc.estimate.features import Evidence, family_of
from adaptive_ttc.estimate.gain import Action, Option, unseen

SLICE: Mapping[str, int] = {"sample": 4}
"""Units of a slice, by family; one of all others."""

MARGIN = 2.0
"""A slice is promised so many times what is expected to be set aside for it; what it leaves comes back.

Before a sample is drawn, more is set aside for its scores than they will cost (`driver/scoring.py`): a slice
that was promised only what it costs would not begin all of its samples.
"""

AGEING = 0.1
"""What has outlived its expected cost is expected to take this share of what it took once more.

A solution that is longer than nine in ten is mostly near its end; where it is not, it takes more and shorter slices.
"""


def priced(options: Iterable[Option], evidence: Evidence, generated: float, prm: float) -> list[Option]:
    """What may be done next on a problem, in units.

    While there is no solution at all, what a budget cut is finished before anything else: the rest of it is the
    cheapest way to an answer, and a search beside it is another way to the same end.

    Args:
        options: of a forecast from the evidence.
        evidence: what is known of the problem; solutions that the PRM has not seen are scored with the first slice.
        generated, prm: units that a token of the policy and of the PRM costs.
    """
    solved = any(unit.attempts for unit in evidence.units)
    kinds = {unit.kind for unit in evidence.begun}
    able = [one for one in options if solved or not kinds or one.action.kind in kinds]
    first = unseen(evidence)
    return [_priced(one, first, evidence, generated, prm) for one in able]


def _priced(option: Option, first: int, evidence: Evidence, generated: float, prm: float) -> Option:
    gain, part = option.gain, slice_of(option.action)
    begun = [unit for unit in evidence.begun if unit.kind == part.kind][: part.count]
    whole = len(begun) == option.action.count
    share = part.count / option.action.count
    of_scores, set_aside = option.prm, (option.prm - first) * share + first
    if whole and not evidence.units and not any(unit.prm for unit in begun):
        of_scores = set_aside = 0.0  # an opening that was begun without scores ends without
    cost = generated * option.generated + prm * of_scores
    planned = generated * option.generated * share + prm * PRM_TOKENS_PER_TOKEN * set_aside
    paid = sum(generated * unit.generated + prm * unit.prm for unit in begun)
    return Option(
        option.action,
        cost=_rest(cost, paid),
        # what has outlived its expected cost is seldom right: it errs, or runs on without an end
        gain=gain * cost / paid if whole and paid > cost and gain > 0 else gain,
        slice_cost=math.ceil(MARGIN * _rest(planned, paid)),
        least=1 if whole else math.inf,  # what was begun may end with its next token
        generated=option.generated,
        prm=option.prm,
    )


def _rest(cost: float, paid: float) -> float:
    return max(cost - paid, AGEING * paid)


def slice_of(action: Action) -> Action:
    """The part of an action that is done before the evidence is looked at again."""
    return Action(action.kind, min(action.count, SLICE.get(family_of(action.kind), 1)))
