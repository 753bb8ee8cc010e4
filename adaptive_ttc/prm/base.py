"""What a process reward model must offer, and how all refuse empty requests and report failures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from adaptive_ttc.errors import AdaptiveTTCError, ConfigError, EngineError


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """How probable the tokens of a solution were to the policy that sampled them, in nats, at temperature 1.

    Attributes:
        chosen: shape [tokens]: of the sampled tokens; empty where the engine does not tell them.
        top: shape [tokens]: mean log-probability of the most probable tokens at every place; empty where the engine
            does not tell it.
        ends: shape [steps]: how many tokens stand before the end of every step, the last one being all of them.
    """

    chosen: tuple[float, ...]
    top: tuple[float, ...]
    ends: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A question and the non-empty steps of a solution so far (at least one), as text.

    ``tokens`` and ``rivals``, the steps of other finished solutions, are filled in for models whose :class:`Traits` ask
    for them. ``more`` says that other samples are being drawn, whose scores will soon be asked for as well: a model may
    gather them. Whether two requests are equal depends neither on ``tokens`` nor on ``more``.
    """

    question: str
    steps: tuple[str, ...]
    tokens: TokenLogprobs | None = field(default=None, compare=False, repr=False)
    rivals: tuple[tuple[str, ...], ...] = field(default=(), repr=False)
    more: bool = field(default=False, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One score a step.

    Attributes:
        scores: for every step the probability, in [0, 1], that the solution so far is on a path to the right answer.
        prm_tokens: tokens that the PRM computed for it; ``cached_tokens`` its cache answered.
        written_tokens: those of ``prm_tokens`` that it wrote; a model that writes may come to no scores.
    """

    scores: tuple[float, ...]
    prm_tokens: int
    cached_tokens: int = 0
    written_tokens: int = 0


@runtime_checkable
class RewardModel(Protocol):
    """A PRM that scores many requests at once; ``score`` may be called from many tasks.

    ``score`` raises :class:`~adaptive_ttc.errors.EngineError` when the model fails, and
    :class:`~adaptive_ttc.errors.ConfigError` for a request that can never be served.
    """

    @property
    def name(self) -> str:
        """How a person calls this model."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever a score may change: weights, tokenizer, format."""

    @property
    def parameters(self) -> int:
        """Number of parameters that take part in a token's forward pass."""

    def count_tokens(self, request: ScoreRequest) -> int:
        """Tokens that scoring this request computes with an empty cache."""

    async def score(self, request: ScoreRequest) -> Scored:
        """Score every step of one solution."""

    async def aclose(self) -> None:
        """Free the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What sets a reward model apart from one that reads the text of steps; the attribute ``traits`` of such a model.

    Attributes:
        logprobs: it reads the log-probabilities of a solution's tokens.
        top_logprobs: of how many most probable tokens it reads the mean, where the policy tells it; 0: of none.
        free: it computes nothing, and costs nothing whatever a budget counts.
        finished_only: it scores whole solutions, each with one score that stands for all of its steps.
        written: tokens that it writes at most to score one solution (where it compares, for one rival); what it does
            not write is not charged. ``count_tokens`` counts what it reads.
        rivals: with how many other finished solutions of the problem it compares one; 0: it reads each by itself.
    """

    logprobs: bool = False
    top_logprobs: int = 0
    free: bool = False
    finished_only: bool = False
    written: int = 0
    rivals: int = 0


PLAIN = Traits()
CONFIDENCE = "confidence"  # begins the names of models that read the policy's own log-probabilities alone


def traits_of(prm: object) -> Traits:
    """A model's traits; one without the attribute, and None, has none."""
    traits = getattr(prm, "traits", PLAIN)
    return traits if isinstance(traits, Traits) else PLAIN


def check_steps(request: ScoreRequest) -> None:
    """Refuse, as ConfigError, a request without steps or with an empty one: its score would mean nothing."""
    if not request.steps or not all(step.strip() for step in request.steps):
        raise ConfigError(
            f"a PRM scores at least one step, none of them empty; got {len(request.steps)} steps "
            "(adaptive_ttc.types.split_steps leaves the empty ones out)"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Tell a lack of memory from other failures, whatever library raised it."""
    if isinstance(error, MemoryError) or any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__):
        return True
    phrases = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in phrases)


@contextmanager
def engine_errors(name: str) -> Iterator[None]:
    """Raise :class:`EngineError` for any failure inside that is not this library's own error already."""
    try:
        yield
    except AdaptiveTTCError:
        raise
    except Exception as error:
        full = is_out_of_memory(error)
        message = "ran out of memory on a single solution; lower max_tokens, or use a smaller dtype"
        message = f"{name} {message}" if full else f"{name} failed: {type(error).__name__}: {error}"
        raise EngineError(message, retryable=full) from error
