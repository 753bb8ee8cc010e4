"""Ours, replayed on records and run live: one budget over all problems, and one for each; it fits nothing.

Replayed runs make the decisions of live ones on recorded units (`calibration/simulate.py`), over several random
orders of every problem's units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pareto_inputs import Guide
from points import Line, Point

from adaptive_ttc.calibration.decks import Deck
from adaptive_ttc.calibration.records import ProblemRecord, Weights
from adaptive_ttc.calibration.simulate import Replayed, replay, replay_each

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Replays:
    """A rule at all budgets.

    Attributes:
        line: its curve.
        overspent: units beyond a budget, over all runs.
        kinds: shape [budgets]: units of every kind, a problem.
    """

    line: Line
    overspent: int
    kinds: tuple[dict[str, float], ...]


def pooled(
    records: Sequence[ProblemRecord],
    guides: Sequence[Guide],
    weights: Weights,
    budgets: Sequence[float],
    seeds: int,
    tell: Callable[[str], None],
) -> Replays:
    """One budget shared by all problems of a guide."""

    def run(guide: Guide, decks: Sequence[Deck], budget: float) -> tuple[list[Replayed], int]:
        total = int(budget * len(decks))
        runs = replay(decks, guide.forecast, guide.vote, total, weights, guide.opening)
        return runs, max(0, sum(one.cost for one in runs) - total)

    return _replays("ours_pooled", records, guides, budgets, seeds, run, tell)


def single(
    records: Sequence[ProblemRecord],
    guides: Sequence[Guide],
    weights: Weights,
    budgets: Sequence[float],
    seeds: int,
    tell: Callable[[str], None],
) -> Replays:
    """The same budget for every problem, none of which knows of the others."""

    def run(guide: Guide, decks: Sequence[Deck], budget: float) -> tuple[list[Replayed], int]:
        runs = replay_each(decks, guide.forecast, guide.vote, int(budget), weights, guide.opening)
        return runs, sum(max(0, one.cost - int(budget)) for one in runs)

    return _replays("ours", records, guides, budgets, seeds, run, tell)


def _replays(
    name: str,
    records: Sequence[ProblemRecord],
    guides: Sequence[Guide],
    budgets: Sequence[float],
    seeds: int,
    run: Callable[[Guide, Sequence[Deck], float], tuple[list[Replayed], int]],
    tell: Callable[[str], None],
) -> Replays:
    points, kinds, overspent = [], [], 0
    decks = [[Deck(record, seed) for record in records] for seed in range(seeds)]
    for number, budget in enumerate(budgets, 1):
        tell(f"{name}: budget {number} of {len(budgets)}")
        accuracy, cost, taken = np.zeros(len(records)), np.zeros(len(records)), dict[str, float]()
        for of_seed in decks:
            for guide in guides:
                runs, over = run(guide, [of_seed[row] for row in guide.rows], budget)
                overspent += over
                accuracy[guide.rows] += [one.accuracy / seeds for one in runs]
                cost[guide.rows] += [one.cost / seeds for one in runs]
                for one in runs:
                    for kind, count in one.state.taken:
                        taken[kind] = taken.get(kind, 0.0) + count / seeds / len(records)
        points.append(Point(budget, cost, accuracy))
        kinds.append(taken)
    return Replays(Line(name, tuple(points)), overspent, tuple(kinds))
