"""Graded solutions of a problem, as all formats and labels read them; what is the same in two of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self, TypeVar

from adaptive_ttc.answers import Grader
from adaptive_ttc.answers.spaces.base import answer_in
from adaptive_ttc.evaluation.datasets import Row
from adaptive_ttc.types import BIN_NAMES, Finish, Prefix, split_steps


@dataclass(frozen=True, kw_only=True)
class GradedSample:
    """One solution.

    Attributes:
        text: as written, without an end-of-sequence token.
        correct: whether its answer is right.
        answer: in canonical form; None where it holds none.
        scores: a PRM's, of every step or of the whole, each in [0, 1]; empty where it was not scored.
        tokens: generated for it.
        token_ids: shape [tokens]; empty where the source has none, so that nothing can go on from a part of it.
        finish: why it ended; None where that is not known.
        answer_at, thought: see :class:`~adaptive_ttc.types.Prefix`.
    """

    text: str
    correct: bool
    answer: str | None = None
    scores: tuple[float, ...] = ()
    tokens: int = 0
    token_ids: tuple[int, ...] = ()
    finish: Finish | None = None
    answer_at: int | None = 0
    thought: int = 0

    @classmethod
    def of(cls, whole: Prefix, answer: str | None, correct: bool) -> Self:
        """A solution that was drawn, with what was read in it."""
        return cls(
            text=whole.text,
            correct=correct,
            answer=answer,
            scores=whole.scores,
            tokens=len(whole.token_ids),
            token_ids=whole.token_ids,
            finish=whole.finish,
            answer_at=whole.answer_at,
            thought=whole.thought,
        )

    @cached_property
    def steps(self) -> tuple[str, ...]:
        """The non-empty steps of its text."""
        return split_steps(self.text)

    @property
    def score(self) -> float | None:
        """The score of its last step."""
        return self.scores[-1] if self.scores else None

    @property
    def whole(self) -> bool:
        """Whether it holds text and was not cut off, as far as is known."""
        return bool(self.steps) and self.finish in ("eos", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedProblem:
    """A problem with a right answer, and solutions of it in the order in which they were drawn.

    Attributes:
        row: the problem; ``unique_id`` names it among all that are exported.
        samples: what was drawn of it.
        spent: units of the budget that drawing took now.
        error: why not all was drawn that was asked for; empty where all was.
    """

    row: Row
    samples: tuple[GradedSample, ...]
    spent: int = 0
    error: str = ""

    @property
    def pass_rate(self) -> float:
        """The share of its samples that are right; 0 without samples."""
        return sum(sample.correct for sample in self.samples) / max(len(self.samples), 1)

    @property
    def difficulty(self) -> int:
        """Its bin by pass rate: 0 (above .8) to 4 (at most .2)."""
        last = len(BIN_NAMES) - 1
        return max(0, min(last, int((1 - self.pass_rate) * len(BIN_NAMES) + 1e-9)))


async def graded(prefixes: Iterable[Prefix], gold: str, grader: Grader) -> tuple[GradedSample, ...]:
    """Solutions that were drawn, compared with the right answer by the problem's own grader; those that a budget or an
    abort cut off are left out.
    """
    found = []
    for one in prefixes:
        if one.finish in ("budget", "abort", "stop", None):
            continue
        answer = answer_in(grader.space, one.answer_text, one.finish)
        correct = answer is not None and await grader.equal(gold, answer)
        found.append(GradedSample.of(one, answer, correct))
    return tuple(found)


def normalised(text: str) -> str:
    """A text whose equals are the same but for blanks and the look of characters (Unicode NFKC)."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def distinct(samples: Iterable[GradedSample]) -> list[GradedSample]:
    """The first of each group of samples that are the same once :func:`normalised`."""
    first: dict[str, GradedSample] = {}
    for sample in samples:
        first.setdefault(normalised(sample.text), sample)
    return list(first.values())


def best_first(samples: Iterable[GradedSample]) -> list[GradedSample]:
    """By falling score; the unscored last, in their order."""
    return sorted(samples, key=lambda one: -1.0 if one.score is None else one.score, reverse=True)


Item = TypeVar("Item")


def shared(one: Sequence[Item], other: Sequence[Item]) -> int:
    """How many leading items are the same."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
