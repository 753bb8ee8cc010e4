"""What all requests of one problem share: models, prices, settings, what ends it, and how policy calls are sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import anyio
from anyio.abc import TaskGroup

from adaptive_ttc.cost import Price
from adaptive_ttc.driver.boundary import CheckedPolicy
from adaptive_ttc.driver.health import Health
from adaptive_ttc.driver.recording import RunRecorder
from adaptive_ttc.driver.scoring import Scorer
from adaptive_ttc.errors import AdaptiveTTCError, ConfigError, EngineError, OverdueError
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policy import Sampled, SampleRequest
from adaptive_ttc.tasks import Signal, call_in_task


class Halt:
    """What ends a problem early: the event ``stop``, or the first error that is final; nothing is begun then."""

    def __init__(self, stop: Signal) -> None:
        self._stop = stop
        self._ended = Signal()
        self.error: AdaptiveTTCError | None = None
        self.of_policy: EngineError | None = None  # the same, where it is the policy's own failure
        self.last_error: AdaptiveTTCError | None = None  # of any call

    def is_set(self) -> bool:
        """Whether it was ended."""
        return self._stop.is_set() or self._ended.is_set()

    def fail(self, error: AdaptiveTTCError, *, of_policy: bool = False) -> None:
        """End it; what is in flight is recalled, what was drawn is kept. ``of_policy``: a call of the policy failed."""
        if self.error is None:
            self.error, self.of_policy = error, error if of_policy and isinstance(error, EngineError) else None
        self.last_error = error
        self._ended.set()

    def go_on(self) -> None:
        """Begin again after an error that the problem outlives; nothing may be in flight."""
        self.error, self.of_policy, self._ended = None, None, Signal()

    @contextmanager
    def on_failure(self, *, of_policy: bool = False) -> Iterator[None]:
        """End it with whatever error of ours is raised inside."""
        try:
            yield
        except AdaptiveTTCError as error:
            self.fail(error, of_policy=of_policy)

    @contextmanager
    def calling(self, call: Callable[[], None]) -> Iterator[None]:
        """Meanwhile, follow ``stop``, and have a function called at the end."""
        with self._ended.calling(call), self._stop.calling(self._ended.set):
            yield

    async def wait(self) -> None:
        """Wait for the end."""
        await self._ended.wait()


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a call: a sample, an error, both (some tokens came, late), or neither: nobody will learn it."""

    sampled: Sampled | None = None
    error: AdaptiveTTCError | None = None
    sent: bool = True

    def tokens(self, granted: int) -> int:
        """Tokens that have to be paid for, of those ``granted``: all where it may have generated and did not tell."""
        if not self.sent:
            return 0
        if self.sampled is not None:
            return len(self.sampled.token_ids)
        return granted if self.error is None or self.error.generated else 0

    def hedged(self, reserved: int) -> int:
        """Tokens that have to be paid for beside those, of the ``reserved`` ones, likewise."""
        return self.sampled.hedged_tokens if self.sampled is not None else self.tokens(reserved)


UNSENT = Reply(sent=False)
LOST = Reply()


@dataclass(slots=True, eq=False)
class _Call:
    shield: anyio.CancelScope
    limit: float  # seconds that it may take
    overdue: bool = False


class PolicyCalls:
    """The policy calls of one round, in ``tasks``; one that is recalled or overdue has ``grace`` seconds to come back.

    A task that is cancelled inside ``policy.sample`` would never learn how many tokens its request got. So every call
    runs under a shield, and :meth:`recall`, or the time at which it is overdue, ends it early.
    """

    def __init__(self, policy: CheckedPolicy, health: Health, grace: float, tasks: TaskGroup) -> None:
        self._policy = policy
        self._health = health
        self._grace = grace
        self._tasks = tasks
        self._calls: dict[str, _Call] = {}
        self._recalled = False

    async def sample(self, request: SampleRequest) -> Reply:
        """Call the policy, unless calls were recalled or the policy is gone."""
        breaker, speed = self._health.policy, self._health.samples
        if self._recalled or not breaker.admits():
            return UNSENT
        loop = asyncio.get_running_loop()
        started, reply = loop.time(), LOST
        with anyio.CancelScope(shield=True) as shield:
            call = self._calls[request.id] = _Call(shield, speed.limit(request.max_tokens))
            timer = loop.call_at(started + call.limit, call_in_task, partial(self._give_up, request.id))
            try:
                reply = Reply(await self._policy.sample(request))
            except AdaptiveTTCError as failure:
                reply = Reply(error=failure)
            finally:
                timer.cancel()
                del self._calls[request.id]
                if reply is LOST:
                    breaker.withdrawn()
        sampled, error = reply.sampled, reply.error
        if call.overdue and error is None and (sampled is None or sampled.finish == "abort"):
            error = OverdueError(
                f"a call of {self._policy.name} for {request.max_tokens:,} tokens did not come back in "
                f"{call.limit:,.0f} s and was aborted (DriverConfig.call_timeout says how long one may take)",
                retryable=True,
            )
        if sampled is not None and error is None:
            speed.took(loop.time() - started, len(sampled.token_ids))
        if error is not None:
            breaker.failed(error)
        elif sampled is not None:
            breaker.succeeded()
        return reply if error is reply.error else Reply(sampled, error)

    def recall(self) -> None:
        """Abort all calls in flight, which return what they have got; calls not sent yet are not sent."""
        self._recalled = True
        for request_id in self._calls:
            self._end_soon(request_id)

    def _give_up(self, request_id: str) -> None:
        """A call is overdue, unless it came back just now."""
        if request_id in self._calls:
            self._calls[request_id].overdue = True
            self._end_soon(request_id)

    def _end_soon(self, request_id: str) -> None:
        call = self._calls[request_id]
        call.shield.deadline = min(call.shield.deadline, anyio.current_time() + self._grace)
        self._tasks.start_soon(self._abort, request_id)

    async def _abort(self, request_id: str) -> None:
        # A policy that cannot even abort must not hide why the requests are recalled, nor hold them up.
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + self._grace), suppress(EngineError):
            await self._policy.abort(request_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverConfig:
    """How requests are sent, and what is done where they fail. Times are in seconds.

    Attributes:
        attempts: how often in a row a sample's or a score's request may fail with a retryable error, the last failure
            included, before the problem fails with it; at least 1. What fails while the engine is gone does not count.
        grace: that aborted requests have to tell their token counts; after them they are charged in full.
        priority: passed on to the policy.
        logprobs: whether engines that it slows down tell log-probabilities; None: where something reads them: in
            adaptive runs, votes weighted by them, and PRMs such as ``confidence``.
        finish_tokens: tokens of a solution that are kept so that a tight budget finishes at least one; None keeps its
            worst case, ``max_tokens``. Less lets more samples run from the start, and suffices where solutions are
            known to be shorter.
        call_timeout: after which a policy's call is aborted and repeated, its wait in the engine's queue included; None
            fits it to the engine: a minute and ten times what a call takes by those before, ten minutes and more for
            the first.
        score_timeout: the same of a PRM's call.
        patience: that an engine may be gone before the run ends with what it has, or goes on with the other policy of
            a cascade.
        loss_share: of the budget; where calls that failed cost more, likewise.
    """

    attempts: int = 3
    grace: float = 10.0
    priority: int = 0
    logprobs: bool | None = None
    finish_tokens: int | None = None
    call_timeout: float | None = None
    score_timeout: float | None = None
    patience: float = 60.0
    loss_share: float = 0.1

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.grace < 0:
            raise ValueError(f"attempts is at least 1 and grace at least 0; got {self.attempts} and {self.grace}")
        if self.finish_tokens is not None and self.finish_tokens < 1:
            raise ValueError(f"finish_tokens is at least 1, or None for max_tokens; got {self.finish_tokens}")
        for name in ("call_timeout", "score_timeout"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                raise ConfigError(f"{name} is a positive number of seconds, or None to fit the engine; got {seconds}")
        if not self.patience >= 0 or not 0 <= self.loss_share <= 1:
            raise ConfigError(
                f"patience={self.patience} must be at least 0 seconds, loss_share={self.loss_share} a share from 0 to 1"
            )

    def health(self) -> Health:
        """The health of engines that nothing is known of."""
        return Health(self.patience, self.loss_share, self.call_timeout, self.score_timeout)

    def second_health(self, first: Health) -> Health:
        """That of a second policy, which nothing is known of; the PRM is that of the ``first``."""
        health = self.health()
        health.prm, health.scores = first.prm, first.scores
        return health


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """What the expansions of one problem share; ``in_flight`` are the rounds under way, ``halt`` ends it early.

    ``budget`` is the account of the whole run, of which ``health`` says how much calls may risk.
    """

    policy: CheckedPolicy
    scorer: Scorer
    price: Price
    recorder: RunRecorder
    halt: Halt
    config: DriverConfig
    health: Health
    budget: Ledger
    in_flight: dict[PolicyCalls, None]  # in the order in which they began, so that all are recalled in that order

    def recall(self) -> None:
        """Recall what is in flight: the problem is to end."""
        self.health.wake()
        self.scorer.recall()
        for calls in tuple(self.in_flight):
            calls.recall()
