"""What a stopping rule is: it sees the samples of a problem in the order drawn, and says what one more is worth.

It knows no engine, no budget in tokens and no grading: answers come as canonical classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from adaptive_ttc.errors import ConfigError

LEVEL_RANGE = "a level is a probability above 0.5 and below 1"


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample as a rule sees it."""

    answer: str | None  # canonical text of its answer class; None: it holds no answer, and has no vote
    tokens: int  # generated
    weight: float = (
        1.0  # of its vote, above 0; about 1 on average. Certified by weight, it depends on this sample alone
    )
    score: float | None = None  # a reward model's, in [0, 1]; None: not scored


@dataclass(frozen=True, slots=True)
class Pool:
    """What a rule may know of the problems that share a budget with the one it looks at."""

    left: float = 1.0  # share of the budget that is not spent, in [0, 1]
    problems: int = 1  # that are open, this one included
    samples: float = math.inf  # that the rest of the budget pays for, all problems together

    @property
    def each(self) -> float:
        """Samples that the rest of the budget pays for, for each open problem."""
        return self.samples / max(1, self.problems)


@dataclass(frozen=True, slots=True)
class Certificate:
    """That an answer is the policy's most frequent one; never that it is correct."""

    answer: str  # canonical text of its class
    level: float  # 1 - the error allowed
    method: str  # which proof
    statement: str = ""  # in a few words for a reader; by default made of the level

    def __post_init__(self) -> None:
        if not self.statement:
            object.__setattr__(
                self, "statement", f"mode certified at {100 * self.level:.4g} %; correctness not verified"
            )

    def __str__(self) -> str:
        return self.statement


class StoppingRule(Protocol):
    """A rule; the answers depend on the draws and the pool alone, and no call changes the rule."""

    @property
    def name(self) -> str:
        """Its name in the registry."""

    def worth(self, draws: Sequence[Draw], pool: Pool | None = None) -> float:
        """How much one more sample is worth: any scale that compares the problems of a run; 0 means stop here."""

    def samples(self, draws: Sequence[Draw]) -> int:
        """How many to draw before looking again, at least 1."""

    def right(self, draws: Sequence[Draw]) -> float | None:
        """The rule's own probability that the answer in hand is the policy's most frequent; None: it has none."""

    def certificate(self, draws: Sequence[Draw]) -> Certificate | None:
        """What is proven of the answer in hand; None where nothing is, or not yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneByOne:
    """The common half of most rules: sample one by one, up to ``most``, and certify nothing."""

    most: int | None = None  # samples of one problem; None for no limit

    def __post_init__(self) -> None:
        if self.most is not None and self.most < 1:
            raise ConfigError(f"most={self.most} is the number of samples at which a rule stops: at least 1, or None")

    def samples(self, draws: Sequence[Draw]) -> int:
        """Always 1."""
        return 1

    def right(self, draws: Sequence[Draw]) -> float | None:
        """None."""
        return None

    def certificate(self, draws: Sequence[Draw]) -> Certificate | None:
        """None."""
        return None

    def full(self, draws: Sequence[Draw]) -> bool:
        """Whether as many were drawn as may be."""
        return self.most is not None and len(draws) >= self.most


def fewest_first(draws: Sequence[Draw]) -> float:
    """The worth of breadth-first sampling: 1 before the first sample, then less with every one."""
    return 1.0 / (1 + len(draws))


def totals(draws: Sequence[Draw]) -> list[float]:
    """Sum of weights of every answer class, the largest first; nothing for draws without an answer."""
    sums: dict[str, float] = {}
    for draw in draws:
        if draw.answer is not None:
            sums[draw.answer] = sums.get(draw.answer, 0.0) + draw.weight
    return sorted(sums.values(), reverse=True)


def first_two(draws: Sequence[Draw]) -> tuple[float, float]:
    """The totals of the leading class and of the runner-up, 0 for one that does not exist."""
    ranked = totals(draws)
    return (ranked[0] if ranked else 0.0), (ranked[1] if len(ranked) > 1 else 0.0)


def checked_level(level: float) -> None:
    """Refuse a level outside (1/2, 1) (ConfigError)."""
    if not 0.5 < level < 1:
        raise ConfigError(f"level={level}: {LEVEL_RANGE}")
