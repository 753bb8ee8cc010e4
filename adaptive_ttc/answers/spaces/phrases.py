r"""Where solutions say their answers: ``\boxed{...}``, ``#### 42``, "the answer is ...", a last number, a last line.

Every reader takes a text and gives the span of what was said last; each is linear in the text's length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from adaptive_ttc.answers.extraction import answer_span
from adaptive_ttc.answers.spaces.base import Span

Reader = Callable[[str], Span | None]

_NUMBER = re.compile(
    r"(?:(?<![\w)\]}])[-+\u2212])?(?<![\w.])\$?(?:"
    r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?"
    r"(?:/[0-9]+|\s?[\u00bc-\u00be\u2150-\u215e]|\s[0-9]+/[0-9]+)?"
    r"|[\u00bc-\u00be\u2150-\u215e]|\\[dt]?frac\{[0-9]+\}\{[0-9]+\})"
)
_SAID = re.compile(r"(?i)\banswer\b(?:[*_ \t)]{0,4}[:=]|[^.\n:=?,;]{0,40}?\b(?:is|be)\b)[ \t:=*_]*\n{0,3}[ \t]*")
_MOST_SAID = 8  # places at which an answer is said that are looked at, the last of them
_HASHES = re.compile(r"####[ \t]*([^\n]+)")
_SENTENCE_END = re.compile(r"\.(?=\s|$)|\n")
_LINE = re.compile(r"[^\n]+")
_MARKS = " \t\r*_`\"'"


def boxed(text: str) -> Span | None:
    r"""The content of the last ``\boxed{...}``."""
    return answer_span(text)


def hashes(text: str) -> Span | None:
    """What follows the last ``####``, up to the end of the line."""
    return _first(_trimmed(text, *match.span(1)) for match in reversed(list(_HASHES.finditer(text))))


def answer_is(text: str) -> Span | None:
    """What follows the last "the answer is", "Answer:" and the like, up to the end of the sentence or line."""
    return next(answers_said(text), None)


def answers_said(text: str) -> Iterator[Span]:
    """The same of all that are said, the last first."""
    return (span for start in said(text) if (span := _sentence(text, start)) is not None)


def last_number(text: str) -> Span | None:
    """The last number."""
    found = None
    for match in _NUMBER.finditer(text):
        found = match.span()
    return found


def last_line(text: str) -> Span | None:
    """The last line that is not empty."""
    return _first(_trimmed(text, *match.span()) for match in reversed(list(_LINE.finditer(text))))


def first_of(readers: Iterable[Reader], text: str) -> Span | None:
    """What the first reader that finds anything finds."""
    return _first(reader(text) for reader in readers)


def said(text: str) -> Iterator[int]:
    """Where what is said to be the answer begins, the last first."""
    return (match.end() for match in reversed(list(_SAID.finditer(text))[-_MOST_SAID:]))


def _sentence(text: str, start: int) -> Span | None:
    end = _SENTENCE_END.search(text, start)
    return _trimmed(text, start, len(text) if end is None else end.start())


def _trimmed(text: str, start: int, end: int) -> Span | None:
    """Without the blanks and marks around it; None where nothing is left."""
    part = text[start:end]
    kept = part.strip(_MARKS)
    if not kept:
        return None
    start += len(part) - len(part.lstrip(_MARKS))
    return start, start + len(kept)


def _first(spans: Iterable[Span | None]) -> Span | None:
    return next((span for span in spans if span is not None), None)
