"""Final answers as text: extraction and canonical form; linear in the text's length, evaluating nothing."""

from __future__ import annotations

import re
from functools import lru_cache

from adaptive_ttc.answers.notation import one_pass

MAX_CHARS = 1000  # longer answers are compared as text only; no answer to a verifiable problem is that long

_CACHED_CHARS = 100  # what is read off longer texts is not remembered: eight thousand of them would be large

_REMEMBERED_CHARS = 4000  # of a solution whose answer's place is remembered

_BRACES = re.compile(
    r"(?P<box>\\{1,4}(?:boxed|fbox)\s{0,8}\{)"
    r"|\\{1,4}boxed(?:\s{0,8}(?P<number>-?\$?[0-9][0-9,]{0,40}(?:\.[0-9]{1,40})?(?:/[0-9]{1,40})?)"
    r"|\s{1,8}(?P<letter>[A-Z])(?![A-Za-z]))"
    r"|\\.|(?P<open>\{)|(?P<close>\})",
    re.DOTALL,
)
_PLAIN_NUMBER = re.compile(r"-?[0-9]{1,60}(?:[./][0-9]{1,60})?")  # is canonical as it is


def extract_answer(text: str) -> str | None:
    r"""The final answer of a solution, in canonical form, or None.

    It is the content of the last ``\boxed{...}`` (or ``\fbox``) whose braces balance and which is not empty, or the
    number or capital letter behind a ``\boxed`` without braces; of nested boxes the inner one. A solution without one
    has no answer: none is guessed from its last sentence.
    """
    span = answer_span(text)
    return None if span is None else canonical(text[span[0] : span[1]])


def answer_span(text: str) -> tuple[int, int] | None:
    """Where the final answer of a solution begins and ends, or None."""
    if "boxed" not in text and "fbox" not in text:
        return None
    return (_span_cached if len(text) <= _REMEMBERED_CHARS else _span)(text)


@lru_cache(maxsize=2048)
def _span_cached(text: str) -> tuple[int, int] | None:
    return _span(text)  # a solution is read when it ends, when it is compared and when it is voted on


def _span(text: str) -> tuple[int, int] | None:
    open_braces: list[int | None] = []
    boxes: list[tuple[int, int]] = []
    for match in _BRACES.finditer(text):
        if match["box"]:
            open_braces.append(match.end())
        elif bare := next((name for name in ("number", "letter") if match[name]), None):
            boxes.append(match.span(bare))
        elif match["open"]:
            open_braces.append(None)
        elif match["close"] and open_braces:
            start = open_braces.pop()
            if start is not None:
                boxes.append((start, match.start()))
    for start, end in sorted(boxes, reverse=True):
        if canonical(text[start:end]):
            return start, end
    return None


def canonical(answer: str) -> str:
    r"""One spelling for answers that differ in layout only; applying it twice changes nothing.

    Spaces, ``\left`` and ``\right``, maths delimiters, thousands separators, ``\dfrac``, ``\frac12``, bold print and
    colours, trailing punctuation and the like go, and LaTeX comes in place of Unicode; what could change the meaning is
    left to the equivalence check. An answer of layout alone becomes the empty string, which is no answer.
    """
    if _PLAIN_NUMBER.fullmatch(answer):
        return answer
    if not answer.isprintable():  # control characters and lone surrogates cannot be printed or encoded
        answer = "".join(char if char.isprintable() else " " for char in answer)
    text = " ".join(answer.split())
    if len(text) <= _CACHED_CHARS:
        return _canonical_cached(text)
    return _canonical(text)


@lru_cache(maxsize=8192)
def _canonical_cached(text: str) -> str:
    return _canonical(text)


def _canonical(text: str) -> str:
    while len(text) <= MAX_CHARS:
        before = text
        text = one_pass(text)
        if text == before:
            break
    return text
