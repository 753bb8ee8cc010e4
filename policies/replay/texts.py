"""Where in a solution's text each of its tokens ends; it knows no model and no file.

A tokenizer that is not there any more cannot decode half a solution, so a record says how much of the
text every number of tokens stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from adaptive_ttc.errors import ConfigError

Decode = Callable[[Sequence[int]], str]
"""The text of token ids, special tokens left out."""

WINDOW = 32
"""Tokens that are decoded together: decoding every prefix whole would take the square of the length."""

_REPLACEMENT = "\ufffd"  # what a decoder writes for half a character


def text_ends(decode: Decode, token_ids: Sequence[int], text: str) -> tuple[int, ...]:
    """Characters of ``text`` that the first 1, 2, ... tokens stand for; half a character counts with its last token.

    Args:
        decode: the policy's decoder.
        token_ids: shape [tokens].
        text: what ``decode`` gives for all of them.

    Returns:
        Shape [tokens], not falling, the last one ``len(text)``.
    """
    try:
        ends = _by_windows(decode, token_ids, text)
    except ConfigError:  # a replay decodes nothing from the middle of a solution
        ends = None
    if ends is None:
        ends = [_common(decode(token_ids[:k]), text) for k in range(1, len(token_ids) + 1)]
    highest, rising = 0, []
    for end in ends:
        highest = max(highest, end)
        rising.append(highest)
    return (*rising[:-1], len(text)) if rising else ()


def _by_windows(decode: Decode, token_ids: Sequence[int], text: str) -> list[int] | None:
    """The same from short pieces; None where the decoder does not decode piece by piece."""
    ends: list[int] = []
    start, done = 0, 0
    while len(ends) < len(token_ids):
        before = decode(token_ids[start : len(ends)]).rstrip(_REPLACEMENT)
        piece = before
        for stop in range(len(ends) + 1, min(len(ends) + WINDOW, len(token_ids)) + 1):
            piece = decode(token_ids[start:stop]).rstrip(_REPLACEMENT)
            added = piece[len(before) :]
            if not piece.startswith(before) or not text.startswith(added, done):
                return None
            ends.append(done + len(added))
        done += len(piece) - len(before)
        # the last token stays in sight: some decoders strip a blank from what comes first
        start = _whole(decode, token_ids, len(ends))
    return ends if done == len(text.rstrip(_REPLACEMENT)) else None


def _whole(decode: Decode, token_ids: Sequence[int], stop: int) -> int:
    """A token before ``stop`` from which on the text is whole characters."""
    start = stop - 1
    while start > 0 and not _plain(decode(token_ids[start:stop])):
        start -= 1
    return start


def _plain(text: str) -> bool:
    return bool(text.rstrip(_REPLACEMENT)) and _REPLACEMENT not in text.rstrip(_REPLACEMENT)


def _common(one: str, other: str) -> int:
    return next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
