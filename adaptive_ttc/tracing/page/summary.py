"""How one problem stands, read from its trace as it grows, and the tree of a search that is still at work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from adaptive_ttc.events import (
    AllocationEvent,
    CandidateEvent,
    DoneEvent,
    Event,
    ExpandedEvent,
    ExpandEvent,
    FinishedEvent,
    ForkEvent,
    PrunedEvent,
    Route,
    RunEvent,
    SampledEvent,
    ScoredEvent,
    SearchEvent,
    VoteEvent,
)
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.tracing.tree_text import printable
from adaptive_ttc.types import bin_names

Read = Callable[[str], str | None]
"""Reads the answer out of the end of a solution."""

SHOWN_TEXT = 240  # characters of a question or an answer in a row
SHOWN_DECISIONS = 24  # the latest ones of a problem

# fmt: off
_DRAWN = (
    RunEvent, SearchEvent, ExpandEvent, ExpandedEvent, ForkEvent, SampledEvent, ScoredEvent, PrunedEvent,
    CandidateEvent, VoteEvent, AllocationEvent, DoneEvent,
)
# fmt: on
"""The events that a tree is drawn from."""


class Summary:
    """The state of one problem. A trace is only read on from where the last :meth:`data` left it.

    Args:
        trace: that may still grow.
        read: reads answers before the vote; without it, agreement is known once the problem is settled.
    """

    def __init__(self, trace: Trace, read: Read | None = None) -> None:
        self.trace = trace
        self._read = read
        self._seen = 0
        self._answers: dict[Route, str] = {}
        self._samples = 0
        self._known: dict[str, Any] = {"state": "at work", "started": trace.started}
        self._decisions: list[tuple[float, int, float]] = []

    @property
    def version(self) -> int:
        """Of what :meth:`data` tells: it grows with the trace."""
        return len(self.trace)

    def data(self) -> dict[str, Any]:
        """For JSON: state, question, answer, agreement, difficulty, price, spending and decisions, as far as known."""
        for event in self.trace.since(self._seen):
            self._take(event)
            self._known["seconds"] = event.time
            self._seen += 1
        return {**self._known, "samples": self._samples, "decisions": list(self._decisions)}

    def _take(self, event: Event) -> None:
        known = self._known
        if isinstance(event, RunEvent):
            known |= {"question": short(event.messages[-1][1]), "budget": event.budget, "unit": event.count}
        elif isinstance(event, SearchEvent):
            known["strategy"] = event.strategy
        elif isinstance(event, SampledEvent):
            self._samples += 1
        elif isinstance(event, FinishedEvent):
            self._finished(event)
        elif isinstance(event, AllocationEvent):
            self._decided(event)
        elif isinstance(event, VoteEvent):
            votes = sum(one.votes for one in event.classes)
            held = next((one.votes for one in event.classes if one.answer == event.answer), 0)
            known |= {"answer": short(event.answer), "votes": held, "voters": votes}
        elif isinstance(event, DoneEvent):
            known |= {
                "state": "failed" if event.error else "no answer" if event.answer is None else "answered",
                "answer": short(event.answer),
                "right": event.confidence if event.answer is not None else None,
                "spent": event.spent,
                "why": f"{event.stopped}: {event.why}" if event.why != event.stopped else event.why,
                "error": event.error,
            }

    def _finished(self, event: FinishedEvent) -> None:
        answer = None if self._read is None or event.answer_at is None else self._read(event.text[event.answer_at :])
        if answer is None:
            return
        self._answers[event.path] = answer
        leader, held = Counter(self._answers.values()).most_common(1)[0]
        self._known |= {"answer": short(leader), "votes": held, "voters": len(self._answers)}

    def _decided(self, event: AllocationEvent) -> None:
        self._known |= {"price": event.price, "right": event.right, "action": event.action}
        if event.difficulty is not None:
            self._known["difficulty"] = event.difficulty
            self._known["bins"] = bin_names(len(event.difficulty))
        if event.action is not None:
            self._decisions = [*self._decisions, (event.time, event.units, event.price)][-SHOWN_DECISIONS:]


def short(text: str | None) -> str | None:
    """A text on one line, cut where it is long."""
    if text is None:
        return None
    line = printable(text[: 4 * SHOWN_TEXT])
    return line if len(line) <= SHOWN_TEXT else f"{line[:SHOWN_TEXT]}\N{HORIZONTAL ELLIPSIS}"


def as_drawn(events: Iterable[Event], started: float = 0.0) -> Trace:
    """A trace with only the events that a tree is drawn from."""
    kept = Trace(started)
    for event in events:
        if isinstance(event, _DRAWN):
            kept.record(event)
    return kept


def provisional(events: Iterable[Event], read: Read | None) -> Trace:
    """The trace of a search at work as if it had handed in all that it may still go on from, or that has ended."""
    events = tuple(events)
    trace = as_drawn(events)
    finished = {event.path: event for event in events if isinstance(event, FinishedEvent)}
    dropped = {event.path for event in events if isinstance(event, PrunedEvent)}
    dropped |= {event.path for event in events if isinstance(event, CandidateEvent)}
    dropped |= {event.path[:-1] for event in events if isinstance(event, SampledEvent)}
    for event in trace.of(SampledEvent):
        if event.path in dropped:
            continue
        ended, answer = finished.get(event.path), None
        if ended is not None and ended.answer_at is not None and read is not None:
            answer = read(ended.text[ended.answer_at :])
        trace.record(
            CandidateEvent(time=event.time, path=event.path, answer=answer, answer_class=answer, score=None)
        )  # fmt: skip
    return trace
