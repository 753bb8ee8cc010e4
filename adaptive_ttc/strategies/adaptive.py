"""What adaptive solving asks for: slices of units, and the vote over all that they handed in.

Neither is registered: a caller names no slice. They are strategies so that a slice runs, is recorded, and is run again
from its trace like any search. No engine, budget or answer is known here.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.strategies.base import Strategy, check_count, make_strategy
from adaptive_ttc.strategies.requests import Expand, Request, Score, Search
from adaptive_ttc.strategies.units import GREEDY, SAMPLE, request_of, split_kind
from adaptive_ttc.types import ROOT, STEP_END, Prefix
from adaptive_ttc.voting import VoteName

_ASKED = ("temperature", "top_p", "max_tokens", "agg_strategy", "vote", "vote_b")


@dataclass(slots=True)
class Drawn:
    """What a slice brought.

    Attributes:
        scored: the earlier solutions that it was to have scored.
        first_steps: those that it drew.
        found: what its search handed in.
    """

    scored: tuple[Prefix, ...] = ()
    first_steps: tuple[Prefix, ...] = ()
    found: tuple[Prefix, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Slice(Strategy):
    """Some units of one kind, each drawn as calibration draws it: first steps, then what goes on from them.

    Attributes:
        kind: see :class:`adaptive_ttc.estimate.features.Unit`.
        units: how many.
        vote: has no part in what is drawn; ``majority`` leaves whole solutions unscored.
    """

    name: ClassVar[str] = "slice"

    vote: VoteName = "weighted"
    kind: str = SAMPLE
    units: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("units", self.units)
        if self.kind != SAMPLE and self.units != 1:
            raise ConfigError(f"a slice is one unit of {self.kind}; got units={self.units}")

    @property
    def inner(self) -> Strategy:
        """What goes on from the first steps."""
        options: dict[str, Any] = {name: getattr(self, name) for name in ("top_p", "max_tokens", "agg_strategy")}
        options |= request_of(self.kind)
        if self.kind == SAMPLE:
            options["n"] = self.units
        if self.kind != GREEDY:
            options["temperature"] = self.temperature
        return replace(make_strategy(options.pop("strategy"), **options), vote=self.vote)

    def search(self, start: Sequence[Prefix] = ()) -> Search:
        """See :meth:`draw`."""
        return self.draw(start, Drawn())

    def draw(self, start: Sequence[Prefix], drawn: Drawn) -> Search:
        """Score what of the evidence has ended, go on with what was cut, and draw what is missing.

        Args:
            start: whole solutions to be scored, and solutions that a budget cut, to be gone on with.
            drawn: takes what comes in.
        """
        held = tuple(one for one in start if one.finish in ("eos", "length"))
        begun = tuple(one for one in start if one.finish not in ("eos", "length"))
        if held:
            drawn.scored = yield from Score(prefixes=held)
        drawn.found = yield from self._found(begun, drawn)
        return (*drawn.scored, *drawn.found)

    def _found(self, begun: tuple[Prefix, ...], drawn: Drawn) -> Search:
        family, numbers = split_kind(self.kind)
        if family == GREEDY:
            return (yield from self.inner.search(begun))
        width = {"revision": 1, "sample": self.units - len(begun)}.get(family) or (numbers[0] if numbers else 0)
        if width:
            drawn.first_steps = yield from self._first_steps(width, begun)
        start = (*begun, *drawn.first_steps)
        if family == "revision":
            start = yield from replace(self, kind=SAMPLE, units=1).inner.search(start)
        return (yield from self.inner.search(start))

    def _first_steps(self, number: int, beside: tuple[Prefix, ...]) -> Expand:
        return Expand(
            prefixes=(ROOT,),
            n=number,
            stop=(STEP_END,),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            score=self.inner.scored,
            beside=beside,
        )


@dataclass(frozen=True, kw_only=True)
class Adaptive(Strategy):
    """The vote over all that the slices of a problem handed in; what they are is decided as evidence comes in."""

    name: ClassVar[str] = "adaptive"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise ConfigError(
                "a budget is spent on samples that differ: take a temperature above 0, or name a strategy"
            )

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Adaptive:
        """From what a caller asked for.

        Raises:
            ConfigError: an option that only a named strategy has, or an impossible value.
        """
        unknown = [key for key in options if key not in _ASKED]
        if unknown:
            raise ConfigError(
                f"{', '.join(unknown)} belongs to a strategy, and none is named: name one, or n; "
                f"without, options are {', '.join(_ASKED)}"
            )
        return cls(**options)

    def search(self, start: Sequence[Prefix] = ()) -> Search:
        """Hand in what there is."""
        return _nothing_more(tuple(start))


def _nothing_more(start: tuple[Prefix, ...]) -> Generator[Request, Any, tuple[Prefix, ...]]:
    yield from ()
    return start


UNLISTED: Mapping[str, type[Strategy]] = {Slice.name: Slice, Adaptive.name: Adaptive}
"""Strategies that only a trace names."""
