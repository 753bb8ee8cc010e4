"""Problems that any model for mathematics should solve, with a right and a wrong solution of each.

The solutions are written as short equations, which PRMs of every family read, the embedded one included.
"""

from __future__ import annotations

from dataclasses import dataclass

from adaptive_ttc.evaluation.datasets import Row


@dataclass(frozen=True, slots=True)
class Worked:
    """A problem with the steps of a right and of a wrong solution."""

    problem: str
    answer: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]


def _worked(problem: str, right: tuple[str, str, int], wrong: tuple[str, str, int]) -> Worked:
    steps = [
        (f"Then {first}", f"So {second}", f"The answer is $\\boxed{{{answer}}}$.")
        for first, second, answer in (right, wrong)
    ]
    return Worked(problem, str(right[2]), *steps)


WORKED = (
    _worked(
        "Evaluate $6 \\cdot 3 - 8$.",
        ("6 \\cdot 3 = 18: 18 - 8", "18 - 8 = 10", 10),
        ("6 \\cdot 3 = 24: 24 - 8", "24 - 8 = 16", 16),
    ),
    _worked(
        "Evaluate $7 + 4 \\cdot 5$.",
        ("4 \\cdot 5 = 20: 7 + 20", "7 + 20 = 27", 27),
        ("4 \\cdot 5 = 20: 7 + 20", "7 + 20 = 37", 37),
    ),
    _worked(
        "Evaluate $9 \\cdot 8 - 12$.",
        ("9 \\cdot 8 = 72: 72 - 12", "72 - 12 = 60", 60),
        ("9 \\cdot 8 = 63: 63 - 12", "63 - 12 = 51", 51),
    ),
    _worked(
        "Evaluate $35 - 3 \\cdot 6$.",
        ("3 \\cdot 6 = 18: 35 - 18", "35 - 18 = 17", 17),
        ("3 \\cdot 6 = 18: 35 - 18", "35 - 18 = 27", 27),
    ),
    _worked(
        "Evaluate $5 \\cdot 7 + 6$.",
        ("5 \\cdot 7 = 35: 35 + 6", "35 + 6 = 41", 41),
        ("5 \\cdot 7 = 30: 30 + 6", "30 + 6 = 36", 36),
    ),
)


def rows() -> list[Row]:
    """The problems, as of a data set."""
    return [{"problem": one.problem, "answer": one.answer, "unique_id": f"worked/{n}"} for n, one in enumerate(WORKED)]
