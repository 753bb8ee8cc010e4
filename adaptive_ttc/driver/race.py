"""Ends an Expand once enough of its samples have ended, so that the shortest count whatever order they come back in.

Who ends first is told by tokens, not by the clock: all go on by short leases, side by side, and are looked at between
two rounds. Only where a sample is one request, calls in flight are aborted.
"""

from __future__ import annotations

from collections.abc import Sequence

from adaptive_ttc.driver.engines import PolicyCalls
from adaptive_ttc.driver.growing_sample import Sample
from adaptive_ttc.driver.leases import SHORTEST_LEASE
from adaptive_ttc.driver.recording import RunRecorder
from adaptive_ttc.events import DecisionEvent

AHEAD = 8  # a lease is this part of what a sample has: so much may be drawn in vain of each that does not count


class Race:
    """The race of one Expand's samples; ``first``: how many are waited for, None for all; ``whole``: each sample is one
    request.
    """

    def __init__(self, samples: Sequence[Sample], first: int | None, recorder: RunRecorder, *, whole: bool) -> None:
        self._samples = samples
        self._first = first
        self._whole = whole
        self._recorder = recorder
        self._told = False  # whether it was recorded that others are aborted

    @property
    def over(self) -> bool:
        """Whether enough have ended."""
        return self._first is not None and self._ended >= self._first

    def tell(self) -> bool:
        """Record, once, that those that have not ended are aborted; whether it was recorded now."""
        if self._told or not self.over or all(one.ended is not None for one in self._samples):
            return False
        self._told = True
        why = f"{self._ended} of {len(self._samples)} have ended, and {self._first} are waited for"
        self._recorder.record(DecisionEvent(time=self._recorder.now(), what="aborted the others", why=why))
        return True

    @property
    def _ended(self) -> int:
        return sum(one.ended == "eos" for one in self._samples)

    def within(self, sample: Sample, tokens: int) -> int:
        """As many of a lease's tokens as it may have before the others are looked at."""
        if self._first is None or self._whole:
            return tokens
        return min(tokens, max(SHORTEST_LEASE, len(sample.token_ids) // AHEAD))

    def recall_others(self, calls: PolicyCalls) -> None:
        """Abort the calls of whole samples that are in flight, once enough have ended."""
        if self._whole and self.tell():
            calls.recall()
