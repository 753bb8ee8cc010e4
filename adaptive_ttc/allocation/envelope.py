"""The concave envelope of a problem's options, and the price at which all problems want what is left.

As an envelope is concave, what a problem wants at a price is the sum of its envelope's pieces that are at least that
steep, and what all want is the sum over all pieces. Those sums stand in a Fenwick tree over a geometric ladder of
prices, so that a change of one problem and the bisection for the price take O(log 1/eps) each, whatever the number of
problems; summing all problems anew would take O(n J log 1/eps).
"""

from __future__ import annotations

import math
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
    """

    vertices: tuple[Option, ...] = ()  # options by rising cost and gain
    slopes: tuple[float, ...] = ()  # gain per unit from each vertex's predecessor to it, above 0, never rising

    @classmethod
    def of(cls, options: Iterable[Option]) -> Envelope:
        """The envelope of J options in O(J log J); of options that lie on one line, all are vertices."""
        hull: list[Option] = []
        slopes: list[float] = []
        for option in sorted(options, key=lambda one: (one.cost, -one.gain)):
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


def _slope(hull: list[Option], option: Option) -> float:
    if not hull:
        return option.gain / option.cost
    last = hull[-1]
    return (option.gain - last.gain) / (option.cost - last.cost)


RATIO = 1.01  # between two rungs of the ladder: prices are exact to one percent
LOWEST = 1e-26  # the lowest rung, in gain per unit: far under what a floating-point operation is ever worth
_SIZE = 1 << 13  # rungs: over 35 decades of price
_LOG_RATIO = math.log(RATIO)
_LOG_LOWEST = math.log(LOWEST)
_SAFE = 1 - 1e-9  # a rung is never above a slope on it, whatever the logarithm's last digit


@dataclass(frozen=True, slots=True)
class Piece:
    """Units wanted at any price up to the one of a rung."""

    rung: int
    units: int


def pieces(envelope: Envelope, *, least: float, given: int = 0) -> tuple[Piece, ...]:
    """What a problem wants at every price from ``least`` on, less the ``given`` units promised since the estimate."""
    wanted: list[Piece] = []
    reached = given
    for vertex, slope in zip(envelope.vertices, envelope.slopes, strict=True):
        if slope < least:
            break
        upto = round(vertex.cost)
        if upto > reached:
            rung = min(max(int((math.log(slope) - _LOG_LOWEST) / _LOG_RATIO), 0), _SIZE - 1)
            wanted.append(Piece(rung, upto - reached))
            reached = upto
    return tuple(wanted)


class Demand:
    """The sum over all problems of what they want at every price. Whole units, so that no rounding adds up."""

    def __init__(self) -> None:
        self._sums = [0] * (_SIZE + 1)
        self.total = 0  # units wanted at any price

    def add(self, wanted: Iterable[Piece]) -> None:
        """Add a problem's pieces."""
        for piece in wanted:
            self._change(piece.rung, piece.units)

    def remove(self, wanted: Iterable[Piece]) -> None:
        """Remove a problem's pieces."""
        for piece in wanted:
            self._change(piece.rung, -piece.units)

    def price(self, left: int) -> float | None:
        """The highest price, to one percent from below, at which ``left`` (at least 1) units are wanted, if any."""
        left = max(1, left)
        if self.total < left:
            return None
        position, below, step = 0, 0, _SIZE
        while step:
            if position + step <= _SIZE and below + self._sums[position + step] < left:
                position += step
                below += self._sums[position]
            step >>= 1
        return math.exp((_SIZE - 1 - position) * _LOG_RATIO + _LOG_LOWEST) * _SAFE

    def _change(self, rung: int, units: int) -> None:
        self.total += units
        position = _SIZE - rung  # dearest first
        while position <= _SIZE:
            self._sums[position] += units
            position += position & -position
