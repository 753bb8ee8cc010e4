"""Reward models that run elsewhere with their heads: what comes back is the value at each place that is scored.

It needs neither torch nor weights here. The format is a reader's, as everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.prm.base import Scored, ScoreRequest, engine_errors
from adaptive_ttc.prm.format import Reader, RenderingPRM, Row, smallest
from adaptive_ttc.tasks import side_by_side

Pooling = Literal["states", "steps", "classify", "score"]
"""What an engine or a server gives of a text.

``states``: the hidden states, which a head turns into values here, for every family; ``steps``: its own head's values
at the step tokens (Qwen2.5-Math-PRM, Math-Shepherd); ``classify``: the one of a sequence classifier; ``score``: the one
of a pair of texts, which a server puts together.
"""


@dataclass(frozen=True, slots=True)
class Values:
    """What a source found."""

    values: tuple[float, ...]  # at the row's positions, each in [0, 1]
    computed: int  # tokens that were computed for them


class ValueSource(Protocol):
    """A model elsewhere, with its head. Both methods may be called from many tasks."""

    @property
    def name(self) -> str:
        """Of the model, for errors."""

    @property
    def max_context(self) -> int | None:
        """Tokens that it can read, or None if it does not say."""

    async def values(self, request: ScoreRequest, row: Row) -> Values:
        """The values at a row's positions, of a request that was rendered as this row.

        ConfigError: it can never be read. EngineError: the model failed, or is closed.
        """

    async def aclose(self) -> None:
        """End what runs, and free the model."""


class PooledPRM(RenderingPRM):
    """A :class:`~adaptive_ttc.prm.base.RewardModel` over a model elsewhere that is read by its own head.

    ``parameters`` counts the model with its head.
    """

    def __init__(
        self,
        reader: Reader,
        source: ValueSource,
        *,
        name: str,
        fingerprint: str,
        parameters: int,
        max_context: int | None = None,
    ) -> None:
        limit = smallest(max_context, source.max_context)
        super().__init__(reader, name=name, fingerprint=fingerprint, parameters=parameters, max_context=limit)
        self._source = source
        self._closed = False

    async def score(self, request: ScoreRequest) -> Scored:
        """Score every step; errors as the protocol says."""
        rendered = self._rendered(request)
        if self._closed:
            raise EngineError(f"the PRM {self.name} is closed; make a new one")
        found: list[Values] = [Values((), 0)] * len(rendered.rows)

        async def one(index: int) -> None:
            row = rendered.rows[index]
            found[index] = read = await self._source.values(request, row)
            if len(read.values) != len(row.positions) or not all(0 <= value <= 1 for value in read.values):
                raise EngineError(
                    f"{self._source.name} gave {read.values} where {len(row.positions)} values in [0, 1] were wanted: "
                    "is the model served with its own pooling and activation?"
                )

        with engine_errors(self.name):
            async with side_by_side() as tasks:
                for index in range(len(rendered.rows)):
                    tasks.start_soon(one, index)
        computed = sum(read.computed for read in found)
        if computed > rendered.tokens:
            raise ConfigError(
                f"{self._source.name} read {computed} tokens where {rendered.tokens} were counted, so that no budget "
                f"could hold: pass template_tokens={computed - rendered.tokens} more"
            )
        scores = self._reader.scores(rendered.rows, [[read.values for read in found]])
        return Scored(scores=scores, prm_tokens=computed, cached_tokens=rendered.tokens - computed)

    async def aclose(self) -> None:
        """Wait for running requests, then free the model."""
        self._closed = True
        await self._source.aclose()


def check_pooling(pooling: str, reader: Reader) -> None:
    """Refuse, as ConfigError, what a process reward model cannot be read by."""
    able = ("states",) if reader.step_pooling is None else ("states", "steps")
    if pooling not in able:
        fit = " or ".join(map(repr, able))
        raise ConfigError(f"pooling={pooling!r} does not serve here; this model can be read by {fit}")


def at_positions(values: list[float], row: Row, token: int) -> tuple[float, ...]:
    """Those of values at every place of a step token that stand at the row's positions: a text may hold it itself."""
    places = [place for place, one in enumerate(row.token_ids) if one == token]
    if len(places) != len(values):
        raise EngineError(f"{len(values)} values came for {len(places)} step tokens")
    wanted = {*row.positions}
    return tuple(value for place, value in zip(places, values, strict=True) if place in wanted)
