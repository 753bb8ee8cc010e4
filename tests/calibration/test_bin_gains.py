"""Gains by difficulty: Bayes' rule, what the tables learn, and the weight that they get out of fold."""

import numpy as np
import pytest

from adaptive_ttc.calibration.fit.bin_gains import best_weight
from adaptive_ttc.calibration.fit.gain import GainLearner
from adaptive_ttc.calibration.fit.rows import GainSettings
from adaptive_ttc.estimate.bin_gains import BinGains, split
from adaptive_ttc.estimate.gain import LearnedGainModel
from adaptive_ttc.estimate.table import Vote
from tests.calibration.simulated import simulated_records


def test_bins_follow_bayes_rule_and_gains_are_means_over_them():
    wrong, right = split(np.array([[0.5, 0.5]]), np.array([0.8, 0.2]))
    np.testing.assert_allclose(wrong, [[0.2, 0.8]])
    np.testing.assert_allclose(right, [[0.8, 0.2]])
    table = BinGains(None, (0.8, 0.2), ((0.5, 0.1), (1.0, 1.0)), ((0.0, 0.1), (0.0, 0.0)))
    gains = table.gains(np.array([[0.5, 0.5]] * 2), np.array([0, 1]), np.array([0.5, 0.5]))
    assert gains == pytest.approx([0.5 * (0.2 * 0.5 + 0.8 * 0.1) - 0.5 * 0.2 * 0.1, 0.5])


def test_the_weight_is_that_of_the_better_forecast_and_a_half_where_little_is_known():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=20_000)
    noise = rng.normal(size=(2, 20_000))
    assert best_weight(truth, truth + noise[0], truth) > 0.95
    assert best_weight(truth, truth, truth + noise[1]) < 0.05
    assert best_weight(truth, truth + noise[0], truth + noise[1]) == pytest.approx(0.5, abs=0.03)
    few = slice(0, 8)
    assert 0.4 < best_weight(truth[few], truth[few] + noise[0][few], truth[few]) < 0.6


@pytest.fixture(scope="module")
def learned():
    records = simulated_records(40, 12, 5)
    settings = GainSettings(states=400, iterations=10, leaf=10)
    return GainLearner.of(records, Vote(), settings, {"greedy", "sample", "dvts-4"}).learn(), records


def test_hard_bins_are_rarely_right_and_find_less(learned):
    bins = learned[0].bins
    assert min(bins.right[:2]) > max(bins.right[3:])
    most = [action.count for action in learned[0].actions].index(8)
    assert bins.found[most][0] > bins.found[most][4]
    assert 0 <= bins.weight <= 1


def test_forecasts_tell_the_posterior_and_change_with_it(learned):
    model, records = learned
    states = [record.nothing().plus(record.units["greedy"][0].unit) for record in records[:3]]
    told = model.forecasts(states)
    assert all(sum(one.difficulty) == pytest.approx(1) for one in told)
    assert model.forecasts([records[0].nothing()])[0].difficulty is None
    easy, hard = np.eye(5)[0], np.eye(5)[4]

    def mean_gain(belief):
        other = LearnedGainModel(
            model.estimators, model.actions, model.reading, model.most, model.bins, lambda seen: [belief] * len(seen)
        )
        return np.mean([option.gain for one in other.forecasts(states) for option in one.options])

    assert mean_gain(easy) != pytest.approx(mean_gain(hard), abs=1e-3)


def test_no_difficulty_is_learned_without_samples():
    records = simulated_records(40, 12, 5)
    for record in records:
        record.units.pop("sample")
    model = GainLearner.of(records, Vote(), GainSettings(states=400, iterations=10, leaf=10)).learn()
    assert model.bins is None
    assert model.forecasts([records[0].nothing().plus(records[0].units["greedy"][0].unit)])[0].options
