"""Stops when the Bayes factor for "the leader is the majority of infinitely many samples" is large (2509.21091)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.stopping.base import Draw, OneByOne, Pool, fewest_first, totals
from adaptive_ttc.stopping.gamma import first_is_largest


@dataclass(frozen=True, slots=True, kw_only=True)
class BayesFactor(OneByOne):
    """The odds of "the leader has the largest share", times the number of answers, against ``factor``.

    As in the paper's code: a Dirichlet posterior with one vote more than counted for each answer seen, and one for all
    unseen answers together, which has ``unseen`` votes; prior odds of one to the number of answers. Ours: the integral
    is computed, not sampled, and a tie of leaders has the factor that the posterior gives it.
    """

    factor: float = 10.0
    unseen: float = 0.3

    def __post_init__(self) -> None:
        OneByOne.__post_init__(self)
        if not 1 < self.factor < math.inf:
            raise ConfigError(f"factor={self.factor}: the Bayes factor to stop at is above 1")
        if not 0 <= self.unseen < math.inf:
            raise ConfigError(f"unseen={self.unseen}: the votes of unseen answers are a number of at least 0")

    @property
    def name(self) -> str:
        """``bayes_factor``."""
        return "bayes_factor"

    def worth(self, draws: Sequence[Draw], pool: Pool | None = None) -> float:
        """Falls with the number of draws; 0 once the factor is reached."""
        ranked = totals(draws)
        if self.full(draws) or (ranked and self._factor(ranked) >= self.factor):
            return 0.0
        return fewest_first(draws)

    def right(self, draws: Sequence[Draw]) -> float | None:
        """The posterior probability; None before the first answer."""
        ranked = totals(draws)
        return self._probability(ranked) if ranked else None

    def _factor(self, ranked: Sequence[float]) -> float:
        p = self._probability(ranked)
        return (len(ranked) + 1) * p / (1 - p) if p < 1 else math.inf

    def _probability(self, ranked: Sequence[float]) -> float:
        others = tuple(round(total, 6) + 1 for total in ranked[1:])
        return first_is_largest(round(ranked[0], 6) + 1, (*others, self.unseen + 1))
