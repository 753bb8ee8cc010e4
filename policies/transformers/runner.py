"""Runs a causal language model over a changing set of rows; it knows no request, queue or stop string."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from policies.transformers.attention import RowGroup, install
from policies.transformers.kv_cache import CacheShape, PrefixPool, RowCache
from policies.transformers.prefix_tree import Places, PrefixTree
from policies.transformers.sampling import Uniforms, draw
from policies.transformers.scheduler import GROUP_ROWS

# Padding the batch to 4 rows, and the keys to 16 and then a multiple of 8, keeps every row on the same matrix kernels
# whatever its company: with fewer or odd numbers the CPU libraries sum in another order (measured: bitwise equal here).
_MIN_ROWS = 4
_MIN_KEYS = 16
_KEY_MULTIPLE = 8
_PREFILL_MULTIPLE = 8


@dataclass(frozen=True, slots=True)
class RowStart:
    """What a row begins with.

    Attributes:
        prompt: token ids, at least one.
        stored: where the keys and values of its first tokens are stored; never of the last one.
        seed: of its random numbers.
        temperature: 0 is greedy.
        top_p: nucleus mass.
    """

    prompt: tuple[int, ...]
    stored: Places
    seed: int
    temperature: float
    top_p: float

    @property
    def missing(self) -> int:
        """Tokens to prefill: those neither stored nor the last."""
        return len(self.prompt) - 1 - len(self.stored)


class ModelRunner:
    """The model, its rows and its stored prefixes. Not thread-safe: one thread calls it.

    Every row's last token has no keys and values yet; :meth:`decode` computes them and draws the next token. So a
    prompt is prefilled up to its last token, and a sample that goes on from its own prefix needs no prefill.

    Args:
        model: a Hugging Face causal language model in evaluation mode.
        shape: of one token's keys and values.
        max_batch: rows.
        max_context: tokens in a row.
        prefix_cache_bytes: memory that stored prefixes may take.
        prefill_tokens: tokens, padding included, in one prefill pass.
    """

    def __init__(
        self,
        model: Any,
        shape: CacheShape,
        *,
        max_batch: int,
        max_context: int,
        prefix_cache_bytes: int,
        prefill_tokens: int,
    ) -> None:
        self._model = model
        self._device: torch.device = model.device
        self._prefill_tokens = prefill_tokens
        self.max_context = max_context
        rows = max(max_batch, _MIN_ROWS)
        self._cache = RowCache(
            shape, rows, max(_MIN_KEYS, _rounded(max_context, _KEY_MULTIPLE)), model.device, model.dtype
        )
        capacity = prefix_cache_bytes // shape.bytes_per_token(model.dtype)
        self._pool = PrefixPool(capacity, shape, model.device, model.dtype)
        self._tree = PrefixTree(capacity)
        self._uniforms = Uniforms(rows)
        self._length = np.zeros(rows, np.int64)
        self._token = np.zeros(rows, np.int64)
        self._temperature = np.zeros(rows)
        self._top_p = np.ones(rows)
        self._grouped = install(model)
        self._seen = torch.zeros((), dtype=model.dtype, device=model.device)
        self._masked = torch.full_like(self._seen, torch.finfo(model.dtype).min)

    def find(self, prompt: tuple[int, ...]) -> Places:
        """Where the longest stored prefix of a prompt is, its last token apart; good until the next :meth:`store`."""
        return self._tree.match(prompt[:-1])

    @torch.inference_mode()
    def store(self, row: int, tokens: Sequence[int]) -> None:
        """Keep the keys and values of a row for whoever goes on from its tokens.

        Args:
            row: of the sequence.
            tokens: the sequence; those without keys and values yet are left out.
        """
        insertion = self._tree.insert(tuple(tokens[: self._length[row]]))
        if len(insertion.places):
            stop = insertion.start + len(insertion.places)
            self._pool.store(insertion.places, *self._cache.read(row, insertion.start, stop))

    @torch.inference_mode()
    def begin(self, first_row: int, starts: Sequence[RowStart]) -> None:
        """Start rows side by side, those with most to prefill first: set their state, compute what is not stored."""
        for row, start in enumerate(starts, first_row):
            self._set_state(row, start)
            if len(start.stored):
                self._cache.reserve(row + 1, len(start.stored))
                self._cache.write(row, *self._pool.load(start.stored))
        while starts and starts[0].missing:
            width = _rounded(starts[0].missing, _PREFILL_MULTIPLE)
            count = max(1, self._prefill_tokens // width)
            self._prefill(first_row, starts[:count], width)
            first_row += count
            starts = starts[count:]

    @torch.inference_mode()
    def follow(self, source: int, row: int, starts: Sequence[RowStart]) -> None:
        """Start rows side by side with the prompt of row ``source``, which has just begun."""
        for target, start in enumerate(starts, row):
            self._set_state(target, start)
        length = int(self._length[source])
        self._cache.reserve(row + len(starts), length)
        self._cache.copy_row(source, slice(row, row + len(starts)), length)

    @torch.inference_mode()
    def move(self, source: int, target: int) -> None:
        """Carry a row's whole state to another row."""
        for state in (self._length, self._token, self._temperature, self._top_p):
            state[target] = state[source]
        self._uniforms.move(source, target)
        self._cache.copy_row(source, slice(target, target + 1), int(self._length[source]))

    @torch.inference_mode()
    def decode(self, rows: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """One step of the first ``rows`` rows: their next tokens and these tokens' log-probabilities in nats."""
        count = max(rows, _MIN_ROWS)
        self._length[rows:count] = 0
        length = self._length[:count]
        grouping = {"row_groups": self._row_groups(length)} if self._grouped else {}
        logits = self._forward(self._model, self._token[:count, None], 0, length[:, None], **grouping).logits[:rows, -1]
        # the token at index length - 1 was fed before, the one at index length just now; drawn is length + 1
        uniforms = self._uniforms.at(self._length[:rows] + 1)
        tokens, logprobs = draw(logits, self._temperature[:rows], self._top_p[:rows], uniforms)
        self._length[:rows] += 1
        self._token[:rows] = tokens
        return tokens, logprobs

    def _set_state(self, row: int, start: RowStart) -> None:
        self._length[row] = len(start.prompt) - 1
        self._token[row] = start.prompt[-1]
        self._temperature[row] = start.temperature
        self._top_p[row] = start.top_p
        self._uniforms.seed(row, start.seed)

    def _prefill(self, first_row: int, starts: Sequence[RowStart], width: int) -> None:
        ids = np.zeros((len(starts), width), np.int64)
        for row, start in enumerate(starts):
            ids[row, : start.missing] = start.prompt[len(start.stored) : -1]
        stored = np.array([len(start.stored) for start in starts])
        # the last position belongs to no prompt, so that padding may be written there
        positions = np.minimum(stored[:, None] + np.arange(width), self.max_context - 1)
        for chunk in range(0, width, self._prefill_tokens):
            part = slice(chunk, chunk + self._prefill_tokens)
            self._forward(self._model.base_model, ids[:, part], first_row, positions[:, part])

    def _forward(
        self, module: Any, ids: npt.NDArray[np.int64], first_row: int, positions: npt.NDArray[np.int64], **kwargs: Any
    ) -> Any:
        """Run tokens of shape (rows, width) at their positions; padded ones write where later tokens overwrite them."""
        length = _key_length(positions)
        self._cache.reserve(first_row + len(ids), length)
        places = torch.from_numpy(positions).to(self._device)
        self._cache.aim(first_row, places, length)
        visible = torch.arange(length, device=self._device) <= places[:, None, :, None]
        return module(
            input_ids=torch.from_numpy(ids).to(self._device),
            attention_mask=torch.where(visible, self._seen, self._masked),
            position_ids=places,
            past_key_values=self._cache,
            use_cache=True,
            **kwargs,
        )

    def _row_groups(self, length: npt.NDArray[np.int64]) -> list[RowGroup]:
        return [
            RowGroup(slice(row, row + GROUP_ROWS), _key_length(length[row : row + GROUP_ROWS]))
            for row in range(0, len(length), GROUP_ROWS)
        ]


def _key_length(positions: npt.NDArray[np.int64]) -> int:
    """How many keys to read so that all up to these positions are among them."""
    return max(_MIN_KEYS, _rounded(int(positions.max()) + 1, _KEY_MULTIPLE))


def _rounded(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
