"""Keeps keys, values and read-off values of the prefixes that a model has read; it knows no format and no head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from adaptive_ttc.kv.tree import Places, PrefixTree
from adaptive_ttc.prm.row import Row

if TYPE_CHECKING:
    import torch
    from transformers import DynamicCache

    from adaptive_ttc.kv.pool import CacheShape

BOOKKEEPING = 64
"""Bytes that the tree takes for a token, about; counted beside its keys and values."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Known:
    """What is stored of a row.

    Attributes:
        places: of the tokens that need not be computed; the row's first ones.
        values: those at the row's positions among them, in order.
    """

    places: Places
    values: Values

    @property
    def tokens(self) -> int:
        """How many need not be computed."""
        return len(self.places)


class KnownValues:
    """The values at the positions of rows that were read, found by their keys; least recently used ones go first.

    Args:
        capacity: tokens that it remembers; 0 remembers nothing.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.tree = PrefixTree(capacity)
        self._values = np.full(capacity, np.nan)

    def look_up(self, row: Row) -> Known:
        """The longest stored part of a row all of whose values are there."""
        places = self.tree.match(row.keys)
        inside = np.searchsorted(row.positions, len(places))
        values = self._values[places[list(row.positions[:inside])]]
        missing = np.flatnonzero(np.isnan(values))
        if len(missing):
            # Another row had these tokens without asking for the value here: compute from there on.
            return Known(places[: row.positions[missing[0]]], values[: missing[0]])
        return Known(places, values)

    def stored(self, row: Row) -> int:
        """Tokens of a row that are stored, whatever their values."""
        return len(self.tree.match(row.keys))

    def insert(self, row: Row, values: Values) -> tuple[int, Places]:
        """Remember the values at all of a row's positions.

        Returns:
            The index of the first token that was not stored before, and the places of those from there on.
        """
        insertion = self.tree.insert(row.keys)
        self._values[insertion.places] = np.nan
        places = self.tree.match(row.keys)
        inside = np.searchsorted(row.positions, len(places))
        self._values[places[list(row.positions[:inside])]] = values[:inside]
        return insertion.start, insertion.places

    def clear(self) -> None:
        """Forget everything."""
        self.tree = PrefixTree(self._capacity)


class PrefixCache:
    """:class:`KnownValues` with the keys and values that the model's attention needs to go on from there.

    Args:
        limit: bytes that it may take; the memory of the keys and values is taken whole when the first are stored.
        shape: of one token's keys and values.
        device: where they live.
        dtype: of the keys and values.
    """

    def __init__(self, limit: int, shape: CacheShape, device: torch.device, dtype: torch.dtype) -> None:
        from adaptive_ttc.kv.pool import PrefixPool

        capacity = limit // (shape.bytes_per_token(dtype) + BOOKKEEPING)
        self.known = KnownValues(capacity)
        self._pool = PrefixPool(capacity, shape, device, dtype)
        self._layers = shape.layers

    def past(self, known: Sequence[Known]) -> DynamicCache:
        """Keys and values of the stored parts of some rows, not all of them empty.

        Returns:
            Per layer tensors of shape (rows, heads, longest stored part, dim); a row's tokens stand first,
            and what stands behind them is some other token's, to be masked.
        """
        from transformers import DynamicCache

        longest = max(one.tokens for one in known)
        # Filled with a place that holds numbers: what is masked is multiplied by 0, and NaN would stay NaN.
        index = np.full((len(known), longest), next(one.places[0] for one in known if one.tokens))
        for row, one in enumerate(known):
            index[row, : one.tokens] = one.places
        stored = (part.unflatten(0, index.shape).permute(2, 0, 3, 1, 4) for part in self._pool.load(index.ravel()))
        return DynamicCache(list(zip(*stored, strict=True)))

    def store(self, rows: Sequence[Row], known: Sequence[Known], values: Sequence[Values], cache: DynamicCache) -> None:
        """Keep what a forward pass computed.

        Args:
            rows: that were read.
            known: what was stored of them before; the pass computed the rest.
            values: at all of each row's positions.
            cache: that of the pass: the longest stored part, then the new tokens.
        """
        self._pool.allocate()
        past = max(one.tokens for one in known)
        try:
            targets: dict[int, tuple[int, int]] = {}
            for index, (row, one, some) in enumerate(zip(rows, known, values, strict=True)):
                start, places = self.known.insert(row, some)
                columns = range(start, start + len(places))
                # A place that was given up for a later row in this very loop is the later one's.
                targets |= {
                    place: (index, column if column < one.tokens else past + column - one.tokens)
                    for place, column in zip(places.tolist(), columns, strict=True)
                }
            if targets:
                self._write(targets, cache)
        except BaseException:
            # Promised places without keys would be read as if they had some.
            self.known.clear()
            raise

    def _write(self, targets: dict[int, tuple[int, int]], cache: DynamicCache) -> None:
        import torch

        from_rows, from_columns = (torch.tensor(some) for some in zip(*targets.values(), strict=True))
        keys, values = (
            torch.stack([getattr(layer, kind)[from_rows, :, from_columns] for layer in cache.layers], dim=1)
            for kind in ("keys", "values")
        )
        self._pool.store(np.fromiter(targets, np.int64, len(targets)), keys, values)
