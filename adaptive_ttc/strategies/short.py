"""short-m@k: of k samples that are begun together, the first m that end are voted on.

Source: arXiv 2505.17813: where a model thinks, its shorter thoughts are right more often, and those that are still
thinking when enough have answered are the dearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.strategies.base import check_count
from adaptive_ttc.strategies.registry import register
from adaptive_ttc.strategies.requests import Expand, Search
from adaptive_ttc.strategies.sampling import Sampling
from adaptive_ttc.types import ROOT, Prefix

FIRST = 3  # samples that are waited for, where nothing else is said


@register("short_m_at_k")
@dataclass(frozen=True, kw_only=True)
class ShortMAtK(Sampling):
    """``n`` samples side by side, until the first ``m`` have ended; the others are aborted, and charged as far as they
    came. Of answers with equal votes that with the shorter solutions leads.
    """

    vote_length: float = 1e-3
    m: int | None = None  # samples that are waited for; 3 by default, or all of fewer

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.m is not None:
            check_count("m", self.m)
            if self.m > self.n:
                raise ConfigError(f"m={self.m} samples cannot be waited for among n={self.n}; take n={self.m} or more")
        if self.slice_size is not None:
            raise ConfigError(f"{self.name} begins all samples together and has no slice_size; leave it out")

    @property
    def awaited(self) -> int:
        """Samples that are waited for."""
        return min(self.m or FIRST, self.drawn)

    def search(self, start: Sequence[Prefix] = ()) -> Search:
        """Begin what is missing, evidence included, and hand in the ``m`` shortest that ended; where the budget left
        fewer, the unfinished ones as well.
        """
        known = [prefix for prefix in start if prefix.finish in ("eos", "length")]
        begun = [prefix for prefix in start if prefix.finish not in ("eos", "length")]
        missing = max(0, self.drawn - len(known))
        awaited = self.awaited - sum(prefix.finished for prefix in known)
        if missing and awaited > 0:
            known += yield from Expand(
                prefixes=(*begun[:missing], *[ROOT] * (missing - len(begun))),
                max_tokens=self.max_tokens,
                temperature=self.temperature,
                top_p=self.top_p,
                score=self.scored,
                **self.thinking,
                first=awaited,
            )
        ended = sorted((one for one in known if one.finished), key=lambda one: (len(one.token_ids), one.path))
        if len(ended) >= self.awaited:
            return tuple(ended[: self.awaited])
        return tuple(one for one in known if one.token_ids)
