"""What the searches over steps share: their settings, ranking, merging, looking ahead; it knows no engine or budget."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.requests import Expand, Request
from adaptive_ttc.strategies.base import Strategy, check_count
from adaptive_ttc.types import ROOT, STEP_END, Prefix
from adaptive_ttc.voting import VoteName, aggregate


@dataclass(frozen=True, slots=True)
class Ranked:
    """Solutions with a value, best first, and the finished solutions that were met while looking ahead."""

    prefixes: tuple[Prefix, ...]
    foreseen: tuple[Prefix, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StepSearch(Strategy):
    """A search that keeps and prunes unfinished solutions by their scores.

    Attributes:
        max_steps: steps after which a solution that has not ended is given up.
        lookahead: greedy steps that are rolled out after every step before it is judged, by the score of the
            rolled-out text (lookahead search, arXiv 2408.03314, section 3.2). The roll-outs themselves are
            candidates only where nothing else finishes.
    """

    vote: VoteName = "weighted"
    max_steps: int = 40
    lookahead: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("max_steps", self.max_steps)
        if not isinstance(self.lookahead, int) or isinstance(self.lookahead, bool) or self.lookahead < 0:
            raise ConfigError(f"lookahead is a whole number of at least 0; got {self.lookahead!r}")

    @property
    def scored(self) -> bool:
        """Steps are kept by their scores, whatever the vote."""
        return True

    def first_steps(self, begun: Sequence[Prefix], width: int) -> Generator[Request, Any, tuple[Prefix, ...]]:
        """``width`` first steps: those that exist, finished where they were cut, and new ones beside them."""
        whole = tuple(prefix for prefix in begun if prefix.finish == "stop")
        cut = tuple(prefix for prefix in begun if prefix.finish != "stop")
        parents = (*cut, *[ROOT] * (width - len(begun)))
        return whole + ((yield from self.next_steps(parents)) if parents else ())

    def next_steps(self, parents: Sequence[Prefix], temperature: float | None = None) -> Expand:
        """One step from each parent, which may stand there more than once."""
        return Expand(
            prefixes=tuple(parents),
            stop=(STEP_END,),
            max_tokens=self.max_tokens,
            temperature=self.temperature if temperature is None else temperature,
            top_p=self.top_p,
            score=True,
        )

    def rank(self, prefixes: Sequence[Prefix]) -> Generator[Request, Any, Ranked]:
        """Order by value, ties by path; where there is nothing to choose, nobody looks ahead."""
        ahead: dict[int, Prefix] = dict(enumerate(prefixes))
        for _ in range(self.lookahead if len(prefixes) > 1 else 0):
            going = [index for index, prefix in ahead.items() if prefix.finish == "stop"]
            if not going:
                break
            further = yield from self.next_steps([ahead[index] for index in going], temperature=0.0)
            ahead |= {index: child for index, child in zip(going, further, strict=True) if child.scores}
        order = sorted(range(len(prefixes)), key=lambda index: (-self.value(ahead[index]), prefixes[index].path))
        foreseen = tuple(one for one in ahead.values() if one.finished and one not in prefixes)
        return Ranked(tuple(prefixes[index] for index in order), foreseen)

    def value(self, prefix: Prefix) -> float:
        """Its step scores made one; -1 where it has none, so that it comes last."""
        return aggregate(prefix.scores, self.agg_strategy) if prefix.scores else -1.0


def distinct(prefixes: Iterable[Prefix]) -> tuple[Prefix, ...]:
    """One of each, the first in order: equal beams would only be gone on from twice."""
    first: dict[tuple[str, bool], Prefix] = {}
    for prefix in prefixes:
        first.setdefault((prefix.text, prefix.finished), prefix)
    return tuple(first.values())


def cut_short(parents: Sequence[Prefix], children: Sequence[Prefix]) -> tuple[Prefix, ...]:
    """The unfinished solutions that a search is left with: children cut in a step, parents that led nowhere.

    A child that got no token is a copy of its parent and is left out.
    """
    lengths = {parent.path: len(parent.token_ids) for parent in parents}
    grown = [child for child in children if len(child.token_ids) > lengths.get(child.path[:-1], 0)]
    led_on = {child.path[:-1] for child in grown}
    idle = [parent for parent in parents if parent.token_ids and parent.path not in led_on]
    return distinct([*(child for child in grown if child.finish not in ("eos", "stop")), *idle])
