"""What a strategy may ask for, and the type of a search."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from adaptive_ttc.types import Prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class Expand:
    """Sample ``n`` continuations of every prefix; with ``score``, each is scored as soon as it ends.

    The reply is a tuple of ``len(prefixes) * n`` prefixes, in order (all of the first prefix's children first). A child
    that the budget could not cover comes back with ``finish="budget"`` and the tokens it got, perhaps none: exhaustion
    is data.

    Attributes:
        prefixes: what to continue; the same prefix may stand there more than once.
        n: children of each.
        stop: strings that end a child (a step), or none for whole solutions.
        max_tokens: tokens that the whole solution may have, the prefix included.
        temperature: 0 is greedy.
        top_p: nucleus mass.
        score: whether the PRM scores the steps of every child.
        think_tokens: most tokens of a reasoning model's thinking in a solution, after which the driver ends the
            thought; None for no limit.
        min_think_tokens: a thought that ends with fewer is made to go on, ``waits`` times at most.
        first: once so many children have ended by themselves the others are aborted; None waits for all.
        beside: unfinished solutions that the search may continue later; the trace does not take them for pruned.
    """

    prefixes: tuple[Prefix, ...]
    n: int = 1
    stop: tuple[str, ...] = ()
    max_tokens: int = 2048
    temperature: float = 0.8
    top_p: float = 1.0
    score: bool = False
    think_tokens: int | None = None
    min_think_tokens: int | None = None
    waits: int = 0
    first: int | None = None
    beside: tuple[Prefix, ...] = ()

    def __iter__(self) -> Generator[Expand, tuple[Prefix, ...], tuple[Prefix, ...]]:
        return (yield self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """Run searches side by side, each on an equal part of what is left; the reply has one result each.

    Attributes:
        searches: they share nothing; what one leaves over comes back when all have returned.
        least: tokens that surely finish a solution. Where none is finished yet and an equal part is less, the first
            search gets this much by itself before the others share the rest, so that a small budget still gives an
            answer.
    """

    searches: tuple[Search, ...]
    least: int = 0

    def __iter__(self) -> Generator[Fork, tuple[tuple[Prefix, ...], ...], tuple[tuple[Prefix, ...], ...]]:
        return (yield self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Have the PRM score solutions; the reply is the same, in order. What the budget does not cover stays unscored."""

    prefixes: tuple[Prefix, ...]

    def __iter__(self) -> Generator[Score, tuple[Prefix, ...], tuple[Prefix, ...]]:
        return (yield self)


Request = Expand | Fork | Score

Search = Generator[Request, Any, tuple[Prefix, ...]]
"""A strategy at work: yields requests, is sent replies, returns the prefixes it hands in as candidates."""
