"""Early-stopping self-consistency: sample in windows, stop when a whole window agrees (arXiv 2401.10480)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.stopping.base import Draw, OneByOne, Pool, fewest_first


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStopping(OneByOne):
    """Windows lie side by side; the answer is the vote over all samples drawn, as without the rule.

    The paper takes windows of 5 to 8 and at most 40 samples. A sample without an answer agrees with nothing (ours).
    """

    window: int = 5

    def __post_init__(self) -> None:
        OneByOne.__post_init__(self)
        if self.window < 2:
            raise ConfigError(f"window={self.window}: a window holds at least 2 samples, or each would agree")

    @property
    def name(self) -> str:
        """``esc``."""
        return "esc"

    def worth(self, draws: Sequence[Draw], pool: Pool | None = None) -> float:
        """Falls with the number of draws; 0 once a window agreed."""
        return 0.0 if self.full(draws) or self.agreed(draws) else fewest_first(draws)

    def samples(self, draws: Sequence[Draw]) -> int:
        """What the window begun still lacks, within ``most``."""
        lacking = self.window - len(draws) % self.window
        return lacking if self.most is None else max(1, min(lacking, self.most - len(draws)))

    def agreed(self, draws: Sequence[Draw]) -> bool:
        """Whether the answers of any whole window are one and the same."""
        for start in range(0, len(draws) - self.window + 1, self.window):
            answer = draws[start].answer
            if answer is not None and all(draws[i].answer == answer for i in range(start + 1, start + self.window)):
                return True
        return False
