"""A policy that tells how far it is, for progress displays; it changes no sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from adaptive_ttc.limits import Demand, check_demand, strategy_defaults
from adaptive_ttc.policy import Policy, Sampled, SampleRequest
from adaptive_ttc.types import Problem


class WatchedPolicy:
    """Passes everything on to another policy.

    Args:
        policy: does the work.
        report: called after every request with the requests answered and tokens delivered so far.
    """

    def __init__(self, policy: Policy, report: Callable[[int, int], None]) -> None:
        self._policy = policy
        self._report = report
        self._answered = 0
        self._delivered = 0

    @property
    def name(self) -> str:
        """The policy's."""
        return self._policy.name

    @property
    def fingerprint(self) -> str:
        """The policy's."""
        return self._policy.fingerprint

    @property
    def parameters(self) -> int:
        """The policy's."""
        return self._policy.parameters

    @property
    def max_context(self) -> int:
        """The policy's."""
        return self._policy.max_context

    @property
    def revision_prompt(self) -> str | None:
        """The policy's."""
        return self._policy.revision_prompt

    @property
    def strategy_defaults(self) -> Mapping[str, Any]:
        """The policy's, if it has any."""
        return strategy_defaults(self._policy)

    def check_demand(self, problem: Problem, demand: Demand) -> None:
        """Refuse what the policy refuses."""
        check_demand(self._policy, problem, demand)

    def encode(self, problem: Problem) -> tuple[int, ...]:
        """The policy's."""
        return self._policy.encode(problem)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The policy's."""
        return self._policy.decode(token_ids)

    async def sample(self, request: SampleRequest) -> Sampled:
        """The policy's, then the report."""
        sampled = await self._policy.sample(request)
        self._answered += 1
        self._delivered += len(sampled.token_ids)
        self._report(self._answered, self._delivered)
        return sampled

    async def abort(self, request_id: str) -> None:
        """The policy's."""
        await self._policy.abort(request_id)

    async def aclose(self) -> None:
        """The policy's."""
        await self._policy.aclose()
