"""Final answers as text: extraction, canonical form, plain numbers; linear in the text's length, evaluating nothing."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

MAX_CHARS = 1000  # longer answers are compared as text only; no answer to a verifiable problem is that long

_CACHED_CHARS = 100  # what is read off longer texts is not remembered: eight thousand of them would be large

_BRACES = re.compile(r"(?P<box>\\{1,4}(?:boxed|fbox)\s{0,8}\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)

_THOUSANDS = re.compile(r"(?<=[0-9])(?:,\\!|\{,\}(?:\\!)?) ?(?=[0-9]{3}(?![0-9]))")
_EMPTY_DELIMITER = re.compile(r"\\(?:left|right) ?\.")
_COMMAND = re.compile(r"\\(?:[A-Za-z]+|.)")
_SHORT_FRACTION = re.compile(r"\\frac ?([0-9]) ?([0-9])(?![0-9])")
_SHORT_ROOT = re.compile(r"\\sqrt ?([0-9])(?![0-9])")
_LOOSE_SPACE = re.compile(r"(?<![A-Za-z0-9]) +| +(?![A-Za-z0-9])")
_TRAILING = re.compile(r"(?:(?<![.\\])\.|(?<!\\)[,;])$")

# fmt: off
_LAYOUT = (
    r"\,", r"\;", r"\:", r"\>", r"\!", r"\(", r"\)", r"\[", r"\]", r"\$", r"\quad", r"\qquad",
    r"\left", r"\right", r"\big", r"\Big", r"\bigg", r"\Bigg", r"\bigl", r"\bigr", r"\Bigl", r"\Bigr",
    r"\displaystyle", r"\textstyle", r"\limits", r"\nolimits",
)
# fmt: on
_COMMANDS = {
    "\\ ": " ",
    **dict.fromkeys(_LAYOUT, " "),
    **dict.fromkeys((r"\dfrac", r"\tfrac", r"\cfrac"), r"\frac"),
    **dict.fromkeys((r"\dbinom", r"\tbinom"), r"\binom"),
    **dict.fromkeys((r"\mbox", r"\textbf", r"\textrm", r"\textit", r"\textnormal"), r"\text"),
    r"\leq": r"\le",
    r"\geq": r"\ge",
    r"\neq": r"\ne",
    r"\lbrace": r"\{",
    r"\rbrace": r"\}",
}

_NUMBER = re.compile(r"-?(?:[0-9]+|[0-9]*\.[0-9]+)")
_RATIO = re.compile(r"(-?)\\frac\{(-?[0-9]+)\}\{(-?[0-9]+)\}|(-?)([0-9]+)/([0-9]+)")


def extract_answer(text: str) -> str | None:
    r"""The final answer of a solution, in canonical form, or None.

    It is the content of the last ``\boxed{...}`` (or ``\fbox``) whose braces balance and which is not empty; of nested
    boxes the inner one. A solution without one has no answer: none is guessed from its last sentence.
    """
    span = answer_span(text)
    return None if span is None else canonical(text[span[0] : span[1]])


def answer_span(text: str) -> tuple[int, int] | None:
    """Where the final answer of a solution begins and ends, or None."""
    if "boxed" not in text and "fbox" not in text:
        return None
    open_braces: list[int | None] = []
    boxes: list[tuple[int, int]] = []
    for match in _BRACES.finditer(text):
        if match["box"]:
            open_braces.append(match.end())
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

    Spaces, ``\left`` and ``\right``, maths delimiters, dollar signs, thousands separators of TeX (``{,}``, ``,\!``),
    ``\dfrac``, ``\frac12``, trailing punctuation and the like go; what could change the meaning is left to the
    equivalence check. An answer of layout alone becomes the empty string, which is no answer.
    """
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
        text = _one_pass(text)
        if text == before:
            break
    return text


def _one_pass(text: str) -> str:
    text = text.replace("\u2212", "-").replace("~", " ")
    text = _THOUSANDS.sub("", text)
    text = _EMPTY_DELIMITER.sub(" ", text)
    text = _COMMAND.sub(lambda match: _COMMANDS.get(match[0], match[0]), text)
    text = re.sub(r"(?<!\\)\$", " ", text)
    text = _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text)
    text = _SHORT_ROOT.sub(r"\\sqrt{\1}", text)
    text = _LOOSE_SPACE.sub("", " ".join(text.split()))
    return _TRAILING.sub("", text)


def decide_plain(first: str, second: str) -> bool | None:
    r"""Whether two plain numbers are equal, or None where this cannot be said here.

    Plain are integers, decimals, ``a/b`` and ``\frac{a}{b}`` of integers, in canonical form; they are compared exactly,
    as fractions. The library rounds decimals to six places, so that 0.333333 stands for 1/3; decimals that differ by so
    little are left to it. Points such as ``(2,-3)`` of plain numbers without decimals are compared by coordinate.
    """
    a, b = _plain_number(first), _plain_number(second)
    if a is None or b is None:
        points = _plain_point(first), _plain_point(second)
        return None if None in points else points[0] == points[1]
    if a == b:
        return True
    return None if ("." in first or "." in second) and abs(a - b) < Fraction(1, 10**5) else False


def exact_value(text: str) -> Fraction | tuple[Fraction, ...] | None:
    """The value of a plain number or point without decimals, in canonical form; such agree only if equal."""
    number = None if "." in text else _plain_number(text)
    return _plain_point(text) if number is None else number


def _plain_point(text: str) -> tuple[Fraction, ...] | None:
    return _point_cached(text) if len(text) <= _CACHED_CHARS else _point(text)


@lru_cache(maxsize=8192)
def _point_cached(text: str) -> tuple[Fraction, ...] | None:
    return _point(text)


def _point(text: str) -> tuple[Fraction, ...] | None:
    if not (text.startswith("(") and text.endswith(")")) or "." in text:
        return None
    coordinates = [_plain_number(part.strip()) for part in text[1:-1].split(",")]
    plain = tuple(value for value in coordinates if value is not None)
    return plain if len(plain) == len(coordinates) > 1 else None


def _plain_number(text: str) -> Fraction | None:
    return _number_cached(text) if len(text) <= 60 else None


@lru_cache(maxsize=8192)
def _number_cached(text: str) -> Fraction | None:
    if _NUMBER.fullmatch(text):
        return Fraction(text)
    match = _RATIO.fullmatch(text)
    if match is None:
        return None
    sign, numerator, denominator = match.groups()[:3] if match[2] else match.groups()[3:]
    if int(denominator) == 0:
        return None
    return Fraction(int(numerator), int(denominator)) * (-1 if sign else 1)
