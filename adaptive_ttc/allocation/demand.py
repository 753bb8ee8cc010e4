"""How many units are wanted at every price, and the price at which that equals what is left; it knows no problem.

As an envelope is concave, what a problem wants at a price is the sum of its envelope's pieces that are at least that
steep, and what all want is the sum over all pieces. Those sums stand in a Fenwick tree over a geometric ladder of
prices, so that a change of one problem and the bisection for the price take O(log 1/eps) each, whatever the number of
problems; summing all problems anew would take O(n J log 1/eps).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from adaptive_ttc.allocation.envelope import Envelope

RATIO = 1.01
"""Between two rungs of the ladder: prices are told to one percent."""

LOWEST = 1e-26
"""The lowest rung, in gain per unit: far under what a floating-point operation is ever worth."""

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
    """What a problem wants at every price.

    Args:
        envelope: of its options.
        least: price under which nothing is bought.
        given: units that it has been promised of these since they were estimated; the steepest ones.
    """
    wanted: list[Piece] = []
    reached = given
    for vertex, slope in zip(envelope.vertices, envelope.slopes, strict=True):
        if slope < least:
            break
        upto = round(vertex.cost)
        if upto > reached:
            wanted.append(Piece(_rung(slope), upto - reached))
            reached = upto
    return tuple(wanted)


class Demand:
    """The sum over all problems of what they want at every price. Whole units, so that no rounding adds up."""

    def __init__(self) -> None:
        self._sums = [0] * (_SIZE + 1)
        self.total = 0
        """Units wanted at any price."""

    def add(self, wanted: Iterable[Piece]) -> None:
        """A problem wants these from now on."""
        for piece in wanted:
            self._change(piece.rung, piece.units)

    def remove(self, wanted: Iterable[Piece]) -> None:
        """It does so no more."""
        for piece in wanted:
            self._change(piece.rung, -piece.units)

    def price(self, left: int) -> float | None:
        """The highest price, to one percent from below, at which ``left`` units are wanted or more.

        Where nothing is left, it is that of the first unit; None where fewer are wanted at any price.
        """
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


def _rung(slope: float) -> int:
    return min(max(int((math.log(slope) - _LOG_LOWEST) / _LOG_RATIO), 0), _SIZE - 1)
