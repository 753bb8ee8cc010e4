"""Accuracy against cost when every problem is given one arm, chosen by what is predicted of it; it runs nothing.

At a price per token every problem takes the arm of largest predicted accuracy less its predicted price. Over falling
prices this draws the curve of the best that such predictions allow; budgets between two of its points are met by
giving a share of the problems the dearer choice, so that curves are compared at equal cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
PRICES = np.concatenate([[0.0], np.geomspace(1e-8, 1.0, 400)])


@dataclass(frozen=True, slots=True)
class Frontier:
    """Points of rising mean cost.

    Attributes:
        cost: shape [points]: mean over problems.
        accuracy: shape [points, problems].
    """

    cost: Array
    accuracy: Array

    def at(self, budget: float) -> Array:
        """Accuracy of every problem at a mean cost of ``budget``, shape [problems].

        Below the cheapest point a share of the problems is given it, and the others nothing.
        """
        if budget <= self.cost[0]:
            return np.asarray(self.accuracy[0] * (budget / self.cost[0]))
        place = int(np.searchsorted(self.cost, budget, side="right")) - 1
        if place == len(self.cost) - 1:
            return np.asarray(self.accuracy[-1])
        share = (budget - self.cost[place]) / (self.cost[place + 1] - self.cost[place])
        return np.asarray((1 - share) * self.accuracy[place] + share * self.accuracy[place + 1])


def frontier(predicted: Array, expected: Array, accuracy: Array, cost: Array) -> Frontier:
    """What choices by a prediction reach.

    Args:
        predicted: shape [problems, arms]: predicted accuracy.
        expected: shape [problems, arms]: predicted cost.
        accuracy, cost: shape [problems, arms]: what was measured.
    """
    rows = np.arange(len(accuracy))
    points: dict[float, Array] = {}
    for price in PRICES:
        chosen = np.argmax(predicted - price * expected, axis=1)
        points[float(cost[rows, chosen].mean())] = accuracy[rows, chosen]
    return _rising(points)


def best_fixed(train_accuracy: Array, train_cost: Array, accuracy: Array, cost: Array) -> Frontier:
    """The same arm for all problems, chosen where ``train`` was measured; mixtures of two arms between its points."""
    means, costs = train_accuracy.mean(axis=0), train_cost.mean(axis=0)
    points: dict[float, Array] = {}
    for price in PRICES:
        arm = int(np.argmax(means - price * costs))
        points[float(cost[:, arm].mean())] = accuracy[:, arm]
    return _rising(points)


def _rising(points: dict[float, Array]) -> Frontier:
    """Points in order of cost, without those that cost more and reach no more."""
    kept: list[tuple[float, Array]] = []
    for cost in sorted(points):
        if not kept or points[cost].mean() > kept[-1][1].mean():
            kept.append((cost, points[cost]))
    return Frontier(np.array([cost for cost, _ in kept]), np.stack([values for _, values in kept]))
