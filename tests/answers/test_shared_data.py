"""Grading against MATH-500's gold solutions and against recorded samples of a real model."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from adaptive_ttc.answers import Grader, canonical, extract_answer, parse_space
from adaptive_ttc.evaluation.datasets import load_problems

DATA = Path(os.environ.get("ADAPTIVE_TTC_DATA", Path(__file__).parents[2] / "../shared/data"))
MATH500 = DATA / "math500.jsonl"
TRACES = DATA / "math500-traces-qwen2.5-1.5b-skywork-prm.json"

needs_math500 = pytest.mark.skipif(not MATH500.exists(), reason="math500.jsonl is not in $ADAPTIVE_TTC_DATA")
GSM8K = DATA / "traces" / "interlace-gsm8k-half-qwen2.5-0.5b.jsonl.gz"
needs_traces = pytest.mark.skipif(not TRACES.exists(), reason="the recorded traces are not in $ADAPTIVE_TTC_DATA")


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader() as grader:
        yield grader


@pytest.fixture(scope="module")
def problems() -> list[dict[str, Any]]:
    with MATH500.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    return json.loads(TRACES.read_text(encoding="utf-8"))["records"]  # type: ignore[no-any-return]


@needs_math500
def test_gold_solutions_hold_their_gold_answers(grader: Grader, problems: list[dict[str, Any]]) -> None:
    right = [grader.equal_sync(p["answer"], extract_answer(p["solution"])) for p in problems]
    assert len(right) == 500
    assert sum(right) >= 0.995 * 500


@needs_math500
def test_the_library_reads_gold_answers(grader: Grader, problems: list[dict[str, Any]]) -> None:
    # Most gold answers equal their extraction as text; this asks the worker for a different text of the same answer.
    sample = [p["answer"] for p in problems[::20]]
    right = [grader.equal_sync(answer, rf"{answer}\text{{ }}") for answer in sample]
    assert sum(right) >= 0.9 * len(sample)


# The same number with and without its unit, base or variable, and the two solutions of an equation in either order.
SAME_GOLD = {
    ("-2,1", "1,-2"),
    ("120", r"120^\circ"),
    ("15", r"15\text{cm}^2"),
    ("30", r"30^\circ"),
    ("36", r"36^\circ"),
    ("36", r"\$36"),
    ("40", "40_9"),
    ("5", "x=5"),
    ("90", r"90^\circ"),
}


@needs_math500
def test_gold_answers_of_different_problems_are_different(grader: Grader, problems: list[dict[str, Any]]) -> None:
    answers = sorted({canonical(p["answer"]) for p in problems})
    pairs = list(combinations(answers, 2))
    assert len(pairs) > 44_000
    assert {pair for pair in pairs if grader.equal_sync(*pair)} == SAME_GOLD
    assert {pair for pair in pairs if grader.equal_sync(*pair[::-1])} == SAME_GOLD


@needs_traces
def test_the_flags_of_recorded_samples_are_reproduced(grader: Grader, records: list[dict[str, Any]]) -> None:
    agree = [
        grader.equal_sync(record["gold"], extract_answer(trace["text"])) == trace["correct"]
        for record in records
        for trace in record["traces"]
    ]
    assert len(agree) == 320
    assert sum(agree) >= 0.98 * 320


@needs_traces
def test_answers_of_one_problem_are_right_or_wrong_class_by_class(
    grader: Grader, records: list[dict[str, Any]]
) -> None:
    for record in records:
        answers = [extract_answer(trace["text"]) for trace in record["traces"]]
        verdicts: dict[str | None, set[bool]] = {}
        for answer, answer_class in zip(answers, grader.classes_sync(answers), strict=True):
            assert (answer is None) == (answer_class is None)
            verdicts.setdefault(answer_class, set()).add(grader.equal_sync(record["gold"], answer))
        assert all(len(verdict) == 1 for verdict in verdicts.values())
        assert sum(True in verdict for verdict in verdicts.values()) <= 1


@pytest.mark.skipif(not GSM8K.exists(), reason="the recorded traces are not in $ADAPTIVE_TTC_DATA")
def test_numbers_are_read_off_all_samples_of_gsm8k_and_none_that_was_right_is_lost() -> None:
    counts = dict.fromkeys(("samples", "boxed", "read", "right", "lost", "found"), 0)
    with Grader(space=parse_space("number")) as numbers, gzip.open(GSM8K, "rt", encoding="utf-8") as lines:
        for line in lines:
            problem = json.loads(line)
            for sample in problem["samples"]:
                answer = numbers.read(sample["text"])
                right = numbers.equal_sync(problem["gold"], answer)
                counts["samples"] += 1
                counts["boxed"] += extract_answer(sample["text"]) is not None
                counts["read"] += answer is not None
                counts["right"] += sample["correct"]
                counts["lost"] += sample["correct"] and not right
                counts["found"] += right and not sample["correct"]
    # a wrong one that is right now had no box
    assert counts == {"samples": 1600, "boxed": 1128, "read": 1600, "right": 547, "lost": 0, "found": 53}


@needs_math500
def test_math500_is_read_as_it_is_written() -> None:
    with MATH500.open(encoding="utf-8") as lines:
        golds = [json.loads(line)["answer"] for line in lines]
    rows = load_problems(MATH500)
    assert [row["answer"] for row in rows] == golds
    assert not any("answers" in row for row in rows)
