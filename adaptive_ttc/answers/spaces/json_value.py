"""Answers in JSON: a path into the last JSON value of a solution in which it leads anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from adaptive_ttc.answers.spaces.base import AnswerSpace, ExactSpace
from adaptive_ttc.answers.spaces.number import spelled
from adaptive_ttc.errors import ConfigError

_SEARCHED = 50_000  # characters at the end of a solution in which values are looked for
_WORK = 1_000_000  # characters that may be read in vain, over all places at which none begins
_FAILURE = 2_000  # characters that such a place counts for at least
_BEGIN = re.compile(r"\{(?=\s{0,99}[\"}])|\[(?=\s{0,99}[\[\]{\"0-9tfn-])")
_PART = re.compile(r"\.?([^.\[\]]+)|\[(-?[0-9]+)\]")
_DECIMAL = re.compile(r"-?[0-9]{1,300}(?:\.[0-9]{1,300})?")
_DECODER = json.JSONDecoder(parse_int=lambda text: _number(text), parse_float=lambda text: _number(text))


@dataclass(frozen=True, repr=False)
class JsonSpace(ExactSpace):
    """A value in the last JSON object or array of a text.

    Args:
        path: keys and indices, such as ``result.items[0]``; empty for the whole value.

    Raises:
        ConfigError: the path is of another form.
    """

    path: str = ""
    name: str = field(default="", init=False)
    form: str = field(default="", init=False)
    asks: str = field(default="", init=False)
    _parts: tuple[str | int, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        parts, end = [], 0
        for match in _PART.finditer(self.path):
            if match.start() != end:
                break
            parts.append(match[1] if match[2] is None else int(match[2]))
            end = match.end()
        if end != len(self.path) or self.path.startswith("."):
            raise ConfigError(f"answers='json:{self.path}': a path is keys and indices, such as json:result.items[0]")
        told = f" with {self.path}" if self.path else ""
        object.__setattr__(self, "name", f"json:{self.path}" if self.path else "json")
        object.__setattr__(self, "form", f"JSON{told}")
        object.__setattr__(self, "asks", f"End with the result as JSON{told}.")
        object.__setattr__(self, "_parts", tuple(parts))

    @property
    def of_cut_text(self) -> AnswerSpace:
        """The last whole value of a solution that was cut off may be a part of its answer."""
        return _NOTHING

    def extract(self, text: str) -> str | None:
        """The canonical value at the path."""
        found = None
        for value in _values(text[-_SEARCHED:]):
            at = self._at(value)
            found = found if at is None else at
        return found

    def canonical(self, answer: str) -> str:
        """JSON without blanks, keys sorted, equal numbers alike; a string stands without quotes."""
        text, before = " ".join(answer.split()), None
        while text != before:
            before = text
            try:
                text = _written(_DECODER.decode(text))
            except (ValueError, RecursionError):
                break
        return text

    def write(self, answer: str) -> str:
        """An object, or nested ones, with the answer at the path."""
        try:
            value = json.loads(answer)
        except ValueError:
            value = answer
        for part in reversed(self._parts):
            value = {part: value} if isinstance(part, str) else [None] * max(0, part) + [value]
        return json.dumps(value if self._parts else [value], ensure_ascii=False)

    def _at(self, value: Any) -> str | None:
        for part in self._parts:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        try:
            return None if value is None else _written(value) or None
        except RecursionError:  # nested too deeply
            return None


class _NoSpace(AnswerSpace):
    """Reads nothing."""

    name = "nothing"


_NOTHING = _NoSpace()


class _Number(str):
    """A number in its one spelling."""


def _number(text: str) -> _Number:
    return _Number(spelled(Fraction(text)) if _DECIMAL.fullmatch(text) else text)


def _written(value: Any) -> str:
    if isinstance(value, str):
        return " ".join(value.split())
    return _dumped(value)


def _dumped(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{_dumped(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_dumped, value)) + "]"
    if isinstance(value, _Number):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def _values(text: str) -> Iterator[Any]:
    """All outermost objects and arrays that stand in a text, in order."""
    place, work = 0, _WORK
    while work > 0 and (match := _BEGIN.search(text, place)):
        place = match.start()
        try:
            value, place = _DECODER.raw_decode(text, place)
        except json.JSONDecodeError as error:
            work -= _FAILURE + error.pos - place
            place += 1
        except RecursionError:
            work -= 10 * _FAILURE
            place += 1
        else:
            yield value
