"""Chooses the kinds of work that problems are offered, and says why others are not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.calibration.collect.records import Weights
from adaptive_ttc.calibration.fit.accuracy import BinCurves, Curves
from adaptive_ttc.estimate.features import family_of
from adaptive_ttc.strategies.adaptive import is_second, plain

Array = NDArray[np.float64]

MISSED = 0.002  # mean accuracy less price by which a further kind of unit must be missed to be offered
WIDTHS = 2  # searches of different width that are offered where steps are scored


@dataclass(frozen=True, slots=True)
class Offer:
    """Kinds of units that the allocator chooses from, beside stopping."""

    kinds: tuple[str, ...]  # in order of their names
    dropped: Mapping[str, str]  # kind -> why it is not among them, in words


def offered(curves: Curves, bins: BinCurves, weights: Weights) -> Offer:
    """The opening, samples and searches of two widths unless something no dearer is surely better in every bin.

    Further kinds are dropped one by one, the least useful first, while choices by difficulty lose less than
    :data:`MISSED` by it: what a kind adds must be worth the samples that telling its gain from others' takes.
    """
    cost, columns = bins.cost(weights), np.array([arm.kind for arm in curves.arms])
    kinds = set(columns.tolist())
    firm = {kind for kind in kinds if plain(kind) in ("greedy", "sample")} | _searches(columns, cost)
    opening = "greedy" if "greedy" in kinds else "sample"
    dropped = {
        kind: "in every bin of difficulty something that costs no more is surely better"
        for kind in sorted(firm - {opening})
        if _dominated(kind, kinds, columns, bins, cost)
    }
    kept, firm = kinds - set(dropped), firm - set(dropped)
    best = _worth(kept, columns, bins, cost)
    while others := sorted(kept - firm):
        missed, kind = min((best - _worth(kept - {kind}, columns, bins, cost), kind) for kind in others)
        if missed >= MISSED or len(kept) == 1:
            break
        kept.remove(kind)
        dropped[kind] = f"without it choices by difficulty are worth {100 * missed:.2f} points less"
    return Offer(tuple(sorted(kept)), dropped)


def _searches(columns: NDArray[np.str_], cost: Array) -> set[str]:
    """Of either policy: trees of DVTS and, where they are of fewer than two widths, the cheapest beam searches."""
    price = dict(zip(columns.tolist(), cost.mean(axis=0).tolist(), strict=True))
    found = set[str]()
    for second in (False, True):
        own = sorted((kind for kind in price if is_second(kind) == second), key=lambda kind: (price[kind], kind))
        trees = {kind for kind in own if family_of(kind) == "dvts"}
        beams = [kind for kind in own if family_of(kind) == "beam_search"]
        found |= trees | set(beams[: max(0, WIDTHS - len(trees))])
    return found


def _dominated(kind: str, kinds: Collection[str], columns: NDArray[np.str_], bins: BinCurves, cost: Array) -> bool:
    """Whether in every bin each arm of a kind is below one of another kind that costs no more, by their intervals."""
    own = columns == kind
    others = ~own & np.isin(columns, list(kinds))
    no_dearer = cost[:, None, others] <= cost[:, own, None]
    surer = bins.low[:, None, others] > bins.high[:, own, None]
    return bool((no_dearer & surer).any(axis=2).all())


def _worth(kinds: Collection[str], columns: NDArray[np.str_], bins: BinCurves, cost: Array) -> float:
    """Accuracy less price of the best arm of these kinds, mean over bins and prices."""
    prices = np.geomspace(0.1 / cost.max(), 0.5 / max(cost.min(), 1.0), 60)
    values = bins.shrunk[None] - prices[:, None, None] * cost[None]
    return float(np.maximum(values[:, :, np.isin(columns, list(kinds))].max(axis=2), 0.0).mean())
