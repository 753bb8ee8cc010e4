"""Chooses the replica that serves a request: healthy, near the prefix, little loaded; it knows no protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from adaptive_ttc.errors import EngineError
from adaptive_ttc.policies.openai.affinity import Held, PrefixMap
from adaptive_ttc.policies.openai.config import FleetConfig
from adaptive_ttc.tasks import side_by_side


class UnavailableError(Exception):
    """A replica did not take a request, so that it certainly generated nothing for it.

    Args:
        reason: for a person.
        retry_after: seconds that it asked for, or None.
        must_check: whether it is to be asked for its health before it gets another request.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None, must_check: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.must_check = must_check


@dataclass(slots=True, eq=False)
class Replica:
    """One server of the fleet.

    Attributes:
        url: its base URL, without a slash at the end.
        index: its place in the fleet.
        model: the name under which it serves the model; known after its first check.
        tells_stop: whether it is known to say which stop string ended an answer.
        in_flight: requests that it is serving for this policy.
        served: requests that it was given in all.
        ready: whether it may get requests.
        must_check: whether its health is to be asked for before it may.
        checking: whether a task is asking.
        retry_at: when it may be tried again.
        failures: since it last was well.
        trouble: why it is not ready, for a person.
    """

    url: str
    index: int
    model: str = ""
    tells_stop: bool = False
    in_flight: int = 0
    served: int = 0
    ready: bool = False
    must_check: bool = True
    checking: bool = False
    retry_at: float = 0.0
    failures: int = 0
    trouble: str = field(default="not asked yet")


class Fleet:
    """The replicas, their health and their load.

    A replica that refuses a request rests, longer each time. One that was out of reach, or broke off, is asked for
    its health before it gets another request: by the first request that comes after its rest, the others meanwhile
    go elsewhere.

    Args:
        config: addresses, patience and waits.
        check: asks a replica for its health and sets its ``model``; raises :class:`UnavailableError` if it is not well.
    """

    def __init__(self, config: FleetConfig, check: Callable[[Replica], Awaitable[None]]) -> None:
        self._config = config
        self._check = check
        self._prefixes = PrefixMap(config.affinity_block) if config.affinity_block else None
        self._news = anyio.Event()
        self.replicas = tuple(Replica(url.rstrip("/"), index) for index, url in enumerate(config.base_urls))

    @asynccontextmanager
    async def replica(self, prompt: Sequence[int], give_up: float) -> AsyncIterator[Replica]:
        """A replica that is ready, with the request counted to its load.

        Args:
            prompt: token ids.
            give_up: until when, on the event loop's clock, to wait for one.

        Raises:
            EngineError: none was ready by then; nothing was sent.
            ConfigError: a replica does not serve the model.
        """
        chosen = await self._wait_for_one(prompt, give_up)
        if self._prefixes is not None:
            self._prefixes.note(prompt, chosen.index)
        chosen.in_flight += 1
        chosen.served += 1
        try:
            yield chosen
        finally:
            chosen.in_flight -= 1

    def served(self, replica: Replica, tokens: Sequence[int]) -> None:
        """A replica answered; its cache now holds prompt and answer."""
        replica.failures = 0
        if self._prefixes is not None:
            self._prefixes.note(tokens, replica.index)

    def refused(self, replica: Replica, reason: UnavailableError) -> None:
        """A replica did not take a request."""
        if replica.ready or replica.checking:
            replica.failures += 1
            rest = self._config.backoff * min(2 ** (replica.failures - 1), 60)
            replica.retry_at = anyio.current_time() + max(rest, reason.retry_after or 0.0)
        replica.ready = False
        replica.must_check = replica.must_check or reason.must_check
        replica.trouble = str(reason)

    def broke(self, replica: Replica, reason: str) -> None:
        """A replica broke off an answer; if it died, its cache died with it."""
        replica.ready, replica.must_check, replica.trouble = False, True, reason
        replica.retry_at = anyio.current_time()

    def exhausted(self) -> EngineError:
        """What to tell a person whose patience was in vain. Waiting longer would not help, so it is not retryable."""
        troubles = "; ".join(f"{one.url}: {one.trouble}" for one in self.replicas)
        return EngineError(
            f"no replica took a request for {self._config.patience:g} seconds ({troubles}); "
            "start the servers, correct base_urls, or raise patience"
        )

    async def _wait_for_one(self, prompt: Sequence[int], give_up: float) -> Replica:
        while True:
            await self._look_after_due()
            ready = [one for one in self.replicas if one.ready]
            if ready:
                return self._choose(ready, prompt)
            now = anyio.current_time()
            if now > give_up:
                raise self.exhausted()
            due = min((one.retry_at for one in self.replicas if not one.checking), default=give_up)
            with anyio.move_on_after(max(0.0, min(due, give_up) - now)):
                await self._news.wait()

    async def _look_after_due(self) -> None:
        """Let rested replicas take requests again, those that must after asking them."""
        now = anyio.current_time()
        due = [one for one in self.replicas if not (one.ready or one.checking) and one.retry_at <= now]
        for one in due:
            one.ready = not one.must_check
        unknown = [one for one in due if one.must_check]
        if any(one.ready for one in self.replicas):
            unknown = unknown[:1]  # this request could go at once, so it pays for one question at most
        async with side_by_side() as tasks:
            for one in unknown:
                one.checking = True
                tasks.start_soon(self._ask, one)

    async def _ask(self, replica: Replica) -> None:
        try:
            await self._check(replica)
        except UnavailableError as reason:
            self.refused(replica, reason)
        else:
            if replica.failures and self._prefixes is not None:
                self._prefixes.forget(replica.index)  # it may have been started anew
            replica.ready, replica.must_check = True, False
        finally:
            replica.checking = False
            self._news.set()
            self._news = anyio.Event()

    def _choose(self, ready: Sequence[Replica], prompt: Sequence[int]) -> Replica:
        """The least loaded of those that hold the prompt's prefix, unless another one is much less loaded.

        A prefix shorter than half the prompt is no reason: every prompt may begin with the same system message.
        """
        idlest = min(ready, key=_load)
        held = self._prefixes.find(prompt) if self._prefixes is not None else Held(frozenset(), 0)
        holders = [one for one in ready if one.index in held.replicas]
        if not holders or 2 * held.tokens < len(prompt):
            return idlest
        near = min(holders, key=_load)
        return near if near.in_flight <= idlest.in_flight + self._config.spill else idlest


def _load(replica: Replica) -> tuple[int, int, int]:
    # equally loaded ones take turns
    return replica.in_flight, replica.served, replica.index
