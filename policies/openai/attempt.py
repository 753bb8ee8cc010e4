"""One request at one replica: what was sent, what came, and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from adaptive_ttc.policies.openai.answer import Answer
from adaptive_ttc.policies.openai.fleet import Replica
from adaptive_ttc.policies.openai.protocol import Chunk
from adaptive_ttc.policy import Sampled, SampleRequest

NOTHING = Sampled(token_ids=(), finish="abort")
"""What comes of a request that delivers nothing."""


@dataclass(slots=True, eq=False)
class Attempt:
    """A request under way; times are the event loop's."""

    request: SampleRequest
    replica: Replica
    sent: float = field(default_factory=anyio.current_time)
    heard: float = field(default_factory=anyio.current_time)  # when the last piece came; at first when it was sent
    body: Mapping[str, Any] = field(default_factory=dict)  # what was sent last
    answer: Answer | None = None  # so far
    tokens: int = 0  # that came, about
    longest: float = 0.0  # wait for a piece
    begun: Sampled = NOTHING  # what another attempt had delivered, from which this one goes on
    goes_on: Callable[[], bool] = lambda: True  # asked at every piece whether more is wanted
    left: bool = False  # whether it was left, as no more was wanted

    @property
    def prompt(self) -> tuple[int, ...]:
        """What it goes on from."""
        return self.request.prompt_ids

    def take(self, chunk: Chunk) -> tuple[float, int]:
        """An event of the answer came; the seconds that its tokens took, and their number, 0 where it has none."""
        new = len(chunk.token_ids or ()) or int(bool(chunk.text or chunk.reasoning))
        new = max(new, (chunk.completion_tokens or 0) - self.tokens)
        if not new:
            return 0.0, 0
        now = anyio.current_time()
        waited, self.heard = now - self.heard, now
        self.tokens += new
        self.longest = max(self.longest, waited)
        return waited, new

    def aborted(self) -> Sampled:
        """What came of it so far."""
        return self.answer.aborted() if self.answer else NOTHING
