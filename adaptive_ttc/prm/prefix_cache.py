"""Stored keys and values of token prefixes: the prefix tree, the memory, and the PRMs' cache over both."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache

from adaptive_ttc.prm.format import Row

Places = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

PREFIX_CACHE_BYTES = 512 * 2**20
PREFIX_CACHE_TOKENS = 2**15
"""What is stored by default of a model, a policy's or a PRM's: no more than so many bytes, and than so many tokens.

Small models reach the second bound: more tokens than those of the problems at work are not asked for again, and only
fill up memory. bench/prm_cache.py measures what a PRM's is worth.
"""

BOOKKEEPING = 64  # bytes that the tree takes for a token, about; counted beside its keys and values


@dataclass(slots=True, eq=False)
class _Node:
    tokens: tuple[int, ...]
    places: Places
    parent: _Node | None
    used: int
    children: dict[int, _Node] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Insertion:
    """Where the tokens that were not stored before go."""

    start: int  # index of the first such token in the sequence
    places: Places  # of each token from there on; fewer than asked when the pool is too small


class PrefixTree:
    """Longest-prefix look-up over a pool of ``capacity`` token places; 0 stores nothing."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._clock = 0
        self._root = _Node((), np.empty(0, np.int64), None, 0)
        self._leaves: set[_Node] = set()
        self._free = np.arange(capacity, dtype=np.int64)[::-1].copy()
        self._free_count = capacity

    @property
    def stored_tokens(self) -> int:
        """Places in use."""
        return self.capacity - self._free_count

    def match(self, tokens: tuple[int, ...]) -> Places:
        """Places of the longest stored prefix of ``tokens``; shape (length of that prefix,)."""
        parts = [node.places[:shared] for node, shared, _ in self._descend(tokens)]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def insert(self, tokens: tuple[int, ...]) -> Insertion:
        """Reserve places for the part of ``tokens`` that is not stored; the caller fills them at once."""
        node, depth = self._root, 0
        for child, shared, used in self._descend(tokens):
            depth += shared
            node = self._split(child, shared, used) if shared < len(child.tokens) and depth < len(tokens) else child
        places = self._allocate(len(tokens) - depth)
        if len(places):
            leaf = _Node(tokens[depth : depth + len(places)], places, node, self._clock)
            node.children[leaf.tokens[0]] = leaf
            self._leaves.discard(node)
            self._leaves.add(leaf)
        return Insertion(depth, places)

    def _descend(self, tokens: tuple[int, ...]) -> Iterator[tuple[_Node, int, int]]:
        """Nodes along ``tokens``, how many tokens each shares with them, and when it was used before this."""
        self._clock += 1
        node, depth, whole = self._root, 0, True
        while whole and depth < len(tokens) and (child := node.children.get(tokens[depth])) is not None:
            before, child.used = child.used, self._clock
            shared = _shared_length(child.tokens, tokens, depth)
            node, depth, whole = child, depth + shared, shared == len(child.tokens)
            yield child, shared, before

    def _split(self, node: _Node, at: int, used: int) -> _Node:
        """Cut a node in two and return the upper half; the lower one was last used when ``used`` says."""
        assert node.parent is not None
        upper = _Node(node.tokens[:at], node.places[:at], node.parent, node.used, {node.tokens[at]: node})
        node.parent.children[upper.tokens[0]] = upper
        node.tokens, node.places, node.parent, node.used = node.tokens[at:], node.places[at:], upper, used
        return upper

    def _allocate(self, count: int) -> Places:
        if self._free_count < count:
            self._evict(count)
        count = min(count, self._free_count)
        self._free_count -= count
        return self._free[self._free_count : self._free_count + count][::-1].copy()

    def _evict(self, needed: int) -> None:
        """Free the least recently used leaves, some more than needed so that the sort is paid rarely."""
        target = min(self.capacity, max(needed, self._free_count + self.capacity // 16))
        while self._free_count < target:
            old = sorted((leaf for leaf in self._leaves if leaf.used < self._clock), key=lambda leaf: leaf.used)
            if not old:
                return
            for leaf in old:
                self._remove(leaf)
                if self._free_count >= target:
                    break

    def _remove(self, leaf: _Node) -> None:
        assert leaf.parent is not None
        self._free[self._free_count : self._free_count + len(leaf.places)] = leaf.places
        self._free_count += len(leaf.places)
        self._leaves.discard(leaf)
        parent = leaf.parent
        del parent.children[leaf.tokens[0]]
        if not parent.children and parent.parent is not None:
            self._leaves.add(parent)


def _shared_length(edge: tuple[int, ...], tokens: tuple[int, ...], start: int) -> int:
    """How many tokens of ``edge`` stand in ``tokens`` from ``start`` on."""
    end = min(len(edge), len(tokens) - start)
    if edge[:end] == tokens[start : start + end]:
        return end
    return next(index for index in range(end) if edge[index] != tokens[start + index])


@dataclass(frozen=True, slots=True)
class CacheShape:
    """Shape of one token's keys and values; all layers are alike."""

    layers: int
    heads: int
    key_dim: int
    value_dim: int

    @classmethod
    def of(cls, layers: Sequence[Any]) -> CacheShape | None:
        """Read off a Hugging Face cache's layers; None where their shapes differ."""
        shapes = {(layer.keys.shape, layer.values.shape) for layer in layers}
        if len(shapes) > 1:
            return None
        [(keys, values)] = shapes
        return cls(layers=len(layers), heads=keys[1], key_dim=keys[3], value_dim=values[3])

    def bytes_per_token(self, dtype: torch.dtype) -> int:
        """Memory that one token's keys and values take."""
        return self.layers * self.heads * (self.key_dim + self.value_dim) * dtype.itemsize

    def cache_bytes(self, asked: int | None, dtype: torch.dtype) -> int:
        """Memory for stored prefixes: what is asked for, else by the defaults."""
        if asked is not None:
            return asked
        return min(PREFIX_CACHE_BYTES, PREFIX_CACHE_TOKENS * self.bytes_per_token(dtype))


class PrefixPool:
    """Keys and values of stored prefixes, one token a place; the prefix tree knows which token is where."""

    def __init__(self, capacity: int, shape: CacheShape, device: torch.device, dtype: torch.dtype) -> None:
        self._capacity, self._shape = capacity, shape
        self._options: dict[str, Any] = {"device": device, "dtype": dtype}
        self._stored: tuple[torch.Tensor, torch.Tensor] | None = None

    def allocate(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Take the memory, unless that is done: where it runs out, no place is promised yet."""
        if self._stored is None:
            # whole at once: a CPU commits the memory page by page as it is written, and growing would copy it
            size = (self._capacity, self._shape.layers, self._shape.heads)
            keys = torch.empty((*size, self._shape.key_dim), **self._options)
            self._stored = keys, torch.empty((*size, self._shape.value_dim), **self._options)
        return self._stored

    def store(self, places: Places, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Keep keys and values of shape (places, layers, heads, dim)."""
        for stored, new in zip(self.allocate(), (keys, values), strict=True):
            stored[torch.from_numpy(places).to(stored.device)] = new

    def load(self, places: Places) -> tuple[torch.Tensor, torch.Tensor]:
        """What was stored at these places, in their order."""
        keys, values = self.allocate()
        index = torch.from_numpy(places).to(keys.device)
        return keys[index], values[index]


def cache_argument(model: Any) -> str:
    """The name of the forward pass's argument: ``cache`` since transformers 5.24, ``past_key_values`` before."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


@dataclass(frozen=True, slots=True)
class Known:
    """The stored part of a row: the places of its first tokens, and the values at its positions among them."""

    places: Places
    values: Values

    @property
    def tokens(self) -> int:
        """How many need not be computed."""
        return len(self.places)


class KnownValues:
    """The values at the positions of read rows, for at most ``capacity`` tokens; least recently used ones go first."""

    def __init__(self, capacity: int) -> None:
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

    def insert(self, row: Row, values: Values) -> Insertion:
        """Remember the values at all of a row's positions; returns where its new tokens went."""
        insertion = self.tree.insert(row.keys)
        self._values[insertion.places] = np.nan
        places = self.tree.match(row.keys)
        inside = np.searchsorted(row.positions, len(places))
        self._values[places[list(row.positions[:inside])]] = values[:inside]
        return insertion

    def clear(self) -> None:
        """Forget everything."""
        self.tree = PrefixTree(self.tree.capacity)


class PrefixCache:
    """:class:`KnownValues` with the keys and values that the model's attention needs to continue from there.

    ``limit`` is in bytes; the memory of the keys and values is taken whole when the first are stored.
    """

    def __init__(self, limit: int, shape: CacheShape, device: torch.device, dtype: torch.dtype) -> None:
        capacity = limit // (shape.bytes_per_token(dtype) + BOOKKEEPING)
        self.known = KnownValues(capacity)
        self._pool = PrefixPool(capacity, shape, device, dtype)

    def past(self, known: Sequence[Known]) -> DynamicCache:
        """Keys and values of the stored parts of some rows, not all of them empty.

        Per layer they are of shape (rows, heads, longest stored part, dim). A row's own come first; those behind are
        other tokens', to be masked.
        """
        longest = max(one.tokens for one in known)
        # Filled with a place that holds numbers: what is masked is multiplied by 0, and NaN would stay NaN.
        index = np.full((len(known), longest), next(one.places[0] for one in known if one.tokens))
        for row, one in enumerate(known):
            index[row, : one.tokens] = one.places
        stored = (part.unflatten(0, index.shape).permute(2, 0, 3, 1, 4) for part in self._pool.load(index.ravel()))
        return DynamicCache(list(zip(*stored, strict=True)))

    def store(self, rows: Sequence[Row], known: Sequence[Known], values: Sequence[Values], cache: DynamicCache) -> None:
        """Store a pass over rows: ``values`` at all positions, and a cache of the known part, then new tokens."""
        self._pool.allocate()
        past = max(one.tokens for one in known)
        try:
            targets: dict[int, tuple[int, int]] = {}
            for index, (row, one, some) in enumerate(zip(rows, known, values, strict=True)):
                new = self.known.insert(row, some)
                # A place that was given up for a later row in this very loop is the later one's.
                for column, place in enumerate(new.places.tolist(), start=new.start):
                    targets[place] = (index, column if column < one.tokens else past + column - one.tokens)
            if targets:
                self._write(targets, cache)
        except BaseException:
            # Promised places without keys would be read as if they had some.
            self.known.clear()
            raise

    def _write(self, targets: dict[int, tuple[int, int]], cache: DynamicCache) -> None:
        from_rows, from_columns = (torch.tensor(some) for some in zip(*targets.values(), strict=True))
        keys, values = (
            torch.stack([getattr(layer, kind)[from_rows, :, from_columns] for layer in cache.layers], dim=1)
            for kind in ("keys", "values")
        )
        self._pool.store(np.fromiter(targets, np.int64, len(targets)), keys, values)
