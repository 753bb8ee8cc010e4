"""A token sequence as a PRM's model reads it, with the places at which something is read off; it knows no format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_SHIFT = 32


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence for one forward pass.

    Attributes:
        token_ids: what the model reads.
        positions: rising indices in ``token_ids`` whose hidden states the head turns into values.
        targets: for every position the token after it, where the head asks for that; else empty.
        keys: as long as ``token_ids``; the state and the value at index k depend on ``keys[:k + 1]`` and on
            nothing else, so that rows with a common start of keys can share what was computed for it.
        ends: for every step that is scored here how many of the positions are its own or earlier ones'.
    """

    token_ids: tuple[int, ...]
    positions: tuple[int, ...]
    targets: tuple[int, ...]
    keys: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def labelled(cls, token_ids: Sequence[int], positions: Sequence[int]) -> Row:
        """A row whose values depend on the hidden state at their place alone."""
        ids = tuple(token_ids)
        return cls(ids, tuple(positions), (), ids, tuple(range(1, len(positions) + 1)))

    @classmethod
    def predicting(cls, token_ids: Sequence[int], start: int, ends: Sequence[int]) -> Row:
        """A row whose values say how well each token from ``start`` on is predicted; the last one is not read.

        Args:
            token_ids: all tokens.
            start: index of the first step's first token, at least 1.
            ends: for every step the index after its last token.
        """
        ids = tuple(token_ids)
        read, targets = ids[:-1], ids[start:]
        pairs = (token << _SHIFT | target for token, target in zip(read[start - 1 :], targets, strict=True))
        keys = (*read[: start - 1], *pairs)
        return cls(read, tuple(range(start - 1, len(read))), targets, keys, tuple(end - start for end in ends))


@dataclass(frozen=True, slots=True)
class Rendered:
    """A request in a PRM's own format."""

    rows: tuple[Row, ...]

    @property
    def tokens(self) -> int:
        """Tokens that are read with an empty cache."""
        return sum(len(row.token_ids) for row in self.rows)

    @property
    def longest(self) -> int:
        """Tokens of the longest row; what a context must hold."""
        return max(len(row.token_ids) for row in self.rows)
