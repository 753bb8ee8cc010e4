"""Which replica holds which prefix in its cache, as far as requests tell."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence


class PrefixMap:
    """Which replica computed which prefix, block by block; the least recently used blocks are forgotten.

    It imitates the real caches (vLLM's automatic prefix caching): whole blocks of tokens, found by a chain of hashes
    from the prompt's first token on. ``block``: tokens in a block, 0 remembers nothing; ``capacity``: blocks, of about
    200 bytes each.
    """

    def __init__(self, block: int, capacity: int = 250_000) -> None:
        self._block, self._capacity = block, capacity
        self._blocks: OrderedDict[int, frozenset[int]] = OrderedDict()

    def find(self, tokens: Sequence[int]) -> tuple[frozenset[int], int]:
        """The replicas that computed the longest known prefix of a prompt, and the tokens of that prefix."""
        held = (frozenset[int](), 0)
        for index, key in enumerate(self._chain(tokens)):
            replicas = self._blocks.get(key)
            if not replicas:
                break
            held = (replicas, (index + 1) * self._block)
        return held

    def note(self, tokens: Sequence[int], replica: int) -> None:
        """A replica is computing, or has computed, these tokens."""
        for key in self._chain(tokens):
            self._blocks[key] = self._blocks.get(key, frozenset()) | {replica}
            self._blocks.move_to_end(key)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)

    def forget(self, replica: int) -> None:
        """A replica has lost its cache."""
        for key, replicas in self._blocks.items():
            self._blocks[key] = replicas - {replica}

    def _chain(self, tokens: Sequence[int]) -> Iterator[int]:
        key = 0
        for start in range(0, len(tokens) - self._block + 1, self._block) if self._block else ():
            key = hash((key, *tokens[start : start + self._block]))
            yield key
