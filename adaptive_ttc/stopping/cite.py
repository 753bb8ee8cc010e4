"""A certificate, valid at any time, that an answer is the unique mode, over an unknown set of answers (2605.05873).

From the paper (Certification by Intersection-union Testing with E-processes): for a target that is given beforehand,
"it is not the unique mode" is the union of "rival j is at least as frequent" over all j. It is rejected when the
e-process against *every* rival reaches 1 / alpha; as one of them is true, the error is at most alpha however many
rivals there are, unseen ones included. Votes may be weighted by confidence.

Ours: a run has no target beforehand, so every answer becomes one when it is first seen, is tested on the samples after
that, and the k-th to be seen may err with probability alpha / (k (k + 1)), which sums to alpha. The e-processes are
means over bets: in closed form for equal weights (:mod:`adaptive_ttc.stopping.evidence`), else over a few stakes of

    prod (1 + stake * w / cap) over the target's samples * prod (1 - stake * w / cap) over the rival's,

a supermartingale where the rival has at least the target's mean weight; weights above ``cap`` count as ``cap``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.stopping.base import Certificate, Draw, OneByOne, Pool, checked_level, fewest_first
from adaptive_ttc.stopping.evidence import STAKES, log_evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Cite(OneByOne):
    """Samples until one answer is certified as the unique mode; ``weighted``: of the weighted vote."""

    level: float = 0.95
    weighted: bool = False
    cap: float = 2.0  # the largest weight that counts in full, in mean weights

    def __post_init__(self) -> None:
        OneByOne.__post_init__(self)
        checked_level(self.level)
        if not 0 < self.cap < math.inf:
            raise ConfigError(f"cap={self.cap} is the largest weight of a vote: above 0, and finite")

    @property
    def name(self) -> str:
        """``cite``."""
        return "cite"

    def worth(self, draws: Sequence[Draw], pool: Pool | None = None) -> float:
        """Falls with the number of draws; 0 once an answer is certified."""
        return 0.0 if self.full(draws) or self.certificate(draws) else fewest_first(draws)

    def certificate(self, draws: Sequence[Draw]) -> Certificate | None:
        """Of the answer that is certified now; None where none is. Two never are: each would have to beat the other."""
        cap = self.cap if self.weighted else None
        sums: dict[str, float] = {}  # in the order in which answers were seen first
        for draw in draws:
            if draw.answer is not None:
                vote = 1.0 if cap is None else min(draw.weight, cap)
                sums[draw.answer] = sums.get(draw.answer, 0.0) + vote
        if not sums:
            return None
        target = max(sums, key=sums.__getitem__)  # of equal ones the first; no other can be ahead of all
        order = list(sums).index(target) + 1
        first = next(place for place, draw in enumerate(draws) if draw.answer == target)
        later = [draw for draw in draws[first + 1 :] if draw.answer is not None]
        log_e = self._weighted(later, target) if self.weighted else _unweighted(later, target)
        if log_e < math.log(order * (order + 1)) - math.log(1 - self.level):
            return None
        return Certificate(target, self.level, "CITE (arXiv 2605.05873)" + ", weighted votes" * self.weighted)

    def _weighted(self, later: Sequence[Draw], target: str) -> float:
        wins: list[tuple[float, ...]] = [(0.0,) * len(STAKES)]
        losses: dict[str, list[tuple[float, ...]]] = {"": []}  # one rival that was never seen stands for all
        for draw in later:
            share = min(draw.weight, self.cap) / self.cap
            if draw.answer == target:
                wins.append(_log_bets(share))
            else:
                losses.setdefault(draw.answer or "", []).append(_log_bets(-share))
        gained = [math.fsum(column) for column in zip(*wins, strict=True)]
        return min(_log_mean([math.fsum(one) for one in zip(gained, *rows, strict=True)]) for rows in losses.values())


@lru_cache(maxsize=1 << 15)
def _log_bets(share: float) -> tuple[float, ...]:
    return tuple(math.log1p(stake * share) for stake in STAKES)


def _log_mean(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + math.log(math.fsum(math.exp(one - top) for one in logs) / len(logs))


def _unweighted(later: Sequence[Draw], target: str) -> float:
    votes: dict[str, int] = {}
    for draw in later:
        votes[draw.answer or ""] = votes.get(draw.answer or "", 0) + 1
    wins = votes.pop(target, 0)
    return log_evidence(wins, max(votes.values(), default=0))  # the strongest rival is the least evidence
