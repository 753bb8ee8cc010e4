"""What the measurement of step labels takes for the truth, and how it compares."""

import pytest

from adaptive_ttc.evaluation.datasets import load_problems
from adaptive_ttc.export.samples import GradedProblem, GradedSample
from tests.bench.toys import load


@pytest.fixture
def bench(monkeypatch):
    """The measurement."""
    return load(monkeypatch, "step_labels")


def test_the_checker_finds_the_first_wrong_step(bench):
    rows = load_problems("minimath-train", 30)
    exercises = bench.exercises_of(rows)
    for row in rows:
        exercise = exercises[row["problem"]]
        right = GradedSample(text=row["solution"], correct=True)
        assert bench.true_labels(exercise, right) == [True] * len(right.steps)
        for at, step in enumerate(right.steps):
            steps = [*right.steps[:at], f"{step[:-1]}!", *right.steps[at + 1 :]]
            wrong = GradedSample(text="\n\n".join(steps), correct=False)
            assert bench.true_labels(exercise, wrong) == [True] * at + [False] * (len(steps) - at)


def test_labels_are_compared_step_by_step_and_by_the_first_error(bench):
    row = load_problems("minimath-train", 1)[0]
    exercises, problem = bench.exercises_of([row]), GradedProblem(row=row, samples=())
    wrong = GradedSample(text=f"{row['solution'][:-1]}?", correct=False)
    number = len(wrong.steps)
    assert number >= 2
    found = bench.agreement([(problem, wrong, [1.0] * (number - 1) + [0.0])], exercises)
    assert (found["steps_agree"], found["first_error_found"]) == (1, 1)
    found = bench.agreement([(problem, wrong, [0.0] * number)], exercises)
    assert found["steps_agree"] == found["wrong_solutions_agree"] == pytest.approx(1 / number)
    assert (found["first_error_found"], found["right_called_wrong"], found["wrong_called_right"]) == (0, 1, 0)
