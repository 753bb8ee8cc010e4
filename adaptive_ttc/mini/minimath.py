"""MiniMath: seeded, graded problems with worked solutions that a tiny model can partly learn; no torch.

Rows have MATH-500's columns. A problem's split follows from a hash of its text, so that no text can
be in two splits whatever the seed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypedDict

from adaptive_ttc.mini import algebra, numbers
from adaptive_ttc.mini.numbers import Exercise
from adaptive_ttc.mini.slips import KINDS, Slips, exact

FAMILIES: Mapping[str, Callable[[random.Random, int], Exercise]] = {
    "expression": numbers.expression,
    "fractions": numbers.fractions,
    "remainder": numbers.remainder,
    "equation": algebra.equation,
    "system": algebra.system,
    "recurrence": algebra.recurrence,
    "divisor": numbers.divisor,
    "mean": numbers.mean,
    "proportion": numbers.proportion,
    "polynomial": algebra.polynomial,
}

LEADS = ("So ", "Then ", "Now ", "Thus ", "Next ", "")
"""Words that open a step: two right solutions differ by them, as a real model's do."""

MAX_RATE = 0.85
"""No decision goes wrong more often than this."""

Split = Literal["train", "calibration", "test"]
_SHARES: Mapping[Split, range] = {"test": range(0, 15), "calibration": range(15, 40), "train": range(40, 100)}


class Row(TypedDict):
    """One problem, with MATH-500's columns."""

    problem: str
    solution: str
    answer: str
    subject: str
    level: int
    unique_id: str


@dataclass(frozen=True, slots=True)
class MiniMath:
    """A distribution of problems and of mistakes.

    Args:
        families: names out of :data:`FAMILIES`, at least one.
        slips: probability of a mistake for each kind of decision (``slips.KINDS``).
        load: by how much mistakes are likelier at each of the five levels: long problems strain a small model.
        unreduced: probability that a right solution leaves its fraction unreduced.
    """

    families: tuple[str, ...] = ("expression", "fractions", "remainder", "equation", "system", "recurrence")
    slips: Mapping[str, float] = field(default_factory=dict)
    load: tuple[float, float, float, float, float] = (0.15, 0.5, 1.0, 1.5, 2.0)
    unreduced: float = 0.3

    def __post_init__(self) -> None:
        unknown = set(self.families) - set(FAMILIES)
        if unknown or not self.families:
            raise ValueError(f"unknown or no families {sorted(unknown)}; known: {', '.join(FAMILIES)}")
        if set(self.slips) - set(KINDS):
            raise ValueError(f"unknown kinds of slip {sorted(set(self.slips) - set(KINDS))}; known: {', '.join(KINDS)}")

    def exercises(self, split: Split, seed: int | str) -> Iterator[tuple[str, int, Exercise]]:
        """An endless stream of (family, level, exercise), levels 1 to 5 and families in equal parts."""
        rng = random.Random(f"minimath/{split}/{seed}")
        while True:
            for level in range(1, 6):
                for family in self.families:
                    exercise = FAMILIES[family](rng, level)
                    while split_of(exercise.question) != split:
                        exercise = FAMILIES[family](rng, level)
                    yield family, level, replace(exercise, level=level)

    def solve(self, exercise: Exercise, rng: random.Random, rates: Mapping[str, float]) -> str:
        """A solution with mistakes at ``rates`` times the level's load.

        Its steps are separated by blank lines; the last one ends in ``\\boxed{...}``.
        """
        strained = {kind: min(MAX_RATE, rate * self.load[exercise.level - 1]) for kind, rate in rates.items()}
        steps, answer = exercise.work(Slips(rng, {**strained, "unreduced": self.unreduced}))
        return "\n\n".join([rng.choice(LEADS) + step for step in steps] + [final_step(answer)])

    def rows(self, split: Split, count: int, seed: int) -> list[Row]:
        """``count`` different problems of a split with their right solutions."""
        rows: dict[str, Row] = {}
        for family, level, exercise in self.exercises(split, seed):
            if len(rows) >= count:
                break
            steps, answer = exercise.work(exact())
            rows.setdefault(
                exercise.question,
                Row(
                    problem=exercise.question,
                    solution="\n\n".join([*steps, final_step(answer)]),
                    answer=answer,
                    subject=family,
                    level=level,
                    unique_id=f"minimath/{split}/{seed}/{len(rows)}",
                ),
            )
        return list(rows.values())


def final_step(answer: str) -> str:
    """The last step of every solution."""
    return f"The answer is $\\boxed{{{answer}}}$."


def split_of(question: str) -> Split:
    """The split that a problem text belongs to."""
    share = int.from_bytes(hashlib.sha256(question.encode()).digest()[:4], "big") % 100
    return next(name for name, part in _SHARES.items() if share in part)


def right_tokens_end(exercise: Exercise, text: str) -> int:
    """Length of the longest prefix of ``text`` that some right solution of the exercise shares.

    The openings of steps are free; an unreduced fraction counts as right.
    """
    best = 0
    for unreduced in (0.0, 1.0):
        steps, answer = exercise.work(Slips(random.Random(0), {"unreduced": unreduced}))
        position = 0
        for step in steps:
            lead = next(lead for lead in LEADS if text.startswith(lead, position))
            position += len(lead)
            same = _common(text, position, step + "\n\n")
            position += same
            if same < len(step) + 2:
                break
        else:
            position += _common(text, position, final_step(answer))
        best = max(best, position)
    return best


def _common(text: str, start: int, expected: str) -> int:
    length = 0
    while length < len(expected) and start + length < len(text) and text[start + length] == expected[length]:
        length += 1
    return length
