"""What a stage shows, on records and live, and that labels are never counted on what is shown."""

import math
from dataclasses import replace

import numpy as np
import pytest

from adaptive_ttc.calibration.fit.difficulty import outcomes, possible_stages, stage_evidence, stage_rows
from adaptive_ttc.estimate.difficulty import STAGES
from adaptive_ttc.estimate.features import Reading
from tests.calibration.simulated import simulated_record, simulated_records

STAGE = {stage.name: stage for stage in STAGES}


@pytest.fixture(scope="module")
def record():
    return simulated_record(0.5, 12, "stages", trees=2, beams=1)


def everything(record):
    return record.nothing().plus(*(one.unit for units in record.units.values() for one in units))


def test_how_sure_the_policy_was_of_answers_is_a_feature_that_earlier_calibrations_do_not_read(record):
    unit = record.units["sample"][0].unit
    sure = [
        replace(unit, attempts=(replace(unit.attempts[0], answer=answer, answer_logprob=logprob),))
        for answer, logprob in (("1", -0.1), ("1", -0.3), ("2", -2.0), ("3", math.nan))
    ]
    now, before = Reading(), Reading.of_data({"agg_strategy": "last", "families": ["greedy", "sample"]})
    values = dict(zip(now.names, now.features(record.nothing().plus(*sure)), strict=True))
    assert values["answers.logprob_mean"] == pytest.approx(-0.8)
    assert values["answers.lead_logprob"] == pytest.approx(-0.2)
    assert values["answers.other_logprob"] == pytest.approx(-2.0)
    assert np.isnan(now.features(record.nothing())[-3:]).all()
    assert Reading.of_data(now.as_data()) == now
    assert not [name for name in before.names if name in now.names[-3:]]
    assert len(before.features(record.nothing().plus(*sure))) == len(before.names)


def test_first_steps_show_no_more_than_first_steps(record):
    shown = stage_evidence(record, STAGE["first_steps_2"], [5, 3, 1, 0])
    assert [unit.first_steps for unit in shown.units] == [
        record.units["sample"][index].unit.first_steps for index in (5, 3)
    ]
    assert not any(unit.attempts for unit in shown.units)
    assert [unit.generated for unit in shown.units] == [unit.first_steps[0].tokens for unit in shown.units]


def test_finished_samples_and_the_greedy_solution_are_shown_whole(record):
    shown = stage_evidence(record, STAGE["finished_4"], [7, 6, 5, 4, 3])
    assert list(shown.units) == [record.units["sample"][index].unit for index in (7, 6, 5, 4)]
    assert stage_evidence(record, STAGE["greedy"], range(12)).units == (record.units["greedy"][0].unit,)
    assert stage_evidence(record, STAGE["prompt"], range(12)) == record.nothing()
    assert stage_evidence(record, STAGE["finished_8"], range(7)) is None


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_live_state_is_cut_down_to_what_was_trained_on(record, stage):
    shown = stage_evidence(record, stage, range(12))
    live = stage.view(everything(record))
    assert np.array_equal(Reading().features(live), Reading().features(shown), equal_nan=True)
    assert stage.view(shown) is not None


def test_first_steps_of_trees_count_and_those_of_a_greedy_solution_do_not(record):
    stage = STAGE["first_steps_4"]
    assert stage.view(record.nothing().plus(record.units["dvts-4"][0].unit)) is not None
    assert stage.view(record.nothing().plus(*[record.units["greedy"][0].unit] * 4)) is None


def unscored(record):
    units = {
        kind: tuple(replace(one, unit=one.unit.unscored()) for one in drawn)
        for kind, drawn in record.units.items()
        if kind in ("greedy", "sample")
    }
    return replace(record, units=units)


UNSCORED = ["unscored_1", "unscored_2", "unscored_4", "unscored_greedy", "unscored_8"]


def test_what_no_prm_has_scored_satisfies_the_stages_that_want_no_scores(record):
    plain = everything(unscored(record))
    assert [stage.name for stage in STAGES if stage.view(plain) is not None] == ["prompt", *UNSCORED]


def test_stages_that_want_no_scores_show_none(record):
    names = Reading().names
    shown = stage_evidence(record, STAGE["unscored_4"], range(12))
    assert shown == stage_evidence(unscored(record), STAGE["unscored_4"], range(12))
    known = dict(zip(names, Reading().features(shown), strict=True))
    assert all(math.isnan(value) for name, value in known.items() if "score" in name)
    told = ("votes.top", "votes.entropy", "answers.distinct", "attempts.no_answer", "attempts.tokens_mean")
    assert not any(math.isnan(known[name]) for name in (*told, "attempts.logprob_mean"))


def test_stages_that_were_not_recorded_are_left_out():
    whole = simulated_records(25, 10, seed=0, trees=0, beams=0)
    assert possible_stages(whole) == STAGES
    small = simulated_records(25, 6, seed=0, trees=0, beams=0)
    assert [stage.name for stage in possible_stages(small)] == [
        "prompt", "first_steps_2", "first_steps_4", *UNSCORED[:4], "greedy", "finished_4",
    ]  # fmt: skip
    plain = [replace(record, units={"sample": record.units["sample"]}) for record in whole]
    assert STAGE["greedy"] not in possible_stages(plain)
    without = possible_stages([unscored(record) for record in whole])
    assert [stage.name for stage in without] == ["prompt", *UNSCORED]


def test_a_label_is_counted_on_samples_that_the_row_does_not_show():
    records = simulated_records(25, 12, seed=1, trees=0, beams=0)
    rows = stage_rows(records, STAGE["finished_4"], Reading(), permutations=3)
    assert len(rows) == 75
    assert set(rows.drawn.tolist()) == {8.0}
    assert rows.weight.sum() == pytest.approx(25)
    lead = Reading().names.index("votes.top")
    total = {record.id: outcomes(record).sum() for record in records}
    shown = [total[id] - right for id, right in zip(rows.problem.tolist(), rows.right.tolist(), strict=True)]
    assert all(0 <= one <= 4 for one in shown)
    assert len(set(rows.features[:, lead].tolist())) > 3
    assert any(len(set(rows.right[rows.problem == id].tolist())) > 1 for id in total)  # orders differ


def test_stages_that_show_no_sample_have_one_row_a_problem_and_count_all_samples():
    records = simulated_records(21, 6, seed=1, trees=0, beams=0)
    for name in ("prompt", "greedy"):
        rows = stage_rows(records, STAGE[name], Reading(), permutations=3)
        assert len(rows) == 21
        assert set(rows.drawn.tolist()) == {6.0}


def test_rows_of_some_problems():
    records = simulated_records(21, 6, seed=1, trees=0, beams=0)
    rows = stage_rows(records, STAGE["first_steps_2"], Reading(), permutations=2)
    part = rows.of([records[3].id, records[5].id, "unknown"])
    assert sorted(part.problem.tolist()) == sorted([records[3].id, records[5].id] * 2)
