"""What happened while a problem was solved, event by event; it knows no engine and decides nothing.

Times are seconds since the trace began. A path is the child indices from the root of the search, so
the events of one branch can be picked out by it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.types import AnswerClass

SCHEMA = 1

Route = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened ``time`` seconds after the trace began."""

    kind: ClassVar[str]

    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpandEvent(Event):
    """A strategy asked for ``n`` children of the solutions at ``paths``; see :class:`~adaptive_ttc.requests.Expand`."""

    kind: ClassVar[str] = "expand"

    paths: tuple[Route, ...]
    n: int
    stop: tuple[str, ...]
    max_tokens: int
    temperature: float
    top_p: float
    score: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkEvent(Event):
    """A strategy asked for searches side by side; ``limits`` are their accounts (None: without a limit)."""

    kind: ClassVar[str] = "fork"

    limits: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEvent(Event):
    """One call of the policy came back.

    Attributes:
        started: when it was sent.
        path: the sample that it works on; a sample may take several calls.
        position: generated tokens that the solution had before it.
        seed: the sample's seed.
        max_tokens: what it was granted.
        token_ids: what it delivered.
        finish: as the policy said; ``lost`` when it failed without telling a count.
        prompt_tokens: prompt tokens computed; ``cached_tokens`` were not.
        discarded_tokens: tokens computed and not delivered.
    """

    kind: ClassVar[str] = "request"

    started: float
    path: Route
    position: int
    seed: int
    max_tokens: int
    token_ids: tuple[int, ...]
    finish: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    discarded_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledEvent(Event):
    """A sample ended: its new ``text`` of ``tokens`` tokens, its log-probability, and why it ended."""

    kind: ClassVar[str] = "sampled"

    path: Route
    text: str
    tokens: int
    logprob: float
    finish: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredEvent(Event):
    """The PRM scored every step of the solution at ``path``."""

    kind: ClassVar[str] = "scored"

    started: float
    path: Route
    scores: tuple[float, ...]
    prm_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteEvent(Event):
    """A vote over the answer classes; ``answer`` is None when nobody held an answer."""

    kind: ClassVar[str] = "vote"

    method: str
    classes: tuple[AnswerClass, ...]
    answer: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionEvent(Event):
    """Something was decided: ``what``, ``why`` in words, and the numbers that it rests on."""

    kind: ClassVar[str] = "decision"

    what: str
    why: str
    numbers: Mapping[str, float | str | None] = field(default_factory=dict)


_KINDS: dict[str, type[Event]] = {
    event.kind: event
    for event in (ExpandEvent, ForkEvent, RequestEvent, SampledEvent, ScoredEvent, VoteEvent, DecisionEvent)
}

E = TypeVar("E", bound=Event)


class Trace:
    """Events in the order in which they happened.

    Args:
        started: the clock's reading at time 0.
    """

    __slots__ = ("_events", "started")

    def __init__(self, started: float = 0.0) -> None:
        self.started = started
        self._events: list[Event] = []

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)

    def record(self, event: Event) -> None:
        """Append an event."""
        self._events.append(event)

    def of(self, kind: type[E]) -> tuple[E, ...]:
        """The events of one kind, in order."""
        return tuple(event for event in self._events if isinstance(event, kind))

    def save(self, path: str | Path) -> None:
        """Write the trace as JSON."""
        events = [
            {"event": event.kind, **{part.name: getattr(event, part.name) for part in fields(event)}}
            for event in self._events
        ]
        document = {"schema": SCHEMA, "started": self.started, "events": events}
        Path(path).write_text(json.dumps(document, default=_plain, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read a trace that :meth:`save` wrote; equal to the one saved, event by event.

        Raises:
            ConfigError: the file is not a trace of this schema.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
            if document["schema"] != SCHEMA:
                raise ConfigError(f"{path} is a trace of schema {document['schema']}; this version reads {SCHEMA}")
            trace = cls(document["started"])
            for entry in document["events"]:
                trace.record(_event(entry))
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ConfigError(f"{path} is not a trace written by Trace.save: {error!r}") from error
        return trace


def _plain(value: object) -> dict[str, Any]:
    if is_dataclass(value) and not isinstance(value, type):
        return {part.name: getattr(value, part.name) for part in fields(value)}
    raise TypeError(f"a trace holds numbers, strings and tuples of them; got {type(value).__name__}")


def _event(entry: dict[str, Any]) -> Event:
    values = {name: value if name == "numbers" else _tuples(value) for name, value in entry.items() if name != "event"}
    if entry["event"] == VoteEvent.kind:
        values["classes"] = tuple(AnswerClass(**one) for one in values["classes"])
    return _KINDS[entry["event"]](**values)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
