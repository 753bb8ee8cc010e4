"""A PRM whose models run in this process: batch what is rendered, read it; it knows no PRM format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from adaptive_ttc.prm.base import Scored, ScoreRequest
from adaptive_ttc.prm.batcher import BatcherConfig, BatcherStatistics, MicroBatcher
from adaptive_ttc.prm.failures import engine_errors
from adaptive_ttc.prm.reader import Reader
from adaptive_ttc.prm.rendering import RenderingPRM, smallest
from adaptive_ttc.prm.row import Rendered
from adaptive_ttc.prm.settings import PREFIX_CACHE_BYTES

if TYPE_CHECKING:
    from adaptive_ttc.prm.causal import Body


class BatchedPRM(RenderingPRM):
    """A :class:`~adaptive_ttc.prm.base.RewardModel` over models in this process.

    What was read is kept: of a solution that goes on from a scored one, only the new steps are computed.

    Args:
        reader: the family's format and heads.
        bodies: a transformer for every head.
        name: how a person calls it.
        fingerprint: see :func:`adaptive_ttc.prm.checkpoint.fingerprint`.
        batching: how requests are batched; lengths are in tokens.
        max_context: tokens it may read, where that is less than the models' configs say.
        prefix_cache_bytes: for each model, see :class:`~adaptive_ttc.prm.settings.LocalSettings`.

    Raises:
        ConfigError: keys and values of a model cannot be stored; 0 bytes reads it without.
    """

    def __init__(
        self,
        reader: Reader,
        bodies: Sequence[Body],
        *,
        name: str,
        fingerprint: str,
        batching: BatcherConfig | None = None,
        max_context: int | None = None,
        prefix_cache_bytes: int = PREFIX_CACHE_BYTES,
    ) -> None:
        from adaptive_ttc.prm.reading import BodyReader

        super().__init__(
            reader,
            name=name,
            fingerprint=fingerprint,
            parameters=sum(body.parameters for body in bodies) + sum(head.parameters for head in reader.heads),
            max_context=smallest(max_context, *(body.max_context for body in bodies)),
        )
        self._models = [
            BodyReader(body, head, prefix_cache_bytes=prefix_cache_bytes)
            for body, head in zip(bodies, reader.heads, strict=True)
        ]
        self._batcher: MicroBatcher[Rendered, Scored] = MicroBatcher(
            self._score_batch, length=lambda item: item.tokens, config=batching, name=f"PRM {name}"
        )

    async def score(self, request: ScoreRequest) -> Scored:
        """Score every step, together with what other tasks ask for.

        Raises:
            ConfigError: as for :meth:`count_tokens`.
            EngineError: the model failed, or it is closed.
        """
        rendered = self._rendered(request)
        with engine_errors(self._name):
            return await self._batcher.submit(rendered)

    async def aclose(self) -> None:
        """Fail what is queued, wait for the batch that runs, and let go of the models."""
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
        readings = [iter(model.read(rows, self._name)) for model in self._models]
        results = []
        for item in items:
            mine: list[list[Any]] = [[next(some) for _ in item.rows] for some in readings]
            # Tokens count once, though two models may read them; what only one has stored, is computed.
            cached = min(sum(reading.cached for reading in some) for some in mine)
            scores = self._reader.scores(item.rows, [[reading.values for reading in some] for some in mine])
            results.append(Scored(scores=scores, prm_tokens=item.tokens - cached, cached_tokens=cached))
        return results
