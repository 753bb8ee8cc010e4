"""How many tokens samples take, before many were seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

OWN = 0.5  # samples that the mean length of all problems counts for, beside a problem's own
GUESSED = 4.0  # first samples of a pool that the guess of their length counts for


def pool_length(total: float, count: int, guess: float) -> float:
    """Mean length of a pool's samples, of which ``count`` took ``total`` tokens; before any, the ``guess``."""
    return (total + GUESSED * guess) / (count + GUESSED)


def next_length(lengths: Sequence[int], mean: float, own: float = OWN) -> float:
    """Tokens that a problem's next sample is expected to take, at least 1; the ``mean`` of all counts for ``own``."""
    return max(1.0, (math.fsum(lengths) + own * mean) / (len(lengths) + own))
