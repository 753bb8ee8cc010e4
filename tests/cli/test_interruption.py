"""Ctrl-C and SIGTERM: 130 and 143, soon, with what there is, and no process left; also in the background of a shell."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

import adaptive_ttc
from adaptive_ttc.cli import exit_code, interruption
from adaptive_ttc.evaluation.evaluate import solve_rows
from adaptive_ttc.run.checkpoint import Checkpoint

ROOT = Path(adaptive_ttc.__file__).parent.parent
CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


def begun(arguments, line):
    """A command as a shell's background job; its standard error is read up to the line that begins so."""
    command = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    while not command.stderr.readline().startswith(line):
        assert command.poll() is None
    return command


def children(pid):
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def interrupted(command, number):
    """Its outputs and the seconds to its end, after which none of its processes is left."""
    mine = [os.pidfd_open(pid) for pid in children(command.pid)]
    sent = time.monotonic()
    command.send_signal(number)
    with command:
        told, error = command.communicate(timeout=60)
    for one in mine:
        assert select.select([one], [], [], 60)[0], "it outlived the command"
        os.close(one)
    return told, error, sent


@pytest.mark.parametrize(("number", "code"), CODES)
def test_an_interrupted_eval_reports_what_there_is_and_goes_on_later(tmp_path, number, code):
    data, target, file = tmp_path / "sums.jsonl", tmp_path / "out.json", tmp_path / "run.db"
    rows = [{"problem": f"Add {i} + {i + 1}.", "answer": str(2 * i + 1), "unique_id": str(i)} for i in range(30)]
    data.write_text("\n".join(map(json.dumps, rows)))
    words = ["eval", "--dataset", str(data), "--shared-budget", "20000", "--concurrency", "8", "--json", str(target)]
    words += ["--checkpoint", str(file), "--temperature", "0.7"]
    command = begun(["-c", f"from tests.cli.held import run; run(*{words!r})"], "held")
    told, error, sent = interrupted(command, number)
    assert command.returncode == code, error
    assert error.strip().splitlines()[-1] == "interrupted"
    assert "unfinished" in told
    assert 0.5 < float(told.split()[-1]) - sent < 10, "a deaf engine has a second; the rest depends on the machine"
    figures = json.loads(target.read_text())["figures"]
    assert figures["problems"] + figures["unfinished"] == 30
    with Checkpoint(file) as checkpoint:
        assert 0 < checkpoint.spent <= 20000


@pytest.mark.timeout(400)
def test_the_embedded_pair_is_interrupted_in_the_midst_of_a_batch(tmp_path):
    target = tmp_path / "out.json"
    words = ["eval", "--dataset", "minimath-500", "--strategy", "majority", "--n", "16", "--json", str(target)]
    # on a slow machine a batch may outlast the two seconds after which a process is ended without a report
    script = f"from adaptive_ttc.cli import interruption, main; interruption.PATIENCE = 60; exit(main({words!r}))"
    command = begun(["-c", script], "solving")
    told, error, _ = interrupted(command, signal.SIGTERM)
    assert command.returncode == 143, error
    assert "unfinished" in told
    assert json.loads(target.read_text())["figures"]["unfinished"] > 0


@pytest.mark.parametrize(("number", "code"), CODES)
def test_work_in_an_event_loop_is_cancelled_and_cleans_up(number, code, capsys):
    done = []

    async def work(name):
        try:
            signal.raise_signal(number)
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
                done.append(name)

    before = signal.getsignal(number)
    assert exit_code(lambda: interruption.run(work, "it"), interrupted="go on with it") == code
    assert done == ["it"]
    assert capsys.readouterr().err == "interrupted: go on with it\n"
    assert signal.getsignal(number) is before
    assert exit_code(lambda: signal.raise_signal(number)) == code


class EndedError(BaseException):
    """In place of the end of the process."""


@pytest.fixture
def ended(monkeypatch):
    """The exit code with which the process was ended, and when."""
    codes, told = [], threading.Event()

    def end(code):
        codes.append(code)
        told.set()
        if threading.current_thread() is threading.main_thread():
            raise EndedError

    monkeypatch.setattr(os, "_exit", end)
    return codes, told


def test_what_does_not_end_is_ended(ended, monkeypatch):
    monkeypatch.setattr(interruption, "PATIENCE", 0.0)
    codes, told = ended

    def stubborn():
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert told.wait(60)

    assert exit_code(stubborn) == 0
    assert codes == [143]


def test_a_second_signal_ends_it_at_once(ended):
    def stubborn():
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(EndedError):
        exit_code(stubborn)
    assert ended[0] == [143]


def test_other_threads_and_running_loops():
    codes = []
    thread = threading.Thread(target=lambda: codes.append(exit_code(lambda: interruption.run(anyio.sleep, 0))))
    thread.start()
    thread.join()
    assert codes == [0]

    async def inside():
        return exit_code(lambda: interruption.run(solve_rows))

    assert anyio.run(inside) == 2


def test_work_that_is_asked_to_end_takes_its_time():
    with interruption.interruptible() as held, interruption.deferred() as asked:
        assert not asked()
        signal.raise_signal(signal.SIGTERM)
        assert asked()
        assert held.code == 143
        assert held._watch.finished.is_set(), "nobody ends the process while it saves"
