"""What adaptive solving runs: slices of units, and the vote over all that they handed in.

A slice is some units of one kind: ``greedy``, ``sample``, ``think-T`` (a sample that thinks T tokens at most),
``short_m_at_k-K-M`` (one race of K samples for M), ``dvts-M`` (one tree of width M), ``beam_search-N-M`` (one search),
``revision-S`` (one chain). ``second:KIND`` is the same by the second policy of a cascade. Callers cannot name slices.
They are strategies so that a slice runs, is recorded, and is run again from its trace like any search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.files.names import unknown
from adaptive_ttc.strategies.base import Strategy, check_count
from adaptive_ttc.strategies.registry import make_strategy
from adaptive_ttc.strategies.requests import Fork, Score, Search
from adaptive_ttc.types import Prefix
from adaptive_ttc.voting import VoteName

GREEDY = "greedy"
SAMPLE = "sample"
SECOND = "second:"
"""What the kinds of a second policy's units begin with."""

_PARTS: Mapping[str, tuple[str, ...]] = {
    GREEDY: (),
    SAMPLE: (),
    "think": ("T",),
    "short_m_at_k": ("K", "M"),
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
        case "think", (most,):
            return {"strategy": "weighted_best_of_n", "n": 1, "think_tokens": most}
        case "short_m_at_k", (k, m):
            return {"strategy": "short_m_at_k", "n": k, "m": m}
        case "greedy", ():
            return {"strategy": "greedy"}
    return {"strategy": "weighted_best_of_n", "n": 1}


def is_second(kind: str) -> bool:
    """Whether the second policy draws units of a kind."""
    return kind.startswith(SECOND)


def plain(kind: str) -> str:
    """A kind without the policy that draws it: ``dvts-4`` of ``second:dvts-4``."""
    return kind.removeprefix(SECOND)


def is_sample(kind: str) -> bool:
    """Whether units of a kind are single samples that do not depend on each other."""
    return plain(kind) == SAMPLE or plain(kind).startswith("think-")


def split_kind(kind: str) -> tuple[str, tuple[int, ...]]:
    """The family of a kind, and its numbers. ConfigError: there is no such kind."""
    family, *words = plain(kind).split("-")
    parts = _PARTS.get(family)
    least = 0 if family == "think" else 1
    if parts is None or len(parts) != len(words) or not all(word.isdecimal() and int(word) >= least for word in words):
        forms = ", ".join("-".join((name, *needed)) for name, needed in _PARTS.items())
        raise ConfigError(f"no kind of unit is called {kind!r}; they are {forms}")
    return family, tuple(int(word) for word in words)


_VOTE = ("vote", "vote_b", "vote_power", "vote_logprob", "vote_length", "vote_answer")
_THINKING = ("think_tokens", "min_think_tokens", "waits")
DRAWN = ("temperature", "top_p", "max_tokens", *_THINKING)
"""Options of how a sample is drawn, whatever strategy draws it."""

ASKED = (*DRAWN, "agg_strategy", *_VOTE)
"""Options where a budget alone decides what is drawn."""


@dataclass(frozen=True, kw_only=True)
class Slice(Strategy):
    """Some units of one kind."""

    name: ClassVar[str] = "slice"

    vote: VoteName = "weighted"  # has no part in what is drawn; ``majority`` leaves whole solutions unscored
    kind: str = SAMPLE  # see :class:`adaptive_ttc.estimate.features.Unit`
    units: int = 1  # how many

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("units", self.units)
        if plain(self.kind) == GREEDY and self.units != 1:
            raise ConfigError(f"a slice is one unit of {self.kind}; got units={self.units}")

    @cached_property
    def inner(self) -> Strategy:
        """The strategy that draws all samples, or one unit of another kind."""
        kept = ("top_p", "max_tokens", "agg_strategy", *_THINKING)
        options: dict[str, Any] = {name: getattr(self, name) for name in kept}
        options |= request_of(self.kind)
        if is_sample(self.kind):
            options["n"] = self.units
        if plain(self.kind) != GREEDY:
            options["temperature"] = self.temperature
        return replace(make_strategy(options.pop("strategy"), **options), vote=self.vote)

    def search(self, start: Sequence[Prefix] = ()) -> Search:
        """Score the whole solutions of ``start``, continue the cut ones, and draw what is missing.

        Several units of a kind that searches are searches side by side, each on an equal part of what is left.
        """
        whole = tuple(one for one in start if one.finish in ("eos", "length"))
        cut = tuple(one for one in start if one.finish not in ("eos", "length"))
        scored = (yield from Score(prefixes=whole)) if whole else ()
        if plain(self.kind) == GREEDY or is_sample(self.kind) or self.units == 1:
            return (*scored, *(yield from self.inner.search(cut)))
        found = yield from Fork(searches=tuple(self.inner.search() for _ in range(self.units)))
        return (*scored, *(one for unit in found for one in unit))


_BESIDE = ("budget_tokens", "deadline", "max_rounds", "min_gain")
"""Arguments of a call, which a misspelled option may have been meant for."""


@dataclass(frozen=True, kw_only=True)
class Adaptive(Strategy):
    """The vote over all that the slices of a problem handed in; evidence decides which slices are drawn."""

    name: ClassVar[str] = "adaptive"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise ConfigError(
                "a budget is spent on samples that differ: take a temperature above 0, or name a strategy"
            )

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Adaptive:
        """Check a caller's options. ConfigError: one that only a named strategy has, or an impossible value."""
        if strange := [key for key in options if key not in ASKED]:
            told = unknown(strange, (*ASKED, *_BESIDE)) or ", ".join(strange)
            raise ConfigError(
                f"{told} belongs to a strategy, and none is named: name one, or n; "
                f"without, options are {', '.join(ASKED)}"
            )
        return cls(**options)

    def search(self, start: Sequence[Prefix] = ()) -> Search:
        """Hand in ``start``."""
        yield from ()
        return tuple(start)


UNLISTED: Mapping[str, type[Strategy]] = {Slice.name: Slice, Adaptive.name: Adaptive}
"""Strategies that only a trace names."""
