"""Which recorded sample of a problem a request means: the j-th of a permutation, and no sample twice in a run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


class RecordedOrder:
    """The order in which the samples of one problem are delivered.

    Sample j of a run is the j-th of the order. An adaptive run gives numbers also to samples that it cannot begin, and
    may ask for more numbers than were recorded: such a request gets the first sample that the run has not begun.
    """

    def __init__(self, samples: int, seed: int, name: str) -> None:
        self._order = tuple(range(samples))
        if seed:
            # sorting by a hash is a permutation that no version of a random generator changes
            digest = [hashlib.sha256(f"{name}{index}".encode()).digest() for index in self._order]
            self._order = tuple(sorted(self._order, key=digest.__getitem__))
        self._given: dict[int, int] = {}  # number of a sample -> its place in the order, in this run

    def sample(self, path: Sequence[int], *, begins: bool) -> int | None:
        """Index of the sample at a path of its search; None where none is left. A run begins with path 0."""
        # a cut solution that a later search continues is its own first child
        number, *further = path or (0,)
        if any(further):
            return None
        if begins and number == 0:
            self._given.clear()
        if number >= len(self._order) and not self._given:
            return None
        if number not in self._given:
            taken = set(self._given.values())
            free = (place for place in range(len(self._order)) if place not in taken)
            place = number if number < len(self._order) and number not in taken else next(free, None)
            if place is None:
                return None
            self._given[number] = place
        return self._order[self._given[number]]

    def give_back(self, path: Sequence[int]) -> None:
        """The sample was not begun after all."""
        self._given.pop(path[0] if path else 0, None)
