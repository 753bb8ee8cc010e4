"""Names every sample of a problem by its path and derives its seed from it; it knows no tokens and no engine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

Route = tuple[int, ...]


def derive_seed(run_seed: int, problem_id: str, path: Route) -> int:
    """A sample's seed, in [0, 2**63): a hash of what names it, so that no order of arrival can change it."""
    name = f"{run_seed}\x1f{problem_id}\x1f{'.'.join(map(str, path))}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


class Numbering:
    """Numbers the children of every path, so that a later slice goes on where the earlier one stopped.

    Under a fork the k searches take turns: the i-th gets every k-th number, from the i-th on. No two
    samples of a problem share a path, and no path depends on which search asks first.
    """

    def __init__(self) -> None:
        self._given: dict[Route, int] = {}
        self._parent: Numbering | None = None
        self._turn = 0
        self._turns = 1

    def take(self, path: Route) -> Route:
        """The path of the next child of ``path``."""
        index = self._given.get(path, 0)
        self._given[path] = index + 1
        return (*path, self._number(path, index))

    def observe(self, path: Route) -> None:
        """Never give the numbers up to those on ``path`` again: that sample exists already."""
        for depth, index in enumerate(path):
            above = path[:depth]
            self._given[above] = max(self._given.get(above, 0), index + 1)

    def fork(self, turns: int) -> tuple[Numbering, ...]:
        """One numbering for each of ``turns`` searches; this one rests until :meth:`join`."""
        children = tuple(Numbering() for _ in range(turns))
        for turn, child in enumerate(children):
            child._parent, child._turn, child._turns = self, turn, turns
        return children

    def join(self, children: Iterable[Numbering]) -> None:
        """Go on after the numbers that the searches of a fork took."""
        rounds: dict[Route, int] = {}
        turns = 1
        for child in children:
            turns = child._turns
            for path, taken in child._given.items():
                rounds[path] = max(rounds.get(path, 0), taken)
        for path, taken in rounds.items():
            self._given[path] = self._given.get(path, 0) + taken * turns

    def _number(self, path: Route, index: int) -> int:
        if self._parent is None:
            return index
        above = self._parent
        return above._number(path, above._given.get(path, 0) + self._turn + self._turns * index)
