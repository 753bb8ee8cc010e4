"""Servers of one model: how they are reached, and which of them serves a request (healthy, near the prefix, idle)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import anyio

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.tasks import side_by_side

Api = Literal["tokens", "chat", "text"]
"""``tokens``: completions of token ids by servers that name the ids they generate (vLLM, SGLang, llama.cpp).

``chat``: chats, which any server takes (Ollama, hosted APIs). ``text``: completions of text. Neither of the two can go
on from a half-written solution token for token, so they serve whole samples alone.
"""

REMEDY = (
    "for greedy, majority, best_of_n, weighted_best_of_n and revision, which draw whole samples, any server will do "
    "(api='chat'); for all others serve the model with one that names token ids, such as vLLM or SGLang (api='tokens')"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetConfig:
    """How a fleet of servers is reached. Times are in seconds.

    Attributes:
        base_urls: of replicas that serve the same model, each up to and with ``/v1``.
        api: how they are spoken to; see :data:`Api`.
        model: the name under which they serve it; None takes the only one that a replica serves.
        api_key: sent as a bearer token; None sends none.
        max_concurrency: requests in flight at once, over all replicas; more wait here, in order of priority.
        connect_timeout: to set up a connection, and for an answer to a health check.
        stall_timeout: between two pieces of an answer, waiting in the server's queue included.
        request_timeout: for one whole answer.
        patience: how long a request waits for a replica to be there (again) before the run fails.
        backoff: first wait after a replica refused or was out of reach; doubled each time, up to 60 times as long.
        affinity_block: tokens in a block of the map that remembers which replica computed which prefix; 0 turns
            the map off, for a router that knows prefixes itself.
        spill: so many more requests than the least loaded replica may the one with the prefix have.
        stream_interval: tokens in one piece of an answer, where the engine can be told (vLLM); an aborted sample
            tells its tokens to within so many. A piece costs this process the same whatever it holds: on vLLM 0.32
            0.3 ms of processor time a token with pieces of 1, 0.1 ms with 8.
        logprobs: ask for the log-probability of every token.
        standard_fields: send what OpenAI's own API knows and nothing else, for hosted APIs that refuse the rest; their
            defaults for top-k, penalties and the like then stand.
        extra: put into every request's body, over what stands there.
    """

    base_urls: tuple[str, ...]
    api: Api = "tokens"
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    max_concurrency: int = 256
    connect_timeout: float = 5.0
    stall_timeout: float = 120.0
    request_timeout: float = 1800.0
    patience: float = 60.0
    backoff: float = 0.25
    affinity_block: int = 32
    spill: int = 8
    stream_interval: int = 8
    logprobs: bool = True
    standard_fields: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.base_urls:
            raise ConfigError("base_urls is empty; give at least one, such as http://localhost:8000/v1")
        if self.api not in get_args(Api):
            raise ConfigError(f"api={self.api!r} is not one of {', '.join(get_args(Api))}")
        for url in self.base_urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.netloc:
                raise ConfigError(f"{url!r} is no base URL; give one such as http://localhost:8000/v1")
        if len({url.rstrip("/") for url in self.base_urls}) < len(self.base_urls):
            raise ConfigError(f"a base URL stands twice in {', '.join(self.base_urls)}; name every replica once")
        least = {
            "max_concurrency": 1,
            "stream_interval": 1,
            "patience": 0,
            "backoff": 0,
            "affinity_block": 0,
            "spill": 0,
        }
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least {bound}")
        for name in ("connect_timeout", "stall_timeout", "request_timeout"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be a positive number of seconds")
        own = {"model", "prompt", "messages", "max_tokens", "seed", "stream", "n", "stop"} & set(self.extra)
        if own:
            raise ConfigError(f"extra may not set {', '.join(sorted(own))}: the policy sets them for every request")


class UnavailableError(Exception):
    """A replica did not take a request, so that it certainly generated nothing for it.

    It may ask for so many seconds of rest (``retry_after``), or have to be asked for its health before another request.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None, must_check: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.must_check = must_check


@dataclass(slots=True, eq=False)
class Replica:
    """One server of the fleet."""

    url: str  # its base URL, without a slash at the end
    index: int  # its place in the fleet
    model: str = ""  # the name under which it serves the model; known after its first check
    tells_stop: bool = False  # whether it is known to say which stop string ended an answer
    in_flight: int = 0  # requests that it is serving for this policy
    served: int = 0  # requests that it was given in all
    ready: bool = False  # whether it may get requests
    must_check: bool = True  # whether its health is to be asked for before it may
    checking: bool = False  # whether a task is asking
    retry_at: float = 0.0  # when it may be tried again
    failures: int = 0  # since it last was well
    trouble: str = "not asked yet"  # why it is not ready, for a person


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
        self._prefixes = PrefixMap(config.affinity_block)
        self._news = anyio.Event()
        self.replicas = tuple(Replica(url.rstrip("/"), index) for index, url in enumerate(config.base_urls))

    @asynccontextmanager
    async def replica(self, prompt: Sequence[int], give_up: float) -> AsyncIterator[Replica]:
        """A replica that is ready, with the request counted to its load; waited for until ``give_up`` (loop time).

        Raises:
            EngineError: none was ready by then; nothing was sent.
            ConfigError: a replica does not serve the model.
        """
        chosen = await self._wait_for_one(prompt, give_up)
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
            if replica.failures:
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
        replicas, tokens = self._prefixes.find(prompt)
        holders = [one for one in ready if one.index in replicas]
        if not holders or 2 * tokens < len(prompt):
            return idlest
        near = min(holders, key=_load)
        return near if near.in_flight <= idlest.in_flight + self._config.spill else idlest


def _load(replica: Replica) -> tuple[int, int, int]:
    # equally loaded ones take turns
    return replica.in_flight, replica.served, replica.index


class PrefixMap:
    """Which replica computed which prefix, block by block; the least recently used blocks are forgotten.

    The real caches hold whole blocks of tokens, find them by a chain of hashes from the prompt's first token on, and
    forget the least recently used (vLLM's automatic prefix caching); this map does the same with names for blocks.

    Args:
        block: tokens in a block; 0 remembers nothing.
        capacity: blocks remembered; a block takes about 200 bytes here.
    """

    def __init__(self, block: int, capacity: int = 250_000) -> None:
        self._block = block
        self._capacity = capacity
        self._blocks: OrderedDict[int, frozenset[int]] = OrderedDict()

    def find(self, tokens: Sequence[int]) -> tuple[frozenset[int], int]:
        """The replicas that computed the longest known prefix of a prompt, and the tokens of that prefix."""
        held = (frozenset[int](), 0)
        for index, key in enumerate(self._chain(tokens)):
            replicas = self._blocks.get(key)
            if not replicas:
                break
            held = (replicas, (index + 1) * self._block)
        return held

    def note(self, tokens: Sequence[int], replica: int) -> None:
        """A replica is about to compute, or has computed, these tokens."""
        for key in self._chain(tokens):
            self._blocks[key] = self._blocks.get(key, frozenset()) | {replica}
            self._blocks.move_to_end(key)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)

    def forget(self, replica: int) -> None:
        """A replica has lost its cache."""
        for key, replicas in self._blocks.items():
            self._blocks[key] = replicas - {replica}

    def _chain(self, tokens: Sequence[int]) -> Iterator[int]:
        key = 0
        for start in range(0, len(tokens) - self._block + 1, self._block) if self._block else ():
            key = hash((key, *tokens[start : start + self._block]))
            yield key
