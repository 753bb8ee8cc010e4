"""Folds are even and stable, and nothing predicts a problem that it was fitted on."""

from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest

from adaptive_ttc.calibration.collect.records import ProblemRecord
from adaptive_ttc.calibration.fit import agreement, pipeline
from adaptive_ttc.calibration.judge import contest
from adaptive_ttc.calibration.judge.held_out import CrossFitted, Fitted, at_most, crossfit, parts_of
from adaptive_ttc.errors import CalibrationError
from tests.calibration.test_agreement import records as agreeing


def problems(count):
    return [ProblemRecord(f"p{index}", "1 + 1?", "2", 5) for index in range(count)]


def test_folds_are_even_and_do_not_depend_on_the_order_of_the_problems():
    records = problems(53)
    folds = crossfit(records, 5, seed=1)
    assert sorted(len(folds.held_out(number, records)) for number in range(5)) == [10, 10, 11, 11, 11]
    assert crossfit(records[::-1], 5, seed=1) == folds
    assert crossfit(records, 5, seed=2) != folds


def test_what_a_cap_takes_does_not_depend_on_the_order_of_the_problems():
    records = problems(60)
    taken = at_most(records, 20, 0)
    assert len(taken) == 20
    assert at_most(records[::-1], 20, 0) == taken[::-1]
    assert at_most(records, 20, 1) != taken != records[:20]
    assert at_most(records, 100, 0) == records
    folds = crossfit(records, 5, 0)
    assert [len(folds.held_out(number, taken)) for number in range(5)] == [4] * 5


def test_the_problems_that_a_contest_replays_are_not_the_head_of_the_store(monkeypatch):
    monkeypatch.setattr(contest, "PROBLEMS", 6)
    replayed, drawn = [], contest.curves

    def seen(problems, *args, **settings):
        replayed.append({one.id for one in problems})
        return drawn(problems, *args, **settings)

    monkeypatch.setattr(contest, "curves", seen)
    records = agreeing(16, samples=4)
    for order in (records, records[::-1]):
        contest.contest(order, folds=2)
    assert all(ids == replayed[0] for ids in replayed)
    assert replayed[0] == {one.id for one in at_most(records, 6, 0)}
    assert replayed[0] != {one.id for one in records[:6]}


def test_the_problems_that_adaptive_runs_are_replayed_on_are_not_the_heads_of_their_folds(monkeypatch):
    monkeypatch.setattr(pipeline, "REPLAYED", 6)
    for name in ("table_of", "TableGainModel"):
        monkeypatch.setattr(pipeline, name, lambda *args: None)
    records, nothing = problems(16), MagicMock()
    folds = crossfit(records, 2, 0)
    crossed = folds.fit(records, lambda part: nothing)
    parts = [SimpleNamespace(train=np.arange(8), bins=None)] * 2
    settings = (nothing, nothing, None, "", 0, lambda what: None)
    (found,) = pipeline._fold_models(records, crossed, parts, *settings)
    assert found.records == at_most(folds.held_out(0, records), 6, 0)
    assert found.records != folds.held_out(0, records)[:6]


def test_the_rows_that_forecasts_are_judged_by_are_drawn_from_their_fold(monkeypatch):
    monkeypatch.setattr(agreement, "_JUDGED", 3)
    records = problems(20)
    for order in (records, records[::-1]):
        parts = parts_of(order, 2)
        judged = [[order[row] for row in agreement._judged(order, judge)] for _, judge in parts]
        folds = crossfit(records, 2, 0)
        for number, one in enumerate(judged):
            assert {row.id for row in one} == {row.id for row in at_most(folds.held_out(number, records), 3, 0)}


def test_training_and_held_out_problems_partition_the_records():
    records = problems(20)
    folds = crossfit(records, 4, seed=0)
    for number in range(4):
        parts = folds.training(number, records), folds.held_out(number, records)
        assert not {record.id for record in parts[0]} & {record.id for record in parts[1]}
        assert len(parts[0]) + len(parts[1]) == 20


def test_every_problem_is_predicted_by_the_model_that_has_not_seen_it():
    records = problems(20)
    fitted = crossfit(records, 4, seed=0).fit(records, lambda part: {record.id for record in part})
    held = [(record.id, model) for model, part in fitted.held_out(records) for record in part]
    assert len(held) == 20
    assert all(id not in model for id, model in held)


def test_a_model_that_has_seen_the_problem_is_refused():
    records = problems(20)
    folds = crossfit(records, 4, seed=0)
    everything = Fitted("model", frozenset(record.id for record in records))
    leaky = CrossFitted(folds, (everything,) * 4)
    with pytest.raises(CalibrationError, match="fitted on them"):
        list(leaky.held_out(records[3:4]))
    with pytest.raises(CalibrationError, match="fitted on them"):
        list(leaky.held_out(records))
    with pytest.raises(CalibrationError, match="'p3'"):
        everything.for_problems(["new", "p3"])
    assert everything.for_problems(["new"]) == "model"


def test_a_problem_without_a_fold_is_refused():
    records = problems(20)
    fitted = crossfit(records, 4, seed=0).fit(records, len)
    with pytest.raises(CalibrationError, match="has no fold"):
        list(fitted.held_out(problems(21)))


@pytest.mark.parametrize(("count", "folds"), [(20, 1), (5, 3), (0, 2)])
def test_folds_that_cannot_be_made(count, folds):
    with pytest.raises(CalibrationError, match="at least 2 folds"):
        crossfit(problems(count), folds, seed=0)


def test_a_problem_that_is_there_twice_could_be_in_two_folds():
    with pytest.raises(CalibrationError, match="'p2' is there twice"):
        crossfit([*problems(9), problems(3)[2]], 2, seed=0)
