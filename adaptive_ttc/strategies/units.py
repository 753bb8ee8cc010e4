"""Kinds of units by name, and the strategy that runs one.

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
    """The strategy of one unit, with its options, as ``Solver.solve`` takes them. ConfigError: no such kind."""
    family, numbers = split_kind(kind)
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


def split_kind(kind: str) -> tuple[str, tuple[int, ...]]:
    """The family of a kind, and its numbers. ConfigError: there is no such kind."""
    family, *words = kind.split("-")
    parts = _PARTS.get(family)
    if parts is None or len(parts) != len(words) or not all(word.isdecimal() and int(word) > 0 for word in words):
        forms = ", ".join("-".join((name, *needed)) for name, needed in _PARTS.items())
        raise ConfigError(f"no kind of unit is called {kind!r}; they are {forms}")
    return family, tuple(int(word) for word in words)
