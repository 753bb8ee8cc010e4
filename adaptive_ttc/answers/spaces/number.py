"""Numbers, wherever a solution says them: in a box, after ``####`` or "the answer is", or as the last one."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

from adaptive_ttc.answers.spaces import phrases
from adaptive_ttc.answers.spaces.base import ASKS_FOR_BOX, GuessingSpace, Span

_MOST_CHARS = 300  # of a text that a number is read off
_SEPARATORS = re.compile(r"(?<=[0-9])(?:\{,\}|,\\!|\\,|\\!|,)(?=[0-9]{3}(?![0-9]))")
_VALUE = re.compile(
    r"(?P<sign>(?<![\w)}\]])[-+]\s?)?(?:\\?[$\u20ac\u00a3]\s?)?(?:"
    r"(?P<whole>[0-9]+)?\s?\\[dtc]?frac\s?\{\s?(?P<top>-?[0-9]+)\s?\}\s?\{\s?(?P<bottom>[0-9]+)\s?\}"
    r"|(?P<units>[0-9]+)\s+(?P<part>[0-9]+)/(?P<of>[0-9]+)"
    r"|(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE](?P<exponent>[-+]?[0-9]{1,3})(?![0-9]))?(?:\s?/\s?(?P<by>[0-9]+))?)"
)
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e]")


@dataclass(frozen=True, repr=False)
class NumberSpace(GuessingSpace):
    """One number; ``27``, ``27.0``, ``$27`` and ``027`` are equal, ``50%`` is 50, units are dropped.

    Args:
        last: whether the last number of a finished solution that says no answer otherwise is taken for it.
    """

    name: str = field(default="number", init=False)
    form: str = field(default="a number", init=False)
    asks: str = field(default=ASKS_FOR_BOX, init=False)

    def span(self, text: str) -> Span | None:
        """In a box, after ``####``, after "the answer is", or the last number; the first of these that holds one."""
        last = phrases.last_number if self.last else None
        spans = (phrases.boxed(text), phrases.hashes(text), *phrases.answers_said(text), last and last(text))
        return next((span for span in spans if span and self.canonical(text[slice(*span)])), None)

    def canonical(self, answer: str) -> str:
        """The number in its shortest spelling: ``1,234.50`` is ``1234.5``, ``2/6`` is ``1/3``."""
        value = value_of(answer)
        return "" if value is None else spelled(value)

    def read_gold(self, text: str) -> str:
        """Of ``... #### 72`` what follows; else as any text. ValueError: it holds no number."""
        span = phrases.hashes(text)
        return super().read_gold(text if span is None else text[span[0] : span[1]])


def value_of(text: str) -> Fraction | None:
    """The first number of a short text, behind its last equals sign; None where there is none."""
    return _value_of(text.strip()) if len(text) <= _MOST_CHARS else None


@lru_cache(maxsize=4096)
def _value_of(text: str) -> Fraction | None:
    text = _VULGAR.sub(lambda match: f" {match[0]}", text)
    text = unicodedata.normalize("NFKC", text).replace("\u2212", "-").replace("\u2044", "/")
    text = _SEPARATORS.sub("", text.rpartition("=")[2])
    match = _VALUE.search(text)
    if match is None:
        return None
    if match["top"] is not None or match["part"] is not None:
        bottom = int(match["bottom"] or match["of"])
        top = Fraction(int(match["whole"] or match["units"] or 0) * bottom + int(match["top"] or match["part"]))
    else:
        top = Fraction(match["number"]) * Fraction(10) ** int(match["exponent"] or 0)
        bottom = int(match["by"] or 1)
    if not bottom:
        return None
    return top / bottom * (-1 if (match["sign"] or "").startswith("-") else 1)


def spelled(value: Fraction) -> str:
    """A whole number, a decimal where it ends within 12 places, or ``p/q``."""
    if value.denominator == 1:
        return str(value.numerator)
    scaled = value * 10**12
    if scaled.denominator != 1:
        return f"{value.numerator}/{value.denominator}"
    whole, part = divmod(abs(scaled.numerator), 10**12)
    return f"{'-' if value < 0 else ''}{whole}.{part:012d}".rstrip("0")
