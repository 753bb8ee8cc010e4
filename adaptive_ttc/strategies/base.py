"""What every strategy is: a checked configuration that starts searches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, get_args

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.strategies.requests import Search
from adaptive_ttc.types import Aggregation, Prefix
from adaptive_ttc.voting import VOTES, VoteName, VoteWeights

AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)


@dataclass(frozen=True, kw_only=True)
class Strategy(ABC):
    """One way to spend samples on a problem. Subclasses are registered by :func:`register`.

    Attributes:
        n: samples, or beams.
        beam_width: children per kept beam; ``n`` is a multiple of it. 1 where nothing is kept or pruned.
        temperature: 0 is greedy.
        top_p: nucleus mass in (0, 1].
        max_tokens: most tokens of one solution.
        think_tokens: most tokens of a reasoning model's thinking in one solution, after which it is made to answer; 0
            for no thinking, None for no limit. Some of ``max_tokens`` are kept for the answer (256, or a quarter).
        min_think_tokens: a thought that ends with fewer tokens is made to go on (``Wait``; budget forcing, arXiv
            2501.19393), ``waits`` times at most; None: whatever its length.
        agg_strategy: how the scores of a solution's steps become one.
        vote: how scored solutions become one answer; all but ``majority`` need a PRM.
        vote_b: the score at which a solution speaks neither for nor against its answer, in the logit-weighted vote.
        vote_power, vote_logprob, vote_length, vote_answer: how much a vote counts, see
            :class:`adaptive_ttc.voting.VoteWeights`.

    Raises:
        ConfigError: a value is impossible; the message says which are possible.
    """

    name: ClassVar[str]

    n: int = 1
    beam_width: int = 1
    temperature: float = 0.8
    top_p: float = 1.0
    max_tokens: int = 2048
    think_tokens: int | None = None
    min_think_tokens: int | None = None
    waits: int = 0
    agg_strategy: Aggregation = "last"
    vote: VoteName = "majority"
    vote_b: float = 0.5
    vote_power: float = 1.0
    vote_logprob: float = 0.0
    vote_length: float = 0.0
    vote_answer: float = 0.0

    def __post_init__(self) -> None:
        for key in ("n", "beam_width", "max_tokens"):
            check_count(key, getattr(self, key))
        self._check_thinking()
        if self.n % self.beam_width:
            nearest = -(-self.n // self.beam_width) * self.beam_width
            raise ConfigError(f"n={self.n} is not a multiple of beam_width={self.beam_width}; take n={nearest}")
        if not self.temperature >= 0:
            raise ConfigError(f"temperature is at least 0; got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is above 0 and at most 1; got {self.top_p}")
        if not 0 < self.vote_b < 1:
            raise ConfigError(f"vote_b is strictly between 0 and 1; got {self.vote_b}")
        if self.vote not in VOTES:
            raise ConfigError(f"unknown vote {self.vote!r}; choose one of {', '.join(VOTES)}")
        if self.agg_strategy not in AGGREGATIONS:
            raise ConfigError(f"unknown agg_strategy {self.agg_strategy!r}; choose one of {', '.join(AGGREGATIONS)}")

        _ = self.vote_weights  # checks them

    def _check_thinking(self) -> None:
        for key in ("think_tokens", "min_think_tokens", "waits"):
            value = getattr(self, key)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
                none = "" if key == "waits" else ", or None"
                raise ConfigError(f"{key} is a whole number of at least 0{none}; got {value!r}")
        if self.min_think_tokens and not self.waits:
            raise ConfigError("min_think_tokens says which thoughts go on; say how often with waits, as in waits=2")
        if self.think_tokens is not None and (self.min_think_tokens or 0) > self.think_tokens:
            raise ConfigError(f"min_think_tokens={self.min_think_tokens} is above think_tokens={self.think_tokens}")

    @property
    def thinking(self) -> dict[str, Any]:
        """How long its solutions think, as fields of :class:`~adaptive_ttc.strategies.requests.Expand`."""
        return {name: getattr(self, name) for name in ("think_tokens", "min_think_tokens", "waits")}

    @cached_property
    def vote_weights(self) -> VoteWeights:
        """How much a solution's vote counts."""
        return VoteWeights(self.vote_power, self.vote_logprob, self.vote_length, self.vote_answer)

    @property
    def scored(self) -> bool:
        """Whether it needs a PRM."""
        return self.vote != "majority"

    @property
    def stepwise(self) -> bool:
        """Whether it continues unfinished solutions step by step, and so needs the scores of steps."""
        return False

    @property
    def revises(self) -> bool:
        """Whether it shows the policy its earlier attempts, which a policy should have been trained for."""
        return False

    @abstractmethod
    def search(self, start: Sequence[Prefix] = ()) -> Search:
        """Begin a search from evidence: finished solutions stay candidates, unfinished ones are continued first."""


def check_count(key: str, value: object) -> None:
    """Refuse all but whole numbers of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{key} is a whole number of at least 1; got {value!r}")
