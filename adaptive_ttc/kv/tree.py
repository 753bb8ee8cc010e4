"""Remembers which token prefixes have stored keys and values, and where; it holds no tensor and knows no model.

A radix tree over token ids with one place in the pool per token, least recently used leaves evicted first
(the structure of RadixAttention, arXiv 2312.07104, with pages of one token).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]


@dataclass(slots=True, eq=False)
class _Node:
    tokens: tuple[int, ...]
    places: Places
    parent: _Node | None
    used: int
    children: dict[int, _Node] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Insertion:
    """Where the tokens that were not stored before go.

    Attributes:
        start: index of the first such token in the sequence.
        places: the place in the pool of each token from there on; fewer than asked when the pool is too small.
    """

    start: int
    places: Places


class PrefixTree:
    """Longest-prefix look-up over a pool of a fixed number of token places.

    Args:
        capacity: places in the pool; 0 stores nothing.
    """

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
        self._clock += 1
        parts: list[Places] = []
        node, depth = self._root, 0
        while depth < len(tokens) and (child := node.children.get(tokens[depth])) is not None:
            child.used = self._clock
            shared = _shared_length(child.tokens, tokens, depth)
            parts.append(child.places[:shared])
            depth += shared
            if shared < len(child.tokens):
                break
            node = child
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def insert(self, tokens: tuple[int, ...]) -> Insertion:
        """Reserve places for the part of ``tokens`` that is not stored; the caller fills them at once."""
        self._clock += 1
        node, depth = self._root, 0
        while depth < len(tokens) and (child := node.children.get(tokens[depth])) is not None:
            before, child.used = child.used, self._clock
            shared = _shared_length(child.tokens, tokens, depth)
            depth += shared
            if shared < len(child.tokens):
                node = self._split(child, shared, before) if depth < len(tokens) else child
                break
            node = child
        places = self._allocate(len(tokens) - depth)
        if len(places):
            leaf = _Node(tokens[depth : depth + len(places)], places, node, self._clock)
            node.children[leaf.tokens[0]] = leaf
            self._leaves.discard(node)
            self._leaves.add(leaf)
        return Insertion(depth, places)

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
