"""Attention of a flat batch over rows of unequal length, and the cache that holds the rows' keys and values.

The new tokens of all rows form a batch of one, so that nothing is computed for padding and rows that begin (many
tokens) run together with rows that go on (one token). Attention splits them again: rows with one token in groups as
wide as their longest row, the others one by one. ``RowCache`` is a Hugging Face ``Cache``, so stock causal language
models run on it unchanged: ``aim`` sets the rows and positions that the next forward pass writes, each layer's
``update`` writes them in place.
"""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.prefix_cache import CacheShape

NAME = "adaptive_ttc_rows"

GROUP_ROWS = 32
"""Rows with one token whose attention is computed together, as wide as the longest of them."""

_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # named from Python 3.11.8 on
_STALE, _SLACK = 4, 256  # how much more than is kept may be written, and how many positions of every row besides


@dataclass(frozen=True, slots=True)
class Part:
    """Rows whose attention is computed together: one row with any number of new tokens, or rows with one each."""

    tokens: slice  # their new tokens in the flat batch
    rows: slice  # in the cache
    mask: torch.Tensor  # added to the scores; shape (rows, 1, tokens of a row, keys that are read)
    single: bool  # every row has one new token


def install(model: Any) -> None:
    """Make a model call :func:`row_attention`; ConfigError where its attention cannot be exchanged."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, row_attention)
    try:
        model.set_attn_implementation(NAME)
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(f"the attention of {type(model).__name__} cannot be exchanged: {error}") from error


def row_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    parts: Sequence[Part] = (),
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function as transformers calls it; ValueError where a model asks for more than plain attention.

    Shapes: query (1, heads, tokens, dim) of the flat batch; key and value (rows, key heads, positions, dim), the
    layer's whole cache; result (1, tokens, heads, value dim), and no weights. Tokens in none of ``parts`` are padding
    and get zeros; the parts bring their masks, ``attention_mask`` is ignored.
    """
    special = [name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]
    if special:
        raise ValueError(f"it uses {', '.join(special)}")
    _, heads, tokens, dim = query.shape
    key_heads = key.shape[1]
    # the query heads of one key head stand together: as the tokens of one small attention, no key is repeated
    flat = query[0].transpose(0, 1).unflatten(1, (key_heads, heads // key_heads))
    scale = dim**-0.5 if scaling is None else scaling
    output = query.new_zeros((tokens, key_heads, heads // key_heads, value.shape[-1]))
    on_cpu = query.device.type == "cpu" and query.dtype == torch.float32
    for part in parts:
        length = part.mask.shape[-1]
        keys, values = key[part.rows, :, :length], value[part.rows, :, :length]
        new, out = flat[part.tokens], output[part.tokens]
        if not part.single:
            _one_row(new, keys, values, part.mask, scale, out)
        elif on_cpu:
            _products(new, keys, values, part.mask, scale, out)
        else:  # the query heads of a key head stand as its tokens
            out.copy_(scaled_dot_product_attention(new, keys, values, attn_mask=part.mask, scale=scale))
    return output.view(1, tokens, heads, -1), None


def _products(
    new: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scale: float, out: torch.Tensor
) -> None:
    """Rows with one token by two matrix products; on a CPU a quarter faster than SDPA."""
    rows, heads, group, dim = new.shape
    scores = torch.bmm((new * scale).view(-1, group, dim), keys.flatten(0, 1).transpose(1, 2))
    weights = torch.softmax(scores.view(rows, heads, group, -1).add_(mask), dim=-1)
    torch.bmm(weights.view(rows * heads, group, -1), values.flatten(0, 1), out=out.view(rows * heads, group, -1))


def _one_row(
    new: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scale: float, out: torch.Tensor
) -> None:
    """One row with many tokens; shape (tokens, key heads, group, dim)."""
    _, heads, group, _ = new.shape
    queries = new.flatten(1, 2).transpose(0, 1)[None]
    if group > 1:
        keys, values = keys.repeat_interleave(group, dim=1), values.repeat_interleave(group, dim=1)
    attended = scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale)
    out.copy_(attended[0].transpose(0, 1).unflatten(1, (heads, group)))


class _Layer(CacheLayerMixin):  # type: ignore[no-untyped-call, unused-ignore]
    """One layer's part of the row tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.is_initialized = True
        self.places = torch.empty(0, dtype=torch.long)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: the rows are allocated already."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write states of shape (1, heads, tokens, dim) at the aimed places; return all rows."""
        assert self.keys is not None
        assert self.values is not None
        for store, states in ((self.keys, key_states), (self.values, value_states)):
            dim = states.shape[-1]
            store.view(-1, dim).index_copy_(0, self.places, states.transpose(1, 2).reshape(-1, dim))
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that a mask covers; this module makes its own masks."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """0: each row has its own length, and every token comes with its position."""
        return 0

    def get_max_length(self) -> int:
        """-1, no limit: the rows grow."""
        return -1

    def get_max_cache_shape(self) -> int:
        """The same, by its name in older releases of transformers."""
        return self.get_max_length()


class RowCache(Cache):
    """Static keys and values of shape (layers, rows, heads, positions, dim), grown as needed up to the bounds.

    On a CPU it takes the memory of what is written: one long row among short ones does not cost as much as all of them,
    and what rows that ended have left is given back.
    """

    def __init__(
        self, shape: CacheShape, max_rows: int, max_positions: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._max_rows, self._max_positions = max_rows, max_positions
        self._heads = torch.arange(shape.heads, device=device)
        self._rows = [_Layer() for _ in range(shape.layers)]
        super().__init__(layers=list(self._rows))
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        self._keys = torch.zeros((shape.layers, 0, shape.heads, 0, shape.key_dim), **options)
        self._values = torch.zeros((shape.layers, 0, shape.heads, 0, shape.value_dim), **options)
        self._written = np.zeros(max_rows, np.int64)  # positions of every row since the memory was taken

    def reserve(self, rows: int, positions: int, lengths: npt.NDArray[np.int64]) -> None:
        """Make room for so many rows and positions, at least doubling what is there; there are never fewer.

        ``lengths``, shape (rows in use,): how many positions of each are kept.
        """
        old_rows, old_positions = self._keys.shape[1], self._keys.shape[3]
        used = self._written[: len(lengths)]
        np.maximum(used, lengths, out=used)
        if rows <= old_rows and positions <= old_positions and not self._stale(lengths):
            return
        rows = old_rows if rows <= old_rows else max(rows, min(2 * old_rows, self._max_rows))
        longer = max(positions, min(2 * old_positions, self._max_positions))
        positions = old_positions if positions <= old_positions else longer
        # both or neither, where there is no memory for one of them
        keys, values = (_remade(one, rows, positions, lengths) for one in (self._keys, self._values))
        self._keys, self._values = keys, values
        self._written[:] = 0
        self._written[: len(lengths)] = lengths
        for layer, own_keys, own_values in zip(self._rows, keys, values, strict=True):
            layer.keys, layer.values = own_keys, own_values

    def _stale(self, lengths: npt.NDArray[np.int64]) -> bool:
        """Whether most of the memory is that of rows that ended; so seldom that copying the others costs little."""
        if self._keys.device.type != "cpu":
            return False
        return bool(self._written.sum() > _STALE * lengths.sum() + _SLACK * self._max_rows)

    def aim(self, rows: torch.Tensor, positions: torch.Tensor) -> None:
        """Set where the next forward pass writes its tokens; both of shape (tokens,)."""
        heads = rows[:, None] * len(self._heads) + self._heads
        places = (heads * self._keys.shape[3] + positions[:, None]).flatten()
        for layer in self._rows:
            layer.places = places

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` positions of a row to another."""
        self._keys[:, target, :, :length] = self._keys[:, source, :, :length]
        self._values[:, target, :, :length] = self._values[:, source, :, :length]

    def read(self, row: int, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of some positions of a row; each of shape (positions, layers, heads, dim)."""
        keys, values = self._keys[:, row, :, start:stop], self._values[:, row, :, start:stop]
        return keys.permute(2, 0, 1, 3), values.permute(2, 0, 1, 3)

    def write(self, row: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Fill a row's first positions with what :meth:`read` gave."""
        length = keys.shape[0]
        self._keys[:, row, :, :length] = keys.permute(1, 2, 0, 3)
        self._values[:, row, :, :length] = values.permute(1, 2, 0, 3)


def _remade(tensor: torch.Tensor, rows: int, positions: int, lengths: npt.NDArray[np.int64]) -> torch.Tensor:
    layers, old_rows, heads, _, dim = tensor.shape
    remade = _zeros((layers, rows, heads, positions, dim), tensor)
    for row, length in enumerate(lengths[:old_rows].tolist()):
        remade[:, row, :, :length] = tensor[:, row, :, :length]
    return remade


def _zeros(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Zeros, not what memory holds: masked positions are multiplied by weight 0, and 0 times NaN is NaN.

    On a CPU they are the operating system's own, which takes memory for a page when it is first written, and
    may be more than there is.
    """
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    private: dict[str, Any] = {}
    if sys.platform != "win32":
        private["flags"] = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (_NORESERVE if sys.platform == "linux" else 0)
    memory = mmap.mmap(-1, math.prod(shape) * like.itemsize, **private)
    return torch.frombuffer(memory, dtype=like.dtype).view(shape)
