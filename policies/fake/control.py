"""How a test holds the fake policy's samples back, and makes them fail; it knows no policy and no text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import anyio

from adaptive_ttc.policy import SampleRequest

Matching = Callable[[SampleRequest], bool]


def anything(request: SampleRequest) -> bool:
    """Matches every request."""
    return True


@dataclass(slots=True, eq=False)
class Flight:
    """A request on its way; ``wake`` is set when what it waits for has come, or it is aborted."""

    request: SampleRequest
    wake: anyio.Event = field(default_factory=anyio.Event)
    aborted: bool = False
    has_slot: bool = False

    async def park(self) -> None:
        """Wait until woken."""
        self.wake = anyio.Event()
        if not self.aborted:
            await self.wake.wait()


@dataclass(slots=True, eq=False)
class Hold:
    """Samples that wait, after so many tokens, until they are let go.

    Attributes:
        matching: which requests.
        after_tokens: generated before the wait.
        arrived: set when the first of them waits.
        waiting: those that wait, in order of arrival.
    """

    matching: Matching
    after_tokens: int = 0
    arrived: anyio.Event = field(default_factory=anyio.Event)
    _flights: list[Flight] = field(default_factory=list)
    _released: bool = False

    @property
    def waiting(self) -> tuple[SampleRequest, ...]:
        """Requests that wait, in order of arrival."""
        return tuple(flight.request for flight in self._flights)

    def release(self) -> None:
        """Let all go, and hold no further ones."""
        self._released = True
        for flight in self._flights:
            flight.wake.set()

    def release_one(self, request_id: str) -> None:
        """Let one go; the others wait on."""
        next(flight for flight in self._flights if flight.request.id == request_id).wake.set()

    async def let_pass(self, flight: Flight, tokens: int) -> None:
        """Make a sample wait if it is meant and has so many tokens."""
        if self._released or tokens != self.after_tokens or not self.matching(flight.request):
            return
        self._flights.append(flight)
        self.arrived.set()
        try:
            await flight.park()
        finally:
            self._flights.remove(flight)


@dataclass(slots=True, eq=False)
class Failure:
    """An error that is due."""

    error: Exception
    matching: Matching
    after_tokens: int
    times: int

    def raise_if_due(self, request: SampleRequest, tokens: int) -> None:
        """Raise it if it is meant for this request at this point, and was not raised often enough."""
        if self.times > 0 and tokens == self.after_tokens and self.matching(request):
            self.times -= 1
            raise self.error
