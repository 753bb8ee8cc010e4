"""Classifiers of all stages, fitted fold by fold on simulated problems, saved and read again."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import adaptive_ttc.estimate.difficulty as runtime
from adaptive_ttc.calibration.fit.classifier import Fitting
from adaptive_ttc.calibration.fit.difficulty import (
    DifficultyTrainer,
    crossfitted_difficulty,
    stage_evidence,
)
from adaptive_ttc.calibration.judge.difficulty import held_out_predictions, measured_difficulty
from adaptive_ttc.calibration.judge.held_out import CrossFitted, Fitted, crossfit
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.difficulty import STAGES, DifficultyModel
from adaptive_ttc.estimate.features import Reading
from tests.calibration.simulated import simulated_records

FITTING = Fitting(iterations=6, folds=2)


@pytest.fixture(scope="module")
def records():
    return simulated_records(90, 20, seed=11, trees=1, beams=0)


@pytest.fixture(scope="module")
def trainer(records):
    return DifficultyTrainer(records, Reading("min"), fitting=FITTING)


@pytest.fixture(scope="module")
def crossed(records, trainer):
    return crossfitted_difficulty(records, crossfit(records, 3, seed=0), trainer)


@pytest.fixture(scope="module")
def model(crossed):
    return crossed.models[0].for_problems([]).model


@pytest.fixture
def saved(model, tmp_path):
    sha256 = model.save(tmp_path / "classifier.skops")
    (tmp_path / "meta.json").write_text(json.dumps({"files": {"classifier.skops": sha256}}))
    return tmp_path


def states(record):
    return [stage_evidence(record, stage, range(20)) for stage in STAGES]


def test_more_evidence_tells_more_and_never_more_than_the_truth_would(records, crossed, trainer):
    found = measured_difficulty(records, crossed, trainer)
    assert list(found) == [stage.name for stage in STAGES]
    for metrics in found.values():
        assert metrics.problems == 90
        assert metrics.log_loss_floor < metrics.log_loss < metrics.log_loss_of_shares
        assert 0 < metrics.spearman < metrics.spearman_ceiling < 1
        assert np.sum(metrics.confusion) == pytest.approx(90)
    above_floor = {stage: metrics.log_loss - metrics.log_loss_floor for stage, metrics in found.items()}
    assert above_floor["finished_8"] < above_floor["first_steps_2"] - 0.1
    assert found["finished_8"].spearman > found["first_steps_2"].spearman
    assert found["finished_4"].ece < 0.12


def test_agreement_tells_difficulty_where_nothing_was_scored(records):
    plain = [
        replace(
            record, units={"sample": tuple(replace(one, unit=one.unit.unscored()) for one in record.units["sample"])}
        )
        for record in records
    ]
    trainer = DifficultyTrainer(plain, Reading(), fitting=FITTING)
    crossed = crossfitted_difficulty(plain, crossfit(plain, 3, seed=0), trainer)
    found = measured_difficulty(plain, crossed, trainer)
    assert list(found) == ["prompt", "unscored_1", "unscored_2", "unscored_4", "unscored_8"]
    assert found["unscored_8"].log_loss < found["prompt"].log_loss - 0.1
    assert found["unscored_8"].spearman > max(0.8, found["prompt"].spearman)
    live = plain[0].nothing().plus(*(one.unit for one in plain[0].units["sample"][:3]))
    model = crossed.models[0].for_problems([]).model
    assert model.stage(live).name == "unscored_2"
    assert model.posterior(live) != model.posterior(plain[0].nothing())


def test_problems_are_never_predicted_by_what_was_fitted_on_them(records, crossed, trainer):
    everything = Fitted(crossed.models[0].for_problems([]), frozenset(record.id for record in records))
    leaky = CrossFitted(crossed.folds, (everything,) * 3)
    with pytest.raises(CalibrationError, match="fitted on them"):
        held_out_predictions(leaky, records, trainer)


def test_a_held_out_problem_changes_nothing_that_predicts_it(records, crossed, trainer):
    """Turn all results of a fold round: what was fitted without it must not notice."""
    fold = crossed.folds.held_out(0, records)
    others = crossed.folds.training(0, records)
    again = DifficultyTrainer([*fold[:45], *others], Reading("min"), fitting=FITTING).train(others)
    first = crossed.models[0].for_problems([])
    assert again.bins == first.bins
    evidence = states(fold[0])[-1]
    assert again.model.posterior(evidence) == pytest.approx(first.model.posterior(evidence))


def test_folds_that_are_too_small_are_refused(records, trainer):
    few = records[:21]
    with pytest.raises(CalibrationError, match="too few for 7 folds"):
        crossfitted_difficulty(few, crossfit(few, 7, seed=0), trainer)


def test_the_richest_stage_that_the_evidence_satisfies_answers(records, model):
    for stage, evidence in zip(STAGES, states(records[0]), strict=True):
        assert model.stage(evidence) == stage
        row = model.reading.features(evidence)[None]
        assert model.posterior(evidence) == pytest.approx(model.stages[stage.name].predict_proba(row)[0])
    live = records[0].nothing().plus(*(one.unit for units in records[0].units.values() for one in units))
    assert model.stage(live).name == "finished_8"
    seven = records[0].nothing().plus(*(one.unit for one in records[0].units["sample"][:7]))
    assert model.stage(seven).name == "finished_4"


def test_a_stage_that_was_not_trained_is_passed_over(records, model):
    poor = DifficultyModel(model.edges, model.reading, {"prompt": model.stages["prompt"]})
    rich = states(records[0])[-1]
    assert poor.stage(rich).name == "prompt"
    assert poor.posterior(rich) == poor.posterior(states(records[0])[0])


def test_many_states_at_once_get_the_answers_that_each_gets_alone(records, model):
    mixed = [state for record in records[:4] for state in states(record)][::-1]
    together = model.posteriors(mixed)
    assert together == [pytest.approx(model.posterior(state)) for state in mixed]
    assert all(sum(row) == pytest.approx(1) and len(row) == 5 for row in together)
    assert model.posteriors([]) == []


def loaded(folder):
    sums = json.loads((folder / "meta.json").read_text())["files"]
    return DifficultyModel.load(folder / "classifier.skops", sums["classifier.skops"])


def test_what_was_saved_answers_as_before(records, model, saved):
    back = loaded(saved)
    assert back.edges == model.edges
    assert back.reading == model.reading
    mixed = [state for record in records[:4] for state in states(record)]
    assert back.posteriors(mixed) == [pytest.approx(row) for row in model.posteriors(mixed)]


def test_an_edited_model_is_refused(saved):
    path = saved / "classifier.skops"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CalibrationError, match="changed or cut off"):
        loaded(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "schema 99"),
        ({"edges": [0.1, 0.2, 0.3, 0.4]}, "four falling edges"),
        ({"stages": {}}, "prompt alone"),
        ({"stages": {"prompt": {"family": "logistic"}}}, "no difficulty model that runs here"),
        ({"features": ["another"]}, "answers differently"),
        ({"reading": {"agg_strategy": "last"}}, "no difficulty model that runs here"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(saved, model, monkeypatch, change, message):
    path = saved / "classifier.skops"
    kept = []
    monkeypatch.setattr(runtime, "write_estimators", lambda path, content: kept.append(content) or "")
    model.save(path)
    monkeypatch.undo()
    sha256 = runtime.write_estimators(path, {**kept[0], **change})
    with pytest.raises(CalibrationError, match=message):
        DifficultyModel.load(path, sha256)


def test_a_model_that_answers_otherwise_than_when_it_was_made_is_refused(saved, model, monkeypatch):
    path = saved / "classifier.skops"
    kept = []
    monkeypatch.setattr(runtime, "write_estimators", lambda path, content: kept.append(content) or "")
    model.save(path)
    monkeypatch.undo()
    kept[0]["stages"]["prompt"]["answers"] = kept[0]["stages"]["prompt"]["answers"][:, ::-1]
    sha256 = runtime.write_estimators(path, kept[0])
    with pytest.raises(CalibrationError, match="answers differently"):
        DifficultyModel.load(path, sha256)


def test_the_runtime_loads_no_heavy_library_before_a_model_is_read():
    script = "import sys, adaptive_ttc.estimate.difficulty; print({'sklearn', 'skops', 'scipy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "set()"
