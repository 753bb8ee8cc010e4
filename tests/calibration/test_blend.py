"""Agreement and the learned model as one forecast: weights out of fold, files, and the states that they are for."""

import json
from dataclasses import replace

import numpy as np
import pytest

from adaptive_ttc.calibration.fit import blend
from adaptive_ttc.calibration.fit.blend import OutOfFold, VoteLevel, fit_weights
from adaptive_ttc.calibration.fit.gain import GainLearner
from adaptive_ttc.calibration.fit.rows import GainSettings
from adaptive_ttc.calibration.judge.contest import OUTLOOK, Outlooks, contest
from adaptive_ttc.calibration.judge.replay import vote_totals
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.blended_gain import BlendedGainModel, BlendWeights, gain_at, outlook_of
from adaptive_ttc.estimate.gain import Action, Forecast, GainModel, Option
from adaptive_ttc.estimate.table import Vote
from tests.calibration.simulated import simulated_records

QUICK = GainSettings(states=400, iterations=8, leaf=10)


@pytest.fixture(scope="module")
def learner():
    return GainLearner.of(simulated_records(40, 12, 5), Vote(), QUICK, {"greedy", "sample", "dvts-4"})


@pytest.fixture(scope="module")
def model(learner):
    return learner.blended()


def weights_for(learner, learned):
    return fit_weights(learner.votes, learner.rows, learner.actions, learned)


def test_weights_go_to_what_foretold_unseen_problems(learner):
    rows, rng = learner.rows, np.random.default_rng(0)
    truth = OutOfFold(np.clip(rows.right, 0.02, 0.98), rows.after - rows.right[rows.owner])
    noise = OutOfFold(rng.uniform(size=len(rows.right)), rng.normal(size=len(rows.after)))
    perfect, useless = weights_for(learner, truth), weights_for(learner, noise)
    # the general level counts as ten problems beside the 40
    assert perfect.gain == pytest.approx(0.2, abs=0.02)
    assert perfect.right[1] > useless.right[1] + 0.3
    assert useless.gain > 0.9
    assert useless.right[0] > 5 * useless.right[1]


def test_few_problems_lean_towards_agreement(learner):
    few = replace(learner, rows=learner.rows.of(range(8)))
    truth = OutOfFold(few.rows.right, few.rows.after - few.rows.right[few.rows.owner])
    assert weights_for(few, truth).gain == pytest.approx(10 / 18, abs=0.02)


def test_agreement_that_adds_little_is_left_out(learner, model, monkeypatch):
    weights = model.weights
    monkeypatch.setattr(blend, "LEAST", max(weights.gain, weights.right[0]) + 0.01)
    assert not isinstance(learner.blended(), BlendedGainModel)
    monkeypatch.setattr(blend, "LEAST", max(weights.gain, weights.right[0]) - 0.01)
    assert learner.blended().weights == weights


def test_the_general_level_is_fitted_to_no_problem_that_it_is_judged_on(learner):
    """Turn round what happened in a problem: what is foretold of it stays."""
    level = learner.votes
    others = level.fitted(range(1, 40))
    changed = VoteLevel(level.records, np.concatenate([level.seen[:1] * 0 + 1, level.seen[1:]]), level.vote)
    np.testing.assert_allclose(changed.fitted(range(1, 40)).prior.weights, others.prior.weights)
    assert not np.allclose(changed.fitted(range(40)).prior.weights, level.fitted(range(40)).prior.weights)


def test_votes_are_blended_and_searches_are_not(learner, model):
    record = learner.votes.records[0]
    samples, tree = [one.unit for one in record.units["sample"][:3]], record.units["dvts-4"][0].unit
    voted, searched = record.nothing().plus(*samples), record.nothing().plus(*samples, tree)
    agreed = BlendedGainModel(model.learned, model.agreement, BlendWeights((1.0, 0.0, 0.0), 1.0))
    (known, other), (own, same) = agreed.forecasts([voted, searched]), model.learned.forecasts([voted, searched])
    assert other == same
    outlook = outlook_of(model.agreement, voted)
    assert known.right == pytest.approx(min(max(outlook.right, 0.001), 0.999))
    told = {one.action: one.gain for one in known.options}
    for action, gain in told.items():
        if action.kind == "sample":
            wanted = gain_at(outlook, action.count)
            assert gain == pytest.approx(min(max(wanted, -known.right), 1 - known.right))
    assert {one.action for one in known.options} == {one.action for one in own.options}
    learned_alone = BlendedGainModel(model.learned, model.agreement, BlendWeights((0.0, 1.0, 0.0), 0.0))
    (alone,) = learned_alone.forecasts([voted])
    assert alone.right == pytest.approx(own.right, abs=1e-3)
    assert [one.gain for one in alone.options] == pytest.approx([one.gain for one in own.options], abs=2e-3)


def test_a_blend_comes_back_from_json_and_damage_is_told(learner, model):
    data = json.loads(json.dumps(model.as_data()))
    back = BlendedGainModel.of_data(model.learned, data)
    assert back.weights == model.weights
    state = learner.votes.records[1].nothing().plus(*(one.unit for one in learner.votes.records[1].units["sample"][:2]))
    before, after = (one.forecasts([state])[0] for one in (model, back))
    assert after.right == pytest.approx(before.right, abs=5e-3)
    for damaged in ({}, {**data, "schema": 0}, {**data, "right": [1.0]}, {**data, "gain": 2.0}, {**data, "gain": "x"}):
        with pytest.raises(CalibrationError):
            BlendedGainModel.of_data(model.learned, damaged)


def test_without_samples_nothing_is_blended(learner):
    assert VoteLevel.of([replace(one, units={}) for one in learner.votes.records], Vote()) is None


class Knowing(GainModel):
    """Goes on where the leading answer is wrong and another one right; or everywhere else."""

    def __init__(self, records, vote, wrong=False):
        self.right, self.vote, self.wrong = {one.question: one.right() for one in records}, vote, wrong

    def forecasts(self, states):
        return [Forecast(0.5, (Option.in_tokens(Action("sample", 1), self.gain(one), 50, 0),)) for one in states]

    def gain(self, state):
        totals = vote_totals([one for unit in state.units for one in unit.attempts], self.vote)
        right = self.right[state.question]
        hope = max(right.values()) == 1 and (not totals or right[max(totals, key=totals.get)] < 1)
        return 1e-6 if hope == self.wrong else 0.5


def test_the_outlook_is_a_contender_and_ships_only_if_it_is_better_by_its_interval():
    records = [replace(one, units={"sample": one.units["sample"]}) for one in simulated_records(32, 10, 9, spread=0.5)]
    vote = Vote("weighted", power=2.0, logprob=2.0, length=0.02)  # as the unfitted forecasts weigh
    won = contest(records, outlooks=Outlooks([Knowing(records, vote)] * 2, vote), folds=2)
    assert won.chosen == OUTLOOK
    assert won.ahead[OUTLOOK].low > 0
    lost = contest(records, outlooks=Outlooks([Knowing(records, vote, wrong=True)], vote), folds=2)
    assert lost.chosen != OUTLOOK
    assert lost.ahead[OUTLOOK].high < 0
