"""What a process reward model must offer; it knows no policy, strategy or budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A question and the non-empty steps of a solution so far (at least one), as text."""

    question: str
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One score a step.

    Attributes:
        scores: for every step the probability, in [0, 1], that the solution so far is on a path to
            the right answer.
        prm_tokens: tokens that the PRM computed for it; ``cached_tokens`` its cache answered.
    """

    scores: tuple[float, ...]
    prm_tokens: int
    cached_tokens: int = 0


@runtime_checkable
class RewardModel(Protocol):
    """A PRM that scores many requests at once; ``score`` may be called from many tasks.

    ``score`` raises :class:`~adaptive_ttc.errors.EngineError` when the model fails, and
    :class:`~adaptive_ttc.errors.ConfigError` for a request that can never be served.
    """

    @property
    def name(self) -> str:
        """How a person calls this model."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever a score may change: weights, tokenizer, format."""
        ...

    @property
    def parameters(self) -> int:
        """Number of parameters that take part in a token's forward pass."""
        ...

    def count_tokens(self, request: ScoreRequest) -> int:
        """Tokens that scoring this request computes with an empty cache."""
        ...

    async def score(self, request: ScoreRequest) -> Scored:
        """Score every step of one solution."""
        ...

    async def aclose(self) -> None:
        """Free the model."""
        ...
