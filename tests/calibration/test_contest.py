"""What ships where only samples are drawn, and that it comes back from a file."""

import json
from dataclasses import replace
from unittest.mock import MagicMock

import numpy as np
import pytest

from adaptive_ttc.calibration.judge import contest as module
from adaptive_ttc.calibration.judge.contest import (
    FITTED,
    PUBLISHED,
    UNFITTED,
    Contest,
    ballot_of,
    contest,
    folds_of,
    shipped,
)
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.agreement_gain import AgreementGainModel
from adaptive_ttc.estimate.table import Vote
from adaptive_ttc.evaluation.metrics import Interval
from tests.calibration.test_agreement import record, records


@pytest.fixture(scope="module")
def held():
    return contest(records(16, samples=6), folds=2)


def test_the_simplest_ships_unless_another_is_better_by_its_interval(held):
    assert set(held.accuracy) == {UNFITTED, FITTED, *PUBLISHED}
    assert held.ahead[UNFITTED].mean == 0
    better = [name for name, known in held.ahead.items() if known.low > 0]
    assert held.chosen == (max(better, key=held.accuracy.get) if better else UNFITTED)


@pytest.mark.parametrize("chosen", [UNFITTED, PUBLISHED[0]])
def test_what_won_is_what_ships(chosen):
    won = Contest(chosen, {chosen: 1.0}, {chosen: Interval(0.0, 0.0, 0.0)})
    model = shipped(won, records(8, samples=4), edges=(0.9, 0.7, 0.5, 0.3))
    if chosen == UNFITTED:
        assert model.edges == (0.9, 0.7, 0.5, 0.3)
        assert model.tokens == pytest.approx(100, rel=0.2)
        assert ballot_of(model, Vote("weighted")).name == "majority"
        assert ballot_of(model, Vote("weighted")).logprob == model.weights.logprob
    else:
        assert model is None, "a published rule is named in the metadata"


def test_a_problem_of_several_models_lies_on_one_side():
    twins = [record(number, 0.5) for number in range(12)]
    twins = [one.__class__(f"{one.id} {model}", "?", "right", 5, one.units, one.id) for one in twins for model in "ab"]
    folds = folds_of(twins, 3, 0)
    assert all(folds[place] == folds[place + 1] for place in range(0, 24, 2))
    assert set(folds) == {0, 1, 2}
    alone = [one.__class__(f"{number}", "?", "right", 5, one.units) for number, one in enumerate(twins)]
    assert set(folds_of(alone, 3, 0)) == {0, 1, 2}, "records of a store name no group"


def test_what_ships_is_decided_by_problems_and_not_by_the_models_that_answered_them(monkeypatch):
    """Twelve problems by twenty models: a contender that is luckier on a few problems is no better for all of them."""
    luck = [0.5, 0.4, 0.3] + [0.0] * 6 + [-0.1, -0.2, -0.2]
    base = [record(number, 0.5, samples=2) for number in range(240)]
    grouped = [replace(one, group=f"problem {number % 12}") for number, one in enumerate(base)]

    def reached(problems, fold_of, rules):
        found = {name: np.full(len(problems), 0.3) for name in rules}
        found["esc"] = np.array([0.3 + luck[int(one.id[1:]) % 12] for one in problems])
        return found

    monkeypatch.setattr(module, "_reached", reached)
    monkeypatch.setattr(module, "model_of", MagicMock())
    monkeypatch.setattr(module, "PROBLEMS", 240)
    chosen = {name: contest(some, folds=2) for name, some in (("alone", base), ("grouped", grouped))}
    assert chosen["alone"].chosen == "esc"
    assert chosen["grouped"].chosen == UNFITTED
    assert chosen["grouped"].ahead["esc"].low < 0 < chosen["grouped"].ahead["esc"].mean


def test_forecasts_come_back_from_json_and_damage_is_told():
    model = shipped(Contest(UNFITTED, {}, {}), records(8, samples=4))
    data = json.loads(json.dumps(model.as_data()))
    again = AgreementGainModel.of_data(data)
    assert (again.weights, again.signs, again.edges) == (model.weights, model.signs, model.edges)
    before, after = (one.model.outlook([(2.0, 0.5), (1.0, 0.0)], 1) for one in (model, again))
    assert after.gains == pytest.approx(before.gains, abs=1e-3)
    for damaged in ({}, {**data, "schema": 0}, {**data, "weights": {"size": 1}}, {**data, "prior": {}}):
        with pytest.raises(CalibrationError):
            AgreementGainModel.of_data(damaged)
