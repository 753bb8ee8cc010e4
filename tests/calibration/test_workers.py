"""Worker processes: the same records as one process, whoever is killed; what is hopeless is told."""

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import pytest

from adaptive_ttc.calibration.collect.collector import Tally
from adaptive_ttc.calibration.collect.records import load_records
from adaptive_ttc.calibration.collect.store import Store
from adaptive_ttc.calibration.collect.workers import WorkerProcess, collect_with_workers
from adaptive_ttc.errors import CalibrationError, ConfigError
from tests.calibration.collecting import (
    DEMAND,
    ROWS,
    UNITS,
    collected,
    die_at_once,
    die_once,
    fresh_records,
    toy_job,
    toy_solver,
)

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "units.sqlite") as store:
        yield store


def spread(job, rows, store, workers, report=None, **options):
    return collect_with_workers(job, rows, store, workers, partial(WorkerProcess, job), report=report, **options)


def found(store, job):
    return load_records(store, job.key, ROWS, DEMAND)


def test_two_workers_find_what_one_process_finds(store):
    job, tally = toy_job(), Tally(0)
    result = spread(job, ROWS, store, 2, tally.add)
    assert (result.complete, result.ended_early, tally.problems) == (len(ROWS), None, len(ROWS))
    assert tally.units == len(ROWS) * UNITS
    assert found(store, job) == anyio.run(fresh_records)


def test_a_killed_workers_problems_are_completed_by_others_and_counted_once(store, tmp_path):
    marker = tmp_path / "killed"
    job, tally = toy_job(partial(die_once, str(marker))), Tally(0)
    result = spread(job, ROWS, store, 2, tally.add)
    assert marker.exists()
    assert result.complete == tally.problems == len(ROWS)
    assert tally.units == len(ROWS) * UNITS
    assert found(store, job) == anyio.run(fresh_records)


def test_workers_draw_only_what_the_store_lacks(store):
    begun = {"sample": 4, "dvts-4": 1}
    anyio.run(collected, store, ROWS[:4], begun)
    job, tally = toy_job(), Tally(0)
    result = spread(job, ROWS, store, 2, tally.add)
    assert result.complete == len(ROWS)
    assert tally.units == len(ROWS) * UNITS - 4 * sum(begun.values())
    assert found(store, job) == anyio.run(fresh_records)


def test_workers_that_get_nothing_done_end_the_collection(store):
    with pytest.raises(CalibrationError, match=r"ended \(code 3\) before it got anything done"):
        spread(toy_job(die_at_once), ROWS, store, 2)


def test_what_a_worker_raises_is_raised(store):
    job = toy_job(partial(toy_solver, prm=False))
    with pytest.raises(ConfigError, match="needs a PRM"):
        spread(job, ROWS, store, 2)
    with pytest.raises(ConfigError, match="workers=0"):
        spread(job, ROWS, store, 0)


def test_the_ceiling_is_divided_among_the_workers(store):
    job, tally = toy_job(), Tally(0)
    result = spread(job, ROWS, store, 2, tally.add, max_tokens_total=12000)
    assert result.ended_early is not None
    assert 0 < tally.tokens <= 12000
    assert result.complete < len(ROWS)
    with pytest.raises(ConfigError, match="less than a token"):
        spread(toy_job(), ROWS, store, 2, max_tokens_total=1)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_workers_end_with_the_command_and_what_is_stored_stays(tmp_path, number, code):
    path, folder = tmp_path / "units.sqlite", tmp_path / "pids"
    folder.mkdir()
    script = "from tests.calibration.collecting import stopped_with_workers as run; "
    script += f"run({str(path)!r}, {str(folder)!r}, {int(number)})"
    command = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert command.returncode == code, command.stderr
    assert ("interrupted: what is stored stays" in command.stderr) == (code > 0)
    for pid in folder.iterdir():
        with suppress(ProcessLookupError):
            assert select.select([os.pidfd_open(int(pid.name))], [], [], 60)[0]
    job, tally = toy_job(), Tally(0)
    with Store(path) as store:
        result = spread(job, ROWS, store, 2, tally.add)
        assert (result.complete, tally.problems) == (len(ROWS), len(ROWS))
        assert 0 < tally.units < len(ROWS) * UNITS
        assert found(store, job) == anyio.run(fresh_records)
