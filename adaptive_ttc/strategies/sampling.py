"""Independent whole solutions under four votes: greedy, majority, best-of-N, weighted best-of-N.

Majority is self-consistency (arXiv 2203.11171), the weighted vote is that of arXiv 2206.02336.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.strategies.base import Strategy, check_count
from adaptive_ttc.strategies.registry import register
from adaptive_ttc.strategies.requests import Expand, Search
from adaptive_ttc.types import ROOT, Prefix
from adaptive_ttc.voting import VoteName


@dataclass(frozen=True, kw_only=True)
class Sampling(Strategy):
    """``n`` independent samples; one at temperature 0, where all would be the same."""

    slice_size: int | None = None  # most samples asked for at once; None asks for all, so that an engine batches them

    def __post_init__(self) -> None:
        if self.beam_width != 1:
            raise ConfigError(f"{self.name} draws independent samples and has no beam_width; leave it out")
        super().__post_init__()
        if self.slice_size is not None:
            check_count("slice_size", self.slice_size)

    @property
    def drawn(self) -> int:
        """Samples that are worth drawing."""
        return self.n if self.temperature > 0 else 1

    def search(self, start: Sequence[Prefix] = ()) -> Search:
        """Draw until there are enough samples, evidence included; all that hold a token are candidates."""
        candidates = [prefix for prefix in start if _ended(prefix)]
        begun = [prefix for prefix in start if not _ended(prefix)]
        missing = max(0, self.drawn - len(candidates))
        parents = [*begun[:missing], *[ROOT] * (missing - len(begun))]
        size = self.slice_size or self.n
        for first in range(0, len(parents), size):
            children = yield from Expand(
                prefixes=tuple(parents[first : first + size]),
                max_tokens=self.max_tokens,
                temperature=self.temperature,
                top_p=self.top_p,
                score=self.scored,
                **self.thinking,
                beside=tuple(parent for parent in parents[first + size :] if parent.token_ids),
            )
            candidates += [child for child in children if child.token_ids]
            if children[-1].finish in ("budget", "abort"):
                break
        return tuple(candidates)


@register("greedy")
@dataclass(frozen=True, kw_only=True)
class Greedy(Sampling):
    """One sample of the likeliest tokens."""

    temperature: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n != 1 or self.temperature != 0:
            raise ConfigError(
                f"greedy is one sample at temperature 0; got n={self.n}, temperature={self.temperature}: "
                "leave them out, or take majority"
            )


@register("majority", "self_consistency")
@dataclass(frozen=True, kw_only=True)
class Majority(Sampling):
    """The most frequent answer of ``n`` samples."""


@register("best_of_n")
@dataclass(frozen=True, kw_only=True)
class BestOfN(Sampling):
    """The answer of the sample with the best score."""

    vote: VoteName = "best"


@register("weighted_best_of_n")
@dataclass(frozen=True, kw_only=True)
class WeightedBestOfN(Sampling):
    """The answer whose samples' scores have the largest sum."""

    vote: VoteName = "weighted"


def _ended(prefix: Prefix) -> bool:
    return prefix.finish in ("eos", "length")
