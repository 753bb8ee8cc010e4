"""What an allocator knows of every problem, and queues of those that wait for units, best first."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from adaptive_ttc.allocation.envelope import Envelope, Piece
from adaptive_ttc.allocation.report import Decision, ProblemReport, Standing
from adaptive_ttc.estimate.gain import Option
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.types import Ending

FLOOR = 0.5
"""Share of an opening that is worth starting with, where many share a budget and that is all that is left."""


@dataclass(slots=True, eq=False)
class Account:
    """What an allocator knows of a problem."""

    id: str
    order: int  # of its arrival
    opening: int  # units of its first work
    standing: Standing = "waiting"
    ending: Ending | None = None  # why it was settled or failed, and the price it met then
    price: float = 0.0
    spent: int = 0
    promise: Ledger | None = None  # the account that what runs may spend
    slices: int = 0  # granted
    opened: int = 0  # units spent on the opening
    grants: list[Decision] = field(default_factory=list)  # the last one is what runs now
    options: tuple[Option, ...] = ()  # as last offered
    envelope: Envelope = field(default_factory=Envelope)  # of those options that can be finished
    wanted: tuple[Piece, ...] = ()
    ticket: int = -1  # of its newest place in a queue; older ones are stale

    @property
    def slope(self) -> float:
        """Gain per unit of the best of its options."""
        return self.envelope.slope

    def begins(self, floor: float) -> int:
        """Units that are enough to begin it, where this share of its opening is worth starting with."""
        return max(1, math.ceil(floor * self.opening))

    def grant(self, decision: Decision, promise: Ledger | None) -> None:
        """What it gets next."""
        self.promise, self.standing = promise, "running"
        self.slices += 1
        self.grants.append(decision)

    def charge(self, spent: int) -> None:
        """What it got has cost so much."""
        self.promise, self.standing = None, "open"
        self.spent += spent
        last = self.grants[-1]
        self.grants[-1] = Decision(last.number, last.problem, last.option, last.units, last.price, spent)
        self.opened += spent if last.option is None else 0

    def forget(self) -> None:
        """Drop all but a line of the report: it is over."""
        self.envelope = Envelope((), (self.slope,))
        self.options = ()
        self.grants = []

    def report(self, ending: Ending | None, price: float, per: float) -> ProblemReport:
        """What happened to it; slopes are told per so many units."""
        return ProblemReport(
            id=self.id,
            standing=self.standing,
            ending=ending,
            spent=self.spent + (self.promise.spent if self.promise else 0),
            slices=self.slices,
            opening=self.opened,
            grants=tuple(self.grants),
            considered=self.options,
            slope=self.slope * per,
            price=self.price if self.ending else price,
        )


class Queue:
    """Accounts of one standing by falling slope, then by arrival.

    A push, and a pop, take O(log n): an account that moves on leaves its entry behind, which is dropped when it is met.
    """

    def __init__(self, standing: Standing) -> None:
        self._standing = standing
        self._heap: list[tuple[float, int, int, Account]] = []
        self._compact_at = 64

    def push(self, account: Account) -> None:
        """Put an account in, wherever it was."""
        account.standing = self._standing
        account.ticket += 1
        heappush(self._heap, (-account.slope, account.order, account.ticket, account))
        if len(self._heap) > self._compact_at:
            self._heap = [entry for entry in self._heap if self._valid(entry)]
            heapify(self._heap)
            self._compact_at = 2 * len(self._heap) + 64

    def top(self) -> Account | None:
        """The best one, which stays."""
        while self._heap and not self._valid(self._heap[0]):
            heappop(self._heap)
        return self._heap[0][3] if self._heap else None

    def __iter__(self) -> Iterator[Account]:
        """All of them, in any order."""
        return (entry[3] for entry in tuple(self._heap) if self._valid(entry))

    def _valid(self, entry: tuple[float, int, int, Account]) -> bool:
        _, _, ticket, account = entry
        return account.standing == self._standing and account.ticket == ticket
