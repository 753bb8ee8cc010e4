r"""Numbers that are no plain decimals: ``11_2``, ``0.333...``, ``3:30 p.m.``, ``1:2:3``."""

from __future__ import annotations

import re

from adaptive_ttc.answers.forms import scalar
from adaptive_ttc.answers.forms.decimals import repeating
from adaptive_ttc.answers.forms.expression import whole
from adaptive_ttc.answers.forms.form import Form, Reader, Reading
from adaptive_ttc.answers.forms.scalar import Scalar, of_number
from adaptive_ttc.answers.forms.splitting import split
from adaptive_ttc.answers.forms.tokens import UnreadError

_BASED = re.compile(
    r"(?P<sign>-?)\(?(?:\\text ?\{ ?)?(?P<digits>[0-9A-Z]+(?:\.[0-9A-Z]+)?)(?: ?\})?\)?"
    r"(?:_(?P<index>.+)| ?\\text ?\{ ?\(?(?:in )?(?P<named>base[^{}()]*)\)? ?\}(?P<behind>[0-9]*)"
    r"| ?\(?(?P<plain>base ?[0-9]+)\)?)"
)
_NUMBER_NAMES = (
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"  # 2 to 16
)
_BASE_NAMES = {name: base for base, name in enumerate(_NUMBER_NAMES.split(), 2)} | {
    "binary": 2, "bin": 2, "octal": 8, "oct": 8, "decimal": 10, "hexadecimal": 16, "hex": 16,
}  # fmt: skip
_PREFIXED = re.compile(r"0(?:[xX](?P<hex>[0-9A-Fa-f]+)|[bB](?P<bin>[01]+)|[oO](?P<oct>[0-7]+))")
_IN_BRACKETS = re.compile(r"(-?)([0-9]*\.[0-9]*)\(([0-9]+)\)")
_GOING_ON = re.compile(r"(-?)([0-9]*\.[0-9]*?)([0-9]+?)((?:\3)+)(?:\\ldots|\.\.\.)")
_CLOCK = re.compile(r"([0-9]{1,2})(?::([0-9]{2}))?(am|pm)?")
_HOURS = {"noon": "12pm", "12noon": "12pm", "midnight": "12am", "12midnight": "12am"}
_RESIDUE = re.compile(
    r"(?:[A-Za-z](?:_\w)? ?(?:\\equiv|=|\\cong) ?)?(?P<value>-?[0-9]{1,40}) ?"
    r"(?:\\pmod ?\{?|\(? ?(?:\\text ?\{ ?\(?mod ?\}|mod|\\mod|\\bmod) ?|\\text ?\{ ?\(?mod )"
    r"(?P<by>[1-9][0-9]{0,40}) ?[)}]*"
)
_RATIO = re.compile(":")
_TO = re.compile(r" ?\\text ?\{ ?to ?\} ?| to ")


def based(text: str, read: Reader) -> Reading | None:
    r"""A number in another base, or what its digits say in base ten."""
    if prefixed := _PREFIXED.fullmatch(text):
        base = _BASE_NAMES[prefixed.lastgroup or ""]
        return Reading(Form("base", tag=(int(prefixed[prefixed.lastgroup or ""], base), base)))
    match = _BASED.fullmatch(text)
    if match is None:
        return None
    index = match["index"] or (match["named"] or match["plain"]) + (match["behind"] or "")
    named = re.sub(r"\\text(?=[ {])|base|[{}() ]", "", index).casefold()
    base = int(named) if re.fullmatch("[0-9]{1,2}", named) else _BASE_NAMES.get(named, 0)
    digits = match["digits"]
    if not 2 <= base <= 36 or (len(digits) == 1 and digits.isalpha()):
        return None
    try:
        value: int | str = int(match["sign"] + digits, base)
    except ValueError:  # no digits of this base
        value = match["sign"] + digits
    bare = (of_number(int(match["sign"] + digits)),) if digits.isdigit() else ()
    return Reading(Form("base", tag=(value, base)), bare)


def residue(text: str, read: Reader) -> Reading | None:
    r"""A class of integers, ``x \equiv 3 \pmod{7}``, or the integer that stands for it."""
    match = _RESIDUE.fullmatch(text)
    if match is None:
        return None
    value, modulus = int(match["value"]), int(match["by"])
    least = value % modulus
    alone = "equiv" not in text and "\\bmod" in text  # an operation, and no class
    return Reading(Form("residue", tag=(least, modulus)), (of_number(least if alone else value),))


def recurring(text: str, read: Reader) -> Reading | None:
    r"""``0.(3)``, and ``0.333...`` where the last digits are written twice, and a lone one three times."""
    if match := _IN_BRACKETS.fullmatch(text):
        sign, before, digits = match.groups()
    elif match := _GOING_ON.fullmatch(text):
        sign, before, digits, times = match.groups()
        if len(digits) == len(times) == 1:  # one digit twice may be chance
            return None
    else:
        return None
    try:
        value = repeating(before, digits)
    except UnreadError:
        return None
    return Reading(of_number(-value if sign else value))


def clock(text: str, read: Reader) -> Reading | None:
    """A time of day, in minutes from midnight; without "a.m." or "p.m." both may be meant, up to noon."""
    plain = re.sub(r"\\text ?|[{}. ]", "", text).casefold()
    plain = _HOURS.get(plain, re.sub("o['\u2019]clock", ":00", plain))
    match = _CLOCK.fullmatch(plain)
    if match is None or not (match[2] or match[3]):
        return None
    hour, minute, half = int(match[1]), int(match[2] or 0), match[3]
    if minute > 59 or hour > 23 or (half and not 1 <= hour <= 12):
        return None
    open_ended = Form("clock", tag=(hour, minute))
    if half:
        return Reading(_of_day(hour % 12 + (12 if half == "pm" else 0), minute), (open_ended,))
    also = [_of_day(hour, minute)] if hour > 12 or match[1] == "00" else []
    parts = _scaled([of_number(hour), of_number(minute)])
    if parts is not None:
        also.append(Form("ratio", parts))
    return Reading(open_ended, tuple(also))


def _of_day(hour: int, minute: int) -> Form:
    return Form("clock", tag=(hour, minute, "of the day"))


def ratio(text: str, read: Reader) -> Reading | None:
    """Numbers in proportion; of two the quotient may be meant."""
    texts = split(_TO.sub(":", text), _RATIO).texts
    if len(texts) < 2:
        return None
    try:
        values = [whole(one) for one in texts]
        parts = _scaled(values)
        if parts is None:
            return None
        also = (scalar.over(values[0], values[1]),) if len(values) == 2 else ()
    except (UnreadError, ZeroDivisionError):
        return None
    return Reading(Form("ratio", parts), also)


def _scaled(values: list[Scalar]) -> tuple[Scalar, ...] | None:
    """In proportion to the first, which is not 0."""
    if not values[0].top or not values[-1].top:
        return None
    return tuple(scalar.over(value, values[0]) for value in values)
