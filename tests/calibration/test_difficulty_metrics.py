"""Metrics of posteriors over difficulty, against values worked out by hand and against what is known of the truth."""

import math
from dataclasses import asdict

import numpy as np
import pytest

from adaptive_ttc.calibration.fit.difficulty import Bins, Prior
from adaptive_ttc.calibration.judge.difficulty import (
    Predictions,
    calibration_error,
    measure,
    reliability,
    spearman_ceiling,
)

BINS = Bins((0.8, 0.6, 0.4, 0.2), Prior(1, 1))


def predictions(posterior, soft, right=None, drawn=None, problem=None, weight=None):
    posterior, soft = np.array(posterior, dtype=float), np.array(soft, dtype=float)
    n = len(posterior)
    return Predictions(
        posterior,
        soft,
        np.array([f"p{index}" for index in range(n)] if problem is None else problem),
        np.arange(n, dtype=float) if right is None else np.array(right, dtype=float),
        np.full(n, float(n)) if drawn is None else np.array(drawn, dtype=float),
        np.ones(n) if weight is None else np.array(weight, dtype=float),
    )


def sure(bin):
    return [0.6 if index == bin else 0.1 for index in range(5)]


def simulated(problems, draws, seed=0):
    rng = np.random.default_rng(seed)
    rates = rng.uniform(size=problems)
    right = rng.binomial(draws, rates).astype(float)
    drawn = np.full(problems, float(draws))
    return rates, right, drawn


def test_log_loss_and_brier_of_two_problems():
    found = measure(predictions([sure(0), sure(4)], np.eye(5)[[0, 3]]), BINS)
    assert found.problems == 2
    assert found.log_loss == pytest.approx(-(math.log(0.6) + math.log(0.1)) / 2)
    assert found.log_loss_floor == pytest.approx(0)
    assert found.log_loss_of_shares == pytest.approx(math.log(2))
    assert found.brier == pytest.approx(((0.4**2 + 4 * 0.1**2) + (0.9**2 + 0.6**2 + 3 * 0.1**2)) / 2)


def test_a_problem_weighs_the_same_however_many_rows_it_has():
    twice = predictions(
        [sure(0), sure(4), sure(4)], np.eye(5)[[0, 3, 3]], problem=["a", "b", "b"], weight=[1, 0.5, 0.5]
    )
    once = predictions([sure(0), sure(4)], np.eye(5)[[0, 3]])
    assert measure(twice, BINS).log_loss == pytest.approx(measure(once, BINS).log_loss)
    assert measure(twice, BINS).problems == 2


def test_confusion_counts_problems_by_the_probability_of_their_bin():
    found = measure(predictions([sure(0), sure(0), sure(4)], [[0.7, 0.3, 0, 0, 0], *np.eye(5)[[0, 3]]]), BINS)
    table = np.array(found.confusion)
    assert table[:, 0] == pytest.approx([1.7, 0.3, 0, 0, 0])
    assert table[:, 4] == pytest.approx([0, 0, 0, 1, 0])
    assert table.sum() == pytest.approx(3)


def test_the_posterior_itself_is_calibrated_and_one_that_is_too_sure_is_not():
    rates, right, drawn = simulated(6000, 8)
    soft = np.eye(5)[(rates[:, None] < BINS.edges).sum(axis=1)]
    honest = BINS.soft(right, drawn)
    bold = honest**4 / (honest**4).sum(axis=1, keepdims=True)
    errors = [measure(predictions(one, soft, right, drawn), BINS).ece for one in (honest, bold)]
    assert errors[0] < 0.015 < 0.04 < errors[1]


def test_reliability_has_points_of_equal_mass_for_every_edge():
    _, right, drawn = simulated(200, 8)
    soft = BINS.soft(right, drawn)
    points = reliability(predictions(soft, soft, right, drawn), 10)
    assert [point.edge for point in points] == [edge for edge in range(4) for _ in range(10)]
    assert all(point.weight == pytest.approx(20) for point in points)
    assert calibration_error(points) == pytest.approx(0)
    for edge in range(4):
        predicted = [point.predicted for point in points if point.edge == edge]
        assert predicted == sorted(predicted)


def test_the_mean_distance_is_taken_over_edges_and_masses():
    soft = np.tile([0.2, 0.2, 0.2, 0.2, 0.2], (40, 1))
    shifted = np.tile([0.3, 0.2, 0.2, 0.2, 0.1], (40, 1))
    assert measure(predictions(shifted, soft), BINS).ece == pytest.approx(0.1)


def test_the_ceiling_is_what_the_true_rates_reach():
    rates, right, drawn = simulated(4000, 6)
    order = np.argsort(np.argsort(rates)), np.argsort(np.argsort(right + 1e-9 * np.arange(4000)))
    reached = np.corrcoef(*order)[0, 1]
    found = predictions(BINS.soft(right, drawn), BINS.soft(right, drawn), right, drawn)
    assert spearman_ceiling(found, BINS, draws=20) == pytest.approx(reached, abs=0.015)
    assert spearman_ceiling(found, BINS, draws=20) < 0.95


def test_spearman_is_positive_where_problems_predicted_to_be_easy_are_solved_more_often():
    posterior = [sure(bin) for bin in (4, 3, 2, 1, 0)]
    found = measure(predictions(posterior, posterior, right=[0, 1, 2, 3, 4]), BINS)
    turned = measure(predictions(posterior, posterior, right=[4, 3, 2, 1, 0]), BINS)
    flat = measure(predictions([sure(2)] * 5, posterior, right=[4, 3, 2, 1, 0]), BINS)
    assert (found.spearman, turned.spearman, flat.spearman) == (pytest.approx(1), pytest.approx(-1), 0)


def test_metrics_are_plain_data():
    data = asdict(measure(predictions([sure(0), sure(4)], np.eye(5)[[0, 3]]), BINS))
    assert data["problems"] == 2
    assert set(data["reliability"][0]) == {"edge", "predicted", "observed", "weight"}
