"""Coarse features divide problems where trees grown on them divide the features themselves."""

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from adaptive_ttc.calibration.fit.classifier import MOST, coarse


def test_trees_grown_on_coarse_features_answer_alike_for_the_features_themselves():
    rng = np.random.default_rng(0)
    features = np.column_stack([rng.normal(size=2000), rng.exponential(size=2000) ** 3, rng.integers(0, 9, 2000)])
    features[rng.random(features.shape) < 0.1] = np.nan
    label = np.nan_to_num(features[:, 0]) + rng.normal(size=2000) > 0
    rough = coarse(features)
    model = HistGradientBoostingClassifier(max_iter=20, max_bins=MOST, early_stopping=False)
    model.fit(rough, label, sample_weight=rng.random(2000))
    assert np.array_equal(model.predict_proba(rough), model.predict_proba(features))
    assert max(len(np.unique(column[~np.isnan(column)])) for column in rough.T) == MOST
    assert np.array_equal(np.isnan(rough), np.isnan(features))


def test_few_values_stay_as_they_are_and_a_column_without_any_is_0():
    features = np.column_stack([np.arange(60) % 7, np.full(60, np.nan), np.where(np.arange(60) % 2, np.nan, 0.5)])
    rough = coarse(features)
    assert np.array_equal(rough[:, 0], features[:, 0])
    assert not rough[:, 1].any()
    assert np.array_equal(rough[:, 2], features[:, 2], equal_nan=True)


def test_the_features_given_are_not_changed():
    features = np.random.default_rng(1).normal(size=(300, 1))
    before = features.copy()
    coarse(features)
    assert np.array_equal(features, before)
