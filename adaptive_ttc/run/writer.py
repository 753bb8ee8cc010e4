"""A policy at work on one problem, and the units without which it cannot begin."""

from __future__ import annotations

from dataclasses import dataclass

from adaptive_ttc.cost import Price
from adaptive_ttc.driver.driver import Driver
from adaptive_ttc.driver.scoring import PRM_TOKENS_PER_TOKEN, least_score
from adaptive_ttc.policy import Policy, whole_samples
from adaptive_ttc.prm.base import RewardModel
from adaptive_ttc.run.request import SolveRequest

SHORTEST = 16  # tokens under which a slice is not worth a request


@dataclass(frozen=True, slots=True)
class Writer:
    """A policy at work on a problem: the first, or the second of a cascade."""

    policy: Policy
    driver: Driver
    weight: float  # tokens of the first policy that one of its tokens counts
    prompt: int  # tokens
    prompt_units: int  # charged with its first slice
    # shortest, scoring: units under which a unit of work cannot begin, and those to set aside for scoring that
    shortest: int
    scoring: int

    @property
    def prompt_due(self) -> int:
        """Units for the prompt; 0 where it is paid for."""
        return 0 if self.driver.prompt_paid else self.prompt_units

    def least(self, count: int) -> int:
        """Units under which so many units of work cannot even begin."""
        return self.prompt_due + count * (self.shortest + self.scoring)


def writer_of(
    driver: Driver, policy: Policy, weight: float, price: Price, request: SolveRequest, prm: RewardModel | None
) -> Writer:
    """The writer of a request's problem; a sample that cannot be continued gets all its tokens at once, or is lost."""
    prompt, shortest, scoring = len(policy.encode(request.problem)), SHORTEST, 0
    if prm is not None and (price.score or price.written):
        scoring = least_score(prm, request.problem.question, price)
    if whole_samples(policy):
        shortest = min(request.strategy.max_tokens, policy.max_context - prompt)
        scoring += 0 if prm is None else PRM_TOKENS_PER_TOKEN * price.score * shortest
    return Writer(policy, driver, weight, prompt, price.prompt * prompt, price.decode * shortest, scoring)
