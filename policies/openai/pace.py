"""How fast a replica is: seconds a token of one answer, an exponentially weighted moving average (EWMA)."""

from __future__ import annotations

import math

MEMORY = 20.0  # seconds in which what was measured loses all but 1/e of its weight
_PRIOR = 64.0  # tokens that the fleet's pace weighs in each replica's


class Pace:
    """Seconds and tokens of the answers' pieces, the wait for the first included, older ones weighing less.

    What was measured fades into the fleet's own pace, so that a replica that got little work for being slow is tried
    again.
    """

    def __init__(self) -> None:
        self._seconds = self._tokens = self._at = 0.0

    def took(self, seconds: float, tokens: int, now: float) -> None:
        """So many tokens of an answer came after so many seconds."""
        kept = self._kept(now)
        self._seconds, self._tokens, self._at = self._seconds * kept + seconds, self._tokens * kept + tokens, now

    def per_token(self, now: float, typical: float = 0.0) -> float:
        """Seconds a token, ``typical`` ones where little was measured lately."""
        kept = self._kept(now)
        prior = _PRIOR if typical else 0.0
        tokens = self._tokens * kept + prior
        return (self._seconds * kept + prior * typical) / tokens if tokens else 0.0

    def _kept(self, now: float) -> float:
        return math.exp(min(0.0, self._at - now) / MEMORY)
