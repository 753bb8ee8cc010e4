"""What all requests of one problem share: the models, their prices, where usage goes; it sends nothing itself."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from adaptive_ttc.cost import Price
from adaptive_ttc.driver.flights import Flights
from adaptive_ttc.driver.meter import Meter
from adaptive_ttc.driver.scoring import Scorer
from adaptive_ttc.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverConfig:
    """How requests are sent.

    Attributes:
        attempts: how often a sample's or a score's request may fail with a retryable error, the last
            failure included, before the run fails with it; at least 1.
        grace: seconds that aborted requests have to tell their token counts; after them they are
            charged in full.
        priority: passed on to the policy.
        finish_tokens: tokens of a solution that are kept so that a tight budget finishes at least one;
            None keeps its worst case, ``max_tokens``. Less lets more samples run from the start, and
            suffices where solutions are known to be shorter.
    """

    attempts: int = 3
    grace: float = 10.0
    priority: int = 0
    finish_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.grace < 0:
            raise ValueError(f"attempts is at least 1 and grace at least 0; got {self.attempts} and {self.grace}")
        if self.finish_tokens is not None and self.finish_tokens < 1:
            raise ValueError(f"finish_tokens is at least 1, or None for max_tokens; got {self.finish_tokens}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """What the expansions of one problem share; ``aloft`` are the rounds under way, ``stop`` ends the run early."""

    policy: Policy
    scorer: Scorer
    price: Price
    meter: Meter
    stop: anyio.Event
    config: DriverConfig
    aloft: set[Flights]
