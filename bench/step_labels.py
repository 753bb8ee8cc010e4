"""How right step labels by roll-outs are, and what they cost, on MiniMath, whose exact checker knows the first error.

    python bench/step_labels.py [--problems K] [--samples N] [--solutions K] [--rollouts K] [--json FILE]

The embedded policy draws N solutions of every problem of MiniMath's training split; of each problem that some solve,
at most ``--solutions`` are labelled, in all ways that ``adaptive-ttc export --format prm`` knows but the soft one.

Figures: ``problems``, ``solutions`` and ``steps`` that were labelled; and for each way, ``hard``, ``every`` and
``outcome``:

- ``.steps_agree``: share of steps whose label is the checker's; ``.wrong_solutions_agree``: the same of the steps of
  wrong solutions; ``.first_error_found``: share of these whose first step labelled wrong is the first wrong one;
- ``.right_called_wrong`` and ``.wrong_called_right``: shares of right, and of wrong steps;
- ``.rollouts`` and ``.tokens`` that were drawn.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import anyio
from measuring import Figures, run_measurement

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.datasets import FIXED_SEED, Row, load_problems, problem_of
from adaptive_ttc.export.exporter import graded_problem
from adaptive_ttc.export.formats import to_label
from adaptive_ttc.export.labels import RolloutSettings, RolloutTally, StepLabeller
from adaptive_ttc.export.samples import GradedProblem, GradedSample
from adaptive_ttc.mini.minimath import right_tokens_end
from adaptive_ttc.mini.numbers import Exercise
from adaptive_ttc.mini.settings import PAIRS
from adaptive_ttc.solver import Solver
from adaptive_ttc.tasks import side_by_side

Labelled = list[tuple[GradedProblem, GradedSample, list[float]]]

AT_ONCE = 16  # problems


async def measure(problems: int, samples: int, solutions: int, rollouts: int, seed: int) -> Figures:
    """Draw, label in every way, compare."""
    rows = load_problems("minimath-train", problems)
    exercises = exercises_of(rows)
    async with Solver.mini(seed=seed) as solver:
        drawn = [one for one in await draw(solver, rows, samples) if any(sample.correct for sample in one.samples)]
        figures: dict[str, Any] = {"problems": len(drawn)}
        for way in ("outcome", "hard", "every"):
            began = time.perf_counter()
            labelled, tally, tokens = await label(solver, drawn, way, solutions, rollouts, seed)
            figures |= {"solutions": len(labelled), "steps": sum(len(labels) for *_, labels in labelled)}
            found = agreement(labelled, exercises)
            found |= {"rollouts": tally.drawn, "tokens": tokens, "seconds": round(time.perf_counter() - began, 1)}
            figures |= {f"{way}.{name}": value for name, value in found.items()}
    return figures


def exercises_of(rows: Sequence[Row]) -> dict[str, Exercise]:
    """The exercise behind every problem, by its text."""
    wanted, found = {row["problem"] for row in rows}, dict[str, Exercise]()
    for _, _, exercise in PAIRS["mini"].source.exercises("train", FIXED_SEED):
        if exercise.question in wanted:
            found.setdefault(exercise.question, exercise)
        if len(found) == len(wanted):
            return found
    raise AssertionError("the stream has no end")


async def draw(solver: Solver, rows: Sequence[Row], samples: int) -> list[GradedProblem]:
    """Graded samples of every problem, in their order."""
    found: dict[int, GradedProblem] = {}
    places = anyio.Semaphore(AT_ONCE)

    async def one(number: int, row: Row) -> None:
        async with places:
            solution = await solver.solve(problem_of(row), strategy="majority", n=samples)
            found[number] = await graded_problem(solver, row, solution)

    async with side_by_side() as group:
        for number, row in enumerate(rows):
            group.start_soon(one, number, row)
    return [found[number] for number in range(len(rows))]


async def label(
    solver: Solver, problems: Sequence[GradedProblem], way: str, solutions: int, rollouts: int, seed: int
) -> tuple[Labelled, RolloutTally, int]:
    """Labels of the same solutions, what they took, and the tokens that were drawn."""
    chosen = [(problem, to_label(problem, solutions)) for problem in problems]
    if way == "outcome":
        whole = [(problem, one, [float(one.correct)] * len(one.steps)) for problem, some in chosen for one in some]
        return whole, RolloutTally(), 0
    settings, resources = RolloutSettings(labels=way, most=rollouts, seed=seed), solver.resources
    found: dict[int, Labelled] = {}
    tally, spent, places = RolloutTally(), [0], anyio.Semaphore(AT_ONCE)

    async def work(number: int, problem: GradedProblem, some: Sequence[GradedSample]) -> None:
        async with places:
            labeller = StepLabeller(problem, resources, settings, None)
            labels = [await labeller.labels(one, at) for at, one in enumerate(some)]
        if None in labels:
            raise ConfigError(f"a solution of {problem.row['unique_id']} has no labels")
        found[number] = [(problem, one, known or []) for one, known in zip(some, labels, strict=True)]
        tally.add(labeller.tally)
        spent[0] += labeller.spent

    async with side_by_side() as group:
        for number, (problem, some) in enumerate(chosen):
            group.start_soon(work, number, problem, some)
    return [one for number in range(len(chosen)) for one in found[number]], tally, spent[0]


def true_labels(exercise: Exercise, sample: GradedSample) -> list[bool]:
    """Which steps end within what some right solution has in common with it."""
    right, position, labels = right_tokens_end(exercise, sample.text), 0, []
    for step in sample.steps:
        position = sample.text.index(step, position) + len(step)
        labels.append(position <= right)
    return labels


def agreement(labelled: Labelled, exercises: Mapping[str, Exercise]) -> dict[str, float]:
    """Labels beside the checker's; see the module."""
    pairs: list[tuple[bool, bool]] = []
    of_wrong: list[tuple[bool, bool]] = []
    found = []
    for problem, sample, labels in labelled:
        truth = true_labels(exercises[problem.row["problem"]], sample)
        told = [one > 0 for one in labels]
        both = list(zip(told, truth, strict=True))
        pairs += both
        if not sample.correct:
            of_wrong += both
            found.append([*told, False].index(False) == [*truth, False].index(False))
    return {
        "steps_agree": _share([told == true for told, true in pairs]),
        "wrong_solutions_agree": _share([told == true for told, true in of_wrong]),
        "first_error_found": _share(found),
        "right_called_wrong": _share([not told for told, true in pairs if true]),
        "wrong_called_right": _share([told for told, true in pairs if not true]),
    }


def _share(values: Sequence[bool]) -> float:
    return sum(values) / max(len(values), 1)


if __name__ == "__main__":
    run_measurement(
        "step_labels",
        __doc__,
        measure,
        problems=(100, "of the training split, from the first on (default: 100)"),
        samples=(16, "drawn of each (default: 16)"),
        solutions=(8, "labelled of each, at most (default: 8)"),
        rollouts=(8, "from one step, at most (default: 8)"),
        seed=(0, "of all that is drawn (default: 0)"),
    )
