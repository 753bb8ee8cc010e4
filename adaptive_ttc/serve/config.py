"""How a server answers: budgets, limits, keys."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from adaptive_ttc.cost import COUNTS
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.serve.accounts import Key
from adaptive_ttc.types import whole

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s@A-Z]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """What a server allows. Budgets are in the unit of ``count``, times in seconds.

    Attributes:
        model: the name under which the pair is served; ``model@N`` asks for a budget of N.
        default_budget: of a request that names none.
        most_budget: that a request may ask for; None: whatever is left.
        total_budget: of all requests together, as long as the server runs; None: no limit.
        count: what budgets bound, see :data:`adaptive_ttc.cost.Count`.
        keys: whose requests are answered; none: everybody's.
        max_concurrency: requests at work at once.
        max_waiting: requests that wait for a place; more are refused with 429.
        max_body: bytes of a request.
        keep_alive: between two signs of life of a streamed answer that is being worked on.
        write_timeout: in which a client takes a piece of its answer; whoever does not is left, as if it had left.
        cors_origins: whose web pages may ask, such as ``https://example.org``; ``*`` for all.
    """

    model: str
    default_budget: int = 4000
    most_budget: int | None = None
    total_budget: int | None = None
    count: str = "generated"
    keys: tuple[Key, ...] = field(default=(), repr=False)
    max_concurrency: int = 64
    max_waiting: int = 256
    max_body: int = 2**20
    keep_alive: float = 15.0
    write_timeout: float = 60.0
    cors_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.model or "@" in self.model:
            raise ConfigError(f"the served name {self.model!r} must not be empty, and @ in it would begin a budget")
        if self.count not in COUNTS:
            raise ConfigError(f"unknown count {self.count!r}; choose one of {', '.join(COUNTS)}")
        for name in ("default_budget", "most_budget", "total_budget"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, whole(name, value))
        for name in ("default_budget", "most_budget", "total_budget", "max_concurrency", "max_waiting", "max_body"):
            value, least = getattr(self, name), 0 if name == "max_waiting" else 1
            if value is not None and (type(value) is not int or value < least):
                raise ConfigError(f"{name} is a whole number of at least {least}; got {value!r}")
        if self.most_budget is not None and self.default_budget > self.most_budget:
            raise ConfigError(
                f"the default budget of {self.default_budget:,} is above the most that a request may ask for, "
                f"{self.most_budget:,}: lower the one or raise the other"
            )
        for name in ("default_budget", "most_budget"):
            if (getattr(self, name) or 0) > (self.total_budget or math.inf):
                raise ConfigError(f"{name}={getattr(self, name):,} is above the total budget of {self.total_budget:,}")
        for name in ("keep_alive", "write_timeout"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)} must be a positive number of seconds")
        for origin in self.cors_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ConfigError(
                    f"{origin!r} is no origin of web pages, which is written https://example.org or "
                    "http://localhost:3000: in lower case, without a path"
                )
        names = [key.name for key in self.keys]
        if len(set(names)) < len(names):
            raise ConfigError(f"a key's name stands twice in {', '.join(names)}; name each once")

        if len({key.digest for key in self.keys}) < len(names):
            raise ConfigError(f"two of {', '.join(names)} have the same key, so that nobody could tell them apart")

    @property
    def most(self) -> int | None:
        """Most that any request could get; None without a limit."""
        return min((one for one in (self.most_budget, self.total_budget) if one is not None), default=None)
