"""Where a solution's steps end among its tokens. It knows no tokenizer: it is told what decodes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from adaptive_ttc.types import STEP_END

_PIECE = 32  # tokens that are decoded together


def step_ends(text: str, token_ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> tuple[int, ...]:
    """How many tokens stand before the end of every non-empty step of ``text``; the last one ends with all of them.

    A step ends where the next one begins. Pieces are decoded, not ever longer prefixes, so that it takes time linear
    in the tokens; where a tokenizer writes a piece otherwise than within the whole, an end may be off by a token.
    """
    pieces = text.split(STEP_END)
    starts = accumulate((len(piece) + len(STEP_END) for piece in pieces), initial=0)
    begins = [
        start + len(piece) - len(piece.lstrip()) for start, piece in zip(starts, pieces, strict=False) if piece.strip()
    ]
    if len(begins) < 2:
        return (len(token_ids),)
    lengths = [len(decode(token_ids[start : start + _PIECE])) for start in range(0, len(token_ids), _PIECE)]
    scale = len(text) / max(sum(lengths), 1)
    before = [0, *accumulate(lengths)]
    ends = []
    for place in begins[1:]:
        wanted = place / scale + 1e-6
        number = min(bisect_right(before, wanted) - 1, len(lengths) - 1)
        start, rest = number * _PIECE, wanted - before[number]
        piece = token_ids[start : start + _PIECE]
        own = bisect_right(range(len(piece)), rest, key=lambda last: len(decode(piece[: last + 1])))
        ends.append(start + own)
    return (*ends, len(token_ids))
