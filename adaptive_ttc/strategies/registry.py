"""Strategies by name: how one is registered, and made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.files.names import unknown
from adaptive_ttc.strategies.base import Strategy

S = TypeVar("S", bound=type[Strategy])

_STRATEGIES: dict[str, type[Strategy]] = {}
_ALIASES: dict[str, str] = {}


def register(name: str, *aliases: str) -> Callable[[S], S]:
    """Class decorator: register a strategy under a name and aliases. ConfigError: a name is taken."""

    def add(strategy: S) -> S:
        for one in (name, *aliases):
            if one in _STRATEGIES or one in _ALIASES:
                raise ConfigError(f"there is a strategy named {one!r} already")
        strategy.name = name
        _STRATEGIES[name] = strategy
        _ALIASES.update(dict.fromkeys(aliases, name))
        return strategy

    return add


def strategy_names() -> tuple[str, ...]:
    """The names of all strategies, without aliases, in order of registration."""
    return tuple(_STRATEGIES)


def strategy_aliases() -> tuple[str, ...]:
    """The other names of strategies."""
    return tuple(_ALIASES)


def option_names() -> frozenset[str]:
    """The options of all strategies."""
    return frozenset(part.name for strategy in _STRATEGIES.values() for part in fields(strategy))


def make_strategy(name: str, **options: Any) -> Strategy:
    """Make a strategy from its name or alias and its fields; ConfigError: an unknown name or option, or impossible
    value.
    """
    strategy = _STRATEGIES.get(_ALIASES.get(name, name))
    if strategy is None:
        aliases = ", ".join(f"{alias} (the same as {original})" for alias, original in _ALIASES.items())
        raise ConfigError(f"unknown strategy {name!r}; choose one of {', '.join(_STRATEGIES)}; also {aliases}")
    known = [part.name for part in fields(strategy)]
    if foreign := unknown(options, known):
        raise ConfigError(f"{strategy.name} has no option {foreign}; it takes {', '.join(known)}")
    return strategy(**options)
