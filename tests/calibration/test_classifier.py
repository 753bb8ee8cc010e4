"""The classifier of one stage learns what is there to learn, keeps the better model, and says honest probabilities."""

import numpy as np
import pytest

from adaptive_ttc.calibration.fit.classifier import (
    DifficultyClassifier,
    Fitting,
    binary_rows,
    isotonic,
    log_loss,
    platt,
)
from adaptive_ttc.calibration.fit.difficulty import Bins, Counts
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.difficulty import STAGES, Isotonic, Platt, bins_of, with_edges

NAMES = ("votes.top", "other", "constant", "unknown")


def problems(count, seed=0, shape=lambda rate: rate, noise=0.15):
    """Features, soft labels, weights and ids: ``votes.top`` follows the rate, the rest is noise."""
    rng = np.random.default_rng(seed)
    rate = rng.uniform(size=count)
    counts = Counts(rng.binomial(32, rate).astype(float), np.full(count, 32.0))
    bins = Bins.fit(counts)
    told = shape(rate) + rng.normal(0, noise, count)
    features = np.stack([told, rng.normal(size=count), np.ones(count), np.full(count, np.nan)], axis=1)
    features[rng.random(count) < 0.1, 1] = np.nan
    ids = np.array([f"p{index}" for index in range(count)])
    return features, bins.soft(counts.right, counts.drawn), np.ones(count), ids


def fitted(data, **settings):
    return DifficultyClassifier(NAMES, Fitting(iterations=12, **settings)).fit(*data)


@pytest.fixture(scope="module")
def data():
    return problems(240)


@pytest.mark.parametrize("family", ["logistic", "boosting"])
def test_both_families_learn_from_incomplete_features(data, family):
    model = fitted(data, families=(family,))
    unseen = problems(240, seed=9)
    found = model.predict_proba(unseen[0])
    assert found.shape == (240, 5)
    assert found.sum(axis=1) == pytest.approx(1)
    assert found.min() > 0
    assert model.model_.family == family
    assert model.model_.columns == (0, 1)  # what never changes, or is never known, is not read
    shares = np.tile(data[1].mean(axis=0), (240, 1))
    assert log_loss(found, unseen[1], unseen[2]) < log_loss(shares, unseen[1], unseen[2]) - 0.2


def test_harder_never_falls_with_what_makes_a_problem_easier(data):
    model = fitted(data, families=("boosting",))
    ladder = np.stack([np.linspace(-0.3, 1.3, 40), np.zeros(40), np.ones(40), np.full(40, np.nan)], axis=1)
    expected = model.predict_proba(ladder) @ np.arange(5)
    assert (np.diff(expected) <= 1e-9).all()
    assert expected[0] - expected[-1] > 1.5


def test_the_better_family_is_kept():
    straight = fitted(problems(240))
    assert straight.model_.family == min(straight.losses_, key=straight.losses_.get)

    def bent(rate):  # easy where it is far from a half: no line tells
        return np.abs(rate - 0.5) * 2

    names = ("first", "second", "third", "fourth")
    features, soft, weight, ids = problems(400, shape=bent, noise=0.02)
    model = DifficultyClassifier(names, Fitting(iterations=20)).fit(features, soft, weight, ids)
    assert model.model_.family == "boosting"
    assert model.losses_["boosting"] < model.losses_["logistic"] - 0.1


def test_rows_of_a_problem_stay_together():
    """A feature that names the problem tells nothing of others: with parted rows its loss would look splendid."""
    _, soft, weight, ids = problems(60)
    rng = np.random.default_rng(0)
    names_it = rng.permutation(60).astype(float)
    rows = np.repeat(np.stack([names_it, rng.normal(size=60)], axis=1), 4, axis=0)
    model = DifficultyClassifier(("a", "b"), Fitting(iterations=20, leaves=12, share=0.01))
    model.fit(rows, np.repeat(soft, 4, axis=0), np.repeat(weight, 4) / 4, np.repeat(ids, 4))
    assert min(model.losses_.values()) > 1.5  # ln 5 is 1.61


def test_the_same_data_gives_the_same_classifier_whatever_the_order_of_the_rows(data):
    once, again = fitted(data), fitted(tuple(part[::-1] for part in data))
    assert once.predict_proba(data[0]) == pytest.approx(again.predict_proba(data[0]), abs=1e-3)


def test_no_use_is_made_of_features_that_say_nothing():
    features, soft, weight, ids = problems(200)
    features = np.random.default_rng(5).normal(size=(200, 4))
    found = DifficultyClassifier(NAMES, Fitting(iterations=12)).fit(features, soft, weight, ids).predict_proba(features)
    assert found.max() < 0.45


def test_too_few_problems_and_a_single_bin_are_refused():
    features, soft, weight, ids = problems(40)
    with pytest.raises(CalibrationError, match="too few for 3 folds"):
        DifficultyClassifier(NAMES, Fitting(folds=3)).fit(features[:11], soft[:11], weight[:11], ids[:11])
    with pytest.raises(CalibrationError, match="mixed difficulty"):
        DifficultyClassifier(NAMES).fit(features, np.tile(np.eye(5)[2], (40, 1)), weight, ids)


@pytest.mark.parametrize("wrong", [{"folds": 1}, {"share": 0.5}, {"families": ()}, {"rate": 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=r"wants|lies"):
        Fitting(**wrong)


def test_a_target_between_classes_is_a_row_of_each():
    index, label, weight = binary_rows(np.array([0.25, 1.0]), np.array([2.0, 1.0]))
    assert list(zip(index.tolist(), label.tolist(), weight.tolist(), strict=True)) == [
        (0, 1, 0.5), (1, 1, 1.0), (0, 0, 1.5),
    ]  # fmt: skip


def test_curves_straighten_probabilities_that_are_too_sure():
    rng = np.random.default_rng(0)
    true = rng.uniform(0.05, 0.95, 4000)
    logit = np.log(true / (1 - true))
    bold = 1 / (1 + np.exp(-2.5 * logit))
    target = (rng.random(4000) < true).astype(float)
    for curve in (platt(bold, target, np.ones(4000)), isotonic(bold, target, np.ones(4000))):
        assert np.abs(curve(bold) - true).mean() < 0.04 < np.abs(bold - true).mean()
    assert platt(bold, target, np.ones(4000)).slope == pytest.approx(0.4, abs=0.05)


def test_a_curve_never_falls():
    rng = np.random.default_rng(0)
    raw = rng.uniform(size=400)
    against = (rng.random(400) > raw).astype(float)
    curve = platt(raw, against, np.ones(400))
    assert curve(np.array([0.1, 0.9])) == pytest.approx([against.mean()] * 2)
    rising = isotonic(raw, against, np.ones(400))(np.linspace(0, 1, 50))
    assert (np.diff(rising) >= 0).all()
    assert isinstance(curve, Platt)


def test_edges_are_a_thermometer_and_bins_come_of_any_order_of_cumulative_probabilities():
    assert with_edges(np.array([[7.0]])).tolist() == [[7, 0, 0, 0], [7, 1, 0, 0], [7, 1, 1, 0], [7, 1, 1, 1]]
    straight = bins_of(np.array([[0.9, 0.6, 0.5, 0.1]]))
    assert straight[0] == pytest.approx([0.1, 0.3, 0.1, 0.4, 0.1], abs=0.005)
    assert bins_of(np.array([[0.9, 0.5, 0.6, 0.1]])) == pytest.approx(straight)
    assert bins_of(np.array([[1.0, 1.0, 0.0, 0.0]])).min() > 0


def test_isotonic_holds_its_ends():
    curve = Isotonic((0.2, 0.8), (0.1, 0.7))
    assert curve(np.array([0.0, 0.5, 1.0])) == pytest.approx([0.1, 0.4, 0.7])


def test_stages_go_from_poor_to_rich():
    assert [stage.name for stage in STAGES] == [
        "prompt", "first_steps_2", "first_steps_4", "unscored_1", "unscored_2", "unscored_4", "unscored_greedy",
        "unscored_8", "greedy", "finished_4", "finished_8",
    ]  # fmt: skip


@pytest.mark.parametrize("family", ["logistic", "boosting"])
def test_a_feature_that_a_single_problem_knows_may_be_unknown_to_all_of_a_part(family):
    features, soft, weight, ids = problems(60)
    features[7, 3] = 0.5
    found = fitted((features, soft, weight, ids), families=(family,)).predict_proba(features)
    assert np.isfinite(found).all()
