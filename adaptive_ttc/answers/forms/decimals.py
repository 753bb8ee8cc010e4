"""Values of decimals, as they are written and with digits that repeat."""

from __future__ import annotations

from fractions import Fraction

from adaptive_ttc.answers.forms.scalar import Scalar, of_number
from adaptive_ttc.answers.forms.tokens import UnreadError

_LARGEST_EXPONENT = 1000  # of ten


def repeating(before: str, digits: str) -> Fraction:
    """The value of a decimal with digits that repeat for ever: ``0.1`` and ``6`` are 1/6."""
    whole_part, _, fixed = before.partition(".")
    if not digits.isdigit() or not before.replace(".", "", 1).isdigit() or "." not in before:
        raise UnreadError
    value = Fraction(int((whole_part or "0") + fixed), 10 ** len(fixed))
    return value + Fraction(int(digits), 10 ** len(fixed) * (10 ** len(digits) - 1))


def decimal(text: str) -> Scalar:
    """A decimal above 0, such as ``12``, ``.5``, ``2.5e4``. UnreadError: its exponent is too large."""
    mantissa, _, exponent = text.lower().partition("e")
    if exponent and abs(int(exponent)) > _LARGEST_EXPONENT:
        raise UnreadError
    value = Fraction(mantissa.rstrip(".") or "0") * Fraction(10) ** int(exponent or 0)
    _, point, behind = mantissa.partition(".")
    if not point or exponent:
        return of_number(value)
    return of_number(value, len(behind), len(mantissa.replace(".", "").strip("0")))
