"""The real worker: what math-verify makes of answers, of hostile text, and what the worker may not do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptive_ttc.answers import Grader, GradingConfig
from adaptive_ttc.errors import GradingError
from tests.answers.workers import ASKING

ROOT = Path(__file__).parents[2]
WORKER = ROOT / "adaptive_ttc" / "answers" / "worker.py"


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader() as grader:
        yield grader


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"2\sqrt{2}", r"\sqrt{8}"),
        ("1024", "2^{10}"),
        ("x+1", "1+x"),
        (r"\{1,2\}", r"\{2,1\}"),
        (r"\frac{1}{3}", "0.333333"),
        (r"1\frac{1}{2}", "1.5"),
        ("5", r"5\text{ cm}"),
        ("5", "x=5"),
        ("1000", "1,000"),
        (r"90^\circ", "90"),
        (r"\text{Evelyn}", "Evelyn"),
        ("(-2,3)", r"\left( -2,\; 3 \right)"),
        ("y=2x+3", "y=3+2x"),
        ("50", r"50\%"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}"),
    ],
)
def test_equivalent_answers_are_equal_and_share_a_class(grader: Grader, gold: str, answer: str) -> None:
    assert grader.equal_sync(gold, answer)
    first, second = grader.classes_sync([gold, answer])
    assert first == second


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("7", "8"),
        (r"\sqrt{2}", r"\sqrt{3}"),
        (r"\sqrt{2}", "1.4"),
        ("x+1", "x+2"),
        ("x^2", "2x"),
        ("y=2x", "y=3x"),
        ("x=5", "y=5"),
        ("(1,2)", "(2,1)"),
        ("(1,2)", "[1,2]"),
        (r"\{1,2\}", r"\{1,2,3\}"),
        (r"\text{Evelyn}", r"\text{Carla}"),
        ("7", r"\text{no solution}"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}"),
    ],
)
def test_different_answers_are_not(grader: Grader, gold: str, answer: str) -> None:
    assert not grader.equal_sync(gold, answer)
    first, second = grader.classes_sync([gold, answer])
    assert first != second


def test_trap_11_where_the_library_disagrees_with_itself_nothing_is_merged(grader: Grader) -> None:
    relation, interval = "x<2", r"(-\infty,2)"
    only_the_library = grader.with_space(ASKING)
    assert only_the_library.equal_sync(relation, interval)
    assert not only_the_library.equal_sync(interval, relation)  # the library is not symmetric
    assert only_the_library.classes_sync([relation, interval]) == (relation, interval)
    assert only_the_library.classes_sync([interval, relation]) == (interval, relation)


def test_exact_values_that_differ_by_little_are_not_equal(grader: Grader) -> None:
    assert not grader.equal_sync(r"\sin 1", r"\sin 1+10^{-20}")
    assert not grader.equal_sync(r"\ln(1+\pi)", r"\ln(1+\pi+10^{-9})")
    assert grader.equal_sync(r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}")


def test_256_answers_are_classed_with_few_questions_and_again_with_none(grader: Grader) -> None:
    answers = [r"\sin 2x", r"2\cos x\sin x", r"3\sqrt{7}", "-5", None] * 51 + [r"\sqrt{11}"]
    before = grader.statistics().requests
    classes = grader.classes_sync(answers)
    assert classes[:5] == (r"\sin 2x", r"\sin 2x", r"3\sqrt{7}", "-5", None)
    asked = grader.statistics().requests
    assert 2 < asked - before <= 4  # two readings, and the two compared in both orders
    assert grader.classes_sync(answers + answers[:4]) == classes + classes[:4]
    assert grader.statistics().requests == asked


HOSTILE = [
    "__import__('os').system('touch {trace}')",
    "eval(\"open('{trace}','w')\")",
    r"\operatorname{{exec}}(open('{trace}', 'w'))",
    "[open('{trace}','w') for x in (1,)]",
]


def test_code_in_an_answer_is_never_run(grader: Grader, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    answers = [text.format(trace=trace) for text in HOSTILE]
    assert len(set(grader.classes_sync([*answers, "2+3", "5"]))) == len(answers) + 1
    assert not any(grader.equal_sync("5", answer) for answer in answers)
    assert not trace.exists()


def test_what_takes_too_long_is_cut_off_and_the_rest_is_graded() -> None:
    with Grader(GradingConfig(time_limit=1.0)) as grader:
        endless = "10^(10^10)"
        assert grader.classes_sync([endless, r"\sqrt{800}", r"20\sqrt{2}"]) == (endless, r"20\sqrt{2}", r"20\sqrt{2}")
        assert not grader.equal_sync(r"20\sqrt{2}", endless)
        assert grader.statistics().timeouts == 2  # no verdict, so that another problem tries again
        assert grader.statistics().starts == 1


@pytest.mark.parametrize(
    "text",
    ["{" * 8 + "1", "}" * 8, "\x00", "a\x00b", "\ud800", "5\udfff6", "\\", "\\frac", "+" * 20, r"\frac{1}{0}", "😀"],
)
def test_unreadable_text_is_no_error_and_equals_nothing(grader: Grader, text: str) -> None:
    assert not grader.equal_sync("5", text)
    assert grader.classes_sync([text, "5", text])[1] == "5"


def test_an_over_long_answer_is_compared_as_text_only(grader: Grader) -> None:
    long = "1+" * 50_000 + "1"
    before = grader.statistics()
    assert grader.classes_sync([long, "50001", long]) == (long, "50001", long)
    assert not grader.equal_sync("50001", long)
    assert grader.statistics().requests == before.requests


def test_an_empty_gold_answer_is_a_mistake(grader: Grader) -> None:
    with pytest.raises(ValueError, match="gold answer is empty"):
        grader.equal_sync(" $$ ", "5")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_the_worker_survives_ctrl_c(grader: Grader) -> None:
    assert grader.equal_sync("x+2", "2+x")
    starts, pid = grader.statistics().starts, grader.worker_pid
    assert pid is not None
    os.kill(pid, signal.SIGINT)
    assert grader.equal_sync("x+3", "3+x")
    assert grader.statistics().starts == starts


def test_without_the_library_the_remedy_is_named() -> None:
    bare = GradingConfig(command=(sys.executable, "-I", "-S", str(WORKER), "2048"))
    with Grader(bare) as grader, pytest.raises(GradingError, match=r"(?s)No module named.*pip install 'math-verify"):
        grader.equal_sync(r"\int_0^1 x dx", r"\frac{1}{2}")


def test_the_worker_ends_with_its_input() -> None:
    ended = subprocess.run([sys.executable, "-P", str(WORKER), "2048"], input=b"", capture_output=True, check=True)
    assert ended.stdout == b'{"ready": true}\n'


@pytest.mark.skipif(sys.platform == "win32", reason="no timer of processor time there")
def test_a_worker_whose_caller_is_gone_does_not_compute_for_ever() -> None:
    request = b'{"read": "10^(10^10)", "limit": 0.5}\n'
    ended = subprocess.run([sys.executable, "-P", str(WORKER), "2048"], input=request, capture_output=True, check=True)
    lost = json.loads(ended.stdout.splitlines()[1])
    assert (lost["lost"], lost["fresh"]) == ("time", True)
    assert 0.4 < lost["seconds"] < 1.5


DEEDS = [
    "os.system('true')",
    "subprocess.run(['true'])",
    "os.fork()",
    "os.kill(os.getpid(), 0)",
    "socket.socket()",
    "open(path, 'w')",
    "os.open(path, os.O_CREAT | os.O_WRONLY)",
    "os.remove(path)",
]


def test_a_locked_down_worker_starts_nothing_opens_no_socket_and_changes_no_file(tmp_path: Path) -> None:
    program = f"""
import os, socket, subprocess, sys
sys.path.insert(0, {str(WORKER.parent)!r})
import worker
path = {str(tmp_path / "file")!r}
worker.lock_down(1 << 30)
open(os.devnull).close()
for deed in {DEEDS!r}:
    try:
        exec(deed)
    except PermissionError as error:
        print(deed, "->", error)
"""
    ended = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    refused = [line.split(" -> ")[0] for line in ended.stdout.splitlines() if "may not do this" in line]
    assert refused == DEEDS


@pytest.mark.skipif(sys.platform != "linux", reason="address space is bounded on Linux")
def test_memory_is_bounded() -> None:
    program = f"""
import sys
sys.path.insert(0, {str(WORKER.parent)!r})
import worker
worker.lock_down(1 << 30)
try:
    bytearray(1 << 31)
except MemoryError:
    print("bounded")
"""
    ended = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "bounded\n"


def test_importing_the_package_imports_no_parser() -> None:
    program = (
        "import sys, adaptive_ttc.answers; print({'sympy', 'math_verify', 'latex2sympy2_extended'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"
