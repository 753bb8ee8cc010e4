"""A PRM whose transformers run in this process: batch requests, compute only new tokens, read scores off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.files.names import unknown
from adaptive_ttc.prm.base import Scored, ScoreRequest, engine_errors
from adaptive_ttc.prm.batcher import BatcherConfig, BatcherStatistics, MicroBatcher
from adaptive_ttc.prm.format import Head, Reader, Rendered, RenderingPRM, Row, finite, smallest
from adaptive_ttc.prm.prefix_cache import CacheShape, Known, PrefixCache, Values, cache_argument


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings(BatcherConfig):
    """How a PRM in this process is run; lengths of batches are in tokens."""

    device: str = "cpu"  # as torch names it
    dtype: str = "float32"  # or ``bfloat16``, ``float16``, whose scores depend on the batch (float32: by 1e-5)
    max_context: int | None = None  # tokens it may read, where that is less than its config says
    # of each model, for keys and values of read prefixes; None: for 32,768 tokens, 512 MiB at most; 0 keeps none
    prefix_cache_bytes: int | None = None
    revision: str | None = None  # of a Hub model
    threads: int | None = None  # torch's threads for the whole process; use 1 on a CPU below about 20M parameters

    def __post_init__(self) -> None:
        BatcherConfig.__post_init__(self)
        if self.prefix_cache_bytes is not None and self.prefix_cache_bytes < 0:
            raise ConfigError(f"prefix_cache_bytes={self.prefix_cache_bytes} must not be negative")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> LocalSettings:
        """Read keyword arguments; ConfigError if one is unknown or out of range."""
        known = [field.name for field in fields(cls)]
        if foreign := unknown(given, known):
            raise ConfigError(f"unknown settings {foreign}; a PRM takes {', '.join(known)}")
        return cls(**given)


class Backbone:
    """A transformer without a head: a Hugging Face decoder in evaluation mode, which gives last hidden states."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self._cache_name = cache_argument(decoder)
        embedding = decoder.get_input_embeddings().weight
        # without the embedding table: a look-up costs no multiplication
        self.parameters = sum(p.numel() for p in decoder.parameters() if p is not embedding)
        self.vocabulary: int = embedding.shape[0]
        self.device: torch.device = embedding.device
        self.dtype: torch.dtype = next(decoder.parameters()).dtype
        config = decoder.config.get_text_config()
        self.max_context: int | None = getattr(config, "max_position_embeddings", None)
        kinds = set(getattr(config, "layer_types", None) or ())
        # tokens that a layer sees, where that is fewer than all; the same in all layers, or None
        self.window: int | None = None if "full_attention" in kinds else getattr(config, "sliding_window", None)
        rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
        # what makes keys and values depend on later tokens or differ between layers, or ""
        self.varied = "layers of different kinds" if len(kinds) > 1 else ""
        if rope in ("dynamic", "longrope"):
            self.varied = f"positions of the kind {rope!r}, which turn with a text's length"

    def run(self, ids: torch.Tensor, cache: DynamicCache | None = None, **arguments: torch.Tensor) -> torch.Tensor:
        """Last hidden states, shape (rows, tokens, hidden size), of ids of shape (rows, tokens)."""
        arguments = {name: value.to(self.device) for name, value in arguments.items()}
        with torch.inference_mode():
            states: torch.Tensor = self._decoder(
                input_ids=ids.to(self.device), use_cache=cache is not None, **arguments, **{self._cache_name: cache}
            ).last_hidden_state
        return states

    def cache_shape(self) -> CacheShape:
        """Shape of one token's keys and values; ConfigError unless every layer keeps one of each, all alike."""
        cache = DynamicCache()
        if not self.varied:
            self.run(torch.zeros((1, 1), dtype=torch.long), cache=cache)
        if not cache.layers or any(type(layer) is not DynamicLayer for layer in cache.layers):
            raise ConfigError(_NO_CACHE.format(self.varied or "something else than keys and values"))
        shape = CacheShape.of(cache.layers)
        if shape is None:
            raise ConfigError(_NO_CACHE.format("keys of different shapes"))
        return shape

    def release(self) -> None:
        """Free the weights."""
        self._decoder = None


_NO_CACHE = "this model has {}, so no keys of prefixes can be stored: pass prefix_cache_bytes=0 to read it without"

WORTH_WAITING = 32
"""Tokens that a row must share with an earlier one of its batch to be computed after it rather than beside it."""


class Reading(NamedTuple):
    """Result of a row: the values at its positions, and how many of its tokens were not computed."""

    values: list[float]
    cached: int


class LocalModel:
    """One model, the head that is read there, and the prefixes that it has read. One thread calls it.

    Rows are computed together if their new tokens are about as many. A row that begins as another of the same batch
    does waits for that one. In float32 a value is the same whatever is stored and whatever the batch, but for rounding.
    With ``prefix_cache_bytes=0`` every row is computed from its start.
    """

    def __init__(self, backbone: Backbone, head: Head, *, prefix_cache_bytes: int | None) -> None:
        self._backbone, self._head = backbone, head
        self._cache: PrefixCache | None = None
        if prefix_cache_bytes != 0:
            shape = backbone.cache_shape()
            self._check_cache(shape)
            limit = shape.cache_bytes(prefix_cache_bytes, backbone.dtype)
            self._cache = PrefixCache(limit, shape, backbone.device, backbone.dtype)

    def read(self, rows: Sequence[Row], name: str) -> list[Reading]:
        """Values of all rows; EngineError, with the model's ``name``, for values that are not numbers."""
        readings: dict[int, Reading] = {}
        for wave in self._waves(rows):
            for group in _alike({index: len(rows[index].keys) - self._look_up(rows[index]).tokens for index in wave}):
                # Looked up again: what the group before stored may have taken the place of what was found.
                known = [self._look_up(rows[index]) for index in group]
                values = self._compute([rows[index] for index in group], known, name)
                for index, one, some in zip(group, known, values, strict=True):
                    readings[index] = Reading(some.tolist(), one.tokens)
        return [readings[index] for index in range(len(rows))]

    def release(self) -> None:
        """Free the model and what is stored."""
        self._backbone.release()
        self._cache = None

    def _waves(self, rows: Sequence[Row]) -> Iterator[list[int]]:
        """Rows that begin alike and are not stored: one of them first, then those that can continue it."""
        waiting = list(range(len(rows)))
        while waiting and self._cache is not None:
            first: list[int] = []
            later: list[int] = []
            beginnings: set[tuple[int, ...]] = set()
            for index in waiting:
                keys = rows[index].keys
                end = len(self._cache.known.tree.match(keys)) + WORTH_WAITING
                (later if len(keys) >= end and keys[:end] in beginnings else first).append(index)
                beginnings.add(keys[:end])
            yield first
            waiting = later
        yield waiting

    def _look_up(self, row: Row) -> Known:
        return self._cache.known.look_up(row) if self._cache else Known(np.empty(0, np.int64), np.empty(0))

    def _compute(self, rows: Sequence[Row], known: Sequence[Known], name: str) -> list[Values]:
        """One forward pass over the new tokens of these rows, after which all their values are known."""
        if all(one.tokens == len(row.keys) for row, one in zip(rows, known, strict=True)):
            return [one.values for one in known]
        states, cache = self._states(rows, known)
        missing = [row.positions[len(one.values) :] for row, one in zip(rows, known, strict=True)]
        targets = [target for row, one in zip(rows, known, strict=True) for target in row.targets[len(one.values) :]]
        index = [row for row, places in enumerate(missing) for _ in places]
        columns = [place - one.tokens for places, one in zip(missing, known, strict=True) for place in places]
        new = iter(finite(self._head(states[index, columns], targets).tolist(), name))
        values = [np.append(one.values, list(islice(new, len(some)))) for one, some in zip(known, missing, strict=True)]
        if self._cache is not None and cache is not None:
            self._cache.store(rows, known, values, cache)
        return values

    def _states(self, rows: Sequence[Row], known: Sequence[Known]) -> tuple[torch.Tensor, DynamicCache | None]:
        """Hidden states of the new tokens, right-padded; and the keys and values of all."""
        new = [len(row.token_ids) - one.tokens for row, one in zip(rows, known, strict=True)]
        ids = torch.zeros((len(rows), max(new)), dtype=torch.long)
        for index, (row, one) in enumerate(zip(rows, known, strict=True)):
            ids[index, : new[index]] = torch.tensor(row.token_ids[one.tokens :])
        if self._cache is not None and any(one.tokens for one in known):
            cache = self._cache.past(known)
            arguments = self._continued(torch.tensor([one.tokens for one in known]), max(new))
            return self._backbone.run(ids, cache=cache, **arguments), cache
        empty = None if self._cache is None else DynamicCache()
        mask = (torch.arange(max(new)) < torch.tensor(new)[:, None]).long()
        return self._backbone.run(ids, cache=empty, attention_mask=mask), empty

    def _continued(self, cached: torch.Tensor, width: int) -> dict[str, torch.Tensor]:
        """Positions, and what each new token sees: the stored ones of its row, and the new ones up to itself."""
        cached = cached.to(self._backbone.device)
        offsets = torch.arange(width, device=cached.device)
        positions = cached[:, None] + offsets
        stored = torch.arange(int(cached.max()), device=cached.device)
        # position of every key; those that are padding are put out of sight
        keys = torch.cat([stored.expand(len(cached), -1).clone(), positions], dim=1)
        keys[:, : len(stored)].masked_fill_(stored >= cached[:, None], torch.iinfo(torch.long).max)
        seen = keys[:, None, :] <= positions[:, :, None]
        if self._backbone.window is not None:
            seen &= keys[:, None, :] > positions[:, :, None] - self._backbone.window
        mask = torch.zeros(seen.shape, dtype=self._backbone.dtype, device=cached.device)
        mask.masked_fill_(~seen, torch.finfo(self._backbone.dtype).min)
        last = None if self._backbone.max_context is None else self._backbone.max_context - 1
        return {"attention_mask": mask[:, None], "position_ids": positions.clamp(max=last) if last else positions}

    def _check_cache(self, shape: CacheShape) -> None:
        """Compare rows that continue stored ones with the same rows read whole."""
        ids = [index * 7 % self._backbone.vocabulary for index in range(1, 15)]
        rows = [Row.labelled(ids, [13]), Row.labelled([*ids[:4], *ids[:5]], [8])]
        whole = LocalModel(self._backbone, _Probe(), prefix_cache_bytes=0)
        parts = LocalModel(self._backbone, _Probe(), prefix_cache_bytes=0)
        limit = 2**20 + 64 * shape.bytes_per_token(self._backbone.dtype)
        parts._cache = PrefixCache(limit, shape, self._backbone.device, self._backbone.dtype)
        parts.read([Row.labelled(ids[:9], [8])], "")
        expected, got = ([one.values[0] for one in reader.read(rows, "")] for reader in (whole, parts))
        tolerance = 1e-3 if self._backbone.dtype.itemsize == 4 else 5e-2
        if not all(abs(a - b) <= tolerance * max(1.0, abs(a)) for a, b in zip(expected, got, strict=True)):
            raise ConfigError(
                f"with stored keys this model's hidden states differ ({expected} whole, {got} in parts): "
                "pass prefix_cache_bytes=0 to read it without"
            )


class _Probe:
    """Makes one number of a hidden state."""

    parameters = 0

    def __call__(self, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        weights = torch.linspace(-1, 1, states.shape[-1], dtype=torch.float64, device=states.device)
        return states.double() @ weights


def _alike(lengths: dict[int, int]) -> Iterator[list[int]]:
    """Rows in groups, so that padding at most doubles what is computed, but for a few tokens."""
    group: list[int] = []
    for index in sorted(lengths, key=lengths.__getitem__):
        if group and lengths[index] > 2 * lengths[group[0]] + 16:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


class BatchedPRM(RenderingPRM):
    """A :class:`~adaptive_ttc.prm.base.RewardModel` over models in this process; stored beginnings are not computed
    again.

    There is a transformer for every head of the reader; of the settings, device, dtype, revision and threads concern
    loading alone. ConfigError: keys and values of a model cannot be stored; 0 bytes reads it without.
    """

    def __init__(
        self, reader: Reader, backbones: Sequence[Backbone], *, name: str, fingerprint: str, settings: LocalSettings
    ) -> None:
        parameters = sum(backbone.parameters for backbone in backbones) + sum(head.parameters for head in reader.heads)
        limit = smallest(settings.max_context, *(backbone.max_context for backbone in backbones))
        super().__init__(reader, name=name, fingerprint=fingerprint, parameters=parameters, max_context=limit)
        self._models = [
            LocalModel(backbone, head, prefix_cache_bytes=settings.prefix_cache_bytes)
            for backbone, head in zip(backbones, reader.heads, strict=True)
        ]
        self._batcher: MicroBatcher[Rendered, Scored] = MicroBatcher(
            self._score_batch, length=lambda item: item.tokens, config=settings, name=f"PRM {name}"
        )

    async def score(self, request: ScoreRequest) -> Scored:
        """Score every step, batched with other tasks' requests; errors as the protocol says."""
        rendered = self._rendered(request)
        with engine_errors(self.name):
            return await self._batcher.submit(rendered, more=request.more)

    async def aclose(self) -> None:
        """Fail what is queued, wait for the running batch, and free the models."""
        await self._batcher.aclose()
        for model in self._models:
            model.release()
        self._models = []
        self._reader.heads = ()

    def statistics(self) -> BatcherStatistics:
        """The batcher's."""
        return self._batcher.statistics()

    def _score_batch(self, items: Sequence[Rendered]) -> list[Scored]:
        """Blocking, called in the worker thread."""
        rows = [row for item in items for row in item.rows]
        readings = [iter(model.read(rows, self.name)) for model in self._models]
        results = []
        for item in items:
            mine = [list(islice(some, len(item.rows))) for some in readings]
            # Tokens count once, though two models may read them; what only one has stored, is computed.
            cached = min(sum(reading.cached for reading in some) for some in mine)
            scores = self._reader.scores(item.rows, [[reading.values for reading in some] for some in mine])
            results.append(Scored(scores=scores, prm_tokens=item.tokens - cached, cached_tokens=cached))
        return results
