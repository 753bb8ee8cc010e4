"""What more work gains at every difficulty: the part of a forecast that the posterior over bins decides.

Boosted trees see every detail of a state and little of each; a table of gains by action and bin sees the difficulty
alone, but from many problems. Of actions that differ little, trees always think one the best by chance, which the table
does not. A forecast is a mean of both, and its weight is chosen out of fold.

The posterior is read off all evidence, whatever it is made of. In a bin, an answer in hand is right with the bin's own
frequency, so that P(bin | evidence) becomes P(bin | evidence, the answer is wrong) by Bayes' rule, which the chance
to find a right one is a mean over; and so for right answers and the chance to lose them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.estimate.difficulty import StageModel

Array = NDArray[np.float64]
Row = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class BinGains:
    """Chances of every action in every bin, the easiest first, and their weight in a forecast."""

    posterior: StageModel  # features of all evidence -> probabilities of the bins
    right: Row  # shape [bins]: share of the answers in hand that are right
    found: tuple[Row, ...]  # shape [actions, bins]: a wrong answer becomes right
    lost: tuple[Row, ...]  # shape [actions, bins]: a right answer becomes wrong
    weight: float = 0.5  # of these gains in a forecast, between 0 and 1; that of the boosted model is the rest

    def gains(self, belief: Array, tried: NDArray[np.int64], now: Array) -> Array:
        """Rise of the probability of being right by every action tried, shape [actions tried].

        Args:
            belief: shape [actions tried, bins]: the posterior of its state.
            tried: shape [actions tried]: the action's number.
            now: shape [actions tried]: probability that the answer in hand is right.
        """
        found, lost = np.array(self.found)[tried], np.array(self.lost)[tried]
        wrong, right = split(belief, np.array(self.right))
        return np.asarray((1 - now) * (wrong * found).sum(axis=1) - now * (right * lost).sum(axis=1))

    def as_data(self) -> dict[str, Any]:
        """For a file of estimators."""
        tables = {name: list(map(list, getattr(self, name))) for name in ("found", "lost")}
        return {"posterior": self.posterior.as_data(), "right": list(self.right), "weight": self.weight, **tables}

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> BinGains:
        """From :meth:`as_data`."""
        found, lost = (tuple(tuple(map(float, row)) for row in data[name]) for name in ("found", "lost"))
        posterior = StageModel.of_data(data["posterior"])
        return cls(posterior, tuple(map(float, data["right"])), found, lost, float(data["weight"]))


def split(belief: Array, right: Array) -> tuple[Array, Array]:
    """P(bin | the answer is wrong) and P(bin | it is right), shape [rows, bins] each.

    ``belief``: P(bin), shape [rows, bins]; ``right``: P(the answer is right | bin), shape [bins], within 0 and 1.
    """
    parts = belief * (1 - right), belief * right
    wrong, kept = (part / np.maximum(part.sum(axis=1, keepdims=True), 1e-12) for part in parts)
    return wrong, kept
