"""Folds are even and stable, and nothing predicts a problem that it was fitted on."""

import pytest

from adaptive_ttc.calibration.collect.records import ProblemRecord
from adaptive_ttc.calibration.judge.held_out import CrossFitted, Fitted, crossfit
from adaptive_ttc.errors import CalibrationError


def problems(count):
    return [ProblemRecord(f"p{index}", "1 + 1?", "2", 5) for index in range(count)]


def test_folds_are_even_and_do_not_depend_on_the_order_of_the_problems():
    records = problems(53)
    folds = crossfit(records, 5, seed=1)
    assert sorted(len(folds.held_out(number, records)) for number in range(5)) == [10, 10, 11, 11, 11]
    assert crossfit(records[::-1], 5, seed=1) == folds
    assert crossfit(records, 5, seed=2) != folds


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
