"""How a fleet of servers is reached; it knows no protocol and no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from adaptive_ttc.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetConfig:
    """How a fleet of servers is reached. Times are in seconds.

    Attributes:
        base_urls: of replicas that serve the same model, each up to and with ``/v1``.
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
        extra: put into every request's body, over what stands there.
    """

    base_urls: tuple[str, ...]
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
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.base_urls:
            raise ConfigError("base_urls is empty; give at least one, such as http://localhost:8000/v1")
        for url in self.base_urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.netloc:
                raise ConfigError(f"{url!r} is no base URL; give one such as http://localhost:8000/v1")
        if len({url.rstrip("/") for url in self.base_urls}) < len(self.base_urls):
            raise ConfigError(f"a base URL stands twice in {', '.join(self.base_urls)}; name every replica once")
        for name in ("max_concurrency", "stream_interval"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("connect_timeout", "stall_timeout", "request_timeout"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be a positive number of seconds")
        for name in ("patience", "backoff", "affinity_block", "spill"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name}={getattr(self, name)} must not be negative")
        own = {"model", "prompt", "messages", "max_tokens", "seed", "stream", "n", "stop"} & set(self.extra)
        if own:
            raise ConfigError(f"extra may not set {', '.join(sorted(own))}: the policy sets them for every request")
