"""Curves of accuracy against cost, one number a problem at every point, and what is read off them; it runs nothing.

All intervals are bootstraps over problems, in which every curve is drawn anew with the same problems: differences and
ratios are paired, and so are the targets, which are shares of what one curve reaches among the problems drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.evaluation.metrics import Interval, interval

Array = NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 1_000


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of a rule.

    Attributes:
        budget: mean units a problem that were allowed; for a rule that knows no budget, what it took.
        cost: shape [problems]: expected units.
        accuracy: shape [problems]: probability that the answer is right.
        label: of the setting, such as an arm's name.
    """

    budget: float
    cost: Array
    accuracy: Array
    label: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A rule at several settings, by rising mean cost."""

    name: str
    points: tuple[Point, ...]

    @classmethod
    def of(cls, name: str, points: Iterable[Point]) -> Line:
        """In order of cost."""
        return cls(name, tuple(sorted(points, key=lambda point: (float(point.cost.mean()), point.label))))

    @property
    def costs(self) -> Array:
        """Shape [points, problems]."""
        return np.stack([point.cost for point in self.points])

    @property
    def accuracies(self) -> Array:
        """Shape [points, problems]."""
        return np.stack([point.accuracy for point in self.points])

    def at(self, budget: float) -> Array:
        """Accuracy of every problem at a mean cost of ``budget``, shape [problems], see :func:`at_cost`."""
        return at_cost(self.costs.mean(axis=1), self.accuracies, budget)


@dataclass(frozen=True, slots=True)
class Ratio:
    """Cost of one curve to that of another, at the same accuracy.

    Attributes:
        value: below 1 where the first is cheaper; 0 where only the first gets there, inf where only the second does,
            nan where neither does.
        low, high: ends of the 95 % interval.
    """

    value: float
    low: float
    high: float


class Resampled:
    """The same problems drawn with replacement for every curve; the first row is the problems themselves.

    Args:
        problems: how many.
        resamples: how often.
        seed: of the draws.
    """

    def __init__(self, problems: int, resamples: int = RESAMPLES, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(problems, np.full(problems, 1 / problems), size=resamples)
        self._shares = np.vstack([np.ones(problems), drawn]) / problems

    def means(self, line: Line) -> tuple[Array, Array]:
        """Mean cost and accuracy, both of shape [1 + resamples, points]."""
        return self._shares @ line.costs.T, self._shares @ line.accuracies.T

    def targets(self, line: Line, share: float) -> Array:
        """So much of a curve's rise from its cheapest point to its maximum, shape [1 + resamples]."""
        _, accuracy = self.means(line)
        return accuracy[:, 0] + share * (accuracy.max(axis=1) - accuracy[:, 0])

    def costs_to_reach(self, line: Line, targets: Array) -> Array:
        """Shape [1 + resamples]: least mean cost at which the targets are reached; inf where they are not."""
        return costs_to_reach(*self.means(line), targets)

    def ratio(self, first: Line, second: Line, targets: Array) -> Ratio:
        """Cost of the first to that of the second at the same targets."""
        return ratio_of(self.costs_to_reach(first, targets), self.costs_to_reach(second, targets))


def ratio_of(first: Array, second: Array) -> Ratio:
    """The ratio of costs whose first entries are measured and whose others are drawn anew, shape [1 + resamples]."""
    with np.errstate(invalid="ignore"):
        ratios = np.where(np.isinf(first) & np.isinf(second), np.nan, first / second)
    known = ratios[1:][~np.isnan(ratios[1:])]
    if not len(known):
        return Ratio(float(ratios[0]), math.nan, math.nan)
    ordered = np.sort(known)
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]  # between two draws one is taken: there is no mean with an infinite one
    low, high = (float(ordered[min(len(ordered) - 1, int(end * len(ordered)))]) for end in ends)
    return Ratio(float(ratios[0]), low, high)


def cost_to_reach(cost: Array, accuracy: Array, target: float) -> float:
    """Least mean cost at which a curve reaches an accuracy, see :func:`costs_to_reach`.

    Args:
        cost, accuracy: shape [points]: means over problems.
        target: accuracy.
    """
    return float(costs_to_reach(cost[None], accuracy[None], np.array([target]))[0])


def costs_to_reach(cost: Array, accuracy: Array, target: Array) -> Array:
    """Least mean cost at which curves reach an accuracy, shape [curves]; inf where one never does.

    Between two points a share of the problems is given the dearer one, so that cost and accuracy rise in a line; points
    that cost more than another and reach no more are passed over.

    Args:
        cost, accuracy: shape [curves, points]: means over problems.
        target: shape [curves].
    """
    rows = np.arange(len(cost))
    order = np.argsort(cost, axis=1, kind="stable")
    cost, accuracy = np.take_along_axis(cost, order, axis=1), np.take_along_axis(accuracy, order, axis=1)
    best = np.maximum.accumulate(accuracy, axis=1)
    rises = np.hstack([np.ones((len(cost), 1), dtype=bool), accuracy[:, 1:] > best[:, :-1]])
    since = np.maximum.accumulate(np.where(rises, np.arange(cost.shape[1]), 0), axis=1)
    there = best >= target[:, None] - 1e-12
    place = there.argmax(axis=1)
    before = since[rows, np.maximum(place - 1, 0)]
    low, high = accuracy[rows, before], accuracy[rows, place]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(place > 0, np.clip((target - low) / (high - low), 0.0, 1.0), 1.0)
    found = cost[rows, before] + share * (cost[rows, place] - cost[rows, before])
    return np.where(there.any(axis=1), found, math.inf)


def at_cost(cost: Array, accuracy: Array, budget: float) -> Array:
    """Accuracy of every problem at a mean cost of at most ``budget``.

    Points that cost more than another and reach no more are passed over; between two that remain a share of the
    problems is given the dearer one, below the cheapest the others are given nothing.

    Args:
        cost: shape [points]: mean over problems.
        accuracy: shape [points, problems].
        budget: mean units a problem.
    """
    kept: list[int] = []
    for place in np.argsort(cost, kind="stable").tolist():
        if not kept or accuracy[place].mean() > accuracy[kept[-1]].mean():
            kept.append(place)
    costs = cost[kept]
    above = int(np.searchsorted(costs, budget, side="right"))
    if above == 0:
        return np.asarray(accuracy[kept[0]] * (budget / costs[0]))
    low = kept[above - 1]
    if above == len(kept):
        return np.asarray(accuracy[low])
    share = (budget - costs[above - 1]) / (costs[above] - costs[above - 1])
    return np.asarray((1 - share) * accuracy[low] + share * accuracy[kept[above]])


def mixed(name: str, line: Line, budgets: Sequence[float]) -> Line:
    """A curve read at given budgets, as :func:`at_cost` mixes its points."""
    return Line.of(
        name, [Point(budget, np.full_like(line.points[0].cost, budget), line.at(budget)) for budget in budgets]
    )


def accuracy_of(point: Point) -> Interval:
    """Mean over problems, with its interval."""
    return interval(point.accuracy, resamples=RESAMPLES)
