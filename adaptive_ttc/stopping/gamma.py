"""Which of several gamma variables is the largest: how a Dirichlet posterior says that a share is the largest."""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(96)


@lru_cache(maxsize=1 << 14)
def first_is_largest(first: float, others: tuple[float, ...]) -> float:
    """P(X_1 > X_j for all j) with X ~ Dirichlet(first, *others).

    The shares are gamma variables over their sum, so it is the integral of the density of Gamma(first) times the
    distribution functions of the others; Gauss-Legendre over where the density has its mass, error under 1e-6.
    """
    spread = math.sqrt(first)
    low, high = max(0.0, first - 12 * spread), first + 12 * spread + 12
    x = (high - low) / 2 * _NODES + (high + low) / 2
    value = np.exp((first - 1) * np.log(x) - x - math.lgamma(first))
    for shape, many in Counter(others).items():
        value *= np.array([_below(shape, one) for one in x.tolist()]) ** many
    return float(min(1.0, max(0.0, (high - low) / 2 * float(_WEIGHTS @ value))))


def _below(shape: float, x: float) -> float:
    """P(Gamma(shape) <= x), by the power series, or by the continued fraction of the upper tail."""
    front = math.exp(shape * math.log(x) - x - math.lgamma(shape))
    if x < shape + 1:
        term = total = 1 / shape
        k = shape
        while term > 1e-15 * total:
            k += 1
            term *= x / k
            total += term
        return front * total
    b = x + 1 - shape
    c, d = 1e300, 1 / b
    value = d
    for i in range(1, 500):
        a = -i * (i - shape)
        b += 2
        d = 1 / (a * d + b)
        c = b + a / c
        value *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return 1 - front * value
