"""Pandora's box with an upper confidence bound: stop when the best score is good enough (arXiv 2510.01394).

From the paper: a sample is a box that costs c and holds a score. Where scores are distributed as v, it is optimal to
stop at the first score of at least the fair cap t, with E[(v - t)+] = c (Weitzman): where the best so far may not be
expected to rise by its cost. The distribution is not known, so that rise is bounded from above, within a family of
tails; the estimated mean excess is enlarged by 1 + sqrt(log(log n) log(1 / delta) / n), as in the paper's code.

Ours: the paper's tail, an exponential one above the median of unbounded rewards, fits scores in [0, 1] badly (measured
beside this in bench/RESULTS.md). Here the next of n + 1 exchangeable scores is the best with probability 1 / (n + 1),
whatever the distribution; then it exceeds the best by the mean by which the sqrt(n) best scores exceed the one below
them, enlarged as above, and by no more than reaches 1. That is no proven bound: with fewer than ten scores of two humps
it is half of the rise that comes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.stopping.base import Draw, OneByOne, Pool, fewest_first


@dataclass(frozen=True, slots=True, kw_only=True)
class PandoraUcb(OneByOne):
    """Samples while the best score may be raised by more than ``cost``; samples without a score tell nothing."""

    cost: float = 0.01  # of one sample, as a rise of the score
    delta: float = 0.05  # the smaller, the wider the bound
    least: int = 2  # scores before it may stop

    def __post_init__(self) -> None:
        OneByOne.__post_init__(self)
        if not 0 < self.cost < 1:
            raise ConfigError(f"cost={self.cost} is the rise of a score in [0, 1] that pays for a sample: in (0, 1)")
        if not 0 < self.delta < 1:
            raise ConfigError(f"delta={self.delta} is the probability of a bound that fails: in (0, 1)")
        if self.least < 2:
            raise ConfigError(f"least={self.least}: a spread is estimated from at least 2 scores")

    @property
    def name(self) -> str:
        """``pandora_ucb``."""
        return "pandora_ucb"

    def worth(self, draws: Sequence[Draw], pool: Pool | None = None) -> float:
        """The rise of the best score by one more; above 1 before there are ``least``; 0 once under the cost."""
        if self.full(draws):
            return 0.0
        scores = [draw.score for draw in draws if draw.score is not None]
        if len(scores) < self.least:
            return 1 + fewest_first(draws)
        rise = self.rise(scores)
        return rise if rise > self.cost else 0.0

    def rise(self, scores: Sequence[float]) -> float:
        """The rise of the best score that one more may be expected to bring, from at least two; on the high side."""
        n = len(scores)
        ordered = sorted(scores, reverse=True)
        top = min(math.isqrt(n - 1) + 1, n - 1)
        excess = math.fsum(ordered[:top]) / top - ordered[top]
        wider = 1 + math.sqrt(math.log(math.log(max(n, 3))) * math.log(1 / self.delta) / n)
        return min(excess * wider, max(0.0, 1 - ordered[0])) / (n + 1)
