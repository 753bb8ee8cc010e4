"""Keys and values of stored prefixes, one token a place; which token is where, the prefix tree knows.

It knows no model, request or score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from adaptive_ttc.kv.tree import Places


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What one token's keys and values look like; all layers are alike."""

    layers: int
    heads: int
    key_dim: int
    value_dim: int

    def bytes_per_token(self, dtype: torch.dtype) -> int:
        """Memory that one token's keys and values take."""
        return self.layers * self.heads * (self.key_dim + self.value_dim) * dtype.itemsize


class PrefixPool:
    """Keys and values of stored prefixes, one token a place; which token is where, the prefix tree knows.

    Args:
        capacity: places, allocated when the first is filled.
        shape: of one token's keys and values.
        device: where the tensors live.
        dtype: of the tensors.
    """

    def __init__(self, capacity: int, shape: CacheShape, device: torch.device, dtype: torch.dtype) -> None:
        self._capacity = capacity
        self._shape = shape
        self._options: dict[str, Any] = {"device": device, "dtype": dtype}
        self._keys = torch.empty(0)
        self._values = torch.empty(0)

    def allocate(self) -> None:
        """Take the memory, unless that is done: where it runs out, no place is promised yet."""
        if not len(self._keys):
            # whole at once: a CPU commits the memory page by page as it is written, and growing would copy it
            size = (self._capacity, self._shape.layers, self._shape.heads)
            self._keys = torch.empty((*size, self._shape.key_dim), **self._options)
            self._values = torch.empty((*size, self._shape.value_dim), **self._options)

    def store(self, places: Places, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Keep keys and values of shape (places, layers, heads, dim)."""
        self.allocate()
        index = torch.from_numpy(places).to(self._keys.device)
        self._keys[index] = keys
        self._values[index] = values

    def load(self, places: Places) -> tuple[torch.Tensor, torch.Tensor]:
        """What was stored at these places, in their order."""
        index = torch.from_numpy(places).to(self._keys.device)
        return self._keys[index], self._values[index]
