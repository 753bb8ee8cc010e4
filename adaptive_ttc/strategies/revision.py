"""Sequential revision: attempts that see earlier attempts, in chains side by side.

Source: arXiv 2408.03314, section 6: up to four earlier attempts are shown, and the vote is over all attempts of all
chains, since a right answer may well be revised into a wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.strategies.base import Strategy, check_count
from adaptive_ttc.strategies.registry import register
from adaptive_ttc.strategies.requests import Expand, Fork, Search
from adaptive_ttc.types import ROOT, Prefix, revision_of
from adaptive_ttc.voting import VoteName

SHOWN = 4  # most earlier attempts that a new one is shown


@register("revision")
@dataclass(frozen=True, kw_only=True)
class Revision(Strategy):
    """``n`` attempts in chains of ``sequential``."""

    n: int = 16
    vote: VoteName = "weighted"
    # attempts in each of ``n / sequential`` chains; by default the least divisor of ``n`` from its square root on. Easy
    # problems favour longer chains.
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
        """Run all chains; every attempt is a candidate. Evidence is dealt to the chains as their first attempts.

        What a chain leaves of its part of the budget goes to those that were cut, which continue in the middle of the
        attempt; what stays cut is handed in unfinished.
        """
        dealt = sorted(start, key=lambda prefix: prefix.finish not in ("eos", "length"))
        number = self.n // self.chain
        chains = [Chain.of(self, dealt[index::number]) for index in range(number)]
        growing = chains
        while growing:
            before = [chain.tokens for chain in growing]
            yield from Fork(searches=tuple(chain.grow() for chain in growing), least=self.max_tokens)
            moved = before != [chain.tokens for chain in growing]
            growing = [chain for chain in growing if chain.cut] if moved else []
        return tuple(attempt for chain in chains for attempt in chain.attempts if attempt.token_ids)

    def attempt(self, parent: Prefix) -> Expand:
        """One whole solution."""
        return Expand(
            prefixes=(parent,),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            score=self.scored,
            **self.thinking,
        )


@dataclass(slots=True)
class Chain:
    """One chain, which can be continued after its budget cut it."""

    settings: Revision  # of the search
    attempts: list[Prefix]  # so far, oldest first
    begun: list[Prefix]  # unfinished evidence, whose attempts come first

    @classmethod
    def of(cls, settings: Revision, dealt: Sequence[Prefix]) -> Chain:
        """A chain that continues from evidence, whole solutions first."""
        ended = [prefix for prefix in dealt if prefix.finish in ("eos", "length")]
        return cls(settings, ended, list(dealt[len(ended) :]))

    @property
    def cut(self) -> bool:
        """Whether the budget cut its last attempt."""
        return bool(self.attempts) and self.attempts[-1].finish == "budget"

    @property
    def tokens(self) -> int:
        """Tokens of all its attempts."""
        return sum(len(attempt.token_ids) for attempt in self.attempts)

    def grow(self) -> Search:
        """Attempt after attempt, each shown the finished ones before it, until the chain is cut or whole."""
        while self.cut or len(self.attempts) < self.settings.chain:
            (attempt,) = yield from self.settings.attempt(self._parent())
            self.attempts.append(attempt)
            if attempt.finish in ("budget", "abort"):
                break
        return tuple(self.attempts)

    def _parent(self) -> Prefix:
        if self.cut:
            return self.attempts.pop()
        if self.begun:
            return self.begun.pop(0)
        shown = [attempt for attempt in self.attempts if attempt.finished][-SHOWN:]
        return revision_of(*shown) if shown else ROOT
