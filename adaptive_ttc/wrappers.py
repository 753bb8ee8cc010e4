"""A policy and a PRM that pass every call on to another one: base classes for those that count or record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptive_ttc.answers.thinking import ThinkingTags, thinking_of
from adaptive_ttc.policy import (
    Demand,
    Policy,
    Sampled,
    SampleRequest,
    check_demand,
    recorded_problem,
    recorded_samples,
    second_policy,
    second_weight,
    strategy_defaults,
    whole_samples,
)
from adaptive_ttc.prm.base import RewardModel, Scored, ScoreRequest, Traits, traits_of
from adaptive_ttc.types import Problem


class _Wrapped:
    """What policies and PRMs have in common."""

    def __init__(self, engine: Policy | RewardModel) -> None:
        self._engine = engine

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def fingerprint(self) -> str:
        return self._engine.fingerprint

    @property
    def parameters(self) -> int:
        return self._engine.parameters

    @property
    def strategy_defaults(self) -> Mapping[str, Any]:
        return strategy_defaults(self._engine)

    def check_demand(self, problem: Problem, demand: Demand) -> None:
        check_demand(self._engine, problem, demand)

    async def aclose(self) -> None:
        await self._engine.aclose()


class WrappedPolicy(_Wrapped):
    """Does what ``policy`` does, its limits included."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self._policy = policy

    @property
    def max_context(self) -> int:
        """Passed on."""
        return self._policy.max_context

    @property
    def revision_prompt(self) -> str | None:
        """Passed on."""
        return self._policy.revision_prompt

    @property
    def whole_samples(self) -> bool:
        """Passed on."""
        return whole_samples(self._policy)

    @property
    def thinking(self) -> ThinkingTags | None:
        """Passed on."""
        return thinking_of(self._policy)

    @property
    def second(self) -> Policy | None:
        """Passed on."""
        return second_policy(self._policy)

    @property
    def second_weight(self) -> float:
        """Passed on."""
        return second_weight(self._policy)

    def recorded_samples(self, problem: Problem) -> int | None:
        """Passed on."""
        return recorded_samples(self._policy, problem)

    def recorded_problem(self) -> Problem | None:
        """Passed on."""
        return recorded_problem(self._policy)

    def encode(self, problem: Problem) -> tuple[int, ...]:
        """Passed on."""
        return self._policy.encode(problem)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Passed on."""
        return self._policy.decode(token_ids)

    async def sample(self, request: SampleRequest) -> Sampled:
        """Passed on."""
        return await self._policy.sample(request)

    async def abort(self, request_id: str) -> None:
        """Passed on."""
        await self._policy.abort(request_id)


class WrappedPRM(_Wrapped):
    """Does what ``prm`` does, its limits included."""

    def __init__(self, prm: RewardModel) -> None:
        super().__init__(prm)
        self._prm = prm

    @property
    def traits(self) -> Traits:
        """Passed on."""
        return traits_of(self._prm)

    def count_tokens(self, request: ScoreRequest) -> int:
        """Passed on."""
        return self._prm.count_tokens(request)

    async def score(self, request: ScoreRequest) -> Scored:
        """Passed on."""
        return await self._prm.score(request)
