"""The concave envelope of a problem's options, and the price at which all problems want what is left.

As an envelope is concave, what a problem wants at a price is the sum of its envelope's pieces that are at least that
steep, and what all want is the sum over all pieces. Those sums stand on a geometric ladder of prices, with sums of
blocks of rungs and of regions of blocks beside them, so that a change of one problem takes three additions, and the
price some tens, whatever the number of problems; summing all problems anew would take O(n J log 1/eps).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from operator import neg
from typing import NamedTuple

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
_BLOCK, _REGION = 1 << 4, 1 << 9  # rungs that are summed
_LOG_RATIO = math.log(RATIO)
_LOG_LOWEST = math.log(LOWEST)
_SAFE = 1 - 1e-9  # a rung is never above a slope on it, whatever the logarithm's last digit


class Piece(NamedTuple):
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
            rung = int((math.log(slope) - _LOG_LOWEST) / _LOG_RATIO)
            wanted.append(Piece(0 if rung < 0 else rung if rung < _SIZE else _SIZE - 1, upto - reached))
            reached = upto
    return tuple(wanted)


def divided(wanted: tuple[Piece, ...], units: int) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """The first so many units that are wanted, and the rest."""
    for index, piece in enumerate(wanted):
        if units < piece.units:
            first = wanted[:index]
            if units:
                first += (Piece(piece.rung, units),)
            return first, (Piece(piece.rung, piece.units - units), *wanted[index + 1 :])
        units -= piece.units
    return wanted, ()


class Demand:
    """The sum over all problems of what they want at every price. Whole units, so that no rounding adds up."""

    def __init__(self) -> None:
        self._units = [0] * _SIZE  # by rung, dearest first
        self._blocks = [0] * (_SIZE // _BLOCK)  # sums of so many of them
        self._regions = [0] * (_SIZE // _REGION)
        self.total = 0  # units wanted at any price
        self._asked: tuple[int, float] | None = None  # what was left last, and its price, while nothing has changed

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
        if self._asked is None or self._asked[0] != left:
            region, short = _reaching(self._regions, 0, left)
            block, short = _reaching(self._blocks, region * (_REGION // _BLOCK), short)
            position, _ = _reaching(self._units, block * _BLOCK, short)
            self._asked = left, math.exp((_SIZE - 1 - position) * _LOG_RATIO + _LOG_LOWEST) * _SAFE
        return self._asked[1]

    def _change(self, rung: int, units: int) -> None:
        position = _SIZE - 1 - rung
        self._asked = None
        self.total += units
        self._units[position] += units
        self._blocks[position // _BLOCK] += units
        self._regions[position // _REGION] += units


def _reaching(sums: list[int], start: int, left: int) -> tuple[int, int]:
    """The first place from ``start`` on at which the sums reach what is left, and what is left before it."""
    while sums[start] < left:
        left -= sums[start]
        start += 1
    return start, left
