"""Reads the text of an answer: the kinds of answers, in the order in which they are tried."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

from adaptive_ttc.answers.forms import collections, numerals, quantities, relations, words
from adaptive_ttc.answers.forms.decimals import decimal
from adaptive_ttc.answers.forms.form import Reader, Reading
from adaptive_ttc.answers.forms.polynomial import TooLargeError
from adaptive_ttc.answers.forms.scalar import Scalar, minus, of_number

_LONGEST = 300  # characters of an answer that is read
_DEEPEST = 8  # levels of lists within lists

_PLAIN = re.compile(
    r"(?P<sign>-?)(?:(?P<whole>[0-9]{1,60})(?:/(?P<by>[0-9]{1,60}))?|(?P<decimal>[0-9]{0,40}\.[0-9]{1,40})"
    r"|\\frac\{(?P<top>[0-9]{1,60})\}\{(?P<bottom>[0-9]{1,60})\})"
)

KINDS: tuple[Callable[[str, Reader], Reading | None], ...] = (
    words.choice,
    words.labelled,
    numerals.clock,
    numerals.based,
    numerals.residue,
    numerals.recurring,
    collections.number_set,
    collections.enumerated,
    relations.relation,
    collections.union,
    collections.matrix,
    collections.transposed,
    collections.bracketed,
    collections.two_valued,
    words.sentence,
    numerals.ratio,
    quantities.quantity,
    words.words,
)
"""The first that knows an answer reads it."""


@lru_cache(maxsize=8192)
def read(text: str) -> Reading | None:
    """What a canonical text says; None where it is of no kind that is known here."""
    return _read(text, 0) if len(text) <= _LONGEST else None


def _read(text: str, depth: int) -> Reading | None:
    if (match := _PLAIN.fullmatch(text)) and (number := _plain(match)) is not None:
        return Reading(number)
    if depth > _DEEPEST or not text:
        return None

    def inner(part: str) -> Reading | None:
        return _read(part, depth + 1)

    try:
        return next((found for kind in KINDS if (found := kind(text, inner)) is not None), None)
    except (TooLargeError, ZeroDivisionError, OverflowError):
        return None


def _plain(match: re.Match[str]) -> Scalar | None:
    """An integer, a decimal or a fraction of integers, at no more cost than it takes; None where it has no value."""
    if match["decimal"]:
        value = decimal(match["decimal"])
        return minus(value) if match["sign"] else value
    top, bottom = int(match["whole"] or match["top"]), int(match["by"] or match["bottom"] or 1)
    return of_number(Fraction(-top if match["sign"] else top, bottom)) if bottom else None
