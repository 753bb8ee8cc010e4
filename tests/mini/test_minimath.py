"""MiniMath: right solutions are right, mistakes are found where they happen, splits never meet."""

import random
from fractions import Fraction
from itertools import islice

import pytest

from adaptive_ttc.mini.minimath import FAMILIES, LEADS, MiniMath, right_tokens_end, split_of
from adaptive_ttc.mini.numbers import expression
from adaptive_ttc.mini.settings import PAIRS
from adaptive_ttc.mini.slips import KINDS, Slips, exact, latex

ALL = MiniMath(families=tuple(FAMILIES))
ALWAYS = {kind: 1.0 for kind in KINDS if kind != "unreduced"}


def exercises(source: MiniMath, count: int):
    return [exercise for _, _, exercise in islice(source.exercises("train", 11), count)]


@pytest.mark.parametrize("family", FAMILIES)
def test_right_solutions_are_right_to_the_last_character(family):
    source = MiniMath(families=(family,))
    rng = random.Random(0)
    for exercise in exercises(source, 200):
        solution = source.solve(exercise, rng, {})
        assert right_tokens_end(exercise, solution) == len(solution)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mistake_ends_the_right_part_before_the_answer(family):
    source = MiniMath(families=(family,), load=(2.0,) * 5)
    rng = random.Random(0)
    wrong = 0
    for exercise in exercises(source, 100):
        answer = exercise.work(exact())[1]
        solution = source.solve(exercise, rng, ALWAYS)
        if f"\\boxed{{{answer}}}" not in solution and right_tokens_end(exercise, solution) < len(solution):
            wrong += 1
    assert wrong > 50


def test_expressions_agree_with_exact_arithmetic():
    for seed in range(300):
        exercise = expression(random.Random(seed), seed % 5 + 1)
        written = exercise.question.removeprefix("Evaluate $").removesuffix("$.").replace("\\cdot", "*")
        assert int(exercise.work(exact())[1]) == eval(written)


def test_equations_are_solved_by_their_answers():
    source = MiniMath(families=("equation",))
    for exercise in exercises(source, 200):
        left, right = exercise.question.removeprefix("Solve $").removesuffix("$ for $x$.").split(" = ")
        answer = exercise.work(exact())[1]
        if "frac" in answer:
            top, bottom = answer.replace("-", "").removeprefix("\\frac{").removesuffix("}").split("}{")
            x = Fraction(int(top), int(bottom)) * (-1 if answer.startswith("-") else 1)
        else:
            x = Fraction(int(answer))
        sides = []
        for side in (left, right):
            python = side.replace("x", "*x").replace("(*x", "(1*x").replace("-*x", "-1*x").replace("(", "*(")
            python = "1" + python if python.startswith("*") else python
            sides.append(eval(python, {"x": x}))
        assert sides[0] == sides[1], exercise.question


def test_answers_are_integers_fractions_and_pairs_some_negative():
    answers = [exercise.work(exact())[1] for exercise in exercises(ALL, 600)]
    assert any(a.startswith("-") and a[1:].isdigit() for a in answers)
    assert any("\\frac" in a for a in answers)
    assert any(a.startswith("(") and "," in a for a in answers)


def test_an_unreduced_fraction_is_right():
    source = MiniMath(families=("fractions",), unreduced=1.0)
    kept = [(e, source.solve(e, random.Random(0), {})) for e in exercises(source, 100)]
    differing = [(e, s) for e, s in kept if e.work(exact())[1] not in s.split("boxed")[1]]
    assert differing
    assert all(right_tokens_end(e, s) == len(s) for e, s in differing)


def test_rows_have_the_columns_of_math500_and_levels_in_equal_parts():
    rows = ALL.rows("test", 100, 0)
    assert set(rows[0]) == {"problem", "solution", "answer", "subject", "level", "unique_id"}
    assert [sum(r["level"] == level for r in rows) for level in range(1, 6)] == [20] * 5
    assert all(r["solution"].endswith(f"\\boxed{{{r['answer']}}}$.") for r in rows)
    assert len({r["unique_id"] for r in rows}) == len({r["problem"] for r in rows}) == 100


@pytest.mark.parametrize("pair", PAIRS)
def test_no_problem_text_is_in_two_splits(pair):
    source = PAIRS[pair].source
    test = {r["problem"] for r in source.rows("test", 500, 0)}
    calibration = {r["problem"] for r in source.rows("calibration", 500, 0)}
    train = {exercise.question for exercise in exercises(source, 3000)}
    assert not test & calibration
    assert not test & train
    assert not calibration & train
    assert {split_of(question) for question in test} == {"test"}


def test_the_same_seed_gives_the_same_rows_and_another_seed_others():
    assert ALL.rows("test", 50, 3) == ALL.rows("test", 50, 3)
    ours, theirs = ({r["problem"] for r in ALL.rows("test", 50, seed)} for seed in (3, 4))
    assert len(ours & theirs) < 25


def test_a_slip_never_returns_the_right_value_as_a_mistake():
    slips = Slips(random.Random(0), ALWAYS)
    assert all(slips.plus(a, b) != a + b for a in range(-9, 10) for b in range(-9, 10))


@pytest.mark.parametrize(("value", "text"), [(Fraction(-3, 4), "-\\frac{3}{4}"), (7, "7"), (Fraction(6, 3), "2")])
def test_latex(value, text):
    assert latex(value) == text


def test_unknown_families_and_kinds_are_refused_by_name():
    with pytest.raises(ValueError, match="geometry"):
        MiniMath(families=("geometry",))
    with pytest.raises(ValueError, match="typo"):
        MiniMath(slips={"typo": 0.1})


def test_leads_vary_between_solutions():
    solutions = {ALL.solve(exercises(ALL, 1)[0], random.Random(seed), {}) for seed in range(40)}
    assert len(solutions) >= len(LEADS) - 1
