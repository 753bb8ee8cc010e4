"""Evidence that one answer is more frequent than another, valid whenever it is looked at.

An e-process is a non-negative process whose mean is at most 1 at every stopping time while the hypothesis holds; by
Ville's inequality it reaches 1 / alpha at any time at all with probability at most alpha.
"""

from __future__ import annotations

import math
from functools import lru_cache

from adaptive_ttc.stopping.beta import incomplete_beta

STAKES = (0.15, 0.35, 0.55, 0.75, 0.95)
"""The bets over which weighted evidence is averaged."""


@lru_cache(maxsize=1 << 16)
def log_evidence(wins: int, losses: int) -> float:
    """Logarithm of the e-process against "a win is no likelier than a loss", after so many of both.

    The mean of (2q)^wins (2 - 2q)^losses over q, with the density of Beta(1/2, 1/2) cut to (1/2, 1): each is a
    supermartingale under the hypothesis, and so is their mean.
    """
    a, b = wins + 0.5, losses + 0.5
    above = incomplete_beta(b, a, 0.5)  # P(Beta(a, b) > 1/2)
    if above <= 0:
        return -math.inf
    log_mean = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b) + math.log(above) - math.log(math.pi / 2)
    return (wins + losses) * math.log(2) + log_mean
