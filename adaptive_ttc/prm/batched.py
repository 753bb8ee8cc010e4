"""A PRM whose models run in this process: render, check the length, batch, read; it knows no PRM format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.base import Scored, ScoreRequest
from adaptive_ttc.prm.batcher import BatcherConfig, BatcherStatistics, MicroBatcher
from adaptive_ttc.prm.failures import engine_errors
from adaptive_ttc.prm.reader import Reader
from adaptive_ttc.prm.row import Rendered
from adaptive_ttc.prm.settings import PREFIX_CACHE_BYTES

if TYPE_CHECKING:
    from adaptive_ttc.prm.causal import Body

RENDER_CACHE = 512
"""Rendered requests that are kept: the same one is counted, then scored."""


class Rendering:
    """What every PRM does before its models: refuse what cannot be scored, render the rest, once.

    Args:
        reader: the family's format.
        name: of the PRM, for errors.
        max_context: tokens that a model can read, or None.
    """

    def __init__(self, reader: Reader, name: str, max_context: int | None) -> None:
        self._name, self.max_context = name, max_context
        self._render: Callable[[ScoreRequest], Rendered] = lru_cache(maxsize=RENDER_CACHE)(
            lambda request: Rendered(reader.render(request))
        )

    def __call__(self, request: ScoreRequest) -> Rendered:
        """The request in the family's format.

        Raises:
            ConfigError: no step, an empty one, or a solution longer than the context.
        """
        check_steps(request)
        rendered = self._render(request)
        if self.max_context is not None and rendered.longest > self.max_context:
            raise ConfigError(
                f"the solution is {rendered.longest} tokens long for the PRM {self._name}, its context is "
                f"{self.max_context}: it cannot be scored; lower max_tokens, or use a PRM with a longer context"
            )
        return rendered


class BatchedPRM:
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

        self._name, self._fingerprint, self._reader = name, fingerprint, reader
        self._parameters: int = sum(body.parameters for body in bodies) + sum(head.parameters for head in reader.heads)
        self._rendered = Rendering(reader, name, smallest(max_context, *(body.max_context for body in bodies)))
        self._models = [
            BodyReader(body, head, prefix_cache_bytes=prefix_cache_bytes)
            for body, head in zip(bodies, reader.heads, strict=True)
        ]
        self._batcher: MicroBatcher[Rendered, Scored] = MicroBatcher(
            self._score_batch, length=lambda item: item.tokens, config=batching, name=f"PRM {name}"
        )

    @property
    def name(self) -> str:
        """The folder or Hub name it was loaded from."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """Covers weights, config, tokenizer, chat template, number format and the reader's version."""
        return self._fingerprint

    @property
    def parameters(self) -> int:
        """Those that take part in a token's forward pass; an embedding table, being a look-up, does not."""
        return self._parameters

    @property
    def max_context(self) -> int | None:
        """Tokens that it can read; None if its config does not say."""
        return self._rendered.max_context

    def count_tokens(self, request: ScoreRequest) -> int:
        """Tokens that the model reads to score this request.

        Raises:
            ConfigError: no step, an empty one, or a solution longer than the context. The last is not
                a failure of the run: that solution can have no score.
        """
        return self._rendered(request).tokens

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


def check_steps(request: ScoreRequest) -> None:
    """Refuse a request without steps, or with an empty one, which a PRM would score as if it said something.

    Raises:
        ConfigError: see above.
    """
    if not request.steps or not all(step.strip() for step in request.steps):
        raise ConfigError(
            f"a PRM scores at least one step, none of them empty; got {len(request.steps)} steps "
            "(adaptive_ttc.types.split_steps leaves the empty ones out)"
        )


def smallest(*limits: int | None) -> int | None:
    """The smallest limit of those that are set."""
    return min((limit for limit in limits if limit is not None), default=None)
