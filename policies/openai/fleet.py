"""Which of a fleet's servers serves a request: one that is well, near the prefix, and has the shortest expected wait.

The expected wait is what a token of an answer takes there (an EWMA, see :mod:`adaptive_ttc.policies.openai.pace`) times
the requests in flight, as the balancer "Peak EWMA" of Finagle has it. In large fleets it is compared for a few replicas
that are drawn at random: the power of two choices (Mitzenmacher 2001), or here of eight.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from random import Random

import anyio

from adaptive_ttc.errors import ConfigError, OutageError
from adaptive_ttc.policies.openai.config import FleetConfig
from adaptive_ttc.policies.openai.limits import QUEUED, REFUSED, Limit
from adaptive_ttc.policies.openai.pace import Pace
from adaptive_ttc.policies.openai.prefixes import PrefixMap
from adaptive_ttc.policies.openai.queues import Queue
from adaptive_ttc.tasks import side_by_side

_log = logging.getLogger(__package__)

_CHOICES = 8  # replicas that are compared: several solvers do not all run to the one that looks idle
_EQUAL = 1.25  # times the shortest expected wait, up to which replicas take turns
_SLACK = 0.25  # requests that may wait in a server's queue, of those that it runs, and one: it is never idle then
_FRESH = 3  # intervals for which a look at a queue holds


class UnavailableError(Exception):
    """A replica did not take a request, so it certainly generated nothing for it."""

    def __init__(self, reason: str, *, retry_after: float | None = None, must_check: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after  # seconds of rest that the replica asks for
        self.must_check = must_check  # whether its health is to be checked before another request


class FailedError(UnavailableError):
    """A replica failed before it had sent anything of an answer."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, must_check=True)


@dataclass(slots=True, eq=False)
class Replica:
    """One server of the fleet."""

    url: str  # its base URL, without a slash at the end
    index: int  # its place in the fleet
    limit: Limit = field(default_factory=lambda: Limit(2**31))  # of requests at once
    pace: Pace = field(default_factory=Pace)
    model: str = ""  # the name under which it serves the model; known after its first check
    left_out: set[str] = field(default_factory=set)  # fields of a request that it refused
    tells_stop: bool = False  # whether it is known to say which stop string ended an answer
    in_flight: int = 0  # requests that it is serving for this policy
    served: int = 0  # requests that it was given in all
    reached: bool = False  # whether it has ever answered anything
    ready: bool = False  # whether it may get requests
    must_check: bool = True  # whether its health is to be asked for before it may
    checking: bool = False  # whether a task is asking
    retry_at: float = 0.0  # when it may be tried again
    failures: int = 0  # since it last was well
    trouble: str = "no answer"  # why it is not ready, for a person
    heard: float = 0.0  # when a piece of an answer came, or the first of the requests in flight was sent
    mute: bool = False  # whether requests of it were given up on without a word
    tells_load: bool = True  # whether it may tell the length of its queue
    looked: float = 0.0  # when it was asked for that, or found to be well
    queue: Queue | None = None  # what it said then
    others: int = 0  # requests of other clients in it

    def silence(self, now: float) -> float:
        """Seconds for which it has owed an answer and said nothing."""
        return now - self.heard if self.in_flight or self.mute else 0.0


class Fleet:
    """The replicas, their health and their load. Time is the event loop's.

    A replica that refuses a request rests, longer each time. One that was out of reach, or broke off, is checked before
    it gets another request: by the first request after its rest; the others go elsewhere meanwhile. One that is silent
    gets no request while another one is there.

    Args:
        config: how the fleet is reached.
        check: asks a replica for its health and sets its ``model``; it raises :class:`UnavailableError` if the replica
            is not well.
        random: draws the replicas that are compared.
    """

    def __init__(
        self, config: FleetConfig, check: Callable[[Replica], Awaitable[None]], random: Random | None = None
    ) -> None:
        self._config, self._check, self._random = config, check, random or Random(0)
        self._prefixes = PrefixMap(config.affinity_block)
        self._pace = Pace()  # of all replicas
        self._news = anyio.Event()
        self._waiting = 0
        self._asked_first: float | None = None  # when the first request came
        self.replicas = tuple(
            Replica(url.rstrip("/"), index, Limit(config.max_concurrency)) for index, url in enumerate(config.base_urls)
        )
        self.on_change: Callable[[], None] = lambda: None
        """Called when :attr:`places` may have changed."""

    @property
    def places(self) -> int:
        """Requests that the replicas may serve at once, all together."""
        most = self._config.max_concurrency
        return min(most, sum(one.limit.requests for one in self.replicas if one.ready) or most)

    @asynccontextmanager
    async def replica(self, prompt: Sequence[int], give_up: float) -> AsyncIterator[Replica]:
        """A ready replica, with the request counted to its load; waited for until ``give_up`` (loop time).

        OutageError if none was ready by then (nothing was sent), ConfigError if a replica does not serve the model, or
        none has answered anything ``first_patience`` seconds after the first request.
        """
        if self._asked_first is None:
            self._asked_first = anyio.current_time()
        first = self._asked_first + self._config.first_patience
        while not (chosen := self._choose(ready := await self._ready_by(first), prompt)):
            now = anyio.current_time()
            if self._unknown and now >= min(first, give_up):
                raise self.absent()
            if not ready and now > give_up:
                raise self.exhausted()
            due = min((one.retry_at for one in self.replicas if not (one.ready or one.checking)), default=now + 1.0)
            last = min(first, give_up) if self._unknown else give_up
            await self._wait_for_news(max(0.0, min(due, now + 1.0 if ready else last) - now))
        with self.serving(chosen, prompt):
            yield chosen

    def elsewhere(self, replica: Replica, prompt: Sequence[int]) -> Replica | None:
        """Another one than this that takes a request now and is not silent; None where there is none."""
        ready = [one for one in self.replicas if one.ready and one is not replica]
        chosen = self._choose(ready, prompt, but=replica)
        silent = chosen is not None and chosen.silence(anyio.current_time()) > self._config.suspect_after
        return None if silent else chosen

    @contextmanager
    def serving(self, replica: Replica, prompt: Sequence[int]) -> Iterator[None]:
        """Count a request to a replica's load."""
        self._prefixes.note(prompt, replica.index)
        if not (replica.in_flight or replica.mute):
            replica.heard = anyio.current_time()
        replica.in_flight += 1
        replica.served += 1
        try:
            yield
        finally:
            replica.in_flight -= 1
            self._tell()

    def heard(self, replica: Replica, seconds: float, tokens: int, *, first: bool) -> None:
        """So many tokens of an answer came from a replica after so many seconds; ``first``: they began it."""
        now = anyio.current_time()
        if replica.silence(now) > self._config.suspect_after:
            self._tell()
        replica.heard, replica.mute = now, False
        replica.pace.took(seconds, tokens, now)
        self._pace.took(seconds, tokens, now)
        if first and replica.limit.taken(replica.in_flight):
            self._changed()

    def outrun(self, replica: Replica, since: float) -> None:
        """Another replica answered what this one has owed without a word since that loop time."""
        now = anyio.current_time()
        replica.pace.took(now - since, 1, now)
        replica.mute = replica.mute or replica.heard <= since

    def served(self, replica: Replica, tokens: Sequence[int]) -> None:
        """A replica answered; its cache now holds prompt and answer."""
        replica.failures = 0
        self._prefixes.note(tokens, replica.index)

    def refused(self, replica: Replica, reason: UnavailableError, sent: float | None = None) -> None:
        """A replica did not take a request, ``sent`` at that loop time, or is not well."""
        _log.warning("%s took no request: %s", replica.url, reason)
        now = anyio.current_time()
        if replica.ready or replica.checking:
            self._rest(replica, replica.failures, reason.retry_after or 0.0)
        if sent is not None and not reason.must_check:
            replica.limit.pushed_back(REFUSED, replica.in_flight - 1, sent, now)
        replica.ready = False
        replica.must_check = replica.must_check or reason.must_check
        replica.trouble = str(reason)
        self._changed()

    def broke(self, replica: Replica, reason: str) -> None:
        """A replica broke off an answer; if it died, its cache is lost. One that does so again rests longer."""
        _log.warning("%s broke off an answer: %s", replica.url, reason)
        if replica.ready:
            self._rest(replica, replica.failures - 1)
        replica.ready, replica.must_check, replica.trouble = False, True, reason
        self._changed()

    def must_look(self, replica: Replica) -> bool:
        """Whether a replica is to be asked for its queue now, which is noted as done."""
        now, interval = anyio.current_time(), self._config.load_interval
        if not (interval and replica.tells_load) or now < replica.looked + interval:
            return False
        replica.looked = now
        return True

    def looked(self, replica: Replica, queue: Queue | None) -> None:
        """A replica told its queue; None: it does not tell, and is asked no more."""
        if queue is None:
            replica.tells_load, replica.queue = False, None
            return
        now, before = anyio.current_time(), 0 if replica.queue is None else replica.queue.waiting
        replica.queue, replica.others = queue, max(0, queue.running + queue.waiting - replica.in_flight)
        if queue.waiting > 1 + _SLACK * queue.running and queue.waiting >= before:
            replica.limit.pushed_back(QUEUED, replica.in_flight, now, now)
            self._changed()

    @property
    def _unknown(self) -> bool:
        """Whether no server has ever answered anything."""
        return not any(one.reached for one in self.replicas)

    async def _ready_by(self, first: float) -> list[Replica]:
        """The replicas that take requests; servers that have never answered are asked until ``first`` (loop time), and
        later, as one may have come up, as long each time.
        """
        if not self._unknown:
            return await self._ready()
        left = first - anyio.current_time()
        with anyio.move_on_after(left if left > 0 else self._config.first_patience):
            return await self._ready()
        return []

    def absent(self) -> ConfigError:
        """The error where no server has ever answered."""
        troubles = "; ".join(f"{one.url}: {one.trouble}" for one in self.replicas)
        return ConfigError(
            f"no server is there ({troubles}): start it, name the right base_url, or give first_patience=SECONDS "
            "(in policy_settings) to wait for one that is starting"
        )

    def exhausted(self) -> OutageError:
        """The error when patience has run out; waiting longer would not help, so it is not retryable."""
        troubles = "; ".join(f"{one.url}: {one.trouble}" for one in self.replicas)
        return OutageError(
            f"no replica took a request for {self._config.patience:g} seconds ({troubles}); "
            "start the servers, correct base_urls, or raise patience",
            generated=False,
        )

    def _rest(self, replica: Replica, failures: int, least: float = 0.0) -> None:
        """Leave a replica alone, longer after every failure, the first ``failures`` of them being none."""
        rest = self._config.backoff * min(2**failures, 60) if failures >= 0 else 0.0
        replica.failures += 1
        replica.retry_at = anyio.current_time() + max(rest, least)

    async def _wait_for_news(self, seconds: float) -> None:
        self._waiting += 1
        try:
            with anyio.move_on_after(seconds):
                await self._news.wait()
        finally:
            self._waiting -= 1

    def _tell(self) -> None:
        if self._waiting:
            self._news.set()
            self._news = anyio.Event()

    def _changed(self) -> None:
        self.on_change()
        self._tell()

    async def _ready(self) -> list[Replica]:
        """The replicas that take requests: rested ones again, after a health check where one is due."""
        now = anyio.current_time()
        ready = []
        due = []
        for one in self.replicas:
            if one.mute and one.ready and not one.in_flight and one.silence(now) > self._config.suspect_after:
                self.broke(one, f"it said nothing for {one.silence(now):.0f} seconds")
            if one.ready:
                ready.append(one)
            elif not one.checking and one.retry_at <= now:
                due.append(one)
        if not due:
            return ready
        for one in due:
            one.ready = not one.must_check
        unknown = [one for one in due if one.must_check]
        if len(unknown) < len(due) or ready:
            unknown = unknown[:1]  # this request could go at once, so it pays for one question at most
        if unknown:
            async with side_by_side() as tasks:
                for one in unknown:
                    one.checking = True
                    tasks.start_soon(self._ask, one)
        self.on_change()
        return [one for one in self.replicas if one.ready]

    async def _ask(self, replica: Replica) -> None:
        try:
            await self._check(replica)
            replica.reached = True
        except UnavailableError as reason:
            self.refused(replica, reason)
        else:
            _log.info("%s takes requests", replica.url)
            if replica.failures:
                self._prefixes.forget(replica.index)  # it may have been started anew
                replica.limit.restart(replica.in_flight)
                replica.pace, replica.mute = Pace(), False
            replica.ready, replica.must_check, replica.looked = True, False, anyio.current_time()
        finally:
            replica.checking = False
            self._tell()

    def _choose(self, ready: Sequence[Replica], prompt: Sequence[int], but: Replica | None = None) -> Replica | None:
        """The one with the shortest expected wait, or one that holds the prompt's prefix and is not much behind it;
        None where all have as many requests as they may.

        A prefix shorter than half the prompt does not count: every prompt may begin with the same system message.
        """
        now = anyio.current_time()
        few = self._random.sample(ready, _CHOICES) if len(ready) > _CHOICES else ready
        free = self._free(few, now) or self._free(ready, now)
        free = free or [one for one in ready if one.limit.has_room(one.in_flight)]
        if not free:
            return None
        idlest = self._idlest(free, now)
        indexes, tokens = self._prefixes.find(prompt)
        near_by = [one for one in map(self.replicas.__getitem__, sorted(indexes)) if one.ready and one is not but]
        holders = self._free(near_by, now)
        if not holders or 2 * tokens < len(prompt):
            return idlest
        near = self._idlest(holders, now)
        return near if self._wait(near, now) <= self._wait(idlest, now, self._config.spill) else idlest

    def _free(self, replicas: Sequence[Replica], now: float) -> list[Replica]:
        """Those that may get a request, and are not suspected to hang."""
        patience = self._config.suspect_after
        return [one for one in replicas if one.limit.has_room(one.in_flight) and one.silence(now) <= patience]

    def _idlest(self, replicas: Sequence[Replica], now: float) -> Replica:
        waits = [self._wait(one, now) for one in replicas]
        least = min(waits)
        equal = [one for one, wait in zip(replicas, waits, strict=True) if wait <= _EQUAL * least]
        return min(equal, key=_turn)

    def _wait(self, replica: Replica, now: float, more: int = 0) -> float:
        """Seconds, but for the answer's length, that a request takes, as if there were ``more`` others."""
        pace = replica.pace.per_token(now, self._pace.per_token(now))
        if pace:  # a wait that is under way counts as soon as it is longer than usual
            pace = max(pace, replica.silence(now) / self._config.stream_interval)
        fresh = now - replica.looked <= _FRESH * self._config.load_interval
        return pace * (replica.in_flight + (replica.others if fresh else 0) + 1 + more)


def _turn(replica: Replica) -> tuple[int, int, int]:
    # equally loaded ones take turns
    return replica.in_flight, replica.served, replica.index
