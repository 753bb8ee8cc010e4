"""Functions of values: exact where a table or a rule says so, else not looked into."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

from adaptive_ttc.answers.forms import polynomial as poly
from adaptive_ttc.answers.forms.polynomial import ONE, TooLargeError
from adaptive_ttc.answers.forms.scalar import (
    Scalar,
    minus,
    of_constant,
    of_number,
    opaque,
    over,
    plus,
    power,
    root,
    times,
)

_Function = Callable[[Scalar], Scalar]

_SURELY = 1e-6  # above which the sign of a float is that of the value
_LARGEST = 300  # number whose factorial is worked out


class UndefinedError(Exception):
    """The function has no value there."""


@lru_cache(maxsize=1)
def _cosines() -> dict[int, Scalar]:
    """Cosines by angle in degrees, up to a right one, that are sums of square roots."""
    two, four = of_number(2), of_number(4)
    of_2, of_3, of_5, of_6 = (root(of_number(value), two) for value in (2, 3, 5, 6))
    return {
        0: of_number(1),
        15: over(plus(of_6, of_2), four),
        30: over(of_3, two),
        36: over(plus(of_5, of_number(1)), four),
        45: over(of_2, two),
        60: over(of_number(1), two),
        72: over(plus(of_5, of_number(-1)), four),
        75: over(plus(of_6, minus(of_2)), four),
        90: of_number(0),
    }


def _degrees(angle: Scalar) -> Fraction | None:
    """An angle in degrees; None where it is no rational multiple of pi."""
    if angle.bottom != ONE or not angle.exact:
        return None
    total = Fraction(0)
    for monomial, coefficient in angle.top.items():
        if monomial == (("$pi", Fraction(1)),):
            total += 180 * coefficient
        elif monomial == (("$deg", Fraction(1)),):
            total += coefficient
        else:
            return None
    return total


def _cosine_of(degrees: Fraction) -> Scalar:
    """Exact at multiples of 15, 36 and 72 degrees, else the cosine of an angle below a right one."""
    turned = abs(degrees) % 360
    turned = 360 - turned if turned > 180 else turned
    folded = 180 - turned if turned > 90 else turned
    found = _cosines().get(folded.numerator) if folded.denominator == 1 else None
    if found is None:
        worth = complex(math.cos(math.radians(folded)))
        found = Scalar(poly.atom(f"cos {folded}"), ONE, (worth, worth), False)
    return found if turned <= 90 else minus(found)


def cosine(angle: Scalar) -> Scalar:
    """The cosine."""
    degrees = _degrees(angle)
    return opaque("cos", angle, value=cmath.cos) if degrees is None else _cosine_of(degrees)


def sine(angle: Scalar) -> Scalar:
    """The sine."""
    degrees = _degrees(angle)
    return opaque("sin", angle, value=cmath.sin) if degrees is None else _cosine_of(90 - degrees)


def tangent(angle: Scalar) -> Scalar:
    """The tangent. ZeroDivisionError: there is none."""
    return over(sine(angle), cosine(angle))


def _inverse(of: Callable[[Scalar], Scalar], name: str, value: Callable[..., complex], angles: range) -> _Function:
    def function(argument: Scalar) -> Scalar:
        for degrees in angles if argument.key is not None else ():
            angle = over(times(of_number(degrees), of_constant("$pi")), of_number(180))
            try:
                if of(angle).key == argument.key:
                    return angle
            except ZeroDivisionError:
                continue
        return opaque(name, argument, value=value)

    return function


def logarithm(argument: Scalar, base: Scalar | None = None) -> Scalar:
    """The logarithm, natural without a base; of a number above 0 it is a sum of those of primes.

    UndefinedError: of 0.
    """
    if not argument.top:
        raise UndefinedError
    if base is not None:
        return over(logarithm(argument), logarithm(base))
    if argument.bottom == ONE and argument.exact and len(argument.top) == 1:
        ((monomial, coefficient),) = argument.top.items()
        exponents = dict(monomial)
        unit = exponents.pop("$e", Fraction(0))
        if coefficient > 0 and all(name.startswith("#") for name in exponents):
            for prime, times_ in poly.prime_powers(coefficient):
                exponents[f"#{prime}"] = exponents.get(f"#{prime}", Fraction(0)) + times_
            total = of_number(unit)
            for name, exponent in exponents.items():
                prime_log = complex(math.log(int(name[1:])))
                log = Scalar(poly.atom(f"ln{name}"), ONE, (prime_log, prime_log))
                total = plus(total, times(of_number(exponent), log))
            return total
    return opaque("ln", argument, value=cmath.log)


def exponential(exponent: Scalar) -> Scalar:
    """e to a power; of imaginary angles by Euler's formula where they are rational multiples of pi."""
    if exponent.bottom == ONE and exponent.exact:
        imaginary = {m: c for m, c in exponent.top.items() if ("$i", Fraction(1)) in m}
        if imaginary:
            turn = times(Scalar(imaginary, ONE, exponent.values), minus(of_constant("$i")))
            real = {m: c for m, c in exponent.top.items() if m not in imaginary}
            if _degrees(turn) is not None:
                point = plus(cosine(turn), times(of_constant("$i"), sine(turn)))
                return times(point, power(of_constant("$e"), Scalar(real, ONE, exponent.values)))
            found = power(of_constant("$e"), exponent)
            return replace(found, exact=False)
    return power(of_constant("$e"), exponent)


def absolute(value: Scalar) -> Scalar:
    """The absolute value."""
    if value.rational is not None:
        return of_number(abs(value.rational))
    known = value.bottom == ONE and value.exact and not value.has_variables
    worth = value.values[0]
    if known and worth.imag == 0 and (len(value.top) <= 1 or abs(worth.real) > _SURELY):
        return minus(value) if worth.real < 0 else value
    imaginary = {m: c for m, c in value.top.items() if ("$i", Fraction(1)) in m}
    if known and all(name[0] == "#" or name in ("$i", "$pi", "$e") for monomial in value.top for name, _ in monomial):
        other = times(Scalar(imaginary, ONE, (1j * worth.imag,) * 2), minus(of_constant("$i")))
        real = Scalar({m: c for m, c in value.top.items() if m not in imaginary}, ONE, (complex(worth.real),) * 2)
        return root(plus(times(real, real), times(other, other)), of_number(2))
    return opaque("abs", value, value=lambda a: complex(abs(a)))


def rounded_down(value: Scalar) -> Scalar:
    """The greatest integer that is not above."""
    return (
        of_number(math.floor(value.rational)) if value.rational is not None else opaque("floor", value, value=_unknown)
    )


def rounded_up(value: Scalar) -> Scalar:
    """The least integer that is not below."""
    rational = value.rational
    return opaque("ceil", value, value=_unknown) if rational is None else of_number(math.ceil(rational))


def factorial(value: Scalar) -> Scalar:
    """The factorial. UndefinedError: of a number that is negative or no integer. TooLargeError: of one above 300."""
    number = value.rational
    if number is None:
        return opaque("fact", value, value=lambda a: complex(math.gamma(a.real + 1)))
    if number < 0 or number.denominator != 1:
        raise UndefinedError
    if number > _LARGEST:
        raise TooLargeError
    return of_number(math.factorial(number.numerator))


def binomial(total: Scalar, chosen: Scalar) -> Scalar:
    """The number of ways to choose. TooLargeError: from more than 300."""
    n, k = total.rational, chosen.rational
    if n is None or k is None or n.denominator != 1 or k.denominator != 1 or min(n, k) < 0:
        return opaque("binom", total, chosen, value=_unknown)
    if n > _LARGEST:
        raise TooLargeError
    return of_number(math.comb(n.numerator, k.numerator))


def _unknown(*values: complex) -> complex:
    return complex("nan")


def _plain(name: str, value: Callable[..., complex]) -> _Function:
    return lambda argument: opaque(name, argument, value=value)


_ONE = of_number(1)

FUNCTIONS: dict[str, _Function] = {
    "sin": sine,
    "cos": cosine,
    "tan": tangent,
    "cot": lambda angle: over(cosine(angle), sine(angle)),
    "sec": lambda angle: over(_ONE, cosine(angle)),
    "csc": lambda angle: over(_ONE, sine(angle)),
    "arcsin": _inverse(sine, "arcsin", cmath.asin, range(-90, 91, 15)),
    "arccos": _inverse(cosine, "arccos", cmath.acos, range(0, 181, 15)),
    "arctan": _inverse(tangent, "arctan", cmath.atan, range(-75, 76, 15)),
    "sinh": _plain("sinh", cmath.sinh),
    "cosh": _plain("cosh", cmath.cosh),
    "tanh": _plain("tanh", cmath.tanh),
    "ln": logarithm,
    "log": lambda argument: logarithm(argument, of_number(10)),
    "lg": lambda argument: logarithm(argument, of_number(10)),
    "exp": exponential,
}
"""Functions by the name of their LaTeX command."""
