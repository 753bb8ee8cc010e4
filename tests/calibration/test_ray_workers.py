"""Actors of a local Ray: the same records as one process, though one is killed; what keeps it from working is told."""

import sys
from functools import partial

import anyio
import pytest

from adaptive_ttc.calibration.collect.__main__ import main
from adaptive_ttc.calibration.collect.collector import Tally, collect
from adaptive_ttc.calibration.collect.ray_workers import LOCAL, ray_actors
from adaptive_ttc.calibration.collect.records import load_records
from adaptive_ttc.calibration.collect.store import Store
from adaptive_ttc.calibration.collect.units import pool_key
from adaptive_ttc.calibration.collect.workers import Job, collect_with_workers
from adaptive_ttc.errors import install_command
from adaptive_ttc.evaluation.datasets import load_problems
from adaptive_ttc.solver import Solver
from tests.calibration.collecting import die_once

DATASET = "minimath-calibration"
DEMAND = {"greedy": 1, "sample": 2, "dvts-2": 1}


async def drawn_here(rows, store):
    """What one process finds."""
    async with Solver.mini() as solver:
        key = pool_key(solver, DATASET)
        await collect(solver, rows, DEMAND, store, key, concurrency=1)
        return key, load_records(store, key, rows, DEMAND)


def exact_and_floats(records):
    """What is drawn, and the floats apart; prompt tokens and FLOPs as measured hang on whose batch a request met."""
    exact, floats = [], []
    for record in records:
        exact.append((record.id, record.question, record.answer, record.prompt_tokens))
        for kind, units in record.units.items():
            for one in units:
                unit = one.unit
                exact.append((kind, unit.generated, unit.prm, one.correct))
                exact.extend((attempt.answer, attempt.tokens, attempt.finish) for attempt in unit.attempts)
                exact.extend(step.tokens for step in unit.first_steps)
                floats.extend(score for attempt in unit.attempts for score in (*attempt.scores, attempt.logprob))
                floats.extend(value for step in unit.first_steps for value in (step.score, step.logprob))
    return exact, floats


@pytest.mark.timeout(600)  # three processes import what a machine at other work takes minutes to read
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray leaves processes and sockets to the garbage collector
def test_a_killed_actors_problems_are_completed_by_others_and_counted_once(tmp_path):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    rows, marker, tally = load_problems(DATASET, 5), tmp_path / "killed", Tally(0)
    with Store(":memory:") as store:
        key, expected = anyio.run(drawn_here, rows, store)
    job = Job(load=partial(die_once, str(marker), Solver.mini, 12), demand=DEMAND, key=key, concurrency=1)
    with Store(tmp_path / "units.sqlite") as store:
        with ray_actors(job, LOCAL, 2, 0) as start:
            result = collect_with_workers(job, rows, store, 2, start, report=tally.add)
        found = load_records(store, key, rows, DEMAND)
    assert marker.exists()
    assert (result.complete, result.ended_early, tally.problems) == (len(rows), None, len(rows))
    assert tally.units == len(rows) * sum(DEMAND.values())
    (theirs, their_floats), (ours, our_floats) = exact_and_floats(found), exact_and_floats(expected)
    assert theirs == ours
    assert their_floats == pytest.approx(our_floats, rel=1e-3, abs=1e-6, nan_ok=True)


def test_a_missing_ray_is_one_sentence_with_the_remedy(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    store = tmp_path / "units.sqlite"
    assert main(["--store", str(store), "--ray"]) == 2
    remedy = install_command("ray")
    assert capsys.readouterr().err == f"error: --ray needs Ray, which is not installed: {remedy}\n"
    assert not store.exists()


def test_gpus_of_workers_are_for_actors(tmp_path, capsys):
    assert main(["--store", str(tmp_path / "units.sqlite"), "--gpus-per-worker", "1"]) == 2
    assert "add --ray" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--calibration", "--allow-mismatch"])
def test_what_calibrates_takes_no_calibration(option, capsys):
    with pytest.raises(SystemExit):
        main(["--store", "x", option])
    assert "unrecognized arguments" in capsys.readouterr().err
