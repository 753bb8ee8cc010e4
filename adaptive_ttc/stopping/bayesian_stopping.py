"""Bayesian stopping on the counts of the leader, of the runner-up and of all the rest together (arXiv 2602.05395).

From the paper: how often the policy gives its most frequent answer, its second, ... (the shape) has a prior; the exact
posterior of "the leader is the mode" is intractable, but the one given the two largest counts and the sum of the
others, each at most the second (its L = 3), stops as early asymptotically. Where the shape is not known, a set of
candidate shapes has a prior. Where the second count is shared, which one is called second is drawn at random.

Ours: the candidates, which the paper learns from other problems: a most frequent share, a part of the rest for the
second, and a short or a long tail of equal shares. Equal shares in the tail turn the paper's recursion over all answers
into a binomial sum over powers of one polynomial.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.stopping.base import Draw, OneByOne, Pool, checked_level, fewest_first

Array = NDArray[np.float64]

Shape = tuple[float, float, int]
"""The most frequent share, the second, and among how many answers the rest is divided equally."""

SHAPES: tuple[Shape, ...] = tuple(
    (first, second, tail)
    for first, part, tail in product((0.95, 0.85, 0.7, 0.55, 0.4, 0.25), (0.25, 0.5, 0.9), (4, 30))
    if (second := part * (1 - first)) < first
)
"""Candidates of equal prior probability."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BayesianStopping(OneByOne):
    """Stops when the leader is the mode with a posterior probability of ``level``; votes count alike."""

    level: float = 0.95
    shapes: tuple[Shape, ...] = SHAPES

    def __post_init__(self) -> None:
        OneByOne.__post_init__(self)
        checked_level(self.level)

    @property
    def name(self) -> str:
        """``bayesian_stopping``."""
        return "bayesian_stopping"

    def worth(self, draws: Sequence[Draw], pool: Pool | None = None) -> float:
        """Falls with the number of draws; 0 once the level is reached."""
        right = self.right(draws)
        if self.full(draws) or (right is not None and right >= self.level):
            return 0.0
        return fewest_first(draws)

    def right(self, draws: Sequence[Draw]) -> float | None:
        """The posterior probability; None before the first answer."""
        votes: dict[str, int] = {}
        for draw in draws:
            if draw.answer is not None:
                votes[draw.answer] = votes.get(draw.answer, 0) + 1
        ranked = sorted(votes.values(), reverse=True)
        if not ranked:
            return None
        second = ranked[1] if len(ranked) > 1 else 0
        return posterior(self.shapes, ranked[0], second, sum(ranked) - ranked[0] - second)


@lru_cache(maxsize=1 << 14)
def posterior(shapes: tuple[Shape, ...], first: int, second: int, rest: int) -> float:
    """P(the leader is the most frequent answer | the two largest counts, and the sum of the others)."""
    mode = whole = 0.0
    for tail in {shape[2] for shape in shapes}:
        p1, p2 = (np.array([shape[k] for shape in shapes if shape[2] == tail]) for k in (0, 1))
        scale = 1 / p1  # keeps numbers in range; a common factor of everything that is counted
        likelihood = _likelihood(np.ones_like(p1), p2 * scale, (1 - p1 - p2) * scale / tail, tail, first, second, rest)
        weight = p1 ** (first + second + rest)
        mode += float(weight @ likelihood[0])
        whole += float(weight @ likelihood.sum(axis=0))
    return mode / whole if whole > 0 else 0.0  # more answers than any candidate has


def _likelihood(p1: Array, p2: Array, q: Array, tail: int, first: int, second: int, rest: int) -> Array:
    """Shape [3, shapes]: of the leader being the most frequent answer, the second, or any of the tail."""
    if not second:
        return np.stack([p1**first, p2**first, tail * q**first])
    held = 2 if first == second else 1  # how many of the two counts another one may tie with

    def others(heads: Sequence[Array], equal: int) -> Array:
        return _bounded(heads, q, equal, second, rest, held)

    no_head, only_1, only_2 = others((), tail), others((p1,), tail - 1), others((p2,), tail - 1)
    both = others((p1, p2), tail - 2)
    in_tail = tail * q**second
    is_1 = p1**first * (p2**second * no_head + in_tail * only_2)
    is_2 = p2**first * (p1**second * no_head + in_tail * only_1)
    is_tail = tail * q**first * (p1**second * only_2 + p2**second * only_1 + (tail - 1) * q**second * both)
    return np.stack([is_1, is_2, is_tail])


def _bounded(heads: Sequence[Array], q: Array, equal: int, most: int, rest: int, held: int) -> Array:
    """P(``rest`` samples fall on these answers, each at most ``most`` times) / rest!, weighted by ties; [shapes].

    Answers with shares ``heads``, and ``equal`` ones of share ``q``. Polynomials have a coefficient for every sum.
    """
    of_heads = [np.zeros((rest + 1, len(q)))]  # by how many of them tie
    of_heads[0][0] = 1.0
    for head in heads:
        of_heads = _with_head(of_heads, head, most)
    found = np.zeros_like(q)
    powers, of_q = _powers(equal, most, rest), q ** np.arange(rest + 1)[:, None]
    for tied in range(min(equal, rest // most) + 1):
        room = rest - tied * most
        factor = math.comb(equal, tied) * (q**most / math.factorial(most)) ** tied
        of_tail = powers[equal - tied, : room + 1, None] * of_q[: room + 1]
        for also, polynomial in enumerate(of_heads):
            weight = 1 / math.comb(held + tied + also, held)
            found += weight * factor * np.einsum("rs,rs->s", of_tail, polynomial[room::-1])
    return found


def _with_head(polynomials: Sequence[Array], head: Array, most: int) -> list[Array]:
    """Times the terms of one more answer; its last one is a tie."""
    found = [np.zeros_like(polynomials[0]) for _ in range(len(polynomials) + 1)]
    for tied, polynomial in enumerate(polynomials):
        for count in range(min(most, len(polynomial) - 1) + 1):
            term = head**count / math.factorial(count)
            found[tied + (count == most)][count:] += term * polynomial[: len(polynomial) - count]
    return found


@lru_cache(maxsize=1 << 7)
def _powers(top: int, most: int, degree: int) -> Array:
    """Coefficients of (sum of x^r / r! over r < most)^n up to ``degree``, for n up to ``top``, shape [n, degree]."""
    base = np.array([1 / math.factorial(r) for r in range(min(most, degree + 1))])
    found = np.zeros((top + 1, degree + 1))
    found[0, 0] = 1.0
    for n in range(1, top + 1):
        found[n] = np.convolve(found[n - 1], base)[: degree + 1]
    return found
