"""A policy that tells how far it is, for progress displays; it changes no sample."""

from __future__ import annotations

from collections.abc import Callable

from adaptive_ttc.policy import Policy, Sampled, SampleRequest
from adaptive_ttc.wrappers import WrappedPolicy


class WatchedPolicy(WrappedPolicy):
    """Passes everything on to another policy.

    Args:
        policy: does the work.
        report: called after every request with the requests answered and tokens delivered so far.
    """

    def __init__(self, policy: Policy, report: Callable[[int, int], None]) -> None:
        super().__init__(policy)
        self._report = report
        self._answered = 0
        self._delivered = 0

    async def sample(self, request: SampleRequest) -> Sampled:
        """The policy's, then the report."""
        sampled = await super().sample(request)
        self._answered += 1
        self._delivered += len(sampled.token_ids)
        self._report(self._answered, self._delivered)
        return sampled
