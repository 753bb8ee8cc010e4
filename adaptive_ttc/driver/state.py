"""The state of one search: its account, child numbers, and the lengths and scores that it has seen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from adaptive_ttc.events import Event, ExpandedEvent, ExpandEvent, Route, SampledEvent
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.types import Finish, Prefix


def derive_seed(run_seed: int, problem_id: str, path: Route) -> int:
    """A sample's seed, in [0, 2**63): a hash of run, problem and path, so that no order of arrival can change it."""
    name = f"{run_seed}\x1f{problem_id}\x1f{'.'.join(map(str, path))}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


class PathNumbering:
    """Numbers the children of every path, so that a later slice continues where the earlier one stopped.

    Under a fork the k searches take turns: the i-th gets every k-th number, from the i-th on. No two samples of a
    problem share a path, and no path depends on which search asks first.
    """

    def __init__(self) -> None:
        self._given: dict[Route, int] = {}
        self._parent: PathNumbering | None = None
        self._turn = 0
        self._turns = 1

    def take(self, path: Route) -> Route:
        """The path of the next child of ``path``."""
        index = self._given.get(path, 0)
        self._given[path] = index + 1
        return (*path, self._number(path, index))

    def observe(self, path: Route) -> None:
        """Never again give the numbers on ``path``: that sample exists already."""
        for depth, index in enumerate(path):
            above = path[:depth]
            self._given[above] = max(self._given.get(above, 0), index + 1)

    def fork(self, turns: int) -> tuple[PathNumbering, ...]:
        """One numbering for each of ``turns`` searches; this one rests until :meth:`join`."""
        children = tuple(PathNumbering() for _ in range(turns))
        for turn, child in enumerate(children):
            child._parent, child._turn, child._turns = self, turn, turns
        return children

    def join(self, children: Iterable[PathNumbering]) -> None:
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


Kind = tuple[str, ...]  # samples of one kind end alike: the stop strings of their request


@dataclass(slots=True)
class SearchState:
    """The state on which leases depend, and nothing else: not the clock, not other problems."""

    ledger: Ledger
    numbering: PathNumbering = field(default_factory=PathNumbering)
    lengths: dict[Kind, tuple[int, int]] = field(default_factory=dict)  # samples that ended: number, sum of lengths
    solved: bool = False  # whether it holds a finished solution
    scores: dict[tuple[str, ...], tuple[float, ...]] = field(default_factory=dict)  # by steps, to score them once
    shown: set[tuple[Route, ...]] = field(default_factory=set)  # attempts whose place in a prompt is paid for

    def note(self, kind: Kind, length: int, finish: Finish | None) -> None:
        """Register a sample that ended."""
        if finish in ("eos", "stop"):
            number, total = self.lengths.get(kind, (0, 0))
            self.lengths[kind] = (number + 1, total + length)
        self.solved = self.solved or finish == "eos"

    def observe(self, evidence: Iterable[Prefix]) -> None:
        """Register samples that were drawn elsewhere: their numbers are taken, their lengths and scores known."""
        for prefix in evidence:
            self.numbering.observe(prefix.path)
            if prefix.finished:
                self.note((), len(prefix.token_ids), "eos")
            if prefix.scores:
                self.scores[prefix.steps] = prefix.scores

    def go_on_from(self, events: Sequence[Event], drawn: Mapping[Route, Prefix]) -> None:
        """Register all that an earlier run did, by its trace; ``drawn`` are its samples by path."""
        asked = {(event.branch, event.number): event for event in events if isinstance(event, ExpandEvent)}
        grown = {event.path: event.tokens for event in events if isinstance(event, SampledEvent)}
        for event in events:
            if not isinstance(event, ExpandedEvent):
                continue
            request = asked[event.branch, event.number]
            self.shown.update(attempts for attempts in request.attempts if attempts)
            for path in event.children:
                self.numbering.observe(path)
                one = drawn[path]
                self.note(request.stop, grown[path] if request.stop else len(one.token_ids), one.finish)
                if one.scores:
                    self.scores[one.steps] = one.scores

    def ended(self, kind: Kind) -> tuple[int, float]:
        """How many samples of a kind ended by themselves, and their mean length (0 when none has)."""
        number, total = self.lengths.get(kind, (0, 0))
        return number, total / max(number, 1)

    def fork(self, ledgers: tuple[Ledger, ...]) -> tuple[SearchState, ...]:
        """Accounts for searches on child ledgers of this one's, with the same knowledge."""
        numberings = self.numbering.fork(len(ledgers))
        return tuple(
            SearchState(ledger, numbering, dict(self.lengths), self.solved, dict(self.scores), set(self.shown))
            for ledger, numbering in zip(ledgers, numberings, strict=True)
        )

    def join(self, parts: Iterable[SearchState]) -> None:
        """Close a fork's accounts: what they left, learned and numbered comes back."""
        accounts = tuple(parts)
        self.numbering.join(account.numbering for account in accounts)
        before = dict(self.lengths)
        for account in accounts:
            account.ledger.close()
            self.solved = self.solved or account.solved
            self.scores.update(account.scores)
            self.shown |= account.shown
            for kind, (number, total) in account.lengths.items():
                was_number, was_total = before.get(kind, (0, 0))
                now_number, now_total = self.lengths.get(kind, (0, 0))
                self.lengths[kind] = (now_number + number - was_number, now_total + total - was_total)
