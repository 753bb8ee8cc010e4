"""Sums of products with rational coefficients, in one normal form: two of them are equal where their terms are.

Factors ("atoms") are texts: ``#2`` a prime, whose powers are roots; ``$pi``, ``$e``, ``$i``, ``$oo``, ``$deg`` a
constant; ``@x`` a variable; anything else a value that is not looked into. Roots of different square-free numbers are
linearly independent over the rationals (Besicovitch 1940), which makes the form unique for sums of roots.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction

Monomial = tuple[tuple[str, Fraction], ...]
"""Atoms with their exponents, sorted; no exponent is 0, and those of primes are between 0 and 1."""

Polynomial = Mapping[Monomial, Fraction]
"""Coefficients by monomial, none of them 0."""

_TERMS = 40  # that a polynomial may have
_PRODUCTS = 400  # of terms that one multiplication may take
_BITS = 20_000  # of a numerator or denominator
_DIVISORS = 10_000  # that are tried for a factor; what is left below their square is prime

ZERO: Polynomial = {}
ONE: Polynomial = {(): Fraction(1)}


class TooLargeError(Exception):
    """What an answer says is too large to be worked out here."""


def atom(name: str, exponent: Fraction = Fraction(1)) -> Polynomial:
    """One atom to a power."""
    return {((name, exponent),): Fraction(1)}


def number(value: Fraction | int) -> Polynomial:
    """A rational number."""
    return {(): _bounded(Fraction(value))} if value else ZERO


def add(first: Polynomial, second: Polynomial) -> Polynomial:
    """The sum. TooLargeError: it has too many terms."""
    total = dict(first)
    for monomial, coefficient in second.items():
        changed = total.get(monomial, 0) + coefficient
        if changed:
            total[monomial] = changed
        else:
            del total[monomial]
    if len(total) > _TERMS:
        raise TooLargeError
    return total


def multiply(first: Polynomial, second: Polynomial) -> Polynomial:
    """The product. TooLargeError: it takes too long."""
    if first == ONE or second == ONE:
        return second if first == ONE else first
    if len(first) * len(second) > _PRODUCTS:
        raise TooLargeError
    total: dict[Monomial, Fraction] = {}
    for mine, a in first.items():
        for other, b in second.items():
            monomial, factor = _merged(mine, other)
            total[monomial] = total.get(monomial, 0) + _bounded(a * b * factor)
    found = {monomial: coefficient for monomial, coefficient in total.items() if coefficient}
    if len(found) > _TERMS:
        raise TooLargeError
    return found


def monomial_power(monomial: Monomial, coefficient: Fraction, exponent: int) -> Polynomial:
    """An integer power of one term; ZeroDivisionError: of nothing. TooLargeError: it has too many digits."""
    size = max(coefficient.numerator.bit_length(), coefficient.denominator.bit_length())
    if abs(exponent) * size > _BITS and abs(coefficient) != 1:
        raise TooLargeError
    merged, factor = normal({name: power * exponent for name, power in monomial})
    return {merged: _bounded(coefficient**exponent * factor)}


def scaled(polynomial: Polynomial, factor: Fraction) -> Polynomial:
    """With all coefficients multiplied by a number that is not 0."""
    return {monomial: _bounded(coefficient * factor) for monomial, coefficient in polynomial.items()}


def normal(exponents: Mapping[str, Fraction]) -> tuple[Monomial, Fraction]:
    """A monomial of any exponents, and the rational factor that they hold."""
    factor = Fraction(1)
    kept = {}
    for name, exponent in exponents.items():
        if name.startswith("#"):
            whole = exponent.numerator // exponent.denominator
            exponent -= whole
            if abs(whole) * int(name[1:]).bit_length() > _BITS:
                raise TooLargeError
            factor *= Fraction(int(name[1:])) ** whole
        elif name == "$i" and exponent.denominator == 1:
            turns = exponent.numerator % 4
            factor *= -1 if turns >= 2 else 1
            exponent = Fraction(turns % 2)
        if exponent:
            kept[name] = exponent
    return tuple(sorted(kept.items())), factor


def positive_power(value: Fraction, exponent: Fraction) -> tuple[Monomial, Fraction]:
    """A power of a number above 0 as roots of primes. TooLargeError: it was not factorised."""
    return normal({f"#{prime}": times * exponent for prime, times in prime_powers(value)})


def prime_powers(value: Fraction) -> list[tuple[int, int]]:
    """Primes of a number above 0, each with its power. TooLargeError: they were not found."""
    below = [(prime, -times) for prime, times in _factors(value.denominator)]
    found = [*_factors(value.numerator), *below]
    if any(prime > _DIVISORS**2 for prime, _ in found):
        raise TooLargeError
    return found


def _factors(value: int) -> Iterator[tuple[int, int]]:
    """Prime factors and how often each divides; the last may be composite where it is above 10^8."""
    divisor = 2
    while divisor <= _DIVISORS and divisor * divisor <= value:
        times = 0
        while value % divisor == 0:
            value //= divisor
            times += 1
        if times:
            yield divisor, times
        divisor += 1 if divisor == 2 else 2
    if value > 1:
        yield value, 1


def key(polynomial: Polynomial) -> tuple[tuple[Monomial, Fraction], ...]:
    """Hashable, the same for equal ones."""
    return tuple(sorted(polynomial.items()))


def _merged(first: Monomial, second: Monomial) -> tuple[Monomial, Fraction]:
    if not first or not second:
        return first or second, Fraction(1)
    exponents = dict(first)
    for name, exponent in second:
        exponents[name] = exponents.get(name, Fraction(0)) + exponent
    return normal(exponents)


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _BITS:
        raise TooLargeError
    return value
