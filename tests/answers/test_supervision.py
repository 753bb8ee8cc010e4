"""The worker's life: lazy start, hangs, deaths, cancellation, Ctrl-C and the end, with a stand-in worker."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from adaptive_ttc.answers import Grader, GradingConfig
from adaptive_ttc.answers.grading_process import Supervisor
from adaptive_ttc.answers.verdict_cache import Outcomes
from adaptive_ttc.errors import ConfigError, GradingError
from tests.answers import workers

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uses FIFOs and POSIX process ids")


@pytest.fixture
def grader(tmp_path: Path) -> Iterator[Grader]:
    os.mkfifo(tmp_path / "hanging")
    os.mkfifo(tmp_path / "go")
    with workers.grader(workers.config(tmp_path)) as grader:
        yield grader
    assert grader.worker_pid is None


def worker_of(grader: Grader) -> int:
    pid = grader.worker_pid
    assert pid is not None
    return pid


def test_no_process_is_started_before_one_is_needed(grader: Grader) -> None:
    assert grader.equal_sync("7", "7.0")
    assert grader.classes_sync(["7", "8", None, r"\frac{1}{2}", "1/2"] * 50)[:2] == ("7", "8")
    assert not grader.equal_sync("ab", None)
    assert grader.equal_sync("$ab$", "ab")
    assert grader.worker_pid is None
    assert grader.statistics().starts == 0
    assert grader.equal_sync("ab", "ba")
    assert grader.statistics().starts == 1


def test_the_worker_is_reaped_at_the_end_and_closing_twice_is_fine(tmp_path: Path) -> None:
    grader = workers.grader(workers.config(tmp_path))
    assert grader.equal_sync("ab", "ba")
    pid = worker_of(grader)
    assert workers.alive(pid)
    grader.close()
    grader.close()
    assert not workers.alive(pid)
    with pytest.raises(GradingError, match="closed; make a new one"):
        grader.equal_sync("ab", "ca")


def test_a_grader_that_is_forgotten_leaves_no_process(tmp_path: Path) -> None:
    grader = workers.grader(workers.config(tmp_path))
    assert grader.equal_sync("ab", "ba")
    pid = worker_of(grader)
    del grader
    assert not workers.alive(pid)


def test_a_program_that_ends_without_closing_leaves_no_process_and_no_warning(tmp_path: Path) -> None:
    workers.config(tmp_path)
    program = f"""
from pathlib import Path
import sys
from adaptive_ttc.answers import GradingConfig
from tests.answers import workers
config = GradingConfig(command=(sys.executable, "-S", "-E", {str(tmp_path / "worker.py")!r}, {str(tmp_path)!r}))
grader = workers.grader(config)
assert grader.equal_sync("ab", "ba")
print(grader.worker_pid)
"""
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stderr == ""
    assert not workers.alive(int(ended.stdout))


def test_a_forked_copy_of_the_program_uses_a_worker_of_its_own(tmp_path: Path) -> None:
    workers.config(tmp_path)
    program = f"""
import os, sys
from adaptive_ttc.answers import GradingConfig
from tests.answers import workers
config = GradingConfig(command=(sys.executable, "-S", "-E", {str(tmp_path / "worker.py")!r}, {str(tmp_path)!r}))
grader = workers.grader(config)
assert grader.equal_sync("ab", "ba")
mine = grader.worker_pid
child = os.fork()
if child == 0:
    assert grader.equal_sync("cd", "dc") and grader.worker_pid != mine
    grader.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
grader._pool._all[0]._turn.acquire()  # as a thread does that waits for the worker
child = os.fork()
if child == 0:
    grader.close()
    os._exit(0)
grader._pool._all[0]._turn.release()
assert os.waitpid(child, 0)[1] == 0
assert grader.equal_sync("ef", "fe") and grader.worker_pid == mine
print(grader.statistics().starts)
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "1\n"


@pytest.mark.parametrize(("bad", "wall_limit", "starts"), [("hang", 1.0, 3), ("spin", 60.0, 1)])
def test_what_takes_too_long_equals_nothing_and_is_asked_once_a_problem_however_many_others_there_are(
    tmp_path: Path, bad: str, wall_limit: float, starts: int
) -> None:
    with workers.grader(workers.config(tmp_path, wall_limit=wall_limit)) as grader:
        assert grader.equal_sync("ab", "ba")
        first = worker_of(grader)
        answers = [bad, "ab", "ba", "cd", "dc", "longer", "regnol"]
        problem = grader.for_problem()
        assert problem.classes_sync(answers) == (bad, "ab", "ab", "cd", "cd", "longer", "longer")
        assert grader.statistics().timeouts == 1
        assert grader.statistics().starts == starts  # one that hangs is replaced, and so is the one that it hangs again
        assert workers.alive(first) == (starts == 1)
        asked = grader.statistics().requests
        assert problem.classes_sync(answers * 8)[:3] == (bad, "ab", "ab")
        assert not problem.equal_sync("ab", bad)
        assert grader.statistics().requests == asked


def test_what_was_undecided_is_asked_again_for_another_problem(tmp_path: Path) -> None:
    settings = workers.config(tmp_path)
    with workers.grader(settings) as grader:
        assert not grader.equal_sync("short of memory", "memory of short")
        assert grader.statistics().undecided == 1
        assert grader.statistics().crashes == 1
        (tmp_path / "memory").touch()
        assert grader.equal_sync("short of memory", "memory of short")
        assert grader.statistics().crashes == 1


def test_what_ran_out_of_memory_in_a_worn_process_is_asked_once_more(tmp_path: Path) -> None:
    with workers.grader(workers.config(tmp_path)) as grader:
        assert grader.equal_sync("worn out", "out worn")
        assert grader.statistics().undecided == 0
        assert grader.statistics().requests == 3


def test_a_problem_has_an_allowance_and_its_quick_answers_are_compared_when_the_slow_ones_have_used_theirs(
    tmp_path: Path,
) -> None:
    settings = replace(workers.config(tmp_path), time_limit=3.0)
    slow = [f"spin{i}" for i in range(25)]
    with workers.grader(settings) as grader:
        problem = grader.for_problem()
        assert problem.classes_sync([*slow, "a quick one", "one quick a"])[-1] == "a quick one"
        assert problem._allowance is not None
        assert problem._allowance.left > 0
        assert problem._allowance.limit == 0.25  # each is still given so long
    with workers.grader(replace(settings, problem_limit=5.0, time_limit=2.0)) as grader:
        assert grader.classes_sync([*slow, "a quick one", "one quick a"])[-2:] == ("a quick one", "one quick a")
        assert grader.statistics().requests < 12
        assert grader.statistics().undecided > grader.statistics().requests


async def test_a_problem_with_answers_that_hang_does_not_hold_up_the_others(grader: Grader, tmp_path: Path) -> None:
    """Two workers of four hang for a problem that has wasted time; the rest are for others, and start when needed."""
    hostile = grader.for_problem()
    assert not await hostile.equal("ab", "spin a long time")
    async with anyio.create_task_group() as tasks:
        for i in range(3):
            tasks.start_soon(hostile.equal, "ab", f"hang{i}")
        await anyio.to_thread.run_sync((tmp_path / "hanging").read_text)
        assert await grader.equal("ab", "ba")
        assert await grader.equal("abc", "bca")
        tasks.cancel_scope.cancel()
    assert grader.statistics().starts >= 2


def test_what_kills_the_worker_equals_nothing_and_the_others_are_still_compared(grader: Grader) -> None:
    assert grader.classes_sync(["ab", "die", "ba"]) == ("ab", "die", "ab")
    assert grader.statistics().crashes == 1
    assert grader.statistics().timeouts == 0


def test_a_worker_killed_from_outside_is_replaced_and_the_question_asked_again(grader: Grader) -> None:
    assert grader.equal_sync("ab", "ba")
    os.kill(worker_of(grader), 9)
    assert grader.equal_sync("abc", "cab")
    assert grader.statistics().crashes == 0
    assert grader.statistics().starts == 2


@pytest.mark.parametrize(("start", "said"), [("traceback", "no such library"), ("error", "the self-test failed")])
def test_a_worker_that_cannot_start_is_an_error_with_the_reason_and_the_remedy(
    tmp_path: Path, start: str, said: str
) -> None:
    with workers.grader(workers.config(tmp_path, start=start)) as grader:
        for _ in range(2):
            with pytest.raises(GradingError, match=f"(?s){said}.*pip install"):
                grader.equal_sync("ab", "ba")
        assert grader.worker_pid is None
        assert grader.equal_sync("7", "7.0")  # what needs no worker goes on


def test_a_worker_that_never_gets_ready_is_an_error(tmp_path: Path) -> None:
    with (
        workers.grader(workers.config(tmp_path, start="silent", start_limit=0.2)) as grader,
        pytest.raises(GradingError, match=r"start_limit = 0\.2"),
    ):
        grader.equal_sync("ab", "ba")


def test_a_program_that_does_not_exist_is_an_error() -> None:
    with (
        workers.grader(GradingConfig(command=("/nonexistent/worker",))) as grader,
        pytest.raises(GradingError, match="command"),
    ):
        grader.equal_sync("ab", "ba")


def test_ctrl_c_between_question_and_reply_loses_no_synchrony(tmp_path: Path) -> None:
    supervisor = Supervisor(workers.config(tmp_path), threading.Event())

    def interrupt() -> bool:  # first called when the question has been sent
        raise KeyboardInterrupt

    assert supervisor.ask({"gold": "ab", "answer": "ba"}, 1.0, lambda: False).value is True
    with pytest.raises(KeyboardInterrupt):
        supervisor.ask({"gold": "ab", "answer": "ba"}, 1.0, interrupt)
    assert supervisor.ask({"gold": "ab", "answer": "cd"}, 1.0, lambda: False).value is False
    assert supervisor.starts == 2
    supervisor.close()


def test_ctrl_c_in_the_terminal_does_not_reach_the_worker(grader: Grader) -> None:
    grader.equal_sync("ab", "ba")
    assert os.getsid(worker_of(grader)) != os.getsid(0)


def test_starting_early_does_not_wait(tmp_path: Path) -> None:
    with workers.grader(workers.config(tmp_path, start="silent")) as grader:
        grader.start()
        grader.start()
        assert workers.alive(worker_of(grader))
        assert grader.statistics().starts == 1


async def test_cancelling_ends_at_once_and_leaves_the_grader_fit_for_use(grader: Grader, tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(grader.equal, "ab", "hang")
        # The loop is free while the worker hangs: this very line runs, and sees it hang.
        assert await anyio.to_thread.run_sync((tmp_path / "hanging").read_text) == "now"
        hung = worker_of(grader)
        tasks.cancel_scope.cancel()
    assert await grader.equal("ab", "ba")
    assert not workers.alive(hung)
    assert grader.statistics().timeouts == 0
    assert (await grader.classes(["ab", "cd", "ba"])) == ("ab", "cd", "ab")


async def test_a_task_cancelled_by_asyncio_itself_is_left_as_cleanly(grader: Grader, tmp_path: Path) -> None:
    task = asyncio.create_task(grader.equal("ab", "hang"))
    await anyio.to_thread.run_sync((tmp_path / "hanging").read_text)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await grader.equal("ab", "ba")


async def test_a_late_reply_to_a_cancelled_question_answers_no_other(grader: Grader, tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(grader.equal, "slow", "lows slow")  # would be judged unequal
        await anyio.to_thread.run_sync((tmp_path / "hanging").read_text)
        tasks.cancel_scope.cancel()
    with anyio.move_on_after(5):  # unless the worker was replaced already, let it reply now
        await anyio.to_thread.run_sync((tmp_path / "go").write_text, "on", abandon_on_cancel=True)
    assert await grader.equal("ab", "ba")
    assert not await grader.equal("ab", "cd")
    assert await grader.equal("abc", "cba")


async def test_closing_wakes_what_waits(grader: Grader, tmp_path: Path) -> None:
    async def ask() -> None:
        with pytest.raises(GradingError, match="closed"):
            await grader.equal("ab", "hang")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await anyio.to_thread.run_sync((tmp_path / "hanging").read_text)
        pid = worker_of(grader)
        await grader.aclose()
    assert not workers.alive(pid)


async def test_closing_under_cancellation_still_ends_the_worker(tmp_path: Path) -> None:
    grader = workers.grader(workers.config(tmp_path))
    await grader.equal("ab", "ba")
    pid = worker_of(grader)
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with grader:
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert not workers.alive(pid)


async def test_many_tasks_share_one_worker(grader: Grader) -> None:
    seen = []

    async def classify(i: int) -> None:
        seen.append(
            await grader.classes(["ab", "ba", f"cd{i}", f"{i}dc", None]) == ("ab", "ab", f"{i}dc", f"{i}dc", None)
        )

    async with anyio.create_task_group() as tasks:
        for i in range(60):
            tasks.start_soon(classify, i)
    assert seen == [True] * 60
    assert grader.statistics().starts == 1


def test_threads_and_event_loops_share_one_worker(grader: Grader) -> None:
    def loop(i: int) -> bool:
        return anyio.run(grader.equal, f"ab{i}", f"{i}ba")

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(loop, range(20)))
        assert all(pool.map(lambda i: grader.equal_sync(f"cd{i}", f"{i}dc"), range(20)))
    assert loop(21)
    assert grader.statistics().starts == 1


def test_the_cache_forgets_the_least_recently_used(tmp_path: Path) -> None:
    settings = workers.config(tmp_path)
    with workers.grader(GradingConfig(command=settings.command, cache_size=3)) as grader:
        grader.equal_sync("ab", "ba")  # fills it: two readings, one comparison
        grader.equal_sync("ab", "ba")
        assert grader.statistics().cached == 1
        grader.equal_sync("cd", "dc")
        before = grader.statistics()
        assert grader.equal_sync("ab", "ba")
        after = grader.statistics()
        assert after.requests == before.requests + 3
        assert after.cached == before.cached


def test_the_memory_of_outcomes_is_bounded_in_bytes() -> None:
    outcomes = Outcomes(entries=1000, size=20_000)
    for i in range(500):
        outcomes.put((str(i) * 300, "x"), True)
        assert outcomes.bytes <= 20_000
    assert outcomes.get(("499" * 300, "x")) is True
    assert outcomes.get(("0" * 300, "x")) is None
    outcomes.put("x" * 50_000, False)  # larger than all there is room for
    assert outcomes.bytes == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("workers", 0),
        ("cache_mb", 0),
        ("problem_limit", 0.0),
        ("time_limit", 0.0),
        ("wall_limit", -1.0),
        ("start_limit", float("inf")),
        ("memory_mb", 100),
        ("cache_size", 0),
    ],
)
def test_settings_are_checked(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=field):
        GradingConfig(**{field: value})  # type: ignore[arg-type]
