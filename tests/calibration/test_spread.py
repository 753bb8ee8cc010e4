"""Worker processes: the same records as one process, whoever is killed; what is hopeless is told."""

from functools import partial

import anyio
import pytest

from adaptive_ttc.errors import CalibrationError, ConfigError
from calibration.collect import Tally
from calibration.loading import load_records
from calibration.spread import spread
from calibration.store import Store
from tests.calibration.collecting import DEMAND, ROWS, UNITS, die_at_once, die_once, fresh_records, toy_job, toy_solver


def records_of(job):
    with Store(job.store) as store:
        return load_records(store, job.key, ROWS, DEMAND)


def test_two_workers_find_what_one_process_finds(tmp_path):
    job, tally = toy_job(tmp_path / "units.sqlite"), Tally(0)
    result = spread(job, ROWS, 2, tally.add)
    assert (result.complete, result.ended_early, tally.problems) == (len(ROWS), None, len(ROWS))
    assert tally.units == len(ROWS) * UNITS
    assert records_of(job) == anyio.run(fresh_records)


def test_a_killed_workers_problems_are_completed_by_others_and_counted_once(tmp_path):
    marker = tmp_path / "killed"
    job, tally = toy_job(tmp_path / "units.sqlite", partial(die_once, str(marker))), Tally(0)
    result = spread(job, ROWS, 2, tally.add)
    assert marker.exists()
    assert result.complete == tally.problems == len(ROWS)
    assert tally.units == len(ROWS) * UNITS
    assert records_of(job) == anyio.run(fresh_records)


def test_workers_that_get_nothing_done_end_the_collection(tmp_path):
    with pytest.raises(CalibrationError, match="code 3 before it got anything done"):
        spread(toy_job(tmp_path / "units.sqlite", die_at_once), ROWS, 2)


def test_what_a_worker_raises_is_raised(tmp_path):
    job = toy_job(tmp_path / "units.sqlite", partial(toy_solver, prm=False))
    with pytest.raises(ConfigError, match="needs a PRM"):
        spread(job, ROWS, 2)
    with pytest.raises(ConfigError, match="workers=0"):
        spread(job, ROWS, 0)


def test_the_ceiling_is_divided_among_the_workers(tmp_path):
    job, tally = toy_job(tmp_path / "units.sqlite", max_tokens_total=12000), Tally(0)
    result = spread(job, ROWS, 2, tally.add)
    assert result.ended_early is not None
    assert 0 < tally.tokens <= 12000
    assert result.complete < len(ROWS)
    with pytest.raises(ConfigError, match="less than a token"):
        spread(toy_job(tmp_path / "units.sqlite", max_tokens_total=1), ROWS, 2)
