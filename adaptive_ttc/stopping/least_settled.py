"""The least settled problem first, and of equally unsettled ones that with the fewest samples: an index of our own.

No paper's rule, but made of one. Adaptive-Consistency (arXiv 2305.11860) says when to stop,
not where the next sample helps most; breadth-first, it gives a second sample to every problem before a third to any,
although a second vote never changes a majority. The posterior probability that the lead is wrong, alone, stays with
problems that no number of samples settles. Divided by (1 + n)^decay it goes between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.stopping.base import Draw, OneByOne, Pool, checked_level, first_two
from adaptive_ttc.stopping.beta import leads


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastSettled(OneByOne):
    """Worth P(Beta(a + 1, b + 1) <= 1/2) / (1 + n)^decay after n samples; stops where that is at most 1 - level."""

    level: float = 0.95
    decay: float = 1.0

    def __post_init__(self) -> None:
        OneByOne.__post_init__(self)
        checked_level(self.level)
        if not 0 <= self.decay < math.inf:
            raise ConfigError(f"decay={self.decay}: how much samples that were drawn count against more, at least 0")

    @property
    def name(self) -> str:
        """``least_settled``."""
        return "least_settled"

    def worth(self, draws: Sequence[Draw], pool: Pool | None = None) -> float:
        """Falls with samples, and with the lead; 0 once settled."""
        if self.full(draws):
            return 0.0
        first, second = first_two(draws)
        wrong = leads(second, first)
        return float(wrong / (1 + len(draws)) ** self.decay) if wrong > 1 - self.level else 0.0

    def right(self, draws: Sequence[Draw]) -> float | None:
        """The probability that the leader leads; None before the first answer."""
        first, second = first_two(draws)
        return leads(first, second) if first else None
