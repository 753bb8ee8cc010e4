"""A policy and a PRM that pass everything on to another: bases for those that count, watch or record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptive_ttc.policy import Demand, Policy, Sampled, SampleRequest, check_demand, strategy_defaults
from adaptive_ttc.prm.base import RewardModel, Scored, ScoreRequest
from adaptive_ttc.types import Problem


class WrappedPolicy:
    """Does what another policy does, its limits included.

    Args:
        policy: does the work.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

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
        """The policy's."""
        return await self._policy.sample(request)

    async def abort(self, request_id: str) -> None:
        """The policy's."""
        await self._policy.abort(request_id)

    async def aclose(self) -> None:
        """The policy's."""
        await self._policy.aclose()


class WrappedPRM:
    """Does what another PRM does, its limits included.

    Args:
        prm: does the work.
    """

    def __init__(self, prm: RewardModel) -> None:
        self._prm = prm

    @property
    def name(self) -> str:
        """The PRM's."""
        return self._prm.name

    @property
    def fingerprint(self) -> str:
        """The PRM's."""
        return self._prm.fingerprint

    @property
    def parameters(self) -> int:
        """The PRM's."""
        return self._prm.parameters

    @property
    def strategy_defaults(self) -> Mapping[str, Any]:
        """The PRM's, if it has any."""
        return strategy_defaults(self._prm)

    def check_demand(self, problem: Problem, demand: Demand) -> None:
        """Refuse what the PRM refuses."""
        check_demand(self._prm, problem, demand)

    def count_tokens(self, request: ScoreRequest) -> int:
        """The PRM's."""
        return self._prm.count_tokens(request)

    async def score(self, request: ScoreRequest) -> Scored:
        """The PRM's."""
        return await self._prm.score(request)

    async def aclose(self) -> None:
        """The PRM's."""
        await self._prm.aclose()
