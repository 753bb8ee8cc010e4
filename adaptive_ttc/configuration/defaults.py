"""What a call of ``Solver.solve`` does not say: the table ``solve`` of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptive_ttc.cost import COUNTS
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.files.names import unknown
from adaptive_ttc.run.request import check_early, check_limits
from adaptive_ttc.strategies.adaptive import ASKED, DRAWN
from adaptive_ttc.strategies.registry import option_names

LIMITS = ("budget_tokens", "count", "seed", "deadline", "min_gain", "max_rounds")
"""Arguments of ``Solver.solve`` that are no options of a strategy, and that a file can say."""

ARGUMENTS = (*LIMITS, "strategy")
"""Arguments of ``Solver.solve`` beside the options of strategies."""

_OF_POOLS = frozenset({*ASKED, "count", "seed", "min_gain", "max_rounds"})
_WITH_A_STRATEGY = frozenset({*DRAWN, "budget_tokens", "count", "seed", "deadline"})
_WITH_N = frozenset({"min_gain", "max_rounds"})


def check_defaults(defaults: Mapping[str, Any], *, prm: bool) -> None:
    """Refuse what no call could carry out (ConfigError); ``prm``: there is one."""
    known = {*ARGUMENTS, *option_names()}
    if foreign := unknown(defaults, known):
        raise ConfigError(f"nothing is called {foreign}; there are {', '.join(sorted(known))}")
    if defaults.get("count", COUNTS[0]) not in COUNTS:
        raise ConfigError(f"unknown count {defaults['count']!r}; choose one of {', '.join(COUNTS)}")
    if type(defaults.get("seed", 0)) is not int:
        raise ConfigError(f"seed is a whole number; got {defaults['seed']!r}")
    options, limits = split(defaults)
    strategy, budget = limits.get("strategy"), limits.get("budget_tokens")
    try:
        if "n" not in options and strategy is None:
            budget = 1 if budget is None else budget  # the caller says it; whatever it is, the rest must be possible
        check_early(strategy, budget, options, prm=prm)
        free = strategy is None and "n" not in options
        check_limits(free, *(limits.get(name) for name in ("deadline", "min_gain", "max_rounds")))
    except TypeError as error:
        raise ConfigError(f"a value is of the wrong type: {error}") from error


def with_defaults(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call, None left out, with the defaults for those that it does not give.

    A call that names a strategy takes of the defaults no other strategy's options, one that gives ``n`` no limits of a
    budget alone, and a configured strategy takes no options at all.
    """
    said = {name: value for name, value in given.items() if value is not None}
    kept = set(defaults)
    if "strategy" in said:
        kept &= _WITH_A_STRATEGY if isinstance(said["strategy"], str) else _WITH_A_STRATEGY - set(DRAWN)
    elif "n" in said:
        kept -= _WITH_N
    return {**{name: defaults[name] for name in kept}, **said}


def of_pools(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults that hold for many problems with one budget as well."""
    return {name: value for name, value in defaults.items() if name in _OF_POOLS}


def split(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the strategy, and the other arguments."""
    options = {name: value for name, value in arguments.items() if name not in ARGUMENTS}
    return options, {name: value for name, value in arguments.items() if name in ARGUMENTS}
