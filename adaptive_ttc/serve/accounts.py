"""Who may ask, and what is left to spend: for everybody together, and for each key."""

from __future__ import annotations

import hashlib
import hmac
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.files.bounded import RECIPE, read_whole
from adaptive_ttc.ledger import Ledger, Reservation
from adaptive_ttc.types import whole

_KEY_FORM = (
    '[NAME], below it a line sha256 = "..." (of the key, in hex) or env = "VARIABLE" (which holds the key), '
    "and if wanted a line budget = 1000000"
)


@dataclass(frozen=True, slots=True)
class Key:
    """An API key, of which only the SHA-256 is kept, and what its owner may spend; None: no limit of its own."""

    name: str
    digest: bytes = field(repr=False)
    budget: int | None = None

    @classmethod
    def of(cls, name: str, secret: str, budget: int | None = None) -> Key:
        """The key that clients present as ``secret``. ConfigError: it is empty."""
        if not secret:
            raise ConfigError(f"the key of {name} is empty")
        return cls(name, _digest(secret), budget)


def read_keys(path: str | Path) -> tuple[Key, ...]:
    """Read keys from a TOML file, a table for each owner. ConfigError: it holds something else."""
    try:
        document = tomllib.loads(read_whole(path, RECIPE, ConfigError, "give a file of keys").decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}; give a file of keys") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}; it is written {_KEY_FORM}") from error
    if not document:
        raise ConfigError(f"{path} holds no keys, so nobody could ask; it is written {_KEY_FORM}")
    return tuple(_key(path, name, table) for name, table in document.items())


def _key(path: str | Path, name: str, table: Any) -> Key:
    if (
        not isinstance(table, Mapping)
        or set(table) - {"sha256", "env", "budget"}
        or len({"sha256", "env"} & set(table)) != 1
    ):
        raise ConfigError(f"{path}: the table of {name} is to be written {_KEY_FORM}")
    budget = table.get("budget")
    if budget is not None and (budget := whole(f"{path}: the budget of {name}", budget)) < 0:
        raise ConfigError(f"{path}: the budget of {name} is at least 0; got {budget}")
    if "env" in table:
        secret = os.environ.get(str(table["env"]), "")
        if not secret:
            raise ConfigError(f"{path}: the environment variable {table['env']} of {name} is not set")
        return Key.of(name, secret, budget)
    try:
        digest = bytes.fromhex(table["sha256"])
    except (TypeError, ValueError):
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise ConfigError(f"{path}: sha256 of {name} is 64 hexadecimal digits: printf %s KEY | sha256sum")
    return Key(name, digest, budget)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeStatistics:
    """A snapshot of a server; units are budget units."""

    in_flight: int  # requests at work
    waiting: int  # requests that wait for a place
    answered: int
    seconds: float  # that answers took, in sum
    spent: int
    reserved: int
    key_spent: Mapping[str, int]  # by the name of each key
    key_requests: Mapping[str, int]


class Hold:
    """Units that are set aside for one request, settled once."""

    def __init__(self, parts: Iterable[Reservation]) -> None:
        self._parts = tuple(parts)

    def settle(self, spent: int) -> None:
        """Charge what was spent, and give back the rest."""
        for part in self._parts:
            part.settle(spent)


@dataclass(slots=True)
class Account:
    """Of one key's owner, or of everybody where there are no keys."""

    name: str
    ledger: Ledger
    requests: int = 0  # that were answered


class Accounts:
    """All accounts over one budget.

    A key is looked for among all digests, each compared in constant time, so that how long it takes tells nothing.
    """

    def __init__(self, total: int | None, keys: Iterable[Key]) -> None:
        self.all = Ledger(total)
        self._keys = tuple(keys)
        self._own = {key.name: Account(key.name, Ledger(key.budget)) for key in self._keys}
        self._everybody = Account("", Ledger(None))

    @property
    def named(self) -> tuple[Account, ...]:
        """Those of keys."""
        return tuple(self._own.values())

    def of(self, authorization: str | None) -> Account | None:
        """Whose request it is, by its header ``Authorization: Bearer KEY``; None where nobody's."""
        if not self._keys:
            return self._everybody
        scheme, _, secret = (authorization or "").partition(" ")
        # headers are read as Latin-1, and a key's bytes are what counts
        digest, found = hashlib.sha256(secret.strip().encode("latin-1", "replace")).digest(), None
        for key in self._keys:
            if hmac.compare_digest(digest, key.digest):
                found = self._own[key.name]
        return found if scheme.lower() == "bearer" else None

    def left(self, account: Account) -> int | None:
        """Units that a request of theirs could get; None without a limit."""
        known = [one for one in (self.all.available, account.ledger.available) if one is not None]
        return min(known, default=None)

    def hold(self, account: Account, units: int) -> Hold | None:
        """Set units aside; None where they are not there."""
        own = account.ledger.reserve(units)
        if own is None:
            return None
        shared = self.all.reserve(units)
        if shared is None:
            own.settle(0)
            return None
        return Hold((own, shared))

    def may_come_back(self, account: Account, units: int) -> bool:
        """Whether units would be there if all that is set aside were given back."""
        ledgers = (self.all.statistics(), account.ledger.statistics())
        return all(one.available is None or units <= one.available + one.reserved for one in ledgers)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
