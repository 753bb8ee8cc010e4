"""The concave envelope of what may be done next on a problem; it knows costs and gains, not what is done."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from operator import neg

from adaptive_ttc.estimate.gain import Option


@dataclass(frozen=True, slots=True)
class Envelope:
    """The upper concave hull of (0, 0) and the options' (cost, gain); empty where no option gains anything.

    Its first slope is the best rate at which a problem can still gain, over all that may be done in one go: an option
    that gains nothing by itself (a second vote) never hides one that does (the fourth).

    Attributes:
        vertices: options by rising cost and gain.
        slopes: gain per unit from each vertex's predecessor to it, above 0, never rising.
    """

    vertices: tuple[Option, ...] = ()
    slopes: tuple[float, ...] = ()

    @classmethod
    def of(cls, options: Iterable[Option]) -> Envelope:
        """The envelope of J options in O(J log J); of options that lie on one line, all are vertices."""
        hull: list[Option] = []
        slopes: list[float] = []
        for option in sorted(options, key=_by_cost):
            if option.gain <= (hull[-1].gain if hull else 0.0):
                continue
            slope = _slope(hull, option)
            while slopes and slope > slopes[-1]:
                hull.pop()
                slopes.pop()
                slope = _slope(hull, option)
            hull.append(option)
            slopes.append(slope)
        return cls(tuple(hull), tuple(slopes))

    @property
    def slope(self) -> float:
        """The first slope; 0 where there is nothing to gain."""
        return self.slopes[0] if self.slopes else 0.0

    def at(self, price: float) -> Option | None:
        """The vertex of largest ``gain - price * cost``, the farthest of equal ones; None where it is (0, 0)."""
        reached = bisect_right(self.slopes, -price, key=neg)
        return self.vertices[reached - 1] if reached else None


def _by_cost(option: Option) -> tuple[float, float]:
    return option.cost, -option.gain


def _slope(hull: list[Option], option: Option) -> float:
    if not hull:
        return option.gain / option.cost
    last = hull[-1]
    return (option.gain - last.gain) / (option.cost - last.cost)
