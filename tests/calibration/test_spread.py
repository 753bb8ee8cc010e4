"""Worker processes: the same records as one process, whoever is killed; what is hopeless is told."""

from functools import partial

import anyio
import pytest

from adaptive_ttc.calibration.collect import Tally
from adaptive_ttc.calibration.loading import load_records
from adaptive_ttc.calibration.processes import Processes
from adaptive_ttc.calibration.spread import spread
from adaptive_ttc.calibration.store import Store
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


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "units.sqlite") as store:
        yield store


def found(store, job):
    return load_records(store, job.key, ROWS, DEMAND)


def test_two_workers_find_what_one_process_finds(store):
    job, tally = toy_job(), Tally(0)
    result = spread(job, ROWS, store, 2, Processes(), tally.add)
    assert (result.complete, result.ended_early, tally.problems) == (len(ROWS), None, len(ROWS))
    assert tally.units == len(ROWS) * UNITS
    assert found(store, job) == anyio.run(fresh_records)


def test_a_killed_workers_problems_are_completed_by_others_and_counted_once(store, tmp_path):
    marker = tmp_path / "killed"
    job, tally = toy_job(partial(die_once, str(marker))), Tally(0)
    result = spread(job, ROWS, store, 2, Processes(), tally.add)
    assert marker.exists()
    assert result.complete == tally.problems == len(ROWS)
    assert tally.units == len(ROWS) * UNITS
    assert found(store, job) == anyio.run(fresh_records)


def test_workers_draw_only_what_the_store_lacks(store):
    begun = {"sample": 4, "dvts-4": 1}
    anyio.run(collected, store, ROWS[:4], begun)
    job, tally = toy_job(), Tally(0)
    result = spread(job, ROWS, store, 2, Processes(), tally.add)
    assert result.complete == len(ROWS)
    assert tally.units == len(ROWS) * UNITS - 4 * sum(begun.values())
    assert found(store, job) == anyio.run(fresh_records)


def test_workers_that_get_nothing_done_end_the_collection(store):
    with pytest.raises(CalibrationError, match=r"ended \(code 3\) before it got anything done"):
        spread(toy_job(die_at_once), ROWS, store, 2, Processes())


def test_what_a_worker_raises_is_raised(store):
    job = toy_job(partial(toy_solver, prm=False))
    with pytest.raises(ConfigError, match="needs a PRM"):
        spread(job, ROWS, store, 2, Processes())
    with pytest.raises(ConfigError, match="workers=0"):
        spread(job, ROWS, store, 0, Processes())


def test_the_ceiling_is_divided_among_the_workers(store):
    job, tally = toy_job(max_tokens_total=12000), Tally(0)
    result = spread(job, ROWS, store, 2, Processes(), tally.add)
    assert result.ended_early is not None
    assert 0 < tally.tokens <= 12000
    assert result.complete < len(ROWS)
    with pytest.raises(ConfigError, match="less than a token"):
        spread(toy_job(max_tokens_total=1), ROWS, store, 2, Processes())
