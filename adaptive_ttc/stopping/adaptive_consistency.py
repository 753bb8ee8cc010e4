"""Adaptive-Consistency: stop when the leading answer probably stays ahead of the runner-up (arXiv 2305.11860)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptive_ttc.stopping.base import Draw, OneByOne, Pool, checked_level, fewest_first, first_two
from adaptive_ttc.stopping.beta import leads


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveConsistency(OneByOne):
    """Stops at P(Beta(a + 1, b + 1) > 1/2) >= level, with a and b the votes of the two leading answers.

    The criterion is the paper's "Beta"; it takes .95 and at most 40 samples. At .8 two that agree are enough. With one
    budget for many problems (ours): the unsettled problem with the fewest samples goes first.

    The level is no error bound: the criterion is looked at after every sample, with a flat prior over two answers.
    """

    level: float = 0.95

    def __post_init__(self) -> None:
        OneByOne.__post_init__(self)
        checked_level(self.level)

    @property
    def name(self) -> str:
        """``adaptive_consistency``."""
        return "adaptive_consistency"

    def worth(self, draws: Sequence[Draw], pool: Pool | None = None) -> float:
        """Falls with the number of draws; 0 once settled."""
        if self.full(draws) or leads(*first_two(draws)) >= self.level:
            return 0.0
        return fewest_first(draws)

    def right(self, draws: Sequence[Draw]) -> float | None:
        """The probability that it stops by; None before the first answer."""
        first, second = first_two(draws)
        return leads(first, second) if first else None
