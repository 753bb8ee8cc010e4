"""PRMs whose transformers run elsewhere and send hidden states, which a family's heads turn into values here, once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import anyio.to_thread
import numpy as np
import torch

from adaptive_ttc.errors import EngineError
from adaptive_ttc.prm.base import Scored, ScoreRequest, engine_errors
from adaptive_ttc.prm.format import Head, Reader, RenderingPRM, Row, finite, smallest
from adaptive_ttc.prm.prefix_cache import Known, KnownValues
from adaptive_ttc.tasks import side_by_side

REMEMBERED = 2**21
"""Tokens whose values are remembered for each model: more than its cache holds, so that none is computed twice."""


class StateSource(Protocol):
    """A model elsewhere. Both methods may be called from many tasks."""

    @property
    def name(self) -> str:
        """Of the model, for errors."""

    @property
    def max_context(self) -> int | None:
        """Tokens that it can read, or None if it does not say."""

    async def states(self, token_ids: tuple[int, ...], *, whole: bool) -> torch.Tensor:
        """Read a row: float32 hidden states of shape (tokens, hidden size) of its last tokens.

        With ``whole`` these are all tokens; otherwise a beginning that a prefix cache holds may be left out.
        ConfigError: the row can never be read. EngineError: the model failed, or is closed.
        """

    async def aclose(self) -> None:
        """End what runs, and free the model."""


class RemoteModel:
    """One model elsewhere, the head that is read there, and the values of up to ``capacity`` tokens."""

    def __init__(self, source: StateSource, head: Head, capacity: int = REMEMBERED) -> None:
        self.source, self._head = source, head
        self._known = KnownValues(capacity)
        self._lock = threading.Lock()

    async def read(self, row: Row) -> tuple[list[float], int]:
        """The values at a row's positions, and how many tokens were computed for them; errors as the source's."""
        known = self._look_up(row)
        computed = 0
        while known.tokens < len(row.keys):
            states = await self.source.states(row.token_ids, whole=computed > 0)
            computed += len(states)
            known = self._look_up(row)
            if known.tokens < len(row.keys) and row.positions[len(known.values)] >= len(row.keys) - len(states):
                known = await anyio.to_thread.run_sync(self._finish, row, known, states)
            # else its cache has a prefix of which nothing is known here: once more, the whole row
        return known.values.tolist(), computed

    def _look_up(self, row: Row) -> Known:
        with self._lock:
            return self._known.look_up(row)

    def _finish(self, row: Row, known: Known, states: torch.Tensor) -> Known:
        """Read the missing values."""
        missing = len(known.values)
        picked = states[[place - len(row.keys) for place in row.positions[missing:]]]  # the last tokens' states
        with torch.inference_mode():
            new = finite(self._head(picked, row.targets[missing:]).tolist(), self.source.name)
        values = np.append(known.values, new)
        with self._lock:
            self._known.insert(row, values)
        return Known(np.empty(len(row.keys), np.int64), values)


class RemotePRM(RenderingPRM):
    """A :class:`~adaptive_ttc.prm.base.RewardModel` over models elsewhere (one for every head), which batch by
    themselves.

    The fingerprint is that of the transformers engine in this number format; ``parameters`` counts the models without
    heads; ``max_context`` is the least of that given and the models' own.
    """

    def __init__(
        self,
        reader: Reader,
        models: Sequence[RemoteModel],
        *,
        name: str,
        fingerprint: str,
        parameters: int,
        max_context: int | None = None,
    ) -> None:
        limit = smallest(max_context, *(model.source.max_context for model in models))
        parameters += sum(head.parameters for head in reader.heads)
        super().__init__(reader, name=name, fingerprint=fingerprint, parameters=parameters, max_context=limit)
        self._models = tuple(models)
        self._closed = False

    async def score(self, request: ScoreRequest) -> Scored:
        """Score every step; errors as the protocol says."""
        rendered = self._rendered(request)
        if self._closed:
            raise EngineError(f"the PRM {self.name} is closed; make a new one")
        read: list[list[tuple[list[float], int]]] = [[([], 0) for _ in rendered.rows] for _ in self._models]

        async def one(model: int, row: int) -> None:
            read[model][row] = await self._models[model].read(rendered.rows[row])

        with engine_errors(self.name):
            async with side_by_side() as tasks:
                for model in range(len(self._models)):
                    for row in range(len(rendered.rows)):
                        tasks.start_soon(one, model, row)
        # Tokens count once, though two models may read them; what only one has stored, is computed.
        computed = max(sum(tokens for _, tokens in rows) for rows in read)
        scores = self._reader.scores(rendered.rows, [[values for values, _ in rows] for rows in read])
        return Scored(scores=scores, prm_tokens=computed, cached_tokens=max(0, rendered.tokens - computed))

    async def aclose(self) -> None:
        """Wait for running requests, then free the models."""
        self._closed = True
        for model in self._models:
            await model.source.aclose()
