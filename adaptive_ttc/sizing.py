"""How many more samples a balance should buy, learned from what the first ones cost; pure arithmetic."""

from __future__ import annotations

FIRST_SLICE = 4
"""Samples drawn before their cost is known."""

GROWTH = 3
"""A slice has at most so many times the samples drawn before it: the cost of few samples is a poor guess."""

MOST_SAMPLES = 256
"""More samples than this are not drawn unless they are asked for: votes have long settled by then."""


def next_slice(balance: int, spent: int, ended: int, drawn: int) -> int:
    """Samples to draw next; 0 when the balance is not expected to finish another.

    Args:
        balance: units left.
        spent: units spent so far.
        ended: samples that ended, by themselves or at their length limit.
        drawn: samples begun.
    """
    if balance <= 0:
        return 0
    if not drawn:
        return FIRST_SLICE
    if not ended:
        return 0
    return max(0, min(MOST_SAMPLES - drawn, GROWTH * drawn, balance * ended // spent if spent else 0))
