"""Sequential revision: attempts that see earlier attempts, in chains side by side; it knows no engine or budget.

Source: arXiv 2408.03314, section 6: up to four earlier attempts are shown, and the vote is over all attempts
of all chains, since a right answer may well be revised into a wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.requests import Expand, Fork, Search
from adaptive_ttc.strategies.base import Strategy, check_count, register
from adaptive_ttc.types import ROOT, Prefix, revision_of
from adaptive_ttc.voting import VoteName

SHOWN = 4
"""Most earlier attempts that a new one is shown."""


@register("revision")
@dataclass(frozen=True, kw_only=True)
class Revision(Strategy):
    """``n`` attempts in chains of ``sequential``.

    Attributes:
        sequential: attempts in a chain, of which ``n / sequential`` run side by side; by default the least
            divisor of ``n`` from its square root on, so that the two are in balance. Easy problems favour
            longer chains.
    """

    n: int = 16
    vote: VoteName = "weighted"
    sequential: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beam_width != 1:
            raise ConfigError("revision keeps and prunes nothing and has no beam_width; leave it out")
        if self.sequential is not None:
            check_count("sequential", self.sequential)
            if self.n % self.sequential:
                nearest = -(-self.n // self.sequential) * self.sequential
                raise ConfigError(f"n={self.n} is not a multiple of sequential={self.sequential}; take n={nearest}")

    @property
    def revises(self) -> bool:
        """The policy is shown its earlier attempts."""
        return True

    @property
    def chain(self) -> int:
        """Attempts in a chain."""
        if self.sequential is not None:
            return self.sequential
        return next(length for length in range(math.isqrt(self.n - 1) + 1, self.n + 1) if self.n % length == 0)

    def search(self, start: Sequence[Prefix] = ()) -> Search:
        """Run all chains; every attempt is a candidate. Evidence is dealt to the chains as their first attempts."""
        dealt = sorted(start, key=lambda prefix: prefix.finish not in ("eos", "length"))
        chains = self.n // self.chain
        results = yield from Fork(
            searches=tuple(self._chain(dealt[index::chains]) for index in range(chains)), least=self.max_tokens
        )
        attempts = [attempt for result in results for attempt in result]
        cut = [attempt for attempt in attempts if attempt.finish == "budget"]
        if cut:
            ended = yield from self._attempts(cut)
            attempts = [attempt for attempt in attempts if attempt.finish != "budget"] + list(ended)
        return tuple(attempt for attempt in attempts if attempt.token_ids)

    def _chain(self, dealt: Sequence[Prefix]) -> Search:
        attempts = [prefix for prefix in dealt if prefix.finish in ("eos", "length")]
        begun = list(dealt[len(attempts) :])
        while len(attempts) < self.chain:
            shown = [attempt for attempt in attempts if attempt.finished][-SHOWN:]
            parent = begun.pop(0) if begun else revision_of(*shown) if shown else ROOT
            (attempt,) = yield from self._attempts([parent])
            attempts.append(attempt)
            if attempt.finish in ("budget", "abort"):
                break
        return tuple(attempts)

    def _attempts(self, parents: Sequence[Prefix]) -> Expand:
        return Expand(
            prefixes=tuple(parents),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            score=self.scored,
        )
