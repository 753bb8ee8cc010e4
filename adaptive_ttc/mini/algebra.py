"""Problem families about unknowns: linear equations, systems, recurrences, polynomials; see ``numbers``."""

from __future__ import annotations

import random

from adaptive_ttc.mini.numbers import Exercise, Worked
from adaptive_ttc.mini.slips import Slips, divided, latex, linear_form, monomial, multiplied, signed, summed


def _nonzero(rng: random.Random, low: int, high: int) -> int:
    return rng.choice([v for v in range(low, high + 1) if v])


def equation(rng: random.Random, level: int) -> Exercise:
    """``k(x + b) = cx + d`` and its simpler forms; the answer may be a fraction."""
    while True:
        a = 1 if level == 1 else _nonzero(rng, 2, 6) * (rng.choice([1, -1]) if level >= 3 else 1)
        b, d = _nonzero(rng, -9, 9), _nonzero(rng, -20, 20)
        c = _nonzero(rng, -6, 6) if level in (3, 5) else 0
        if a != c and abs(a * b) < 40:
            break
    bracket = level >= 4
    left = f"{a}({linear_form(1, b)})" if bracket else linear_form(a, b)
    right = linear_form(c, d)

    def work(slips: Slips) -> Worked:
        steps: list[str] = []
        constant = b
        if bracket:
            constant = slips.pick("distribute", a * b, [b, -a * b])
            fact = ""
            if constant == a * b:
                constant = slips.times(a, b)
                fact = f"{multiplied(a, b, constant)}: "
            steps.append(f"{fact}{linear_form(a, constant)} = {right}")
        coefficient = a
        if c:
            moved, other = slips.pick("move", (-c, -constant), [(c, -constant), (-c, constant), (c, constant)])
            sign = "-" if moved < 0 else "+"
            steps.append(f"{monomial(a, 'x')} {sign} {monomial(abs(moved), 'x')} = {d}{signed(other)}")
            coefficient = slips.plus(a, moved)
            total = slips.plus(d, other)
            facts = f"{summed(a, moved, coefficient)}, {summed(d, other, total)}"
            steps.append(f"{facts}: {_equals(coefficient, total)}")
        else:
            other = slips.pick("move", -constant, [constant])
            total = slips.plus(d, other)
            steps.append(f"{monomial(a, 'x')} = {summed(d, other, total)}")
        value = slips.over(total, coefficient) if coefficient and total else total
        if coefficient not in (0, 1):
            steps.append(divided(coefficient, total, value))
        return steps, latex(value)

    return Exercise(f"Solve ${left} = {right}$ for $x$.", work)


def _equals(coefficient: int, total: int) -> str:
    return f"{monomial(coefficient, 'x') if coefficient else '0'} = {total}"


def _divide(slips: Slips, a: int, b: int) -> int:
    """An integer quotient; where a slip has made it uneven, the nearest integer."""
    value = slips.over(a, b) if b and a else a
    return round(value)


def system(rng: random.Random, level: int) -> Exercise:
    """Two linear equations in x and y with an integer solution; the answer is a pair."""
    while True:
        x, y = rng.randint(-7, 7), rng.randint(-7, 7)
        a = {1: 1, 2: 1}.get(level, _nonzero(rng, 2, 5))
        d = {1: 0, 2: 1, 3: 1}.get(level, _nonzero(rng, -4, 4))
        b = {4: rng.randint(1, 3), 5: rng.randint(2, 3)}.get(level, 1)
        e = {4: -b, 5: _nonzero(rng, 1, 3)}.get(level, -1)
        if level == 1:
            a, b = _nonzero(rng, 1, 5), 1
        p, q = a * x + b * y, (x if level == 1 else d * x + e * y)
        scale = b // e if level == 5 and b % e == 0 else 1
        if level == 5 and (b % e or e == b or scale == 1):
            continue
        left = a - scale * d if level == 5 else a + d  # x's coefficient once y is eliminated
        if left and max(abs(p), abs(q), abs(q * scale)) < 50:
            break

    def work(slips: Slips) -> Worked:
        steps: list[str] = []
        if level == 1:
            first = q
        else:
            dd, qq = d, q
            if level == 5:
                dd, qq = slips.times(d, scale), slips.times(q, scale)
                facts = f"{multiplied(d, scale, dd)}, {multiplied(q, scale, qq)}"
                steps.append(f"{facts}: {monomial(dd, 'x')} + {monomial(b, 'y')} = {qq}")
                dd, qq = slips.pick("move", (-dd, -qq), [(-dd, qq), (dd, -qq)])
            coefficient, total = slips.plus(a, dd), slips.plus(p, qq)
            facts = f"{summed(a, dd, coefficient)}, {summed(p, qq, total)}"
            steps.append(f"{facts}: {_equals(coefficient, total)}")
            first = total if coefficient == 0 else _divide(slips, total, coefficient)
            if coefficient not in (0, 1):
                steps.append(divided(coefficient, total, first))
        shift = slips.times(a, first)
        shift = slips.pick("substitute", shift, [first, -shift])
        if a != 1:
            steps.append(multiplied(a, first, shift))
        rest = slips.pick("move", slips.plus(p, -shift), [p + shift])
        steps.append(f"{monomial(b, 'y')} = {summed(p, -shift, rest)}")
        second = rest if b == 1 else _divide(slips, rest, b)
        if b != 1:
            steps.append(divided(b, rest, second).replace("x", "y"))
        return steps, f"({first}, {second})"

    def side(m: int, n: int) -> str:
        return monomial(m, "x") + f" {'-' if n < 0 else '+'} {monomial(abs(n), 'y')}"

    second_equation = f"x = {q}" if level == 1 else f"{side(d, e)} = {q}"
    return Exercise(f"Solve ${side(a, b)} = {p}$ and ${second_equation}$. Give $(x, y)$.", work)


def recurrence(rng: random.Random, level: int) -> Exercise:
    """A term of a sequence given by its first terms and a rule."""
    while True:
        first, second = rng.randint(-9, 9), rng.randint(-9, 9)
        p = 1 if level == 1 else _nonzero(rng, -2, 3)
        q = _nonzero(rng, -9, 9)
        last = {1: 3, 2: 3, 3: 4, 4: 5, 5: 6}[level]
        two = level >= 4 and rng.random() < 0.5
        if p == 1 and level > 1 and not two:
            continue
        terms = [first, second] if two else [first]
        while len(terms) < last:
            terms.append(p * terms[-1] + (terms[-2] if two else q))
        if max(map(abs, terms)) < 60:
            break
    head = monomial(p, "a_{n}" if not two else "a_{n+1}")
    rule = f"a_{{n+2}} = {head} + a_{{n}}" if two else f"a_{{n+1}} = {head}{signed(q)}"
    given = f"$a_1 = {first}$, $a_2 = {second}$" if two else f"$a_1 = {first}$"

    def work(slips: Slips) -> Worked:
        steps, found = [], [first, second] if two else [first]
        while len(found) < last:
            product = found[-1] if p == 1 else slips.times(p, found[-1])
            added = found[-2] if two else q
            added = slips.pick("substitute", added, [-added, found[-1]] if two else [-added])
            value = slips.plus(product, added)
            fact = "" if p == 1 else f"{multiplied(p, found[-1], product)}: "
            found.append(value)
            steps.append(f"{fact}a_{len(found)} = {summed(product, added, value)}")
        return steps, str(found[-1])

    return Exercise(f"A sequence has {given} and ${rule}$. Find $a_{last}$.", work)


def polynomial(rng: random.Random, level: int) -> Exercise:
    """The value of a polynomial of degree one to three by Horner's rule."""
    degree = {1: 1, 2: 1, 3: 2, 4: 2, 5: 3}[level]
    while True:
        at = _nonzero(rng, 1, 6) if level in (1, 3) else _nonzero(rng, -6, 6)
        coefficients = [_nonzero(rng, -9 if level > 1 else 1, 9) for _ in range(degree + 1)]
        value, seen = 0, []
        for c in coefficients:
            value = value * at + c
            seen += [value, value * at]
        if max(map(abs, seen)) < 60:
            break
    powers = [monomial(c, f"x^{degree - i}" if degree - i > 1 else "x") for i, c in enumerate(coefficients[:-1])]
    shown = powers[0]
    for text in [*powers[1:], str(coefficients[-1])]:
        shown += f" - {text[1:]}" if text.startswith("-") else f" + {text}"

    def work(slips: Slips) -> Worked:
        steps, value = [], coefficients[0]
        for c in coefficients[1:]:
            product = slips.times(value, at)
            added = slips.pick("substitute", c, [-c])
            total = slips.plus(product, added)
            steps.append(f"{multiplied(value, at, product)}: {summed(product, added, total)}")
            value = total
        return steps, str(value)

    return Exercise(f"Let $f(x) = {shown}$. Find $f({at})$.", work)
