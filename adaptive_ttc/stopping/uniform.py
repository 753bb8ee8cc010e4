"""The same number of samples for every problem: the baseline that a rule must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptive_ttc.stopping.base import Draw, OneByOne, Pool, fewest_first


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform(OneByOne):
    """Samples for the problem with the fewest, until the budget or ``most`` ends it (self-consistency, 2203.11171)."""

    @property
    def name(self) -> str:
        """``uniform``."""
        return "uniform"

    def worth(self, draws: Sequence[Draw], pool: Pool | None = None) -> float:
        """Falls with the number of draws."""
        return 0.0 if self.full(draws) else fewest_first(draws)
