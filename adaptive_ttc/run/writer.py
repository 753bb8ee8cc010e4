"""The policies at work on one problem, which of them can be asked, and the units without which they cannot begin."""

from __future__ import annotations

from dataclasses import dataclass

from adaptive_ttc.cost import Price
from adaptive_ttc.driver.driver import Driver
from adaptive_ttc.driver.health import Health
from adaptive_ttc.driver.scoring import PRM_TOKENS_PER_TOKEN, least_score
from adaptive_ttc.errors import AdaptiveTTCError, ConfigError, OutageError
from adaptive_ttc.policy import Policy, second_policy, second_weight, whole_samples
from adaptive_ttc.prm.base import RewardModel
from adaptive_ttc.run.request import Resources, SolveRequest
from adaptive_ttc.strategies.adaptive import is_second

SHORTEST = 16  # tokens under which a slice is not worth a request


@dataclass(frozen=True, slots=True, eq=False)
class Writer:
    """A policy at work on a problem: the first, or the second of a cascade."""

    policy: Policy
    driver: Driver
    health: Health  # for all problems
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


class Writers:
    """The policies at work on a problem: ``first`` alone, or beside it the ``second`` of a cascade, where what one
    failed with for good leaves the other. Where both are gone both are asked, so that what ends the problem is told.
    """

    def __init__(self, first: Writer, second: Writer | None) -> None:
        self.first, self.second = first, second
        self._all = (first,) if second is None else (first, second)
        self._gone: list[Writer] = []  # as was told

    @property
    def able(self) -> tuple[Writer, ...]:
        """Those that can be asked."""
        return tuple(one for one in self._all if one.driver.given_up is None) or self._all

    @property
    def are_gone(self) -> bool:
        """Whether none can be asked any more."""
        return all(one.driver.given_up for one in self._all)

    def of(self, kind: str) -> Writer:
        """What draws units of a kind."""
        if not is_second(kind):
            return self.first
        if self.second is None:
            raise ConfigError(f"{kind} is drawn by a second policy, and there is none: give the solver the cascade")
        return self.second

    def draw(self, kind: str) -> bool:
        """Whether what draws units of a kind can be asked."""
        return self.of(kind) in self.able

    def gone(self) -> list[tuple[str, AdaptiveTTCError]]:
        """Which of two are gone since this was asked last, and what they failed with."""
        found = [one for one in self._all if one not in (*self.able, *self._gone)]
        self._gone += found
        names = {self.first: "first policy", self.second: "second policy"}
        return [(names[one], one.driver.given_up) for one in found if one.driver.given_up is not None]

    def end_run(self, error: AdaptiveTTCError | None) -> bool:
        """Whether what ended the problem ends all: an engine is gone, and no policy is there for other problems."""
        of_policy = any(one.driver.given_up is error for one in self._all)
        others = of_policy and any(one.health.policy.given_up is None for one in self._all)
        return isinstance(error, OutageError) and not others


def writers_of(driver: Driver, request: SolveRequest, resources: Resources) -> Writers:
    """The policies of a request's problem; the first one's driver is made."""
    policy, prm = resources.policy, resources.prm
    first = _writer_of(driver, policy, resources.health, 1.0, request.price, request, prm)
    second, dearer = second_policy(policy), request.second_price
    if second is None or dearer is None:
        return Writers(first, None)
    beside, weight = driver.beside(second, dearer, resources.second_health), second_weight(policy)
    return Writers(first, _writer_of(beside, second, resources.second_health, weight, dearer, request, prm))


def _writer_of(
    driver: Driver,
    policy: Policy,
    health: Health,
    weight: float,
    price: Price,
    request: SolveRequest,
    prm: RewardModel | None,
) -> Writer:
    """A sample that cannot be continued gets all its tokens at once, or is lost."""
    prompt, shortest, scoring = len(policy.encode(request.problem)), SHORTEST, 0
    if prm is not None and (price.score or price.written):
        scoring = least_score(prm, request.problem.question, price)
    if whole_samples(policy):
        shortest = min(request.strategy.max_tokens, policy.max_context - prompt)
        scoring += 0 if prm is None else PRM_TOKENS_PER_TOKEN * price.score * shortest
    return Writer(policy, driver, health, weight, prompt, price.prompt * prompt, price.decode * shortest, scoring)
