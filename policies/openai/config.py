"""How a fleet of servers is reached: protocol, addresses, times, and what balances, bounds and hedges requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policies.secrets import Credentials, check_key, redacted, split_credentials

Api = Literal["tokens", "chat", "text"]
"""``tokens``: completions of token ids by servers that name the ids they generate (vLLM, SGLang, llama.cpp).

``chat``: chats, which any server takes (Ollama, hosted APIs). ``text``: completions of text. Neither of the two can go
on from a half-written solution token for token, so they serve whole samples alone.
"""

REMEDY = (
    "for greedy, majority, best_of_n, weighted_best_of_n and revision, which draw whole samples, any server will do "
    "(api='chat', which a recipe says as api = \"chat\" under [policy]); for all others serve the model with one that "
    "names token ids, such as vLLM or SGLang (api='tokens')"
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
        max_concurrency: requests in flight at once, over all replicas; more wait here, in order of priority. Replicas
            that push back (429, a growing queue) get fewer, see :mod:`adaptive_ttc.policies.openai.limits`.
        connect_timeout: to set up a connection, and for an answer to a health check.
        stall_timeout: between two pieces of an answer, waiting in the server's queue included.
        request_timeout: for one whole answer.
        patience: how long a request waits for a replica to be there (again) before the run fails.
        first_patience: how long, from the first request on, servers are waited for of which none has ever answered:
            they are more likely not there than soon back. Longer for servers that are still starting.
        backoff: first wait after a replica refused or was out of reach; doubled each time, up to 60 times as long.
        affinity_block: tokens in a block of the map from prefixes to replicas; 0 turns it off, for a router with its
            own.
        spill: how many more requests than the idlest replica, equally fast, the one with the prefix may have.
        suspect_after: silence of a replica that has requests, after which it gets no more while another one is there.
        hedge: quantile of the longest waits for a piece of an answer, such as 0.95; a request that waits longer is sent
            to a second replica as well (:mod:`adaptive_ttc.policies.openai.hedging`). None sends every request once.
        hedge_share: most tokens that hedged requests may cost, of those delivered.
        load_interval: between two looks at the length of a server's own queue (``/metrics``, ``/load``), where it tells
            it; 0 never looks.
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
    first_patience: float = 2.0
    backoff: float = 0.25
    affinity_block: int = 32
    spill: int = 8
    suspect_after: float = 10.0
    hedge: float | None = None
    hedge_share: float = 0.05
    load_interval: float = 2.0
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
        for name in (
            "max_concurrency",
            "stream_interval",
            "patience",
            "backoff",
            "affinity_block",
            "spill",
            "load_interval",
        ):
            bound = 1 if name in ("max_concurrency", "stream_interval") else 0
            if not getattr(self, name) >= bound:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least {bound}")
        for name in ("connect_timeout", "stall_timeout", "request_timeout", "suspect_after", "first_patience"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be a positive number of seconds")
        if self.hedge is not None and not 0 < self.hedge < 1:
            raise ConfigError(f"hedge={self.hedge} is a quantile between 0 and 1, such as 0.95, or None for none")
        if self.hedge is not None and len(self.base_urls) == 1:
            raise ConfigError("hedge= sends a late request to another replica: name two or more in base_url")
        if not 0 <= self.hedge_share <= 1:
            raise ConfigError(f"hedge_share={self.hedge_share} must be a share from 0 to 1")
        own = {"model", "prompt", "messages", "max_tokens", "seed", "stream", "n", "stop"} & set(self.extra)
        if own:
            raise ConfigError(f"extra may not set {', '.join(sorted(own))}: the policy sets them for every request")

    def redacted(self, text: str) -> str:
        """A text, such as what a server said, without the key and the passwords."""
        return redacted(text, (self.api_key, *self.credentials.values()))
