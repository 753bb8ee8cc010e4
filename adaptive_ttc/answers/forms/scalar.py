"""A value that an expression stands for: a quotient of two polynomials, and what it is worth at two fixed points."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from fractions import Fraction
from zlib import crc32

from adaptive_ttc.answers.forms import polynomial as poly
from adaptive_ttc.answers.forms.polynomial import ONE, Monomial, Polynomial, TooLargeError

_NAN = complex("nan")
_HIGHEST = 40  # power that a sum is raised to
_CLOSE = 1e-6  # relative difference of two values above which they are surely different
_FAR = 1e-5  # relative difference that no rounding to so many digits makes
_LEAST_DIGITS = 6  # behind the point, and significant ones, of a decimal that may stand for an exact value
_CONSTANTS = {"$pi": cmath.pi, "$e": cmath.e, "$i": 1j, "$oo": complex("inf"), "$deg": cmath.pi / 180}

Values = tuple[complex, complex]


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value.

    Attributes:
        top, bottom: numerator and denominator, the latter not 0; 1 wherever that can be.
        values: what it is worth where every variable has a fixed value, at two such points; nan where not known.
        exact: two exact ones are equal only where their polynomials say so; others may be equal all the same.
        places: of a decimal as it is written, its digits behind the point; else None.
        digits: of a decimal its significant digits, without zeros at the end.
    """

    top: Polynomial
    bottom: Polynomial
    values: Values
    exact: bool = True
    places: int | None = None
    digits: int = 0

    @property
    def rational(self) -> Fraction | None:
        """The value as a rational number; None where it is none, or not known to be one."""
        if self.bottom != ONE or not self.exact or set(self.top) - {()}:
            return None
        return self.top.get((), Fraction(0))

    @property
    def has_variables(self) -> bool:
        """Whether variables stand in it."""
        return any("@" in name for monomial in (*self.top, *self.bottom) for name, _ in monomial)

    @property
    def is_rounded(self) -> bool:
        """Whether it is a decimal that may stand for another value, of which it is a rounding."""
        return (self.places or 0) >= _LEAST_DIGITS and self.digits >= _LEAST_DIGITS

    @property
    def key(self) -> Hashable | None:
        """The same for equal values; None where there is no such key."""
        if not self.exact or self.bottom != ONE or self.is_rounded:
            return None
        rational = self.rational
        if rational is None:
            return poly.key(self.top)
        return rational.numerator if rational.denominator == 1 else rational  # an int is compared ten times as fast


def same(first: Scalar, second: Scalar) -> bool | None:
    """Whether two values are equal; None where this cannot be told here.

    Exact ones never are for being close. A decimal equals what it is a rounding of to its own digits, of which there
    are at least six behind the point.
    """
    if first.bottom == second.bottom:
        equal = first.top == second.top
    else:
        try:
            equal = poly.multiply(first.top, second.bottom) == poly.multiply(second.top, first.bottom)
        except TooLargeError:
            return None
    if equal:
        return True
    if _rounds(first, second) or _rounds(second, first):
        return True
    return False if first.exact and second.exact else _by_values(first, second)


def _rounds(decimal: Scalar, other: Scalar) -> bool:
    value = other.values[0]
    if not decimal.is_rounded or other.has_variables or decimal.places is None or value.imag:
        return False
    if _size(decimal.values[0] - value) > _FAR * _size(value):
        return False
    rational = other.rational
    if rational is None:
        rational = Fraction(value.real) if abs(value.real) < 1e9 else None
    mine = decimal.rational
    if rational is None or mine is None or (other.places is not None and other.places < decimal.places):
        return False
    tolerance = Fraction(0) if other.rational is not None else abs(rational) / 2**51  # of a float
    return abs(mine - rational) <= Fraction(1, 2 * 10**decimal.places) + tolerance


def _by_values(first: Scalar, second: Scalar) -> bool | None:
    for a, b in zip(first.values, second.values, strict=True):
        if cmath.isinf(a) != cmath.isinf(b) and not cmath.isnan(a) and not cmath.isnan(b):
            return False
        if _size(a - b) > _CLOSE * max(_size(a), _size(b)):
            return False
    return None


def _size(value: complex) -> float:
    """The absolute value. The built-in one fails on nan where an overflow went before (CPython 3.11)."""
    return math.hypot(value.real, value.imag)


def of_number(value: Fraction | int, places: int | None = None, digits: int = 0) -> Scalar:
    """A rational number; ``places`` and ``digits`` where it is written as a decimal."""
    return Scalar(poly.number(value), ONE, _constant(value), True, places, digits)


def of_variable(name: str) -> Scalar:
    """A variable."""
    part = crc32(name.encode()) / 2**32
    return Scalar(poly.atom(f"@{name}"), ONE, (complex(1 + part), complex(2 + (7 * part) % 1)))


def of_constant(name: str) -> Scalar:
    """A constant, by the name that its atom has: ``$pi``."""
    return Scalar(poly.atom(name), ONE, (_CONSTANTS[name],) * 2)


def opaque(name: str, *arguments: Scalar, value: Callable[..., complex]) -> Scalar:
    """A function of values that is not looked into."""
    told = f"{name}({'; '.join(map(_text, arguments))})"
    return Scalar(poly.atom(told), ONE, _at_both(value, *(one.values for one in arguments)), False)


def plus(first: Scalar, second: Scalar) -> Scalar:
    """The sum."""
    if _infinite(first) or _infinite(second):
        return _infinite_sum(first, second)
    if first.bottom == second.bottom:
        top, bottom = poly.add(first.top, second.top), first.bottom
    else:
        top = poly.add(poly.multiply(first.top, second.bottom), poly.multiply(second.top, first.bottom))
        bottom = poly.multiply(first.bottom, second.bottom)
    return Scalar(
        top,
        bottom if top else ONE,
        _at_both(lambda a, b: a + b, first.values, second.values),
        first.exact and second.exact,
    )


def minus(value: Scalar) -> Scalar:
    """The same with the other sign; a decimal stays one."""
    a, b = value.values
    return replace(value, top=poly.scaled(value.top, Fraction(-1)), values=(-a, -b))


def times(first: Scalar, second: Scalar) -> Scalar:
    """The product. TooLargeError: of 0 and infinity, or of infinity and what has no sign."""
    if _infinite(first) or _infinite(second):
        return _infinite_product(first, second)
    return _quotient(
        poly.multiply(first.top, second.top),
        poly.multiply(first.bottom, second.bottom),
        _at_both(lambda a, b: a * b, first.values, second.values),
        first.exact and second.exact,
    )


def over(first: Scalar, second: Scalar) -> Scalar:
    """The quotient. ZeroDivisionError: by 0."""
    if not second.top:
        raise ZeroDivisionError
    if _infinite(second):
        raise TooLargeError
    if _infinite(first):
        return _infinite_product(first, second)
    return _quotient(
        poly.multiply(first.top, second.bottom),
        poly.multiply(first.bottom, second.top),
        _at_both(lambda a, b: a / b, first.values, second.values),
        first.exact and second.exact,
    )


def power(base: Scalar, exponent: Scalar) -> Scalar:
    """A power. ZeroDivisionError: of 0, by an exponent that is not above 0. TooLargeError: it has too many digits."""
    rational = exponent.rational
    values = _at_both(lambda a, b: a**b, base.values, exponent.values)
    if rational is None:
        top = _symbolic(base, exponent)
    elif not base.top:
        if rational <= 0:
            raise ZeroDivisionError
        return base
    elif rational.denominator == 1:
        return _whole_power(base, rational.numerator, values)
    else:
        top = _fractional(base, rational)
    if top is not None:
        # Powers by constants that are no rational numbers are not known to be independent
        return Scalar(
            top, ONE, values, base.exact and exponent.exact and (rational is not None or exponent.has_variables)
        )
    if rational is not None:
        return Scalar(poly.atom(f"({_text(base)})", rational), ONE, values, False)
    return opaque("pow", base, exponent, value=lambda a, b: a**b)


def root(value: Scalar, degree: Scalar) -> Scalar:
    """The root that is real where there is one: of -8 to the degree 3 it is -2."""
    order, rational = degree.rational, value.rational
    if rational is not None and rational < 0 and order is not None and order.denominator == 1 and order % 2:
        return minus(power(minus(value), over(of_number(1), degree)))
    return power(value, over(of_number(1), degree))


def _whole_power(base: Scalar, exponent: int, values: Values) -> Scalar:
    if len(base.top) == 1 and len(base.bottom) == 1:
        ((monomial, coefficient),) = base.top.items()
        top = poly.monomial_power(monomial, coefficient, exponent)
        ((monomial, coefficient),) = base.bottom.items()
        return _quotient(top, poly.monomial_power(monomial, coefficient, exponent), values, base.exact)
    if abs(exponent) > _HIGHEST:
        raise TooLargeError
    result, square, left = of_number(1), base, abs(exponent)
    while left:
        result = times(result, square) if left % 2 else result
        left //= 2
        square = times(square, square) if left else square
    return result if exponent >= 0 else over(of_number(1), result)


def _fractional(base: Scalar, exponent: Fraction) -> Polynomial | None:
    """A power of one term, whose variables are taken to be above 0; None where it is no product of powers."""
    if len(base.top) != 1 or base.bottom != ONE:
        return None
    ((monomial, coefficient),) = base.top.items()
    exponents: dict[str, Fraction] = {}
    for name, times_ in monomial:
        positive = name[0] == "#" or name in ("$pi", "$e", "$deg")
        if not positive and not (name[0] == "@" and abs(times_) == 1 and coefficient > 0):
            return None
        exponents[name] = times_ * exponent
    if coefficient < 0:
        if exponent.denominator != 2:
            return None
        exponents["$i"] = 2 * exponent
    roots, whole = poly.positive_power(abs(coefficient), exponent)
    rest, factor = poly.normal(exponents)
    return poly.multiply({rest: factor}, {roots: whole})


def _symbolic(base: Scalar, exponent: Scalar) -> Polynomial | None:
    """``2^{n+1}`` as ``2`` times an atom ``2^n``, and the like; None for other bases and exponents."""
    if len(base.top) != 1 or base.bottom != ONE or exponent.bottom != ONE:
        return None
    ((monomial, coefficient),) = base.top.items()
    if not monomial and coefficient > 0:
        bases = [(f"#{prime}", Fraction(power_)) for prime, power_ in poly.prime_powers(coefficient)]
    elif coefficient == 1 and len(monomial) == 1 and (monomial[0][0][0] == "@" or monomial[0][0] in ("$e", "$pi")):
        bases = list(monomial)
    else:
        return None
    exponents: dict[str, Fraction] = {}
    for name, times_ in bases:
        for part, factor in exponent.top.items():
            rest, raised = part, name
            if name == "$e" and (logs := [one for one, k in part if one.startswith("ln#") and k == 1]):
                raised, rest = logs[0][2:], tuple(one for one in part if one[0] != logs[0])
            raised = f"^{raised}({_monomial_text(rest)})" if rest else raised
            exponents[raised] = exponents.get(raised, Fraction(0)) + times_ * factor
    merged, number = poly.normal(exponents)
    return {merged: number}


def _quotient(top: Polynomial, bottom: Polynomial, values: Values, exact: bool) -> Scalar:
    """With a denominator of 1 where it is one term, or a sum of two numbers whose conjugate makes it one."""
    if not top or bottom == ONE:
        return Scalar(top, ONE, values, exact)
    if len(bottom) == 2 and all(_is_real_number(monomial) for monomial in bottom):
        (first, a), (second, b) = bottom.items()
        conjugate = {first: a, second: -b}
        product = poly.multiply(bottom, conjugate)
        if len(product) == 1:
            top, bottom = poly.multiply(top, conjugate), product
    if len(bottom) == 1:
        ((monomial, coefficient),) = bottom.items()
        return Scalar(poly.multiply(top, poly.monomial_power(monomial, coefficient, -1)), ONE, values, exact)
    leading = max(bottom)
    factor = 1 / bottom[leading]
    return Scalar(poly.scaled(top, factor), poly.scaled(bottom, factor), values, exact)


def _is_real_number(monomial: Monomial) -> bool:
    return all(name[0] == "#" or name == "$i" for name, _ in monomial)


def _infinite(value: Scalar) -> bool:
    return any(name == "$oo" for monomial in value.top for name, _ in monomial)


def _infinite_sum(first: Scalar, second: Scalar) -> Scalar:
    if _infinite(first) and _infinite(second) and first.top != second.top:
        raise TooLargeError
    return first if _infinite(first) else second


def _infinite_product(first: Scalar, second: Scalar) -> Scalar:
    signs = [value.values[0] for value in (first, second)]
    if any(sign.imag or not sign.real or sign != sign for sign in signs) or first.has_variables or second.has_variables:
        raise TooLargeError
    infinity = of_constant("$oo")
    return infinity if (signs[0].real > 0) == (signs[1].real > 0) else minus(infinity)


def _constant(value: Fraction | int) -> Values:
    try:
        worth = _of_moderate_size(complex(float(value)))
    except OverflowError:
        worth = _NAN
    return worth, worth


def _at_both(function: Callable[..., complex], *values: Values) -> Values:
    first, second = (_worth(function, *(one[place] for one in values)) for place in (0, 1))
    return first, second


def _worth(function: Callable[..., complex], *arguments: complex) -> complex:
    try:
        return _of_moderate_size(complex(function(*arguments)))
    except (ArithmeticError, ValueError, TypeError):
        return _NAN


def _of_moderate_size(value: complex) -> complex:
    """The value; nan where distances between such values would overflow, and for infinity in no direction."""
    if cmath.isinf(value):
        return _NAN if value.imag else value
    return value if max(abs(value.real), abs(value.imag)) < 1e150 else _NAN


def _text(value: Scalar) -> str:
    parts = [value.top] if value.bottom == ONE else [value.top, value.bottom]
    return "/".join("+".join(f"{c}*{_monomial_text(m)}" for m, c in sorted(part.items())) or "0" for part in parts)


def _monomial_text(monomial: Monomial) -> str:
    return "*".join(f"{name}^{exponent}" for name, exponent in monomial) or "1"
