"""PETS, streaming: a problem's number of samples follows from its difficulty and the mean budget (arXiv 2602.16745).

From the paper: accuracy is agreement with the majority of infinitely many samples; problems are of a few kinds, for
each of which it rises with k samples as Phi(a sqrt(k) + b); a greedy allocation by marginal gain says how many samples
each kind gets where the mean is bounded; a problem's kind is estimated from a few first samples.

Ours: no training problems. A kind is the share of the policy's favourite among samples of its two most frequent answers
(prior: equal probabilities); a = (2 s - 1) / (2 sqrt(s (1 - s))), b = 0, the normal approximation of a majority; and
instead of one kind the posterior over all of them is used, given the votes of the two leading answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.stopping.base import Draw, OneByOne, Pool, first_two

SHARES = (0.52, 0.57, 0.65, 0.75, 0.86, 0.96)
"""The kinds of problems, the hardest first."""

_CAP = 256  # samples of a kind at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Pets(OneByOne):
    """Samples while a problem has fewer than its kind gets; of these, where one more raises the agreement most."""

    mean: float = 8.0  # samples a problem, where no pool says how many the budget affords
    warm_up: int = 2  # samples before anything is estimated

    def __post_init__(self) -> None:
        OneByOne.__post_init__(self)
        if not self.mean >= 1:
            raise ConfigError(f"mean={self.mean}: the mean number of samples a problem is at least 1")
        if self.warm_up < 1:
            raise ConfigError(f"warm_up={self.warm_up}: at least 1 sample is drawn before anything is estimated")

    @property
    def name(self) -> str:
        """``pets``."""
        return "pets"

    def worth(self, draws: Sequence[Draw], pool: Pool | None = None) -> float:
        """Expected rise of the agreement by one more sample; above all others while warming up; 0: it has its share."""
        n = len(draws)
        if self.full(draws):
            return 0.0
        if n < self.warm_up:
            return 2.0 - n / self.warm_up
        mean = self.mean if pool is None or math.isinf(pool.samples) else n + pool.each
        first, second = first_two(draws)
        return _worth(round(first, 6), round(second, 6), n, _rounded(mean))

    def right(self, draws: Sequence[Draw]) -> float | None:
        """The posterior probability that the leader of two is the favourite; None before the first answer."""
        first, second = first_two(draws)
        if not first:
            return None
        kinds = _posterior(round(first, 6), round(second, 6))
        return math.fsum(p / (1 + (1 / s - 1) ** (first - second)) for p, s in zip(kinds, SHARES, strict=True))


def agreement(share: float, n: float) -> float:
    """P(the favourite of two has the majority of n samples), by the normal approximation."""
    return 0.5 * (1 + math.erf(_slope(share) * math.sqrt(n / 2)))


def gain(share: float, n: int) -> float:
    """Its rise by one more sample."""
    a = _slope(share)  # by the tails, which keep their digits where both are near 1
    return 0.5 * (math.erfc(a * math.sqrt(n / 2)) - math.erfc(a * math.sqrt((n + 1) / 2)))


@lru_cache(maxsize=1 << 10)
def allotment(mean: float) -> tuple[int, ...]:
    """Samples of every kind, one each at least, that maximise the mean agreement where ``mean`` are spent on average.

    Greedy by marginal gain, which is optimal as gains of a kind only fall.
    """
    counts = [1] * len(SHARES)
    gains = [gain(share, 1) for share in SHARES]
    for _ in range(max(0, int(mean * len(SHARES)) - len(SHARES))):
        best = max(range(len(SHARES)), key=gains.__getitem__)
        if gains[best] < 0:
            break
        counts[best] += 1
        gains[best] = gain(SHARES[best], counts[best]) if counts[best] < _CAP else -1.0
    return tuple(counts)


def _rounded(mean: float) -> float:
    """To a quarter, or above 16 to a whole number, so that few allotments are computed."""
    return round(4 * mean) / 4 if mean < 16 else float(min(round(mean), _CAP))


@lru_cache(maxsize=1 << 16)
def _worth(first: float, second: float, n: int, mean: float) -> float:
    kinds = _posterior(first, second)
    if n >= math.fsum(p * many for p, many in zip(kinds, allotment(mean), strict=True)):
        return 0.0
    return math.fsum(p * gain(share, n) for p, share in zip(kinds, SHARES, strict=True))


def _slope(share: float) -> float:
    return (2 * share - 1) / (2 * math.sqrt(share * (1 - share)))


@lru_cache(maxsize=1 << 14)
def _posterior(first: float, second: float) -> tuple[float, ...]:
    """Of the kinds, given the votes of two answers of which either may be the favourite."""
    likelihood = [s**first * (1 - s) ** second + s**second * (1 - s) ** first for s in SHARES]
    whole = math.fsum(likelihood)
    return tuple(one / whole for one in likelihood) if whole else (1 / len(SHARES),) * len(SHARES)
