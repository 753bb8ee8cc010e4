"""How sure a policy was of its answer: the log-probability of the tokens that spell it out, not of the way there."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cache

from adaptive_ttc.answers.spaces.base import AnswerSpace
from adaptive_ttc.answers.spaces.mathematics import MATH


def answer_logprob(
    text: str,
    logprobs: Sequence[float],
    reached: Callable[[int], int],
    space: AnswerSpace = MATH,
    begin: int | None = 0,
) -> float:
    """Mean log-probability, in nats, of the tokens of the final answer of ``text``, where ``space`` finds it.

    Tokens that the answer shares with what is around it count. ``logprobs``: shape [tokens]; ``reached`` tells how many
    characters the first n tokens stand for, and is asked a few times, around where they should stand. The answer stands
    behind the first ``begin`` characters; None: there is none yet. Returns nan where there is no answer, it stands
    nowhere literally, or no token is told apart.
    """
    span = space.span(text[begin:]) if logprobs and begin is not None else None
    if span is None or begin is None:
        return math.nan
    tokens, pace, reached = len(logprobs), len(logprobs) / len(text), cache(reached)
    first, last = begin + span[0], begin + span[1] - 1
    first = _token_at(first, tokens, reached, near=tokens - round((len(text) - first) * pace))
    last = _token_at(last, tokens, reached, near=first + round((span[1] - span[0]) * pace))
    own = logprobs[first : last + 1]
    return math.fsum(own) / len(own) if own else math.nan


def _token_at(place: int, tokens: int, reached: Callable[[int], int], near: int) -> int:
    """Index of the token that holds the character at ``place``, which should be ``near`` that index."""
    low = high = min(max(near, 0), tokens)
    stride = 1
    while low > 0 and reached(low) > place:
        low, high, stride = max(0, low - stride), low, 2 * stride
    if low == high:  # the place is beyond it
        high = min(tokens, low + stride)
        while high < tokens and reached(high) <= place:
            low, high, stride = high, min(tokens, high + 2 * stride), 2 * stride
    return bisect_left(range(high), True, lo=low, key=lambda index: reached(index + 1) > place)
