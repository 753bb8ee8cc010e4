"""Random delays and failures for engines without a model, in turns of the event loop; it knows no request."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import anyio.lowlevel

from adaptive_ttc.errors import ConfigError, EngineError


@dataclass(slots=True, kw_only=True)
class Trouble:
    """What may happen to a call whenever its engine turns to it; the same for the same seed and order of calls.

    Attributes:
        seed: of all chances.
        turns: most turns of the event loop that pass before it goes on, so that replies come in another order.
        lost: probability that it fails as over a broken line: retryable, and nobody learns what was computed.
        fatal: probability that it fails for good.
        deaf: whether the engine ignores aborts.

    Raises:
        ConfigError: a value is impossible.
    """

    seed: int
    turns: int = 0
    lost: float = 0.0
    fatal: float = 0.0
    deaf: bool = False
    _chances: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.turns < 0 or min(self.lost, self.fatal) < 0 or self.lost + self.fatal > 1:
            raise ConfigError(f"turns is at least 0, lost and fatal are probabilities; got {self}")
        self._chances = random.Random(self.seed)

    async def befall(self) -> None:
        """Let some turns pass, then go on or fail.

        Raises:
            EngineError: this call fails.
        """
        for _ in range(self._chances.randint(0, self.turns)):
            await anyio.lowlevel.checkpoint()
        chance = self._chances.random() if self.lost or self.fatal else 1.0
        if chance < self.lost:
            raise EngineError("the connection was lost; the same request may succeed later", retryable=True)
        if chance < self.lost + self.fatal:
            raise EngineError("the engine broke down; start it anew")
