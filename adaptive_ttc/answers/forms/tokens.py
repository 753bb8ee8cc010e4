"""Parts that the text of an expression consists of; it knows no grammar."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4}(?![0-9A-Za-z^.]))?)"
    r"|\\text ?\{(?P<text>[^{}]*)\}"
    r"|\\operatorname\*? ?\{ ?(?P<operator>[A-Za-z]+) ?\}"
    r"|\\(?P<command>[A-Za-z]+|.)"
    r"|(?P<letters>[A-Za-z]+)"
    r"|(?P<space> +)"
    r"|(?P<sign>.)"
)
_PLAIN_NAMES = {
    "sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log", "ln",
    "exp", "pi", "theta", "alpha", "beta", "gamma", "phi", "lambda", "infty", "frac", "cdot", "pm",
}  # fmt: skip
_OTHER_NAMES = {"infinity": "infty", "inf": "infty", "asin": "arcsin", "acos": "arccos", "atan": "arctan", "Pi": "pi"}
_PRODUCTS = re.compile(r"[abcxyzABCXYZ]+|[^aeiouAEIOU]+")
_RUN_TOGETHER = re.compile(
    r"(arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|pi|cdot|times|sqrt)([A-Za-z]{1,2})"
)
_KNOWN = {"sinh", "cosh", "tanh", "pitchfork", "secs", "coth", "csch", "sech"}
_SHORT_WORDS = {"no", "on", "up", "ok", "in"}
_SHORT_UNITS = {
    "cm", "mm", "km", "dm", "nm", "kg", "mg", "lb", "lbs", "oz", "ft", "yd", "mi", "in", "hr", "hrs", "min", "ms", "mL",
    "ml", "mph", "kph", "kmh", "rpm", "Hz", "kHz", "MHz", "kJ", "kW", "kWh", "mol", "sq", "yrs", "yr", "day", "men",
    "deg", "cup", "gal", "sec", "ton", "USD", "EUR", "GBP", "pct",
}  # fmt: skip


class UnreadError(Exception):
    """A text is no expression that is read here."""


@dataclass(frozen=True, slots=True)
class Token:
    """A part of a text.

    Attributes:
        kind: ``number``, ``text``, ``command``, ``letter``, ``word``, or ``sign``.
        text: how it is written, a command without its backslash.
        spaced: whether a space stands before it.
        place: where it begins in the text.
    """

    kind: str
    text: str
    spaced: bool = False
    place: int = 0

    def __str__(self) -> str:
        return ("\\" if self.kind == "command" else "") + self.text


def tokens_of(text: str) -> list[Token]:
    """The parts of a canonical text; letters that are no word are one part each."""
    found: list[Token] = []
    spaced = False
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        part, place = match[kind], match.start()
        if kind == "space":
            spaced = True
            continue
        if kind == "letters":
            found += _letters(part, spaced, place)
        elif kind == "command" and part not in _KNOWN and (run := _RUN_TOGETHER.fullmatch(part)):
            found += [Token("command", run[1], spaced, place), *_letters(run[2], False, place + len(run[1]) + 1)]
        elif kind == "operator":
            found.append(Token("command", _OTHER_NAMES.get(part, part), spaced, place))
        else:
            found.append(Token(kind, part, spaced, place))
        spaced = False
    return found


def is_word(letters: str) -> bool:
    """Whether letters that stand alone are a word: ``tea`` is one, the products ``xyz`` and ``ab`` are not."""
    if letters in _PLAIN_NAMES or letters in _OTHER_NAMES:
        return False
    return letters.lower() in _SHORT_WORDS or (len(letters) > 2 and not _PRODUCTS.fullmatch(letters))


def _is_unit(letters: str) -> bool:
    """Whether letters right behind a number are its unit: ``5cm``, ``12apples``, and not ``6abd``."""
    if letters in _SHORT_UNITS:
        return True
    return len(letters) > 3 and is_word(letters) and list(letters) != sorted(set(letters))


def _letters(letters: str, spaced: bool, place: int) -> list[Token]:
    if letters in _PLAIN_NAMES or letters in _OTHER_NAMES:
        return [Token("command", _OTHER_NAMES.get(letters, letters), spaced, place)]
    if _is_unit(letters) or (spaced and is_word(letters)):
        return [Token("word", letters, spaced, place)]
    return [Token("letter", one, spaced and not i, place + i) for i, one in enumerate(letters)]
