"""A policy that never delivers more tokens than allowed, whoever asks; it knows no problem and no strategy."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.ledger import Ledger, Reservation
from adaptive_ttc.policy import Policy, Sampled, SampleRequest
from adaptive_ttc.wrappers import WrappedPolicy


class CeilingReachedError(CalibrationError):
    """What may be generated in all does not cover the next request, and nothing more is to come back."""


@dataclass(slots=True, eq=False)
class _Waiter:
    amount: int
    decided: anyio.Event = field(default_factory=anyio.Event)
    reservation: Reservation | None = None
    refused: bool = False


class Ceiling(WrappedPolicy):
    """Does what another policy does, up to a number of generated tokens in all.

    Every request's worst case is reserved before it is sent. One that is not covered waits, in order of arrival,
    for what others in flight give back; when nothing is in flight it fails.

    Args:
        policy: does the work.
        limit: most tokens that it may deliver; those that a failed call has lost count as delivered.
    """

    def __init__(self, policy: Policy, limit: int) -> None:
        super().__init__(policy)
        self._ledger = Ledger(limit)
        self._waiting: dict[str, _Waiter] = {}

    @property
    def spent(self) -> int:
        """Tokens so far."""
        return self._ledger.spent

    async def sample(self, request: SampleRequest) -> Sampled:
        """The policy's reply.

        Raises:
            CeilingReachedError: the request is not covered, and nothing in flight will give anything back.
        """
        reservation = await self._reserve(request)
        if reservation is None:
            return Sampled(token_ids=(), finish="abort")
        used = reservation.amount
        try:
            sampled = await self._policy.sample(request)
            used = min(used, len(sampled.token_ids))
            return sampled
        finally:
            reservation.settle(used)
            self._admit()

    async def abort(self, request_id: str) -> None:
        """End a request early, whether it waits or is in flight."""
        waiter = self._waiting.pop(request_id, None)
        if waiter is None:
            return await self._policy.abort(request_id)
        waiter.decided.set()
        self._admit()
        return None

    async def _reserve(self, request: SampleRequest) -> Reservation | None:
        """What covers the request; None when it was aborted while it waited."""
        waiter = self._waiting[request.id] = _Waiter(request.max_tokens)
        self._admit()
        try:
            await waiter.decided.wait()
        except anyio.get_cancelled_exc_class():
            self._waiting.pop(request.id, None)
            if waiter.reservation is not None:
                waiter.reservation.settle(0)
            self._admit()
            raise
        if waiter.refused:
            raise CeilingReachedError(
                f"{self._ledger.spent:,} of at most {self._ledger.limit:,} tokens are generated, and the rest does not "
                "cover the next request: allow more"
            )
        return waiter.reservation

    def _admit(self) -> None:
        """Let those through, from the first on, that are covered; refuse all when nothing can come back."""
        while self._waiting:
            name, waiter = next(iter(self._waiting.items()))
            waiter.reservation = self._ledger.reserve(waiter.amount)
            waiter.refused = waiter.reservation is None and not self._ledger.statistics().open_reservations
            if waiter.reservation is None and not waiter.refused:
                return
            del self._waiting[name]
            waiter.decided.set()
