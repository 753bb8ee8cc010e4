"""Runs a causal language model over a changing set of rows, and draws each row's next token from the row's own seed.

A draw is keyed by (seed, position in the sequence). It depends neither on the batch nor on how many requests the
sequence was cut into: a sample continued from its own prefix with its own seed equals the uncut one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from adaptive_ttc.policies.transformers.attention import GROUP_ROWS, Part, RowCache, install
from adaptive_ttc.policy import SampleRequest
from adaptive_ttc.prm.prefix_cache import CacheShape, PrefixPool, PrefixTree, cache_argument

Ints = npt.NDArray[np.int64]

# A prompt's last token is computed apart, as generated tokens are, whether the rest was stored or not. At least 4
# tokens a pass and a prompt, and keys in multiples of 8 from 16 on, keep every row on the same matrix kernels whatever
# its company: with fewer or odd numbers CPU libraries sum in another order (the embedded model's rows are bitwise so).
_MIN_TOKENS = 4
_MIN_KEYS = 16
_KEY_MULTIPLE = 8

_BLOCK = 64  # positions drawn at a time; making a generator costs as much as thousands of its numbers
_PER_COUNT = 4  # Philox4x64 gives four 64-bit words a count
_KEY_MASK = (1 << 128) - 1

LEAST_LOGPROB = -100.0  # nats


class StepResult(NamedTuple):
    """Rows that drew a token, in order, the tokens, and their temperature-1 log-probabilities in nats; of each row that
    asks for it the mean of those of the most probable tokens, else nan.
    """

    rows: list[int]
    tokens: list[int]
    logprobs: list[float]
    top_logprobs: list[float]


class ModelRunner:
    """The model, its rows and its stored prefixes. Not thread-safe: one thread calls it.

    ``model`` is a Hugging Face causal language model in evaluation mode, whose attention is exchanged (ConfigError if
    it cannot be); ``shape`` that of one token's keys and values; ``prefill_tokens`` the most prompt tokens in one pass.
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
        install(model)
        self._model = model
        self._cache_name = cache_argument(model)
        self._device: torch.device = model.device
        self._prefill_tokens = prefill_tokens
        self.max_context = max_context
        # one more row than samples: padding is written there
        rows = max_batch + 1
        self._cache = RowCache(shape, rows, _key_length(max_context - 1), model.device, model.dtype)
        capacity = prefix_cache_bytes // shape.bytes_per_token(model.dtype)
        self._pool = PrefixPool(capacity, shape, model.device, model.dtype)
        self._tree = PrefixTree(capacity)
        self._uniforms = Uniforms(rows)
        self._computed = np.zeros(rows, np.int64)
        self._length = np.zeros(rows, np.int64)
        self._token = np.zeros(rows, np.int64)
        self._prompt: list[tuple[int, ...]] = [()] * rows
        self._temperature = np.zeros(rows)
        self._top_p = np.ones(rows)
        self._top_logprobs = np.zeros(rows, np.int64)
        self._seen = torch.zeros((), dtype=model.dtype, device=model.device)
        self._masked = torch.full_like(self._seen, torch.finfo(model.dtype).min)

    def begin(self, row: int, request: SampleRequest) -> None:
        """Set a row's state; nothing of its prompt is computed yet."""
        self._computed[row] = 0
        self._length[row] = len(request.prompt_ids)
        self._token[row] = request.prompt_ids[-1]
        self._prompt[row] = request.prompt_ids
        self._temperature[row] = request.temperature
        self._top_p[row] = request.top_p
        self._top_logprobs[row] = request.top_logprobs
        self._uniforms.seed(row, request.seed)

    @torch.inference_mode()
    def load(self, row: int) -> int:
        """Load the longest stored prefix of a row's prompt, its last token left out; return the prefix's length."""
        places = self._tree.match(self._prompt[row][:-1])
        if len(places):
            self._cache.reserve(row + 1, len(places), self._computed[: row + 1])
            self._cache.write(row, *self._pool.load(places))
            self._computed[row] = len(places)
        return len(places)

    @torch.inference_mode()
    def copy_prompt(self, source: int, row: int) -> int:
        """Copy the prompt, its last token left out, from a row that computed the same; return the length copied."""
        length = len(self._prompt[row]) - 1
        self._cache.reserve(row + 1, length, self._computed[: row + 1])
        self._cache.copy_row(source, row, length)
        self._computed[row] = length
        return length

    @torch.inference_mode()
    def store(self, row: int, tokens: Sequence[int]) -> None:
        """Store a row's keys and values for continuations of ``tokens``; tokens not computed yet are left out."""
        insertion = self._tree.insert(tuple(tokens[: self._computed[row]]))
        if len(insertion.places):
            stop = insertion.start + len(insertion.places)
            self._pool.store(insertion.places, *self._cache.read(row, insertion.start, stop))

    @torch.inference_mode()
    def move(self, source: int, target: int) -> None:
        """Copy a row's whole state to another row."""
        for state in (
            self._computed, self._length, self._token, self._temperature, self._top_p, self._top_logprobs
        ):  # fmt: skip
            state[target] = state[source]
        self._prompt[target] = self._prompt[source]
        self._uniforms.move(source, target)
        self._cache.copy_row(source, target, int(self._computed[source]))

    @torch.inference_mode()
    def step(self, rows: int) -> StepResult:
        """Give each of the first rows its next token, or compute more of its prompt if that is long."""
        missing = self._length[:rows] - self._computed[:rows] - 1
        fill = np.minimum(missing, np.maximum(0, self._prefill_tokens - (missing.cumsum() - missing)))
        drawing = np.flatnonzero(fill == missing)
        logits = self._forward(fill, drawing)
        self._computed[:rows] += fill
        self._computed[drawing] += 1
        uniforms = self._uniforms.at(drawing, self._length[drawing])
        tokens, logprobs = draw(logits, self._temperature[drawing], self._top_p[drawing], uniforms)
        top = mean_of_top(logits, self._top_logprobs[drawing])
        self._token[drawing] = tokens
        self._length[drawing] += 1
        return StepResult(drawing.tolist(), tokens.tolist(), logprobs.tolist(), top.tolist())

    def _forward(self, fill: Ints, drawing: Ints) -> torch.Tensor:
        """The logits of each drawing row's last token; shape (drawing rows, vocabulary).

        The flat batch is the last token of every row, then the part of each prompt that is to be filled, then padding.
        """
        rows = len(fill)
        total = rows + int(fill.sum())
        # room behind the last prompt for it to be as long as the kernels want
        padded = max(_MIN_TOKENS, total + _MIN_TOKENS * (total > rows))
        row_of = np.full(padded, rows)
        row_of[drawing] = drawing
        positions = np.zeros(padded, np.int64)
        positions[drawing] = self._length[drawing] - 1
        ids = np.zeros(padded, np.int64)
        ids[:rows] = self._token[:rows]
        fills = []
        start = rows
        for row in np.flatnonzero(fill).tolist():
            done, stop = int(self._computed[row]), start + int(fill[row])
            row_of[start:stop] = row
            positions[start:stop] = np.arange(done, done + stop - start)
            ids[start:stop] = self._prompt[row][done : done + stop - start]
            fills.append((row, slice(start, max(stop, start + _MIN_TOKENS)), done + stop - start))
            start = stop
        keep = np.zeros(max(_MIN_TOKENS, len(drawing)), np.int64)
        keep[: len(drawing)] = drawing
        self._cache.reserve(rows + 1, _key_length(int(positions.max())), self._computed[:rows])
        places = torch.from_numpy(positions).to(self._device)
        self._cache.aim(torch.from_numpy(row_of).to(self._device), places)
        parts = [self._group(first, positions[:rows], places) for first in range(0, rows, GROUP_ROWS)]
        parts += [self._fill(row, tokens, length, places) for row, tokens, length in fills]
        logits: torch.Tensor = self._model(
            input_ids=torch.from_numpy(ids).to(self._device)[None],
            attention_mask=self._seen.view(1, 1, 1, 1),  # of four dimensions, so that no model makes its own
            position_ids=places[None],
            use_cache=True,
            logits_to_keep=torch.from_numpy(keep).to(self._device),
            parts=parts,
            **{self._cache_name: self._cache},
        ).logits[0]
        if len(logits) != len(keep):  # the model does not know logits_to_keep
            logits = logits[torch.from_numpy(keep).to(self._device)]
        return logits[: len(drawing)]

    def _group(self, first: int, positions: Ints, places: torch.Tensor) -> Part:
        """The last tokens of some rows."""
        rows = slice(first, min(first + GROUP_ROWS, len(positions)))
        length = _key_length(int(positions[rows].max()))
        return Part(rows, rows, self._mask(places[rows, None, None, None], length), single=True)

    def _fill(self, row: int, tokens: slice, length: int, places: torch.Tensor) -> Part:
        """Prompt tokens of one row, which will then have ``length`` keys."""
        mask = self._mask(places[None, None, tokens, None], _key_length(length - 1))
        return Part(tokens, slice(row, row + 1), mask, single=False)

    def _mask(self, places: torch.Tensor, length: int) -> torch.Tensor:
        visible = torch.arange(length, device=self._device) <= places
        return torch.where(visible, self._seen, self._masked)


def _key_length(position: int) -> int:
    """How many keys to read to include this position."""
    return max(_MIN_KEYS, -(-(position + 1) // _KEY_MULTIPLE) * _KEY_MULTIPLE)


class Uniforms:
    """One stream of uniform numbers in [0, 1) a row, addressed by position (Philox, a counter-based generator)."""

    def __init__(self, rows: int) -> None:
        self._blocks = np.zeros((rows, _BLOCK))
        self._block = np.full(rows, -1, np.int64)
        self._seeds = [0] * rows

    def seed(self, row: int, seed: int) -> None:
        """Set a row's stream."""
        self._seeds[row] = seed & _KEY_MASK
        self._block[row] = -1

    def move(self, source: int, target: int) -> None:
        """Copy a row's stream to another row."""
        self._blocks[target] = self._blocks[source]
        self._block[target] = self._block[source]
        self._seeds[target] = self._seeds[source]

    def at(self, rows: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The numbers of some rows, each at its position; all of shape (rows,)."""
        wanted = positions // _BLOCK
        stale = self._block[rows] != wanted
        for row, block in zip(rows[stale].tolist(), wanted[stale].tolist(), strict=True):
            counter = block * (_BLOCK // _PER_COUNT)
            generator = np.random.Generator(np.random.Philox(key=self._seeds[row], counter=counter))
            generator.random(out=self._blocks[row])
            self._block[row] = block
        numbers: npt.NDArray[np.float64] = self._blocks[rows, positions % _BLOCK]
        return numbers


def draw(
    logits: torch.Tensor,
    temperature: npt.NDArray[np.float64],
    top_p: npt.NDArray[np.float64],
    uniforms: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Sample one token a row by inverting its cumulative distribution.

    ``logits`` have shape (rows, vocabulary), all else (rows,): ``temperature``, 0 for greedy; ``top_p``, the mass of
    the smallest set of tokens to sample from; ``uniforms`` in [0, 1); the returned token ids and their
    log-probabilities under the temperature-1 model in nats.
    """
    logits, device = logits.float(), logits.device
    logprobs = torch.log_softmax(logits, dim=-1)
    greedy = temperature == 0
    if greedy.all():
        tokens = logits.argmax(dim=-1, keepdim=True)
    else:
        divisor = torch.from_numpy(np.where(greedy, 1.0, temperature)).to(device, torch.float32)
        probabilities = torch.softmax(logits / divisor[:, None], dim=-1)
        narrow = np.flatnonzero((top_p < 1.0) & ~greedy)
        if len(narrow):
            mass = torch.from_numpy(top_p[narrow]).to(device)
            _keep_nucleus(probabilities, torch.from_numpy(narrow).to(device), mass)
        cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
        # scaled by the total, so that rounding (or a nucleus) cannot leave the last stretch of [0, 1) to no token
        targets = torch.from_numpy(uniforms).to(device)[:, None] * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, targets, right=True).clamp_(max=logits.shape[-1] - 1)
        if greedy.any():
            chosen = torch.from_numpy(greedy).to(device)[:, None]
            tokens = torch.where(chosen, logits.argmax(dim=-1, keepdim=True), tokens)
    picked = logprobs.gather(-1, tokens)
    return tokens[:, 0].cpu().numpy(), picked[:, 0].double().cpu().numpy()


def mean_of_top(logits: torch.Tensor, counts: Ints) -> npt.NDArray[np.float64]:
    """Mean log-probability in nats of each row's ``counts[row]`` most probable tokens; nan where that is 0.

    ``logits`` have shape (rows, vocabulary); a count above the vocabulary is all of it. Tokens that a model rules out
    count as :data:`LEAST_LOGPROB`.
    """
    means = np.full(len(counts), np.nan)
    for count in np.unique(counts[counts > 0]):
        rows = np.flatnonzero(counts == count)
        logprobs = torch.log_softmax(logits[torch.from_numpy(rows).to(logits.device)].float(), dim=-1)
        if count < logprobs.shape[-1]:
            logprobs = logprobs.topk(int(count), dim=-1).values
        means[rows] = logprobs.clamp(min=LEAST_LOGPROB).double().mean(dim=-1).cpu().numpy()
    return means


def _keep_nucleus(probabilities: torch.Tensor, rows: torch.Tensor, top_p: torch.Tensor) -> None:
    """Set to zero, in place, what lies outside each row's nucleus (arXiv 1904.09751, section 3.1)."""
    values, order = probabilities[rows].sort(dim=-1, descending=True, stable=True)
    before = values.cumsum(dim=-1, dtype=torch.float64) - values
    kept = values.masked_fill(before >= top_p[:, None], 0.0)
    probabilities[rows] = torch.zeros_like(kept).scatter(-1, order, kept)
