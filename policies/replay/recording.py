"""A policy and a PRM that do what others do and tell of it; they know no record and no file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policies.replay.record import SampleSettings
from adaptive_ttc.policy import Demand, Policy, Sampled, SampleRequest
from adaptive_ttc.prm.base import RewardModel, Scored, ScoreRequest
from adaptive_ttc.types import Problem
from adaptive_ttc.wrappers import WrappedPolicy, WrappedPRM


class RecordingPolicy(WrappedPolicy):
    """Passes everything on to another policy, and tells of prompts and of samples with the given settings.

    Args:
        policy: does the work.
        settings: of the samples that are told of; a solver takes them where its caller names none.
        met: called with every problem and its prompt.
        sampled: called with every request for a piece of a whole solution, and what came of it.
    """

    def __init__(
        self,
        policy: Policy,
        settings: SampleSettings,
        met: Callable[[Problem, tuple[int, ...]], None],
        sampled: Callable[[SampleRequest, Sampled], None],
    ) -> None:
        super().__init__(policy)
        self._settings = settings
        self._met = met
        self._sampled = sampled

    @property
    def strategy_defaults(self) -> Mapping[str, Any]:
        """The settings of the record."""
        own = {name: getattr(self._settings, name) for name in ("temperature", "top_p", "max_tokens")}
        return {**super().strategy_defaults, **own}

    def check_demand(self, problem: Problem, demand: Demand) -> None:
        """Refuse what could not be replayed, and what the policy refuses.

        Raises:
            ConfigError: steps, revisions, or other sampling settings.
        """
        if demand.stepwise or demand.revises:
            raise ConfigError(
                f"{demand.strategy} cannot be recorded: a record holds whole solutions; record a sampling strategy, "
                f"such as majority, or use {self.name} without the recorder"
            )
        for option in ("temperature", "top_p", "max_tokens"):
            asked, recorded = getattr(demand, option), getattr(self._settings, option)
            if asked != recorded:
                raise ConfigError(
                    f"{option}={asked:g} is not that of the record, {recorded:g}; leave it out, or give the recorder "
                    f"SampleSettings({option}={asked:g})"
                )
        super().check_demand(problem, demand)

    def encode(self, problem: Problem) -> tuple[int, ...]:
        """The policy's."""
        opening = super().encode(problem)
        self._met(problem, opening)
        return opening

    async def sample(self, request: SampleRequest) -> Sampled:
        """The policy's."""
        sampled = await super().sample(request)
        settings = (request.temperature, request.top_p)
        if not request.stop and settings == (self._settings.temperature, self._settings.top_p):
            self._sampled(request, sampled)
        return sampled


class RecordingPRM(WrappedPRM):
    """Passes everything on to another PRM, and tells of every score.

    Args:
        prm: does the work.
        scored: called with every request that was answered, and the answer.
    """

    def __init__(self, prm: RewardModel, scored: Callable[[ScoreRequest, Scored], None]) -> None:
        super().__init__(prm)
        self._scored = scored

    async def score(self, request: ScoreRequest) -> Scored:
        """The PRM's."""
        scored = await super().score(request)
        self._scored(request, scored)
        return scored
