"""Blend-ASC: the next sample of a shared budget goes where the lead is least settled (arXiv 2511.12309v2).

From the paper: problems are ranked by a blend of two scores of the two leading answers, that of Adaptive-Consistency
(good while few samples are drawn) and that of PPR-1v1 (asymptotically optimal, arXiv 2109.05047), which takes over as
the budget is spent; no hyperparameter, any budget. Its exact blend could not be read; ours is the weighted geometric
mean, with the share of the budget spent as the weight, of

- P(Beta(a + 1, b + 1) <= 1/2): the posterior probability that the lead is wrong, and
- the density of Beta(a + 1, b + 1) at 1/2, at most 1: the inverse of PPR-1v1's martingale against a tie,

each in units of its value where two samples agree: so the worth of a problem that was looked at earlier compares with
one looked at later. Without that the problems touched last keep the budget, and it does worse than uniform sampling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from adaptive_ttc.stopping.base import Draw, OneByOne, Pool, fewest_first, first_two
from adaptive_ttc.stopping.beta import leads

_TIE = 1e-9
_AGREED = math.log(1 / 8), math.log(3 / 4)  # both scores of two samples that agree


@dataclass(frozen=True, slots=True, kw_only=True)
class BlendAsc(OneByOne):
    """Never stops by itself: the budget ends it, or ``most``. Where no budget is known it ranks half and half."""

    @property
    def name(self) -> str:
        """``blend_asc``."""
        return "blend_asc"

    def worth(self, draws: Sequence[Draw], pool: Pool | None = None) -> float:
        """The blend; of equal ones the problem with fewer samples goes first."""
        if self.full(draws):
            return 0.0
        log_wrong, log_tied = _scores(*first_two(draws))
        late = 1 - pool.left if pool else 0.5
        return math.exp((1 - late) * (log_wrong - _AGREED[0]) + late * (log_tied - _AGREED[1])) + _TIE * fewest_first(
            draws
        )

    def right(self, draws: Sequence[Draw]) -> float | None:
        """The posterior probability that the leader leads; None before the first answer."""
        first, second = first_two(draws)
        return leads(first, second) if first else None


@lru_cache(maxsize=1 << 16)
def _scores(first: float, second: float) -> tuple[float, float]:
    wrong = leads(second, first)  # the mirrored tail, exact where it is tiny
    log_beta = math.lgamma(first + 1) + math.lgamma(second + 1) - math.lgamma(first + second + 2)
    return math.log(wrong) if wrong > 0 else -700.0, min(0.0, -(first + second) * math.log(2) - log_beta)
