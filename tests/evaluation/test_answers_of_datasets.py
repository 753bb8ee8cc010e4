"""Right answers as data sets write them, the spaces in which they are read, and rows without one."""

import json

import pytest

from adaptive_ttc.answers import Grader, parse_space
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.datasets import load_problems, problem_of
from adaptive_ttc.evaluation.evaluate import draw_pools, solve_rows
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.solver import Solver

GSM8K = "She sells 16 - 3 - 4 = <<16-3-4=9>>9 eggs.\nShe makes 9 * 2 = $<<9*2=18>>18.\n#### 1,018"


def written(tmp_path, *rows, name="set.jsonl", encoding="utf-8"):
    path = tmp_path / name
    path.write_text("\n".join(map(json.dumps, rows)), encoding=encoding)
    return path


def first(tmp_path, row, **asked):
    return load_problems(written(tmp_path, row), **asked)[0]


def test_gsm8k_is_numbers(tmp_path):
    row = first(tmp_path, {"question": "How many?", "answer": GSM8K})
    assert row == {"problem": "How many?", "answer": "1018", "unique_id": "set/1", "answers": "number"}
    assert problem_of(row).answers == "number"


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("033", "033", "33"),
        (33, "33", r"033"),
        (27.0, "27", "27.0"),
        ("27.0", "27.0", "27"),
        (0.5, "0.5", r"\frac{1}{2}"),
        (r"\frac{1}{2}", r"\frac{1}{2}", "0.5"),
        ("$x$", "$x$", "x"),
    ],
)
def test_aime_integers_floats_and_math_stay_as_written_and_are_compared(tmp_path, gold, answer, equal):
    row = first(tmp_path, {"Problem": "?", "Answer": gold, "ID": 3})
    assert row == {"problem": "?", "answer": answer, "unique_id": "3"}
    with Grader() as grader:
        assert grader.equal_sync(row["answer"], equal)


def test_they_may_be_read_as_numbers(tmp_path):
    path = written(
        tmp_path, *({"problem": str(gold), "answer": gold} for gold in ("033", 27.0, "$1,000", r"\frac{1}{2}"))
    )
    assert [row["answer"] for row in load_problems(path, answers="number")] == ["33", "27", "1000", "0.5"]


def test_without_an_answer_that_of_the_solution_is_taken_as_in_math(tmp_path):
    row = first(tmp_path, {"problem": "?", "solution": r"As \boxed{1} is odd, it is \boxed{\frac12}."})
    assert row["answer"] == r"\frac12"


@pytest.mark.parametrize(
    ("columns", "letter"),
    [
        ({"choices": ["red", "green", "blue"], "answer": "C"}, "C"),
        ({"choices": ["red", "green", "blue"], "answer": 1}, "B"),
        ({"options": ["red", "green", "blue"], "answer": "(b)"}, "B"),
        ({"choices": {"text": ["red", "green", "blue"], "label": ["1", "2", "3"]}, "answerKey": "2"}, "B"),
        ({"choices": ["red", "green", "blue"], "answer": "blue"}, "C"),
    ],
)
def test_choices_are_shown_with_letters(tmp_path, columns, letter):
    row = first(tmp_path, {"question": "Which?", **columns})
    assert row["problem"] == "Which?\n\n(A) red\n(B) green\n(C) blue"
    assert (row["answer"], row["answers"]) == (letter, "choice")


def test_a_set_of_letters_is_multiple_choice_and_one_with_a_letter_is_not(tmp_path):
    rows = load_problems(written(tmp_path, *({"problem": "?", "answer": gold} for gold in ("B", "(c)", "A"))))
    assert [(row["answer"], row["answers"]) for row in rows] == [("B", "choice"), ("C", "choice"), ("A", "choice")]
    rows = load_problems(written(tmp_path, *({"problem": "?", "answer": gold} for gold in (r"\text{(C)}", "7"))))
    assert [row["answer"] for row in rows] == [r"\text{(C)}", "7"]
    assert not any("answers" in row for row in rows)


@pytest.mark.parametrize("gold", ["", "$$", r"\(\)", " . ", None, [], {}, True, float("nan")])
def test_what_is_no_answer_is_named_by_file_and_row(tmp_path, gold):
    path = written(tmp_path, {"problem": "?", "answer": "1"}, {"problem": "?", "answer": gold})
    with pytest.raises(ConfigError, match=r"set\.jsonl, line 2"):
        load_problems(path)
    assert load_problems(path, limit=1)[0]["answer"] == "1"


def test_what_is_none_in_its_space_is_named_too(tmp_path):
    path = written(tmp_path, {"problem": "?", "answer": "7"}, {"problem": "?", "answer": "seven"})
    with pytest.raises(ConfigError, match=r"line 2: its right answer cannot be read.*'number'.*'seven'"):
        load_problems(path, answers="number")
    with pytest.raises(ConfigError, match=r"line 1: its right answer.*'choice'.*no letter from A to J"):
        load_problems(path, answers="choice")
    with pytest.raises(ConfigError, match="is no answer space"):
        load_problems(path, answers="numbers")
    with pytest.raises(ConfigError, match=r"minimath.*'choice'"):
        load_problems("minimath-500", limit=3, answers="choice")


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path):
    assert (
        first(tmp_path, {"problem": "?", "answer": "1"})
        == load_problems(written(tmp_path, {"problem": "?", "answer": "1"}, encoding="utf-8-sig"))[0]
    )
    traces = written(
        tmp_path, {"id": "a", "gold": "5", "samples": [{"answer": "5", "tokens": 3}]}, encoding="utf-8-sig"
    )
    assert load_problems(traces)[0]["answer"] == "5"


async def test_every_row_is_solved_and_graded_in_its_own_space(tmp_path):
    replies = {"How many?": ["It is 1018.00 in all"] * 4, "Which?\n\n(A) red\n(B) green": ["So **(B)**"] * 4}
    rows = load_problems(
        written(
            tmp_path,
            {"question": "How many?", "answer": GSM8K},
            {"question": "Which?", "choices": ["red", "green"], "answer": 1},
        )
    )
    outcomes = {}
    async with Solver(FakePolicy.scripted(replies)) as solver:
        asked = {"strategy": "majority", "n": 2}
        await solve_rows(solver, rows, asked, lambda outcome: outcomes.update({outcome.index: outcome}))
        pools = await draw_pools(solver, rows, 2, lambda pool: None)
    assert [(outcomes[i].solution.answer, outcomes[i].correct) for i in range(2)] == [("1018", True), ("B", True)]
    assert [pool.correct.tolist() for pool in pools] == [[True, True]] * 2


def test_the_command_line_reads_solves_and_grades_in_a_space(tmp_path, monkeypatch, capsys):
    from adaptive_ttc.cli import main

    path = written(tmp_path, {"problem": "How many?", "answer": "12.0"})

    def load(*models, answers, **settings):
        return Solver(FakePolicy.scripted({"How many?": ["She has 12"] * 9}), answers=answers)

    monkeypatch.setattr(Solver, "load", load)
    asked = ["--policy", "x", "--strategy", "majority", "--n", "2"]
    assert main(["eval", "--dataset", str(path), "--answers", "number", *asked]) == 0
    assert "1.000" in capsys.readouterr().out
    assert main(["solve", "How many?", "--answers", "number", *asked]) == 0
    assert "Answer: 12" in capsys.readouterr().out
    assert main(["eval", "--dataset", str(path), "--answers", "numbers", *asked]) == 2
    assert "is no answer space" in capsys.readouterr().err
    assert parse_space("number").canonical("12.0") == "12"
