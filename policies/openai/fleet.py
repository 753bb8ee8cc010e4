"""Servers of one model: how they are reached, and which of them serves a request (healthy, near the prefix, idle)."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import anyio

from adaptive_ttc.errors import ConfigError, OutageError
from adaptive_ttc.policies.secrets import Credentials, check_key, redacted, split_credentials
from adaptive_ttc.tasks import side_by_side

_log = logging.getLogger(__package__)

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
        base_urls: of replicas that serve the same model, each up to and with ``/v1``. User and password, if a URL has
            them (``http://user:password@host/v1``), are kept apart.
        credentials: these, by base URL.
        api: the protocol; see :data:`Api`.
        model: its name on the servers; None takes the only one that a replica serves.
        api_key: sent as a bearer token; None sends none.
        max_concurrency: requests in flight at once, over all replicas; more wait here, in order of priority.
        connect_timeout: to set up a connection, and for an answer to a health check.
        stall_timeout: between two pieces of an answer, waiting in the server's queue included.
        request_timeout: for one whole answer.
        patience: how long a request waits for a replica to be there (again) before the run fails.
        backoff: first wait after a replica refused or was out of reach; doubled each time, up to 60 times as long.
        affinity_block: tokens in a block of the map from prefixes to replicas; 0 turns it off, for a router with its
            own.
        spill: how many more requests than the least loaded replica the one with the prefix may have.
        stream_interval: tokens in one piece of an answer, where the engine can be told (vLLM), and so the precision of
            an aborted sample. A piece costs this process the same whatever it holds: on vLLM 0.32 0.3 ms of processor
            time a token with pieces of 1, 0.1 ms with 8.
        logprobs: ask for the log-probability of every token.
        standard_fields: send only what OpenAI's own API knows, for hosted APIs that refuse the rest; their defaults for
            top-k, penalties and the like then apply.
        thinking_field: the field of a request in which servers of whole samples take ``think_tokens``, the most tokens
            of thinking, such as ``thinking_token_budget`` (vLLM) or ``chat_template_kwargs.thinking_budget``; None:
            they take none.
        extra: put into every request's body, replacing what is there.
    """

    base_urls: tuple[str, ...]
    credentials: Mapping[str, Credentials] = field(init=False, repr=False)
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
    thinking_field: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.base_urls:
            raise ConfigError("base_urls is empty; give at least one, such as http://localhost:8000/v1")
        if self.api not in get_args(Api):
            raise ConfigError(f"api={self.api!r} is not one of {', '.join(get_args(Api))}")
        if self.api_key:
            check_key(self.api_key)
        servers = [split_credentials(url, example="http://localhost:8000/v1") for url in self.base_urls]
        object.__setattr__(self, "base_urls", tuple(url for url, _ in servers))
        found = {url.rstrip("/"): credentials for url, credentials in servers if credentials}
        object.__setattr__(self, "credentials", found)
        if len({url.rstrip("/") for url in self.base_urls}) < len(self.base_urls):
            raise ConfigError(f"a base URL stands twice in {', '.join(self.base_urls)}; name every replica once")
        for name in ("max_concurrency", "stream_interval", "patience", "backoff", "affinity_block", "spill"):
            bound = 1 if name in ("max_concurrency", "stream_interval") else 0
            if not getattr(self, name) >= bound:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least {bound}")
        for name in ("connect_timeout", "stall_timeout", "request_timeout"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be a positive number of seconds")
        own = {"model", "prompt", "messages", "max_tokens", "seed", "stream", "n", "stop"} & set(self.extra)
        if own:
            raise ConfigError(f"extra may not set {', '.join(sorted(own))}: the policy sets them for every request")

    def redacted(self, text: str) -> str:
        """A text, such as what a server said, without the key and the passwords."""
        return redacted(text, (self.api_key, *self.credentials.values()))


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
    model: str = ""  # the name under which it serves the model; known after its first check
    left_out: set[str] = field(default_factory=set)  # fields of a request that it refused
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

    A replica that refuses a request rests, longer each time. One that was out of reach, or broke off, is checked before
    it gets another request: by the first request after its rest; the others go elsewhere meanwhile. ``check`` asks a
    replica for its health and sets its ``model``; it raises :class:`UnavailableError` if the replica is not well.
    """

    def __init__(self, config: FleetConfig, check: Callable[[Replica], Awaitable[None]]) -> None:
        self._config, self._check = config, check
        self._prefixes = PrefixMap(config.affinity_block)
        self._news = anyio.Event()
        self.replicas = tuple(Replica(url.rstrip("/"), index) for index, url in enumerate(config.base_urls))

    @asynccontextmanager
    async def replica(self, prompt: Sequence[int], give_up: float) -> AsyncIterator[Replica]:
        """A ready replica, with the request counted to its load; waited for until ``give_up`` (loop time).

        OutageError if none was ready by then (nothing was sent), ConfigError if a replica does not serve the model.
        """
        while not (ready := await self._ready()):
            now = anyio.current_time()
            if now > give_up:
                raise self.exhausted()
            due = min((one.retry_at for one in self.replicas if not one.checking), default=give_up)
            with anyio.move_on_after(max(0.0, min(due, give_up) - now)):
                await self._news.wait()
        chosen = self._choose(ready, prompt)
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
        _log.warning("%s took no request: %s", replica.url, reason)
        if replica.ready or replica.checking:
            replica.failures += 1
            rest = self._config.backoff * min(2 ** (replica.failures - 1), 60)
            replica.retry_at = anyio.current_time() + max(rest, reason.retry_after or 0.0)
        replica.ready = False
        replica.must_check = replica.must_check or reason.must_check
        replica.trouble = str(reason)

    def broke(self, replica: Replica, reason: str) -> None:
        """A replica broke off an answer; if it died, its cache is lost."""
        _log.warning("%s broke off an answer: %s", replica.url, reason)
        replica.ready, replica.must_check, replica.trouble = False, True, reason
        replica.retry_at = anyio.current_time()

    def exhausted(self) -> OutageError:
        """The error when patience has run out; waiting longer would not help, so it is not retryable."""
        troubles = "; ".join(f"{one.url}: {one.trouble}" for one in self.replicas)
        return OutageError(
            f"no replica took a request for {self._config.patience:g} seconds ({troubles}); "
            "start the servers, correct base_urls, or raise patience",
            generated=False,
        )

    async def _ready(self) -> list[Replica]:
        """The replicas that take requests: rested ones again, after a health check where one is due."""
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
        return [one for one in self.replicas if one.ready]

    async def _ask(self, replica: Replica) -> None:
        try:
            await self._check(replica)
        except UnavailableError as reason:
            self.refused(replica, reason)
        else:
            _log.info("%s takes requests", replica.url)
            if replica.failures:
                self._prefixes.forget(replica.index)  # it may have been started anew
            replica.ready, replica.must_check = True, False
        finally:
            replica.checking = False
            self._news.set()
            self._news = anyio.Event()

    def _choose(self, ready: Sequence[Replica], prompt: Sequence[int]) -> Replica:
        """The least loaded of those that hold the prompt's prefix, unless another one is much less loaded.

        A prefix shorter than half the prompt does not count: every prompt may begin with the same system message.
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

    It imitates the real caches (vLLM's automatic prefix caching): whole blocks of tokens, found by a chain of hashes
    from the prompt's first token on. ``block``: tokens in a block, 0 remembers nothing; ``capacity``: blocks, of about
    200 bytes each.
    """

    def __init__(self, block: int, capacity: int = 250_000) -> None:
        self._block, self._capacity = block, capacity
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
        """A replica is computing, or has computed, these tokens."""
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
