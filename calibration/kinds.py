"""Kinds of units by name: how one is run, and from which samples it starts; it knows no engine and no store.

``greedy``, ``sample``, ``dvts-M`` (one tree of width M), ``beam_search-N-M`` (one search), ``revision-S`` (one chain).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptive_ttc.errors import ConfigError

GREEDY = "greedy"
SAMPLE = "sample"

_PARTS: Mapping[str, tuple[str, ...]] = {
    GREEDY: (),
    SAMPLE: (),
    "dvts": ("M",),
    "beam_search": ("N", "M"),
    "revision": ("S",),
}


def request_of(kind: str) -> dict[str, Any]:
    """The strategy that runs one unit, with its options, as :meth:`adaptive_ttc.solver.Solver.solve` takes them.

    Raises:
        ConfigError: there is no such kind.
    """
    family, numbers = _split(kind)
    match family, numbers:
        case "dvts", (width,):
            return {"strategy": "dvts", "n": width, "beam_width": width}
        case "beam_search", (n, width):
            return {"strategy": "beam_search", "n": n, "beam_width": width}
        case "revision", (chain,):
            return {"strategy": "revision", "n": chain, "sequential": chain}
        case "greedy", ():
            return {"strategy": "greedy"}
    return {"strategy": "weighted_best_of_n", "n": 1}


def starts_of(kind: str, index: int) -> range:
    """The samples that a unit goes on from: trees from their first steps, a chain from the whole of one."""
    family, numbers = _split(kind)
    each = {"dvts": 1, "beam_search": 1, "revision": 0}.get(family)
    if each is None:
        return range(0)
    width = numbers[0] if each else 1
    return range(index * width, (index + 1) * width)


def with_starts(demand: Mapping[str, int]) -> dict[str, int]:
    """The demand, with as many samples as its trees and chains start from.

    Args:
        demand: kind -> number of units, of a problem.

    Raises:
        ConfigError: an unknown kind, or a number below 0.
    """
    for kind, number in demand.items():
        if number < 0:
            raise ConfigError(f"{number} units of {kind}: a number of units is at least 0")
    wanted = {kind: number for kind, number in demand.items() if number}
    samples = max((starts_of(kind, number - 1).stop for kind, number in wanted.items()), default=0)
    if samples:
        wanted[SAMPLE] = max(wanted.get(SAMPLE, 0), samples)
    return wanted


def _split(kind: str) -> tuple[str, tuple[int, ...]]:
    family, *words = kind.split("-")
    parts = _PARTS.get(family)
    if parts is None or len(parts) != len(words) or not all(word.isdecimal() and int(word) > 0 for word in words):
        forms = ", ".join("-".join((name, *needed)) for name, needed in _PARTS.items())
        raise ConfigError(f"no kind of unit is called {kind!r}; they are {forms}")
    return family, tuple(int(word) for word in words)
