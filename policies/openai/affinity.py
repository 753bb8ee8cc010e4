"""Remembers which replica computed which prefix, block by block; it knows no replica's real cache and no load.

The real caches hold whole blocks of tokens, find them by a chain of hashes from the prompt's first token on, and
forget the least recently used (vLLM's automatic prefix caching); this map does the same with names for blocks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Held:
    """What is known of a prompt.

    Attributes:
        replicas: indices of those that computed its longest known prefix.
        tokens: length of that prefix.
    """

    replicas: frozenset[int]
    tokens: int


class PrefixMap:
    """The least recently used blocks are forgotten.

    Args:
        block: tokens in a block.
        capacity: blocks remembered; a block takes about 200 bytes here, and at 32 tokens a default map knows
            prefixes of 8 million tokens.
    """

    def __init__(self, block: int, capacity: int = 250_000) -> None:
        self._block = block
        self._capacity = capacity
        self._blocks: OrderedDict[int, frozenset[int]] = OrderedDict()

    def find(self, tokens: Sequence[int]) -> Held:
        """Who computed the longest known prefix of a prompt."""
        held = Held(frozenset(), 0)
        for index, key in enumerate(self._chain(tokens)):
            replicas = self._blocks.get(key)
            if not replicas:
                break
            held = Held(replicas, (index + 1) * self._block)
        return held

    def note(self, tokens: Sequence[int], replica: int) -> None:
        """A replica is about to compute, or has computed, these tokens."""
        for key in self._chain(tokens):
            self._blocks[key] = self._blocks.get(key, frozenset()) | {replica}
            self._blocks.move_to_end(key)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)

    def forget(self, replica: int) -> None:
        """A replica has lost its cache."""
        for key, replicas in list(self._blocks.items()):
            if replica in replicas:
                left = replicas - {replica}
                if left:
                    self._blocks[key] = left
                else:
                    del self._blocks[key]

    def _chain(self, tokens: Sequence[int]) -> Iterator[int]:
        key = 0
        for start in range(0, len(tokens) - self._block + 1, self._block):
            key = hash((key, *tokens[start : start + self._block]))
            yield key
