"""Programs as answers: what is read, that right ones pass, and what a program cannot do."""

import os
import sys
import threading
import time

import pytest

from adaptive_ttc import Problem
from adaptive_ttc.answers import Grader, parse_space, sandbox
from adaptive_ttc.answers.sandbox import Limits, run_tests
from adaptive_ttc.answers.spaces.base import answer_in
from adaptive_ttc.errors import ConfigError, GradingError
from adaptive_ttc.evaluation.datasets import load_problems, problem_of
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.solver import Solver
from tests.evaluation.test_answers_of_datasets import written

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are confined on Linux alone")

SQUARE = "def f(x):\n    return x * x"
TESTS = "assert f(3) == 9"
HIDDEN = "def check(f):\n    assert f(4) == 16"
FORGED = """
import os
for n in range(3, 64):
    try:
        os.write(n, b'{"passed": "yes"}')
    except OSError:
        pass
os._exit(0)
"""


def why(program, tests=TESTS, **limits):
    outcome = run_tests(program, tests, Limits(**limits))
    assert not outcome.passed
    return outcome.why


@pytest.mark.parametrize(
    ("text", "program"),
    [
        (f"First:\n```python\nx = 1\n```\nNo:\n```python\n{SQUARE}\n```\nDone.", SQUARE),
        (f"```\n{SQUARE}\n```", SQUARE),
        (f"```py\n\n{SQUARE}   \n\n```\n```bash\nls\n```", SQUARE),
        ("```python\ndef f(x):\n\treturn x\n```", "def f(x):\n        return x"),
        (f"```python\n{SQUARE}\n", None),
        (f"```java\n{SQUARE}\n```", None),
        ("```python\n\n```", None),
        (SQUARE, None),
    ],
)
def test_the_last_python_block_is_the_answer(text, program):
    space = parse_space("code")
    assert answer_in(space, text) == program
    if program is not None:
        assert space.canonical(program) == program
        assert answer_in(space, space.write(program)) == program


def test_a_program_that_passes_and_one_that_does_not():
    assert run_tests(SQUARE, TESTS).passed
    assert why(SQUARE, "assert f(3) == 10") == "AssertionError: "
    assert "NameError" in why("def g(x): return x")
    assert "SyntaxError" in why("def f(")
    assert run_tests("import math, re, json, collections, dataclasses\n" + SQUARE, TESTS).passed
    assert run_tests("def f(x):\n    print('much ' * 10**6)\n    return x * x", TESTS).passed, "output goes nowhere"
    thread = "import threading\ndef f(x):\n  r = []\n  t = threading.Thread(target=lambda: r.append(9))\n  t.start()\n"
    assert run_tests(thread + "  t.join()\n  return r[0]", TESTS).passed


@pytest.mark.parametrize(
    "program",
    [
        "import socket; socket.socket()",
        "import socket; socket.create_connection(('127.0.0.1', 80))",
        "import os; os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "import multiprocessing; multiprocessing.Pool(2)",
        "import os; os.execv('/bin/true', ['true'])",
        "import os; os.posix_spawn('/bin/true', ['true'], {})",
        "open('file', 'w')",
        "open('file', 'a')",
        "import os; os.mkdir('folder')",
        "import os; os.remove(__import__('json').__file__)",
        "import os; os.truncate('/etc/hostname', 0)",
        "import os; os.kill(os.getppid(), 9)",
        "import os, signal; signal.pthread_kill; os.killpg(0, 9)",
        "import os; os.setsid()",
        "import fcntl; fcntl.fcntl(0, fcntl.F_SETOWN, __import__('os').getppid())",
        "import resource, os; resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
    ],
)
def test_what_a_program_is_refused(program):
    assert "PermissionError" in why(program)


def test_a_program_sees_an_empty_environment_and_an_empty_folder():
    os.environ["SECRET_KEY"] = "sesame"
    assert run_tests("import os", "assert 'SECRET_KEY' not in os.environ and os.listdir('.') == []").passed
    assert run_tests("import sys", "assert sys.flags.isolated and sys.argv[0].endswith('sandbox_child.py')").passed


def test_limits_of_time_and_memory_hold():
    began = time.monotonic()
    assert why("while True: pass", seconds=1) == "time"
    assert time.monotonic() - began < 10
    assert "MemoryError" in why("x = bytearray(10**9)")
    assert why("import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))").startswith("ValueError")
    assert "longer" in why("x" * (2 << 20))


def test_a_program_that_sleeps_is_killed_when_its_time_is_up(monkeypatch):
    monkeypatch.setattr(sandbox, "_START", -1.7)
    began = time.monotonic()
    assert why("import time; time.sleep(60)", seconds=1) == "time"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "program",
    ["import os; os._exit(0)", "raise SystemExit(0)", "import sys; sys.exit()", "import os; os.abort()", FORGED],
)
def test_ending_early_is_not_passing(program):
    assert not run_tests(program, TESTS).passed


def test_where_programs_cannot_be_confined_they_are_not_run(monkeypatch):
    monkeypatch.setattr(sandbox, "_said", lambda *words: {"refused": "no filter"})
    with pytest.raises(GradingError, match=r"cannot be confined here \(no filter\)"):
        run_tests(SQUARE, TESTS)
    monkeypatch.setattr(sandbox, "_MACHINES", ())
    with pytest.raises(ConfigError, match="verify="):
        parse_space("code:seconds=8")


def test_settings_are_part_of_the_name():
    assert parse_space("code:seconds=9, memory_mb=1024").name == "code:seconds=9,memory_mb=1024"
    assert parse_space("code:seconds=5").name == "code"
    for wrong in ("code:second=1", "code:seconds=x", "code:seconds=0", "code:memory_mb=1"):
        with pytest.raises(ConfigError, match=r"seconds|memory_mb"):
            parse_space(wrong)


def test_several_run_at_once_from_several_threads():
    found = []
    threads = [threading.Thread(target=lambda: found.append(run_tests(SQUARE, TESTS).passed)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


async def test_tests_of_the_problem_decide_while_solving_and_hidden_ones_in_evaluation(tmp_path):
    path = written(
        tmp_path,
        {"prompt": "Square.", "test": HIDDEN, "entry_point": "f", "public_tests": [TESTS]},
        {"text": "Again.", "test_list": ["assert f(2) == 4", "assert f(0) == 0"]},
    )
    with pytest.raises(ConfigError, match=r"line 1 has tests of programs: say answers='code'"):
        load_problems(path)
    rows = load_problems(path, answers="code")
    assert [row["answers"] for row in rows] == ["code", "code"]
    assert rows[0]["answer"].endswith("\ncheck(f)")
    assert (problem_of(rows[0]).tests, problem_of(rows[1]).tests) == (TESTS, "")
    wrong, right = ("```python\ndef f(x): return " + body + "\n```" for body in ("x + x", "x * x"))
    async with Solver(FakePolicy.scripted({"Square.": [wrong, wrong, right], "Again.": [right]})) as solver:
        solution = await solver.solve(problem_of(rows[0]), strategy="majority", n=3)
        again = await solver.solve(problem_of(rows[1]), strategy="majority", n=1)
        grader = solver.grader.for_problem(parse_space("code"))
        assert (solution.answer, solution.confidence) == ("def f(x): return x * x", 1.0), "two wrong ones lose"
        assert sorted(str(one.verdict) for one in solution.candidates) == ["False", "False", "True"]
        assert again.candidates[0].verdict is None, "its tests are hidden"
        assert await grader.equal(rows[0]["answer"], solution.answer)
        assert not await grader.equal(rows[0]["answer"], "def f(x): return x + x")
        assert not await grader.equal(rows[0]["answer"], None)


def test_tests_that_are_no_python_are_named(tmp_path):
    path = written(tmp_path, {"problem": "Square.", "tests": "assert f("})
    with pytest.raises(ConfigError, match=r"line 1: its right answer cannot be read.*no Python"):
        load_problems(path, answers="code")
    with Grader(space=parse_space("code")) as grader:
        assert grader.classes_sync([SQUARE, SQUARE + "\n", None, "x = 1"]) == (SQUARE, SQUARE, None, "x = 1")
        with pytest.raises(ValueError, match="there are no tests"):
            grader.equal_sync(" ", SQUARE)
    assert Problem.of("?", tests=TESTS).tests == TESTS
