"""What every reader of a local model shares: render, check the length, batch, report; it knows no PRM format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.base import Scored, ScoreRequest
from adaptive_ttc.prm.batcher import BatcherConfig, BatcherStatistics, MicroBatcher
from adaptive_ttc.prm.failures import engine_errors

RENDER_CACHE = 512
"""Rendered requests that are kept: the same one is counted, then scored."""


class Rendered(Protocol):
    """A request in the model's own format."""

    @property
    def tokens(self) -> int:
        """Tokens that the model reads."""
        ...


RenderedT = TypeVar("RenderedT", bound=Rendered)


class BatchedPRM(ABC, Generic[RenderedT]):
    """A :class:`~adaptive_ttc.prm.base.RewardModel` over a model in this process.

    A subclass renders a request and scores a batch of rendered ones; both are called with checked input.

    Args:
        name: how a person calls it.
        fingerprint: see :func:`adaptive_ttc.prm.checkpoint.fingerprint`.
        parameters: those that take part in a token's forward pass.
        max_context: tokens that it can read, or None.
        batching: how requests are batched; lengths are in tokens.
    """

    def __init__(
        self, *, name: str, fingerprint: str, parameters: int, max_context: int | None, batching: BatcherConfig | None
    ) -> None:
        self._name, self._fingerprint, self._parameters = name, fingerprint, parameters
        self._max_context = max_context
        self._rendered: Callable[[ScoreRequest], RenderedT] = lru_cache(maxsize=RENDER_CACHE)(self._render)
        self._batcher: MicroBatcher[RenderedT, tuple[float, ...]] = MicroBatcher(
            self._score_batch, length=lambda item: item.tokens, config=batching, name=f"PRM {name}"
        )

    @abstractmethod
    def _render(self, request: ScoreRequest) -> RenderedT:
        """Put a request that has steps, none of them empty, into the model's format."""

    @abstractmethod
    def _score_batch(self, items: Sequence[RenderedT]) -> list[tuple[float, ...]]:
        """Scores of every item's steps; blocking, called in the worker thread."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of the weights."""

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
        return self._max_context

    def count_tokens(self, request: ScoreRequest) -> int:
        """Tokens that the model reads to score this request.

        Raises:
            ConfigError: no step, an empty one, or a solution longer than the context. The last is not
                a failure of the run: that solution can have no score.
        """
        return self._checked(request).tokens

    async def score(self, request: ScoreRequest) -> Scored:
        """Score every step, together with what other tasks ask for.

        Raises:
            ConfigError: as for :meth:`count_tokens`.
            EngineError: the model failed, or it is closed.
        """
        rendered = self._checked(request)
        with engine_errors(self._name):
            scores = await self._batcher.submit(rendered)
        return Scored(scores=scores, prm_tokens=rendered.tokens)

    async def aclose(self) -> None:
        """Fail what is queued, wait for the batch that runs, and let go of the model."""
        await self._batcher.aclose()
        self._release()

    def statistics(self) -> BatcherStatistics:
        """The batcher's."""
        return self._batcher.statistics()

    def _checked(self, request: ScoreRequest) -> RenderedT:
        check_steps(request)
        rendered = self._rendered(request)
        if self._max_context is not None and rendered.tokens > self._max_context:
            raise ConfigError(
                f"the solution is {rendered.tokens} tokens long for the PRM {self._name}, its context is "
                f"{self._max_context}: it cannot be scored; lower max_tokens, or use a PRM with a longer context"
            )
        return rendered


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
