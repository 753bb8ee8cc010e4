"""From which samples a unit starts, and how many samples a demand for units takes; it knows no engine and no store."""

from __future__ import annotations

from collections.abc import Mapping

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.strategies.units import GREEDY, SAMPLE, request_of, split_kind

__all__ = ["GREEDY", "SAMPLE", "request_of", "starts_of", "with_starts"]


def starts_of(kind: str, index: int) -> range:
    """The samples that a unit goes on from: trees from their first steps, a chain from the whole of one."""
    family, numbers = split_kind(kind)
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
