"""Curves of choices by difficulty are read off held-out problems, which choose none of their points."""

import numpy as np
import pytest

from adaptive_ttc.calibration.judge.gains import best_fixed, frontier
from adaptive_ttc.calibration.pareto.curves import at_cost

ARMS = 8
COSTS = 100 * 2.0 ** np.arange(ARMS)
BUDGETS = np.geomspace(200, COSTS.max(), 10)


def test_choices_that_know_nothing_reach_no_more_than_one_arm_for_all():
    rng, even, gain = np.random.default_rng(0), [], []
    rising = 0.5 + 0.05 * np.arange(ARMS)
    cost = np.tile(COSTS, (40, 1))
    for _ in range(60):
        found = frontier(0.5 + 0.05 * rng.standard_normal((40, ARMS)), cost, rng.random((40, ARMS)) < 0.5, cost)
        even.append(np.mean([found.at(budget).mean() for budget in BUDGETS]))
        train, test = (rng.random((n, ARMS)) < rising for n in (160, 40))
        fixed = best_fixed(train, np.tile(COSTS, (160, 1)), test, cost)
        chosen = frontier(rising + 0.05 * rng.standard_normal((40, ARMS)), cost, test, cost)
        gain.append(np.mean([chosen.at(budget).mean() - fixed.at(budget).mean() for budget in BUDGETS]))
    assert np.mean(even) == pytest.approx(0.5, abs=0.02), "the best of many points of noise is .07 above"
    assert np.mean(gain) < 0.01


def test_a_point_that_costs_more_and_reaches_no_more_is_read_as_it_is():
    cost = np.tile([10.0, 20.0, 40.0], (4, 1))
    predicted, measured = np.tile([0.5, 0.6, 0.65], (4, 1)), np.tile([0.5, 0.25, 0.75], (4, 1))
    found = frontier(predicted, cost, measured, cost)
    assert [found.at(budget).mean() for budget in (10, 20, 30, 40, 50)] == pytest.approx([0.5, 0.25, 0.5, 0.75, 0.75])


def test_costs_need_no_order_and_a_budget_beyond_them_buys_the_dearest():
    cost, accuracy = np.array([40.0, 10.0, 20.0]), np.array([[0.3] * 2, [0.5] * 2, [0.4] * 2])
    assert [at_cost(cost, accuracy, budget)[0] for budget in (5, 10, 20, 30, 99)] == pytest.approx(
        [0.25, 0.5, 0.4, 0.35, 0.3]
    )
