"""How sure a policy was of its answer: the log-probability of the tokens that spell it out, not of the way there."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence

from adaptive_ttc.answers.spaces.base import AnswerSpace
from adaptive_ttc.answers.spaces.mathematics import MATH

_BEGIN = 16  # tokens before the end at which the search for an answer begins


def answer_logprob(
    text: str,
    logprobs: Sequence[float],
    reached: Callable[[int], int],
    space: AnswerSpace = MATH,
    begin: int | None = 0,
) -> float:
    """Mean log-probability, in nats, of the tokens of the final answer of ``text``, where ``space`` finds it.

    Tokens that the answer shares with what is around it count. ``logprobs``: shape [tokens]; ``reached`` tells how many
    characters the first n tokens stand for, and is asked a few times, where answers usually are: near the end. The
    answer stands behind the first ``begin`` characters; None: there is none yet. Returns nan where there is no answer,
    it stands nowhere literally, or no token is told apart.
    """
    span = space.span(text[begin:]) if logprobs and begin is not None else None
    if span is None or begin is None:
        return math.nan
    first, last = (_token_at(begin + place, len(logprobs), reached) for place in (span[0], span[1] - 1))
    own = logprobs[first : last + 1]
    return math.fsum(own) / len(own) if own else math.nan


def _token_at(place: int, tokens: int, reached: Callable[[int], int]) -> int:
    """Index of the token that holds the character at ``place``."""
    low, high, back = tokens, tokens, _BEGIN
    while low > 0 and reached(low) > place:
        low, high, back = max(0, low - back), low, 2 * back
    return bisect_left(range(high), True, lo=low, key=lambda index: reached(index + 1) > place)
