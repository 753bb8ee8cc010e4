"""Money for what an engine generates beside a lease: a request that is late, and is sent a second time."""

from __future__ import annotations

from collections.abc import Callable

from adaptive_ttc.ledger import Reservation


class LeaseSpare:
    """The :class:`~adaptive_ttc.policy.Spare` of one lease.

    ``reserve`` sets the money for so many tokens aside, or gives None where that is wanted for something else.
    """

    __slots__ = ("_reservations", "_reserve", "tokens")

    def __init__(self, reserve: Callable[[int], Reservation | None]) -> None:
        self._reserve = reserve
        self._reservations: list[Reservation] = []
        self.tokens = 0

    def reserve(self, tokens: int) -> bool:
        """Have so many more tokens reserved; whether they are."""
        money = self._reserve(tokens)
        if money is None:
            return False
        self._reservations.append(money)
        self.tokens += tokens
        return True

    def settle(self, units: int) -> None:
        """Spend so many units of all that is reserved, and give the rest back."""
        for money in self._reservations:
            used = min(units, money.amount)
            money.settle(used)
            units -= used
        self._reservations.clear()
