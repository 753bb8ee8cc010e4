"""Reads rows with one model, computing only what no earlier row shares; it knows no request and no format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.kv.pool import CacheShape
from adaptive_ttc.prm.causal import Body, checked
from adaptive_ttc.prm.prefix_cache import Known, PrefixCache, Values
from adaptive_ttc.prm.reader import Head
from adaptive_ttc.prm.row import Row

if TYPE_CHECKING:
    import torch
    from transformers import DynamicCache

WORTH_WAITING = 32
"""Tokens that a row of a batch must share with an earlier one to be computed after it rather than beside it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of a row: the values at its positions, and how many of its tokens were not computed."""

    values: tuple[float, ...]
    cached: int


class BodyReader:
    """One model, the head that is read there, and the prefixes that it has read. One thread calls it.

    Rows are computed together if their new tokens are about as many. A row that begins as another of the
    same batch does waits for that one. In float32 a value is the same whatever is stored and whatever the
    batch, but for rounding.

    Args:
        body: the model.
        head: turns its hidden states into values.
        prefix_cache_bytes: memory for keys and values; 0 computes every row from its start.

    Raises:
        ConfigError: keys and values of this model cannot be stored.
    """

    def __init__(self, body: Body, head: Head, *, prefix_cache_bytes: int) -> None:
        self._body, self._head = body, head
        self._cache: PrefixCache | None = None
        if prefix_cache_bytes:
            shape = body.cache_shape()
            self._check_cache(shape)
            self._cache = PrefixCache(prefix_cache_bytes, shape, body.device, body.dtype)

    def read(self, rows: Sequence[Row], name: str) -> list[Reading]:
        """Values of all rows; ``name`` is the model's in errors.

        Raises:
            EngineError: the model put out something that is not a number.
        """
        readings: dict[int, Reading] = {}
        for wave in self._waves(rows):
            for group in _alike({index: len(rows[index].keys) - self._look_up(rows[index]).tokens for index in wave}):
                # Looked up again: what the group before stored may have taken the place of what was found.
                known = [self._look_up(rows[index]) for index in group]
                values = self._compute([rows[index] for index in group], known, name)
                for index, one, some in zip(group, known, values, strict=True):
                    readings[index] = Reading(tuple(some.tolist()), one.tokens)
        return [readings[index] for index in range(len(rows))]

    def release(self) -> None:
        """Let go of the model and of what is stored."""
        self._body.release()
        self._cache = None

    def _waves(self, rows: Sequence[Row]) -> Iterator[list[int]]:
        """Rows that begin alike and are not stored: one of them first, then those that can go on from it."""
        if self._cache is None:
            yield list(range(len(rows)))
            return
        waiting = list(range(len(rows)))
        while waiting:
            first: list[int] = []
            later: list[int] = []
            beginnings: set[tuple[int, ...]] = set()
            for index in waiting:
                keys = rows[index].keys
                end = self._cache.known.stored(rows[index]) + WORTH_WAITING
                (later if len(keys) >= end and keys[:end] in beginnings else first).append(index)
                beginnings.add(keys[:end])
            yield first
            waiting = later

    def _look_up(self, row: Row) -> Known:
        if self._cache is None:
            return Known(np.empty(0, np.int64), np.empty(0))
        return self._cache.known.look_up(row)

    def _compute(self, rows: Sequence[Row], known: Sequence[Known], name: str) -> list[Values]:
        """One forward pass over what is not known of these rows; then all their values are."""
        if all(one.tokens == len(row.keys) for row, one in zip(rows, known, strict=True)):
            return [one.values for one in known]
        states, cache = self._states(rows, known)
        wanted = [
            [(index, place - one.tokens, place) for place in row.positions[len(one.values) :]]
            for index, (row, one) in enumerate(zip(rows, known, strict=True))
        ]
        flat = list(chain.from_iterable(wanted))
        pairs = zip(rows, known, strict=True)
        targets = list(chain.from_iterable(row.targets[len(one.values) :] for row, one in pairs))
        picked = states[[index for index, _, _ in flat], [column for _, column, _ in flat]]
        new = iter(checked(self._head(picked, targets).tolist(), name))
        values = [np.append(one.values, [next(new) for _ in some]) for one, some in zip(known, wanted, strict=True)]
        if self._cache is not None and cache is not None:
            self._cache.store(rows, known, values, cache)
        return values

    def _states(self, rows: Sequence[Row], known: Sequence[Known]) -> tuple[torch.Tensor, DynamicCache | None]:
        """Hidden states of the new tokens, right-padded; and the keys and values of all."""
        import torch
        from transformers import DynamicCache

        new = [len(row.token_ids) - one.tokens for row, one in zip(rows, known, strict=True)]
        ids = torch.zeros((len(rows), max(new)), dtype=torch.long)
        for index, (row, one) in enumerate(zip(rows, known, strict=True)):
            ids[index, : new[index]] = torch.tensor(row.token_ids[one.tokens :])
        cache: DynamicCache | None
        arguments: dict[str, Any]
        if self._cache is None or not any(one.tokens for one in known):
            cache = None if self._cache is None else DynamicCache()
            arguments = {"attention_mask": (torch.arange(max(new)) < torch.tensor(new)[:, None]).long()}
        else:
            cache = self._cache.past(known)
            arguments = self._going_on(torch.tensor([one.tokens for one in known]), max(new))
        return self._body.run(ids, cache=cache, **arguments), cache

    def _going_on(self, cached: torch.Tensor, width: int) -> dict[str, torch.Tensor]:
        """Positions, and what each new token sees: the stored ones of its row, and the new ones up to itself."""
        import torch

        cached = cached.to(self._body.device)
        offsets = torch.arange(width, device=cached.device)
        positions = cached[:, None] + offsets
        stored = torch.arange(int(cached.max()), device=cached.device)
        # position of every key; those that are padding are put out of sight
        keys = torch.cat([stored.expand(len(cached), -1).clone(), positions], dim=1)
        keys[:, : len(stored)].masked_fill_(stored >= cached[:, None], torch.iinfo(torch.long).max)
        seen = keys[:, None, :] <= positions[:, :, None]
        if self._body.window is not None:
            seen &= keys[:, None, :] > positions[:, :, None] - self._body.window
        mask = torch.zeros(seen.shape, dtype=self._body.dtype, device=cached.device)
        mask.masked_fill_(~seen, torch.finfo(self._body.dtype).min)
        last = None if self._body.max_context is None else self._body.max_context - 1
        return {"attention_mask": mask[:, None], "position_ids": positions.clamp(max=last) if last else positions}

    def _check_cache(self, shape: CacheShape) -> None:
        """Compare rows that go on from stored ones with the same rows read whole."""
        ids = [index * 7 % self._body.vocabulary for index in range(1, 15)]
        rows = [Row.labelled(ids, [13]), Row.labelled([*ids[:4], *ids[:5]], [8])]
        whole = BodyReader(self._body, _Probe(), prefix_cache_bytes=0)
        parts = BodyReader(self._body, _Probe(), prefix_cache_bytes=0)
        parts._cache = PrefixCache(2**20 + 64 * shape.bytes_per_token(self._body.dtype), shape, *_place(self._body))
        parts.read([Row.labelled(ids[:9], [8])], "")
        expected, got = ([one.values[0] for one in reader.read(rows, "")] for reader in (whole, parts))
        tolerance = 1e-3 if self._body.dtype.itemsize == 4 else 5e-2
        if not all(abs(a - b) <= tolerance * max(1.0, abs(a)) for a, b in zip(expected, got, strict=True)):
            raise ConfigError(
                f"with stored keys this model's hidden states differ ({expected} whole, {got} in parts): "
                "pass prefix_cache_bytes=0 to read it without"
            )


class _Probe:
    """Makes one number of a hidden state."""

    parameters = 0

    def __call__(self, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        import torch

        weights = torch.linspace(-1, 1, states.shape[-1], dtype=torch.float64, device=states.device)
        return states.double() @ weights


def _place(body: Body) -> tuple[torch.device, torch.dtype]:
    return body.device, body.dtype


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
