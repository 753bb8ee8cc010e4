"""Adds up what one problem used and stamps its events with the time; it decides nothing."""

from __future__ import annotations

from collections import Counter

import anyio

from adaptive_ttc.events import Event
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import Usage


class Meter:
    """Usage and trace of one problem.

    Attributes:
        trace: what happened so far.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._counts: Counter[str] = Counter()

    @property
    def usage(self) -> Usage:
        """What was computed so far, without FLOPs and wall time."""
        return Usage(**self._counts)

    def now(self) -> float:
        """Seconds since the trace began; needs a running event loop."""
        return anyio.current_time() - self.trace.started

    def add(self, **counts: int) -> None:
        """Add to the fields of the usage."""
        for field, number in counts.items():
            self._counts[field] += number

    def record(self, event: Event) -> None:
        """Append to the trace."""
        self.trace.record(event)
