"""The regularised incomplete beta function, and what follows from it about two shares; standard library alone."""

from __future__ import annotations

import math
from functools import lru_cache

_TINY = 1e-300
_EXACT = 1e-15
_TERMS = 10_000


def incomplete_beta(a: float, b: float, x: float) -> float:
    """P(Beta(a, b) <= x), for a, b > 0: the continued fraction 26.5.8 of Abramowitz and Stegun, by Lentz's method.

    Absolute error about 1e-13 for a, b up to a thousand.
    """
    if not (a > 0 and b > 0):
        raise ValueError(f"the incomplete beta function needs a, b above 0; got {a}, {b}")
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # there the mirrored fraction converges fast
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    d = 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > _TINY else _TINY)
    c, value = 1.0, d
    for m in range(1, _TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 + term * d, 1 + term / c
            d, c = 1 / (d if abs(d) > _TINY else _TINY), (c if abs(c) > _TINY else _TINY)
            value *= d * c
        if abs(d * c - 1) < _EXACT:
            break
    return front * value


@lru_cache(maxsize=1 << 16)
def leads(first: float, second: float) -> float:
    """P(Beta(first + 1, second + 1) > 1/2): that who has ``first`` votes against ``second`` has the larger share.

    Uniform prior over the two shares' ratio; exact for whole votes, where it is P(Binomial(n + 1, 1/2) <= first) with n
    the votes of both. Weighted votes are sums of their weights.
    """
    if first == int(first) and second == int(second) and first + second < 500:
        n = int(first + second) + 1
        below = sum(math.comb(n, k) for k in range(int(first) + 1))
        return math.ldexp(below, -n)
    return incomplete_beta(second + 1, first + 1, 0.5)
