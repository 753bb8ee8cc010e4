"""A forecast in the allocator's terms: options, and the slice of each that is done before evidence is looked at again.

Live solving and replays of it share this; it knows no problem and no engine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from adaptive_ttc.envelope import Option
from adaptive_ttc.evidence import Evidence, family_of
from adaptive_ttc.outlook import Action, Forecast, unseen

SLICE: Mapping[str, int] = {"sample": 4}
"""Units of a slice, by family; one of all others."""

MARGIN = 2.0
"""A slice is promised so many times what it is expected to cost; what it leaves comes back."""

AGEING = 0.1
"""What has outlived its expected cost is expected to take this share of what it took once more.

A solution that is longer than nine in ten is mostly near its end; where it is not, it takes more and shorter slices.
"""


def options_of(forecast: Forecast, evidence: Evidence, generated: float, prm: float) -> list[Option]:
    """What may be done next on a problem, each keyed by its action.

    Args:
        forecast: from the evidence.
        evidence: what is known of the problem; solutions that the PRM has not seen are scored with the first slice.
        generated, prm: units that a token of the policy and of the PRM costs.
    """
    options = []
    right = forecast.right if any(unit.attempts for unit in evidence.units) else 0.0  # calibration saw no such state
    first = prm * unseen(evidence)
    for prospect in forecast.prospects:
        cost = generated * prospect.generated + prm * prospect.prm
        part = slice_of(prospect.action)
        one = (cost - first) / prospect.action.count * part.count + first
        begun = [unit for unit in evidence.begun if unit.kind == part.kind][: part.count]
        paid = sum(generated * unit.generated + prm * unit.prm for unit in begun)
        least = 1 if len(begun) == prospect.action.count else math.inf  # what was begun may end with its next token
        slice_cost = math.ceil(MARGIN * _rest(one, paid))
        options.append(Option(prospect.action, _rest(cost, paid), prospect.right - right, slice_cost, least))
    return options


def _rest(cost: float, paid: float) -> float:
    return max(cost - paid, AGEING * paid)


def slice_of(action: Action) -> Action:
    """The part of an action that is done before the evidence is looked at again."""
    return Action(action.kind, min(action.count, SLICE.get(family_of(action.kind), 1)))
