"""A certificate, valid at any time, that the leading answer is the policy's most frequent one (arXiv 2510.17472).

From the paper (the Martingale Majority Certificate): bets on the leader *of the samples before*, against rivals; a
mixture over a Beta(1/2, 1/2) cut to (1/2, 1); Ville's inequality. Ours: evidence is kept for every rival m apart, and
counts only samples drawn while another answer led, so that it is a supermartingale if m is a most frequent answer:

    W_m = mean over q of (2q)^s (2 - 2q)^f,  s: the sample was the leader, f: it was m; m was not the leader.

An answer is certified when W_m >= 1 / alpha for all others, those that were never seen included (their s is the
largest, and f is 0). Proof: let m be a most frequent answer. If one that is not most frequent is certified at any time,
then W_m >= 1 / alpha at that time, which happens with probability at most alpha. One pooled process, where the leader
may change, has no such proof. The number of answers does not matter, and needs not be known.

Of answers that are exactly tied any may be certified: that none is more frequent is what is certified.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from adaptive_ttc.stopping.base import Certificate, Draw, OneByOne, Pool, checked_level, fewest_first
from adaptive_ttc.stopping.evidence import log_evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class MartingaleCertificate(OneByOne):
    """Samples until the leader is certified; votes count alike, whatever their weight."""

    level: float = 0.95

    def __post_init__(self) -> None:
        OneByOne.__post_init__(self)
        checked_level(self.level)

    @property
    def name(self) -> str:
        """``martingale``."""
        return "martingale"

    def worth(self, draws: Sequence[Draw], pool: Pool | None = None) -> float:
        """Falls with the number of draws; 0 once the leader is certified."""
        return 0.0 if self.full(draws) or self.certificate(draws) else fewest_first(draws)

    def certificate(self, draws: Sequence[Draw]) -> Certificate | None:
        """Of the leader; None where it is not certified."""
        leader, log_e = leader_evidence(draws)
        if leader is None or log_e < -math.log(1 - self.level):
            return None
        return Certificate(leader, self.level, "martingale certificate (arXiv 2510.17472)")


def leader_evidence(draws: Sequence[Draw]) -> tuple[str | None, float]:
    """The leading answer, and the least log W_m over all others."""
    votes: dict[str, int] = {}
    hits = 0  # samples that were the leader of those before
    own_hits: dict[str, int] = {}  # of these, by the answer that led: no evidence against itself
    against: dict[str, int] = {}  # samples of an answer while another led
    leader: str | None = None
    lead = 0
    for draw in draws:
        answer = draw.answer
        if answer is None:
            continue
        if answer == leader:
            hits += 1
            own_hits[answer] += 1
        elif leader is not None:
            against[answer] = against.get(answer, 0) + 1
        count = votes[answer] = votes.get(answer, 0) + 1
        if count > lead:
            leader, lead = answer, count
            own_hits.setdefault(answer, 0)
    if leader is None:
        return None, -math.inf
    own_hits.pop(leader)
    own = [log_evidence(hits - many, against.pop(answer, 0)) for answer, many in own_hits.items()]
    against.pop(leader, None)
    # of answers that never led, the one with the most samples has the least evidence against it; an unseen one has none
    return leader, min([log_evidence(hits, max(against.values(), default=0)), *own])
