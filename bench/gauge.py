"""Measures how busy a policy is kept: requests in flight over time, tokens delivered; it changes nothing of them."""

from __future__ import annotations

import time

from adaptive_ttc.policy import Policy, Sampled, SampleRequest
from adaptive_ttc.wrappers import WrappedPolicy


class Gauge(WrappedPolicy):
    """A policy with a gauge on it.

    Attributes:
        tokens: delivered since the last reset.
        peak: the most requests that were in flight at once.
        busy: seconds with at least one request in flight.
        request_seconds: the same, once for every request in flight.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self._in_flight = 0
        self.reset()

    def reset(self) -> None:
        """Begin anew; nothing may be in flight."""
        self.tokens = self.peak = 0
        self.busy = self.request_seconds = 0.0
        self._since = time.perf_counter()

    @property
    def concurrency(self) -> float:
        """Mean number of requests in flight while there was one."""
        return self.request_seconds / self.busy if self.busy else 0.0

    async def sample(self, request: SampleRequest) -> Sampled:
        """The policy's."""
        self._turn(1)
        try:
            sampled = await super().sample(request)
        finally:
            self._turn(-1)
        self.tokens += len(sampled.token_ids)
        return sampled

    def _turn(self, change: int) -> None:
        now = time.perf_counter()
        if self._in_flight:
            self.busy += now - self._since
            self.request_seconds += self._in_flight * (now - self._since)
        self._since = now
        self._in_flight += change
        self.peak = max(self.peak, self._in_flight)
