"""What all requests of one problem share: models, prices, settings, and how policy calls are sent and recalled."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import anyio

from adaptive_ttc.cost import Price
from adaptive_ttc.driver.recording import RunRecorder
from adaptive_ttc.driver.scoring import Scorer
from adaptive_ttc.errors import EngineError
from adaptive_ttc.policy import Policy, Sampled, SampleRequest
from adaptive_ttc.tasks import side_by_side


class PolicyCalls:
    """The policy calls of one round; a recalled one has ``grace`` seconds to come back.

    A task that is cancelled inside ``policy.sample`` would never learn how many tokens its request got. So every call
    runs under a shield, and :meth:`recall` ends it early.
    """

    def __init__(self, policy: Policy, grace: float) -> None:
        self._policy = policy
        self._grace = grace
        self._shields: dict[str, anyio.CancelScope] = {}
        self._recalled = False

    async def sample(self, request: SampleRequest) -> Sampled | None:
        """Call the policy; None when the call was recalled and did not come back within the grace."""
        if self._recalled:
            return Sampled(token_ids=(), finish="abort")
        with anyio.CancelScope(shield=True) as shield:
            self._shields[request.id] = shield
            try:
                return await self._policy.sample(request)
            finally:
                del self._shields[request.id]
        return None

    async def recall(self) -> None:
        """Abort all calls in flight, which return what they have got; calls not sent yet return with nothing."""
        self._recalled = True
        limit = anyio.current_time() + self._grace
        for shield in self._shields.values():
            shield.deadline = limit
        with anyio.CancelScope(shield=True, deadline=limit):
            async with side_by_side() as tasks:
                for request_id in list(self._shields):
                    tasks.start_soon(self._abort, request_id)

    async def _abort(self, request_id: str) -> None:
        # A policy that cannot even abort must not hide why the requests are recalled; the grace bounds the wait.
        with suppress(EngineError):
            await self._policy.abort(request_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverConfig:
    """How requests are sent.

    Attributes:
        attempts: how often a sample's or a score's request may fail with a retryable error, the last failure included,
            before the run fails with it; at least 1.
        grace: seconds that aborted requests have to tell their token counts; after them they are charged in full.
        priority: passed on to the policy.
        finish_tokens: tokens of a solution that are kept so that a tight budget finishes at least one; None keeps its
            worst case, ``max_tokens``. Less lets more samples run from the start, and suffices where solutions are
            known to be shorter.
    """

    attempts: int = 3
    grace: float = 10.0
    priority: int = 0
    finish_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.grace < 0:
            raise ValueError(f"attempts is at least 1 and grace at least 0; got {self.attempts} and {self.grace}")
        if self.finish_tokens is not None and self.finish_tokens < 1:
            raise ValueError(f"finish_tokens is at least 1, or None for max_tokens; got {self.finish_tokens}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """What the expansions of one problem share; ``in_flight`` are the rounds under way, ``stop`` ends the run early."""

    policy: Policy
    scorer: Scorer
    price: Price
    recorder: RunRecorder
    stop: anyio.Event
    config: DriverConfig
    in_flight: set[PolicyCalls]
