"""Hostile answers: none hangs the grader, breaks it, is executed, or changes how honest answers are judged."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adaptive_ttc.answers import Grader, GradingConfig, canonical, extract_answer
from adaptive_ttc.answers.spaces.mathematics import MATH
from tests.bench.toys import load

WORKER = Path(__file__).parents[2] / "adaptive_ttc" / "answers" / "worker.py"


@pytest.fixture(scope="module")
def hostile() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        yield load(patch, "hostile_answers")


@pytest.fixture(scope="module")
def honest() -> Iterator[list[tuple[str, str]]]:
    with pytest.MonkeyPatch.context() as patch:
        yield load(patch, "grading").honest_pairs(14)


@pytest.mark.skipif(sys.platform != "linux", reason="address space is bounded on Linux")
def test_answers_that_fill_the_worker_do_not_change_how_others_are_judged(honest: list[tuple[str, str]]) -> None:
    """Numbers of megabytes, then smaller ones for what room they left; a bound of 96 MiB leaves some thirty for all."""
    giants = [f"2^{{{size + i}}}" for size, count in ((2 * 10**7, 16), (4 * 10**6, 8)) for i in range(count)]
    command = (sys.executable, "-P", str(WORKER), "96")
    with Grader(GradingConfig(command=command)) as grader:
        for giant in giants:
            grader.equal_sync(r"1+\sqrt{2}", giant)
        assert [grader.equal_sync(*pair) for pair in honest] == [i // 7 % 2 == 0 for i in range(len(honest))]
        assert grader.statistics().starts == 1


SHORT_OF_MEMORY = f"""
import json, logging, os, sys
sys.path.insert(0, {str(WORKER.parent)!r})
import worker

def read(text):
    if text == "raised":
        raise MemoryError
    if text == "logged":
        try:
            raise MemoryError
        except Exception:
            logging.getLogger("math_verify.grader").debug("Error during comparison", exc_info=True)
    if text.startswith("large"):
        b"x" * (int(text[5:]) << 20)
    return True

worker.readable = read
for text in ("plain", "raised", "logged", "large20", "large90"):
    if os.fork() == 0:
        reader = worker.Reader(100 << 20)
        reply = reader.answer(json.dumps(dict(read=text, limit=9)).encode())
        print(text, reply.get("value"), reply.get("lost"), reply["last"], flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks of memory are read as Linux tells them")
def test_a_process_that_was_short_of_memory_gives_no_verdict_and_one_that_holds_much_ends() -> None:
    ended = subprocess.run([sys.executable, "-P", "-c", SHORT_OF_MEMORY], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == [
        "plain True None False",
        "raised None memory True",
        "logged None memory True",
        "large20 True None True",
        "large90 None memory True",
    ]


def test_three_hundred_hostile_answers_of_one_problem_take_no_longer_than_its_allowance(hostile: Any) -> None:
    texts = hostile.hostile_answers(300)
    assert len(set(texts)) == 300
    config = GradingConfig(time_limit=0.5, problem_limit=3.0)
    with Grader(config) as grader:
        problem = grader.for_problem()
        classes = problem.classes_sync([*texts, "7", "14/2", None])
        assert len(classes) == len(texts) + 3
        assert classes[-3:] == ("7", "7", None)
        assert problem._allowance is not None
        assert -1.0 < problem._allowance.left <= 0
        assert grader.equal_sync("x+1", "1+x")


def test_whatever_is_written_is_extracted_as_printable_text_and_in_no_time(hostile: Any) -> None:
    rng = random.Random(0)
    texts = hostile.hostile_answers(300)
    began = time.process_time()
    for _ in range(3000):
        text = hostile.fuzzed_answer(rng, texts)
        answer = canonical(text)
        assert canonical(answer) == answer
        boxed = extract_answer(f"So it is $\\boxed{{{text}}}$.")
        for one in (answer, boxed or ""):
            assert one.isprintable()
            one.encode()
    assert time.process_time() - began < 10


def test_a_fuzzed_answer_is_compared_or_left_and_the_worker_goes_on(hostile: Any) -> None:
    rng = random.Random(1)
    texts = [text for text in hostile.hostile_answers(300) if len(text) < 40]
    with Grader(GradingConfig(time_limit=0.3, problem_limit=3.0)) as grader:
        problem = grader.for_problem()
        for _ in range(30):
            assert problem.equal_sync(r"\frac{\pi}{7}", hostile.fuzzed_answer(rng, texts)) in (True, False)
        assert grader.equal_sync("x+1", "1+x")
        assert grader.statistics().starts == 1


LABORIOUS = (
    r"(1+\sqrt2+\sqrt3+\sqrt5)^{40}",
    r"(x+y+z)^{40}(a+b)^{40}",
    "*".join(rf"(1+\sqrt{{{number}}})" for number in range(2, 20)),
    "+".join(rf"\frac{{1}}{{x+{number}}}" for number in range(20)),
    "(2^{1/97}+3^{1/89})^{19}",
    r"\ln 1e3999",
    "10^{10^{10}}",
    "{" * 500 + "}" * 500,
    "`" * 999,
    "," * 1000,
)


def test_reading_in_the_own_process_takes_little_time_whatever_is_written() -> None:
    began = time.process_time()
    for text in LABORIOUS:
        for other in ("1", f"{text}+1"):
            MATH.equal(canonical(text), canonical(other))
    assert time.process_time() - began < 0.05 * 2 * len(LABORIOUS)


def test_what_has_no_value_is_compared_also_after_an_overflow() -> None:
    """Of nan the built-in absolute value may raise the overflow of a computation before it."""
    assert MATH.equal(r"(-\infty)^{1/2}", "1") is None
    assert MATH.equal("1", r"(-\infty)^{1/2}") is None
