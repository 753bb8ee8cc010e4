"""How many requests a replica is given at once: additive increase, multiplicative decrease (AIMD).

As TCP's congestion window (Jacobson and Karels 1988): a refusal or a growing queue cuts the limit once a burst, and
requests that are taken while it is used up raise it by one a round. A replica that comes back starts with one request,
and with one more for each that is taken, until it has as many as before.
"""

from __future__ import annotations

REFUSED = 0.5  # share of the requests in flight that are left after a refusal
QUEUED = 0.8  # and after a look at a queue that grows


class Limit:
    """The limit of one replica, from 1 to ``most``, which it has until the replica pushes back."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._now = self._before = float(most)  # it is raised faster up to what it was before a restart
        self._cut_at = float("-inf")

    @property
    def requests(self) -> int:
        """Most requests at once."""
        return int(self._now)

    def has_room(self, in_flight: int) -> bool:
        """Whether a replica that is serving so many may get another one."""
        return in_flight < self.requests

    def taken(self, in_flight: int) -> bool:
        """A replica began an answer, with so many in flight, that one included; whether that raised the limit."""
        if self._now >= self._most or in_flight < self.requests:
            return False
        before = self.requests
        self._now = min(self._now + (1.0 if self._now < self._before else 1.0 / self._now), self._most)
        return self.requests > before

    def pushed_back(self, share: float, in_flight: int, sent: float, now: float) -> None:
        """Leave a share of the requests in flight; what was ``sent`` before the last cut says nothing new."""
        if sent > self._cut_at:
            self._now = self._before = max(1.0, share * min(in_flight, self._now))
            self._cut_at = now

    def restart(self, in_flight: int) -> None:
        """A replica is back, which still has so many requests."""
        self._before = max(self._before, self._now)
        self._now = min(in_flight + 1.0, self._now)
