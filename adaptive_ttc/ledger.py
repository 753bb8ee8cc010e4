"""Counts what a run may spend, has reserved and has spent.

One rule holds after every call: ``spent + reserved <= limit``. Nothing is spent that was not reserved first, so a limit
cannot be overrun, however many requests are in flight. The unit is the caller's, see :mod:`adaptive_ttc.cost`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerStatistics:
    """A snapshot of an account, in the ledger's unit."""

    limit: int | None
    spent: int
    reserved: int
    available: int | None
    open_reservations: int
    open_children: int
    granted: int
    refused: int
    peak_reserved: int


class Reservation:
    """A promise of ``amount`` units, settled exactly once; made by :meth:`Ledger.reserve`."""

    __slots__ = ("_ledger", "_settled", "amount")

    def __init__(self, ledger: Ledger, amount: int) -> None:
        self._ledger = ledger
        self._settled = False
        self.amount = amount

    @property
    def settled(self) -> bool:
        """Whether :meth:`settle` was called."""
        return self._settled

    def settle(self, used: int) -> None:
        """Spend ``used`` units and give the rest back; ValueError if settled before, or not within 0 and ``amount``."""
        if self._settled:
            raise ValueError(f"this reservation of {self.amount} was settled already")
        if not 0 <= used <= self.amount:
            raise ValueError(f"cannot settle {used}: the reservation is for 0 to {self.amount}")
        self._settled = True
        self._ledger._settle(self.amount, used)


class Ledger:
    """An account with a hard limit (at least 0; None for no limit).

    Synchronous and for one event loop: no call awaits, so no other task can come between the check and the change.
    """

    def __init__(self, limit: int | None) -> None:
        if limit is not None and limit < 0:
            raise ValueError(f"a limit is at least 0, or None for no limit; got {limit}")
        self._limit = limit
        self._spent = 0
        self._reserved = 0
        self._open = 0
        self._granted = 0
        self._refused = 0
        self._peak = 0
        self._children = 0
        self._parent: Ledger | None = None
        self._closed = False

    @property
    def limit(self) -> int | None:
        """Most that may be spent; None without a limit."""
        return self._limit

    @property
    def spent(self) -> int:
        """Settled so far, by child accounts too, whether they are closed or not."""
        return self._spent

    @property
    def available(self) -> int | None:
        """What a new reservation could get; None without a limit."""
        return None if self._limit is None else self._limit - self._spent - self._reserved

    def reserve(self, amount: int) -> Reservation | None:
        """Set ``amount`` units aside, or return None when they are not available."""
        if amount < 0:
            raise ValueError(f"cannot reserve {amount}: an amount is at least 0")
        self._check_open()
        if not self._set_aside(amount):
            return None
        self._open += 1
        return Reservation(self, amount)

    def child(self, limit: int | None) -> Ledger | None:
        """Open an account whose limit is set aside here until it is closed; None when that is not available."""
        self._check_open()
        if limit is None and self._limit is not None:
            raise ValueError(f"an account limited to {self._limit} cannot have a child without a limit")
        account = Ledger(limit)
        if not self._set_aside(limit or 0):
            return None
        account._parent = self
        self._children += 1
        return account

    def split(self, parts: int) -> tuple[Ledger, ...]:
        """Open ``parts`` child accounts that share what is available equally, earlier ones getting the odd units."""
        if parts < 1:
            raise ValueError(f"cannot split an account in {parts}: at least 1 part is needed")
        left = self.available
        shares = [None] * parts if left is None else [left // parts + (i < left % parts) for i in range(parts)]
        accounts = tuple(self.child(share) for share in shares)
        return tuple(account for account in accounts if account is not None)

    def close(self) -> None:
        """Close the account and give the parent back what is left; twice does nothing. ValueError while in use."""
        if self._closed:
            return
        if self._open or self._children:
            raise ValueError(
                f"the account still has {self._open} open reservations and {self._children} open children: "
                "settle and close them first"
            )
        self._closed = True
        if self._parent is not None:
            self._parent._children -= 1
            # what is still set aside for this account
            self._parent._reserved -= 0 if self._limit is None else self._limit - self._spent

    def statistics(self) -> LedgerStatistics:
        """A snapshot for tests, traces and reports."""
        return LedgerStatistics(
            limit=self._limit,
            spent=self._spent,
            reserved=self._reserved,
            available=self.available,
            open_reservations=self._open,
            open_children=self._children,
            granted=self._granted,
            refused=self._refused,
            peak_reserved=self._peak,
        )

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the account is closed")

    def _set_aside(self, amount: int) -> bool:
        available = self.available
        if available is not None and amount > available:
            self._refused += 1
            return False
        self._granted += 1
        self._reserved += amount
        self._peak = max(self._peak, self._reserved)
        return True

    def _settle(self, amount: int, used: int) -> None:
        self._open -= 1
        self._reserved -= amount
        account: Ledger | None = self
        while account is not None:
            account._spent += used
            if account._parent is not None and account._limit is not None:
                account._parent._reserved -= used  # it was set aside when the child was opened
            account = account._parent
