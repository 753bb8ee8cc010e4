"""Elementary arithmetic that can go wrong in human ways; it knows no problem family and no model.

A solution is computed through a :class:`Slips`: with no rates it is right, with rates some of its
decisions are replaced by typical mistakes and everything after is computed consistently from them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

T = TypeVar("T")

KINDS = (
    "add", "carry", "signed", "times", "times_hard", "sign", "divide", "move", "distribute",
    "precedence", "denominator", "substitute", "unreduced",
)  # fmt: skip
"""Kinds of decision: sums of small, carrying and mixed-sign operands; easy and hard products; the sign of
a product; quotients; moving a term across an equation; expanding a bracket; order of operations;
common denominators; substitution; a fraction left unreduced (which is no mistake)."""

_PREFERENCE = (0.75, 0.17, 0.08)  # the first mistake of a list is the typical one


class Slips:
    """Decides at every step of a solution whether it goes wrong, and how.

    Args:
        rng: source of randomness; unused where all rates are 0.
        rates: probability of a mistake for each of :data:`KINDS`; missing kinds never err.
    """

    def __init__(self, rng: random.Random, rates: Mapping[str, float]) -> None:
        unknown = set(rates) - set(KINDS)
        if unknown:
            raise ValueError(f"unknown kinds of slip {sorted(unknown)}; known: {', '.join(KINDS)}")
        self._rng = rng
        self._rates = rates

    def pick(self, kind: str, right: T, wrong: Sequence[T]) -> T:
        """``right``, or with the kind's probability one of the mistakes (the first is the likeliest)."""
        mistakes = [value for value in wrong if value != right][: len(_PREFERENCE)]
        if not mistakes or self._rng.random() >= self._rates.get(kind, 0.0):
            return right
        return self._rng.choices(mistakes, _PREFERENCE[: len(mistakes)])[0]

    def plus(self, a: int, b: int) -> int:
        """``a + b``."""
        right = a + b
        if (a < 0) != (b < 0) and a != 0 and b != 0:
            return self.pick("signed", right, [-right, a - b, right + 1])
        if abs(a) % 10 + abs(b) % 10 >= 10:
            return self.pick("carry", right, [right - 10 if right > 0 else right + 10, right + 1, right - 1])
        return self.pick("add", right, [right + 1, right - 1, right + 10])

    def times(self, a: int, b: int) -> int:
        """``a * b``."""
        right = a * b
        if a < 0 or b < 0:
            right = self.pick("sign", right, [-right])
        hard = min(abs(a), abs(b)) >= 3 and abs(right) > 20
        unit = 1 if right > 0 else -1
        near = [right + unit * abs(a), right - unit * abs(b), right + unit * 10]
        return self.pick("times_hard" if hard else "times", right, near)

    def over(self, a: int, b: int) -> Fraction:
        """``a / b`` in lowest terms."""
        right = Fraction(a, b)
        kind = "divide" if abs(right.numerator) > 1 or right.denominator > 1 else "times"
        wrong = [-right, Fraction(a - b, b) if a != b else right + 1]
        if right.denominator > 1:
            wrong.insert(0, Fraction(b, a))
        return self.pick(kind, right, wrong)


def exact() -> Slips:
    """Arithmetic that never errs."""
    return Slips(random.Random(0), {})


def latex(value: int | Fraction) -> str:
    """An integer, or ``\\frac{a}{b}`` with the sign in front."""
    value = Fraction(value)
    if value.denominator == 1:
        return str(value.numerator)
    return f"{'-' if value < 0 else ''}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def wrapped(value: int | Fraction) -> str:
    """The same, in parentheses where it is negative."""
    return f"({latex(value)})" if value < 0 else latex(value)


def signed(value: int | Fraction) -> str:
    """A term of a sum: `` + 3`` or `` - 3``."""
    return f" - {latex(-value)}" if value < 0 else f" + {latex(value)}"


def summed(a: int, b: int, total: int) -> str:
    """``a + b = total``."""
    return f"{a}{signed(b)} = {total}"


def multiplied(a: int, b: int, product: int) -> str:
    """``a b = product``."""
    return f"{a} \\cdot {wrapped(b)} = {product}"


def divided(coefficient: int, total: int, value: int | Fraction) -> str:
    """``3x = 12: x = 4``, or only the end where there is nothing to divide by."""
    end = f"x = {latex(value)}"
    return end if coefficient == 1 else f"{monomial(coefficient, 'x')} = {total}: {end}"


def monomial(coefficient: int, symbol: str) -> str:
    """``3x``, ``x``, ``-x``."""
    return {1: "", -1: "-"}.get(coefficient, str(coefficient)) + symbol


def linear_form(a: int, b: int, symbol: str = "x") -> str:
    """``ax + b`` without zero terms."""
    if a == 0:
        return str(b)
    return monomial(a, symbol) + (signed(b) if b else "")
