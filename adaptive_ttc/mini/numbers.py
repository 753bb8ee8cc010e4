"""Problem families about numbers: expressions, fractions, remainders, divisors, means, proportions.

A family draws an :class:`Exercise` of a level from 1 to 5; it knows no split, tokenizer or model.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from adaptive_ttc.mini.slips import Slips, divided, latex, multiplied, summed, wrapped

Worked = tuple[list[str], str]
"""The steps of a solution, and its answer in LaTeX."""


@dataclass(frozen=True, slots=True)
class Exercise:
    """A question, and a way to work it that may slip."""

    question: str
    work: Callable[[Slips], Worked]
    level: int = 1


@dataclass(frozen=True, slots=True)
class _Node:
    op: str
    left: _Node | int
    right: _Node | int


def _render(node: _Node | int, parent: str = "", right: bool = False) -> str:
    if isinstance(node, int):
        return wrapped(node) if parent else str(node)
    text = f"{_render(node.left, node.op)} {node.op} {_render(node.right, node.op, True)}"
    if parent == "\\cdot" and node.op != "\\cdot":
        return f"({text})"
    return f"({text})" if right and parent == "-" and node.op != "\\cdot" else text


def _apply(slips: Slips, op: str, a: int, b: int) -> int:
    if op == "\\cdot":
        return slips.times(a, b)
    return slips.plus(a, b if op == "+" else -b)


def _reduce(node: _Node, slips: Slips, done: list[str]) -> _Node | int:
    """Evaluate one operation and note it: the first whose operands are numbers, products before sums."""
    if isinstance(node.left, int) and isinstance(node.right, int):
        value = _apply(slips, node.op, node.left, node.right)
        done.append(f"{node.left} {node.op} {wrapped(node.right)} = {value}")
        return value
    if isinstance(node.left, _Node):
        return _Node(node.op, _reduce(node.left, slips, done), node.right)
    inner = node.right
    assert isinstance(inner, _Node)
    assert isinstance(node.left, int)
    flat = node.op != "\\cdot" and inner.op == "\\cdot" and isinstance(inner.left, int)
    if flat and slips.pick("precedence", False, [True]):
        assert isinstance(inner.left, int)
        return _Node("\\cdot", _reduce(_Node(node.op, node.left, inner.left), slips, done), inner.right)
    return _Node(node.op, node.left, _reduce(inner, slips, done))


def _tree(rng: random.Random, operations: int, top: int) -> _Node | int:
    if operations == 0:
        return rng.randint(1, top)
    op = rng.choice(["+", "-", "\\cdot"])
    left = rng.randint(0, operations - 1)
    return _Node(op, _tree(rng, left, top), _tree(rng, operations - 1 - left, top))


def _values(node: _Node | int) -> list[int]:
    """The values of all sub-expressions, the node's own last."""
    if isinstance(node, int):
        return [node]
    left, right = _values(node.left), _values(node.right)
    value = {"+": left[-1] + right[-1], "-": left[-1] - right[-1], "\\cdot": left[-1] * right[-1]}[node.op]
    return [*left, *right, value]


def expression(rng: random.Random, level: int) -> Exercise:
    """An arithmetic expression with one to six operations."""
    operations, top = ((1, 20), (2, 9), (3, 9), (4, 9), (rng.choice([5, 6]), 9))[level - 1]
    while True:
        tree = _tree(rng, operations, top)
        if isinstance(tree, _Node) and max(abs(v) for v in _values(tree)) < 60:
            break

    def work(slips: Slips) -> Worked:
        node: _Node | int = tree
        steps: list[str] = []
        while isinstance(node, _Node):
            node = _reduce(node, slips, steps)
            if isinstance(node, _Node):
                steps[-1] += f": {_render(node)}"
        return steps, str(node)

    return Exercise(f"Evaluate ${_render(tree)}$.", work)


def _frac(numerator: int, denominator: int) -> str:
    sign = "-" if numerator < 0 else ""
    return f"{sign}\\frac{{{abs(numerator)}}}{{{denominator}}}"


def _reduced(slips: Slips, numerator: int, denominator: int, steps: list[str]) -> str:
    """Bring a fraction to lowest terms, or leave it: both are right."""
    value = Fraction(numerator, denominator)
    if numerator % denominator and slips.pick("unreduced", False, [True]):
        return _frac(numerator, denominator)
    if value.denominator != denominator:
        common = math.gcd(numerator, denominator)
        wrong = [Fraction(numerator // common, denominator)] if numerator else []
        value = slips.pick("divide", value, [*wrong, value + 1])
        steps[-1] += f" = {latex(value)}"
    return latex(value)


def fractions(rng: random.Random, level: int) -> Exercise:
    """Sums of fractions; from level 4 three terms, at level 5 one of them a product."""
    denominators = [2, 3, 4, 5, 6, 8, 9, 10]

    def proper() -> tuple[int, int]:
        d = rng.choice(denominators)
        return rng.randint(1, d - 1 if d > 2 else 3), d

    while True:
        terms = [proper() for _ in range(2 if level <= 3 else 3)]
        if level == 1:
            d = rng.choice([3, 4, 5, 6, 7, 8, 9, 10])
            terms = [(rng.randint(1, 12), d), (rng.randint(1, 12), d)]
        elif level == 2:
            terms[1] = (terms[1][0], terms[0][1] * rng.choice([2, 3]))
        last = terms[-2][1] * terms[-1][1] if level == 5 else terms[-1][1]
        common = math.lcm(*(d for _, d in (terms[:-2] if level == 5 else terms[:-1])), last)
        if common <= 30 and (level < 3 or common > max(d for _, d in terms)):
            break
    signs = [1] + [rng.choice([1, 1, -1] if level < 3 else [1, -1]) for _ in terms[1:]]
    if level == 5:
        signs[-1] = 1
    parts = [_frac(n, d) for n, d in terms]
    joined = parts[0]
    for index, part in enumerate(parts[1:], 1):
        glue = " \\cdot " if level == 5 and index == len(parts) - 1 else (" + " if signs[index] > 0 else " - ")
        joined += glue + part

    def work(slips: Slips) -> Worked:
        steps: list[str] = []
        live = list(zip(signs, terms, strict=True))
        if level == 5:
            (_, (n1, d1)), (_, (n2, d2)) = live[-2:]
            product = (slips.times(n1, n2), slips.times(d1, d2))
            live = [live[0], (signs[-2], product)]
            steps.append(f"{multiplied(n1, n2, product[0])}, {multiplied(d1, d2, product[1])}: {_sum_text(live)}")
        if len({d for _, (_, d) in live}) > 1:
            bottom = math.lcm(*(d for _, (_, d) in live))
            scaled = [(s, (slips.times(n, bottom // d), bottom)) for s, (n, d) in live]
            unscaled = [(s, (n, bottom)) for s, (n, d) in live]
            facts = [
                multiplied(n, bottom // d, new)
                for (_, (n, d)), (_, (new, _)) in zip(live, scaled, strict=True)
                if d != bottom
            ]
            live = slips.pick("denominator", scaled, [unscaled])
            steps.append((f"{', '.join(facts)}: " if live is scaled else "") + _sum_text(live))
        bottom = live[0][1][1]
        top, sums = live[0][1][0], []
        for s, (n, _) in live[1:]:
            total = slips.plus(top, s * n)
            sums.append(summed(top, s * n, total))
            top = total
        steps.append(f"{', '.join(sums)}: {_frac(top, bottom)}")
        answer = _reduced(slips, top, bottom, steps)
        return steps, answer

    return Exercise(f"Compute ${joined}$.", work)


def _sum_text(terms: list[tuple[int, tuple[int, int]]]) -> str:
    text = _frac(*terms[0][1])
    for s, (n, d) in terms[1:]:
        text += (" + " if s > 0 else " - ") + _frac(n, d)
    return text


def _division(slips: Slips, a: int, m: int, steps: list[str]) -> int:
    """Append ``a = q m + r`` and return ``r``."""
    q, r = divmod(a, m)
    wrong = [(q, (r + 1) % m), (q - 1 if q else q, (r + m - 1) % m), (q + 1, (r + 2) % m)]
    q, r = slips.pick("divide" if a >= 2 * m else "add", (q, r), wrong)
    steps.append(f"{a} = {q} \\cdot {m} + {r}")
    return r


def remainder(rng: random.Random, level: int) -> Exercise:
    """A remainder of a number, a sum with a product, or powers with a factor."""
    m = rng.randint(3, 9)
    a, b, c = rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, 20)
    big, power = rng.randint(11, 60), {4: 3}.get(level, rng.choice([4, 5]))
    shown = [f"{big}", f"{a} \\cdot {b}", f"{a} \\cdot {b} + {c}", *[f"{b} \\cdot {a}^{power}"] * 2][level - 1]

    def work(slips: Slips) -> Worked:
        steps: list[str] = []
        if level == 1:
            return steps, str(_division(slips, big, m, steps))
        factors = [a, b] if level <= 3 else [b] + [a] * power
        value = factors[0]
        for factor in factors[1:]:
            product = slips.times(value, factor)
            steps.append(multiplied(value, factor, product))
            value = product
            if level > 3 and value >= m:
                value = _division(slips, value, m, steps)
        if level == 3:
            total = slips.plus(value, c)
            steps.append(summed(value, c, total))
            value = total
        if level <= 3 or value >= m:
            value = _division(slips, value, m, steps)
        return steps, str(value)

    return Exercise(f"Find the remainder when ${shown}$ is divided by ${m}$.", work)


def divisor(rng: random.Random, level: int) -> Exercise:
    """A greatest common divisor by Euclid's algorithm; the level is the number of divisions."""
    while True:
        a, b = rng.randint(10, 60), rng.randint(3, 40)
        rounds, x, y = 0, a, b
        while y:
            x, y, rounds = y, x % y, rounds + 1
        if a > b and rounds == level:
            break

    def work(slips: Slips) -> Worked:
        steps: list[str] = []
        x, y = a, b
        for _ in range(8):
            x, y = y, _division(slips, x, y, steps)
            if y == 0:
                break
        return steps, str(x)

    return Exercise(f"Find the greatest common divisor of ${a}$ and ${b}$.", work)


def mean(rng: random.Random, level: int) -> Exercise:
    """The mean of two to six numbers, from level 3 with negative ones."""
    while True:
        low = -15 if level >= 3 else 1
        numbers = [rng.choice([v for v in range(low, 16) if v]) for _ in range(level + 1)]
        if abs(sum(numbers)) < 60:
            break

    def work(slips: Slips) -> Worked:
        steps = []
        total = numbers[0]
        for number in numbers[1:]:
            value = slips.plus(total, number)
            steps.append(summed(total, number, value))
            total = value
        steps.append(_frac(total, len(numbers)))
        return steps, _reduced(slips, total, len(numbers), steps)

    return Exercise(f"Find the mean of ${', '.join(map(str, numbers))}$.", work)


def proportion(rng: random.Random, level: int) -> Exercise:
    """Prices in proportion, with a fixed fee from level 3 and a discount from level 4."""
    unit, few, many = rng.randint(2, 7), rng.randint(2, 7), rng.randint(2, 7)
    item = rng.choice(["pens", "cups", "maps", "nuts", "eggs", "pins"])
    fee, off = rng.randint(2, 20), rng.randint(2, 9)
    paid = unit * few + (fee if level >= 3 else 0)
    asks = f"{few} {item} cost {paid} coins" + (f", of which {fee} are a fee" if level >= 3 else "")
    goal = f"What do {many} {item} cost" + (" with the same fee" if level >= 3 else "")
    goal += f" and {off} coins off" if level >= 4 else ""
    people = rng.randint(2, 5)
    goal += f", shared by {people}" if level == 5 else ""

    def work(slips: Slips) -> Worked:
        steps, total = [], paid
        if level >= 3:
            total = slips.pick("substitute", slips.plus(paid, -fee), [paid])
            steps.append(summed(paid, -fee, total))
        each = slips.over(total, few)
        steps.append(divided(few, total, each))
        if level == 1:
            return steps, latex(each)
        whole = each.numerator if each.denominator == 1 else round(each)
        cost = slips.times(whole, many)
        steps.append(multiplied(whole, many, cost))
        for change in ([fee] if level >= 3 else []) + ([-off] if level >= 4 else []):
            value = slips.pick("substitute", slips.plus(cost, change), [cost])
            steps.append(summed(cost, change, value))
            cost = value
        if level < 5:
            return steps, str(cost)
        steps.append(_frac(cost, people))
        return steps, _reduced(slips, cost, people, steps)

    if level == 1:
        goal = f"What is the cost of 1 of the {item}"
    return Exercise(f"{asks}. {goal}?", work)
