"""Finds stored sequences by how they begin, or how a longer one begins; it knows nothing of what they stand for."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

V = TypeVar("V")
Sequence = tuple[Any, ...]
"""Items that have an order, all of one type."""


class PrefixIndex(Generic[V]):
    """Values under sequences.

    In sorted order everything that begins alike stands together, so a search takes the logarithm of
    their number in comparisons, and no prefix is stored.
    """

    def __init__(self, values: Mapping[Sequence, V]) -> None:
        self._keys = sorted(values)
        self._values = [values[key] for key in self._keys]

    def starting_with(self, prefix: Sequence) -> V | None:
        """The value of a stored sequence that begins with ``prefix`` (of several, the first in order), or None."""
        index = bisect_left(self._keys, prefix)
        if index < len(self._keys) and self._keys[index][: len(prefix)] == prefix:
            return self._values[index]
        return None

    def beginning(self, sequence: Sequence) -> V | None:
        """The value of the longest stored sequence with which ``sequence`` begins, or None."""
        while True:
            index = bisect_right(self._keys, sequence) - 1
            if index < 0:
                return None
            common = _common(self._keys[index], sequence)
            if common == len(self._keys[index]):
                return self._values[index]
            # whatever begins the sequence begins this neighbour in the order as well
            sequence = sequence[:common]


def _common(one: Sequence, other: Sequence) -> int:
    return next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
