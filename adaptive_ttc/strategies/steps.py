"""What the searches over steps share: settings, ranking, merging, look-ahead."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.strategies.base import Strategy, check_count
from adaptive_ttc.strategies.requests import Expand, Request
from adaptive_ttc.types import STEP_END, Prefix
from adaptive_ttc.voting import VoteName, aggregate


@dataclass(frozen=True, slots=True)
class Evidence:
    """Solutions and steps drawn before: ``finished`` or ``over`` at their limit; steps ``whole`` or ``cut``."""

    finished: tuple[Prefix, ...]
    over: tuple[Prefix, ...]
    whole: tuple[Prefix, ...]
    cut: tuple[Prefix, ...]

    @classmethod
    def of(cls, start: Sequence[Prefix]) -> Evidence:
        """Sort evidence by why it ended."""
        return cls(
            finished=tuple(prefix for prefix in start if prefix.finished),
            over=tuple(prefix for prefix in start if prefix.finish == "length"),
            whole=tuple(prefix for prefix in start if prefix.finish == "stop"),
            cut=tuple(prefix for prefix in start if prefix.finish not in ("eos", "length", "stop")),
        )


@dataclass(frozen=True, slots=True)
class Ranked:
    """Solutions by falling value, and the finished solutions that look-ahead met."""

    prefixes: tuple[Prefix, ...]
    foreseen: tuple[Prefix, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StepSearch(Strategy):
    """A search that keeps and prunes unfinished solutions by their scores."""

    vote: VoteName = "weighted"
    max_steps: int = 40  # steps after which a solution that has not ended is given up
    # greedy steps rolled out after every step; the score of that text judges the step (lookahead search, arXiv
    # 2408.03314, section 3.2). Roll-outs are candidates only where nothing else finishes.
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

    @property
    def stepwise(self) -> bool:
        """It samples steps."""
        return True

    def next_steps(
        self, parents: Sequence[Prefix], beside: Sequence[Prefix] = (), temperature: float | None = None
    ) -> Expand:
        """One step from each parent, which may stand there more than once; ``beside`` may be continued later."""
        return Expand(
            prefixes=tuple(parents),
            stop=(STEP_END,),
            max_tokens=self.max_tokens,
            temperature=self.temperature if temperature is None else temperature,
            top_p=self.top_p,
            score=True,
            **self.thinking,
            beside=tuple(beside),
        )

    def rank(self, prefixes: Sequence[Prefix]) -> Generator[Request, Any, Ranked]:
        """Order by value, ties by path; there is no look-ahead where there is nothing to choose."""
        ahead: dict[int, Prefix] = dict(enumerate(prefixes))
        foreseen: list[Prefix] = []
        for _ in range(self.lookahead if len(prefixes) > 1 else 0):
            going = [index for index, prefix in ahead.items() if prefix.finish == "stop"]
            if not going:
                break
            further = yield from self.next_steps([ahead[index] for index in going], prefixes, temperature=0.0)
            foreseen += [child for child in further if child.finished]  # unscored ones too: they may be all there is
            ahead |= {index: child for index, child in zip(going, further, strict=True) if child.scores}
        order = sorted(range(len(prefixes)), key=lambda index: (-self.value(ahead[index]), prefixes[index].path))
        return Ranked(tuple(prefixes[index] for index in order), tuple(foreseen))

    def value(self, prefix: Prefix) -> float:
        """Its aggregated step scores; -1 where it has none, so that it comes last."""
        return aggregate(prefix.scores, self.agg_strategy) if prefix.scores else -1.0


def distinct(prefixes: Iterable[Prefix]) -> tuple[Prefix, ...]:
    """The first of each group of equal ones: equal beams would only be continued twice."""
    first: dict[tuple[str, bool], Prefix] = {}
    for prefix in prefixes:
        first.setdefault((prefix.text, prefix.finished), prefix)
    return tuple(first.values())


def resumption(parents: Sequence[Prefix], children: Sequence[Prefix]) -> tuple[Prefix, ...]:
    """Where to continue after a cut: each child that was cut, or its parent where the child got no token."""
    return tuple(
        child if len(child.token_ids) > len(parent.token_ids) else parent
        for parent, child in zip(parents, children, strict=True)
        if child.finish in ("budget", "abort")
    )


def tips(held: Iterable[Prefix], others: Iterable[Prefix] = ()) -> tuple[Prefix, ...]:
    """The distinct solutions that hold a token and are no ancestor of the rest or of ``others``."""
    held = tuple(held)
    above = {one.path[:depth] for one in (*held, *others) for depth in range(len(one.path))}
    return distinct(one for one in held if one.token_ids and one.path not in above)
