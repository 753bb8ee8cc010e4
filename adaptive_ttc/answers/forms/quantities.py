r"""Values, and values with a unit: ``\frac{1}{2}``, ``5\text{ cm}^2``, ``\$36``, ``50\%``, ``30^\circ``."""

from __future__ import annotations

import re
from fractions import Fraction

from adaptive_ttc.answers.forms import scalar
from adaptive_ttc.answers.forms.expression import read_expression
from adaptive_ttc.answers.forms.form import Form, Reader, Reading
from adaptive_ttc.answers.forms.scalar import Scalar, of_constant, of_number, of_variable
from adaptive_ttc.answers.forms.tokens import Token, UnreadError

_MONEY = re.compile(
    "(-?) ?(\\\\\\$|[\u00a3\u20ac\u00a5\u20b9]|(?:\\\\text ?\\{ ?)?(?:USD|EUR|GBP|Rs)\\.? ?\\}?) ?(?=[-0-9.\\\\])"
)
_MONEY_BEHIND = re.compile("(.*[0-9}]) ?(\\\\\\$|[\u00a3\u20ac\u00a5\u20b9\u00a2])")
_TOLD = re.compile(r"\\text ?\{ ?([-$.0-9][^{}]*)\}")
_SPACED_UNIT = re.compile(r"-?[0-9.]+ ([msghLNJWVKCFA])")
_NAMES = {
    "$": "dollar usd us\\$ bucks", "\u20ac": "euro eur", "\u00a3": "gbp", "\u20b9": "rupee rs inr", "\u00a5": "yen jpy",
    "\u00a2": "cent", "%": "percent pct percentage percents", "degree": "deg \u00b0",
    "mm": "millimeter millimetre", "cm": "centimeter centimetre", "m": "meter metre", "km": "kilometer kilometre",
    "in": "inch inche ins", "ft": "foot feet", "yd": "yard", "mi": "mile", "kg": "kilogram kilo", "g": "gram gm",
    "mg": "milligram", "lb": "pound lbs", "oz": "ounce", "l": "liter litre", "ml": "milliliter millilitre",
    "h": "hour hr hrs", "min": "minute mins", "s": "second sec secs", "ms": "millisecond", "day": "days",
    "week": "weeks", "year": "yr yrs", "mi/h": "mph", "km/h": "kmh kph", "rev/min": "rpm", "unit": "units",
    "rad": "radian", "person": "people", "child": "children", "man": "men", "woman": "women",
}  # fmt: skip
_UNITS = {
    name: unit for unit, names in _NAMES.items() for name in (*names.split(), *(f"{one}s" for one in names.split()))
}
_MULTIPLES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_OF_TEMPERATURE = {"c": "c", "celsius": "c", "f": "f", "fahrenheit": "f"}


def quantity(text: str, read: Reader) -> Reading | None:
    """A value; one with a unit may stand for the value alone, and a percentage also for a hundredth of it."""
    if match := _MONEY.match(text):
        return _with_unit(match[1] + text[match.end() :], [Token("text", match[2])])
    if match := _MONEY_BEHIND.fullmatch(text):
        return _with_unit(match[1], [Token("text", match[2])])
    if match := _TOLD.fullmatch(text):
        return read(match[1])
    try:
        value, rest = read_expression(text)
    except UnreadError:
        return None
    return _measured(value, rest, text)


def _with_unit(text: str, unit: list[Token]) -> Reading | None:
    try:
        value, rest = read_expression(text)
    except UnreadError:
        return None
    value, rest = _in_full(value, rest)
    if rest:
        return None
    return Reading(Form("quantity", (value,), _unit_of(unit)), (value,))


def _in_full(value: Scalar, rest: list[Token]) -> tuple[Scalar, list[Token]]:
    """A value times the "million" that stands behind it, and what stands behind that."""
    word = rest[0].text.strip().casefold() if rest and rest[0].kind in ("text", "word") else ""
    first, _, others = word.partition(" ")
    if first not in _MULTIPLES:
        return value, rest
    return scalar.times(value, of_number(_MULTIPLES[first])), [*([Token("text", others)] if others else []), *rest[1:]]


def _measured(value: Scalar, rest: list[Token], text: str) -> Reading | None:
    value, rest = _in_full(value, rest)
    in_degrees = _in_degrees(value)
    if rest and rest[0].kind == "number":  # numbers side by side say nothing else
        return Reading(Form("statement", tag=text))
    if not rest:
        if in_degrees is not None:
            return _angle(in_degrees)
        if match := _SPACED_UNIT.fullmatch(text):
            return Reading(value, (scalar.over(value, of_variable(match[1])),))
        return Reading(value)
    unit = _unit_of(rest)
    if unit == "":
        return None
    if in_degrees is not None:
        unit, value = f"degree {_OF_TEMPERATURE.get(unit, unit)}", in_degrees
    also = [value]
    if unit == "%":
        also.append(scalar.times(value, of_number(Fraction(1, 100))))
    elif len(rest) == 1 and re.fullmatch(" ?[A-Za-z] ?", rest[0].text):
        also.append(scalar.times(value, of_variable(rest[0].text.strip())))
    return Reading(Form("quantity", (value,), unit), tuple(also))


def _angle(value: Scalar) -> Reading:
    """A number of degrees, also of a temperature: ``20^\\circ C``."""
    for name in ("C", "F", "K"):
        scale = of_variable(name)
        if len(value.top) == 1 and all((f"@{name}", Fraction(1)) in monomial for monomial in value.top):
            bare = scalar.over(value, scale)
            return Reading(Form("quantity", (bare,), f"degree {name.casefold()}"), (bare,))
    return Reading(Form("quantity", (value,), "degree"), (value,))


def _in_degrees(value: Scalar) -> Scalar | None:
    """What stands before a degree sign; None where there is no such sign."""
    if not value.top or any(("$deg", Fraction(1)) not in monomial for monomial in value.top):
        return None
    return scalar.over(value, of_constant("$deg"))


def _unit_of(tokens: list[Token]) -> str:
    r"""One spelling for a unit: ``cm^2`` of ``\text{square centimeters}``; the empty string where it is none."""
    if tokens[0].kind not in ("text", "word", "letter") and str(tokens[0]) != "\\%":
        return ""
    if any(token.kind == "command" and token.text not in "%$ " for token in tokens):
        return ""
    if any(token.kind == "sign" and token.text not in "^{}/.-()'" for token in tokens):
        return ""
    before = [[str(one) for one in tokens[max(0, place - 3) : place]] for place in range(len(tokens))]
    if any(token.kind == "number" and "^" not in signs for token, signs in zip(tokens, before, strict=True)):
        return ""
    text = "".join((" " if token.spaced or token.kind == "word" else "") + token.text for token in tokens)
    text = re.sub(r"[{}()]", "", text.casefold().replace("per cent", "percent").replace(" per ", "/")).replace(
        "**", "^"
    )
    powers = {"square": "^2", "sq": "^2", "cubic": "^3", "cu": "^3"}
    found, raised = [], ""
    for word in re.findall(r"[^\W\d_]+(?:\^?[0-9]+)?|[$%/\u00a2-\u00a5\u20ac\u20b9\u00b0]", text):
        name, _, exponent = word.partition("^")
        if name in powers:
            raised = powers[name]
            continue
        digit = re.fullmatch("([a-z]+)([23])", name)
        name, exponent = (digit[1], digit[2]) if digit else (name, exponent)
        found.append(_UNITS.get(name, _singular(name)) + (f"^{exponent}" if exponent else raised))
        raised = ""
    return " ".join(found).replace(" / ", "/") or ""


def _singular(name: str) -> str:
    return name[:-1] if len(name) > 3 and name.endswith("s") and not name.endswith("ss") else name
