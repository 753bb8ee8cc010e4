"""The record of how a problem was solved: its events in order, saved and loaded as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.events import EVENTS, Event, VoteEvent
from adaptive_ttc.files.bounded import SAMPLES, read_whole
from adaptive_ttc.files.typed import checked, damage_told
from adaptive_ttc.types import AnswerClass

SCHEMA = 3

_KINDS: dict[str, type[Event]] = {event.kind: event for event in EVENTS}

_MAPPINGS = ("numbers", "options", "usage")

E = TypeVar("E", bound=Event)


class Trace:
    """Events in order, from ``started`` (the clock's reading at time 0) on; ``listener`` is called with each."""

    __slots__ = ("_events", "_listener", "started")

    def __init__(self, started: float = 0.0, listener: Callable[[Event], None] | None = None) -> None:
        self.started = started
        self._listener = listener
        self._events: list[Event] = []

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)

    def record(self, event: Event) -> None:
        """Append an event, and call the listener."""
        self._events.append(event)
        if self._listener is not None:
            self._listener(event)

    def of(self, kind: type[E]) -> tuple[E, ...]:
        """The events of one kind, in order."""
        return tuple(event for event in self._events if isinstance(event, kind))

    def last(self, kind: type[E]) -> E | None:
        """The last event of one kind; None where there is none."""
        return next((event for event in reversed(self._events) if isinstance(event, kind)), None)

    def since(self, number: int) -> tuple[Event, ...]:
        """The events after the first ``number`` of them, in order."""
        return tuple(self._events[number:])

    def detached(self) -> Trace:
        """The same events without the listener, and what that holds."""
        found = Trace(self.started)
        found._events = self._events
        return found

    def go_on_from(self, events: Iterable[Event], now: float) -> None:
        """Take up the events of an earlier run at the clock's reading ``now``, as if no time had passed since."""
        self._events = list(events)
        self.started = now - (self._events[-1].time if self._events else 0.0)

    def save(self, path: str | Path) -> None:
        """Write the trace as strict JSON, replacing an older file whole or not at all."""
        events = [event_as_data(event) for event in self._events]
        document = {"schema": SCHEMA, "started": self.started, "events": events}
        target = Path(path)
        partial = target.with_name(target.name + ".partial")
        partial.write_bytes(_strict(document))
        partial.replace(target)

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read a trace that :meth:`save` wrote, equal event by event. ConfigError: it is no trace of this schema."""
        remedy = "give one that is, written by Trace.save or `solve --trace FILE`"
        text = read_whole(path, SAMPLES, ConfigError, remedy)
        with damage_told(path, ConfigError, remedy, "not a trace"):
            document = json.loads(text.decode("utf-8"), object_hook=_number)
            if document["schema"] != SCHEMA:
                raise ConfigError(
                    f"{path} is a trace of schema {document['schema']}; this version reads {SCHEMA}: read it with the "
                    "version that wrote it, or solve the problem anew"
                )
            trace = cls(float(document["started"]))
            for number, entry in enumerate(document["events"]):
                try:
                    trace.record(checked(event_of(entry)))
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    raise ValueError(f"event {number}: {type(error).__name__}: {error}") from error
        return trace


def _strict(document: Any) -> bytes:
    """JSON without NaN, in UTF-8; lone surrogates, which models write, are escaped."""
    options: dict[str, Any] = {"default": plain, "allow_nan": False}
    try:
        text = json.dumps(document, ensure_ascii=False, **options)
    except ValueError:
        document = _without_nan(document)
        text = json.dumps(document, ensure_ascii=False, **options)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(document, **options).encode("ascii")


def _without_nan(value: Any) -> Any:
    """The same with ``{"number": "nan"}`` for a number that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": str(value)}
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return _without_nan(plain(value)) if is_dataclass(value) else value


def _number(entry: dict[str, Any]) -> Any:
    return float(entry["number"]) if entry.keys() == {"number"} else entry


def event_as_data(event: Event) -> dict[str, Any]:
    """An event for JSON, with :func:`plain` as the default."""
    return {"event": event.kind, **{part.name: getattr(event, part.name) for part in fields(event)}}


def plain(value: object) -> dict[str, Any]:
    """A part of an event that JSON does not know."""
    if is_dataclass(value) and not isinstance(value, type):
        return {part.name: getattr(value, part.name) for part in fields(value)}
    raise TypeError(f"a trace holds numbers, strings and tuples of them; got {type(value).__name__}")


def finite(value: Any) -> Any:
    """The same for strict JSON: what is not a number becomes None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    if hasattr(value, "__dataclass_fields__"):
        return finite(plain(value))
    return value


def event_of(entry: dict[str, Any]) -> Event:
    """What :func:`event_as_data` gave, read from JSON; KeyError, TypeError or ValueError where it is damaged."""
    values = {name: value if name in _MAPPINGS else _tuples(value) for name, value in entry.items() if name != "event"}
    if entry["event"] == VoteEvent.kind:
        values["classes"] = tuple(AnswerClass(**one) for one in values["classes"])
    return _KINDS[entry["event"]](**values)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
