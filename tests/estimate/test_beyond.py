"""Forecasts beyond what calibration recorded: there are some, they are marked, and they decline."""

import numpy as np
import pytest

from adaptive_ttc.estimate.difficulty import Platt
from adaptive_ttc.estimate.features import Attempt, Evidence, Reading, Unit
from adaptive_ttc.estimate.gain import TREND, Action, Estimators, LearnedGainModel

READING = Reading()
DONE = READING.names.index("units.dvts")


class ByUnits:
    """A wrong answer becomes right the likelier, the more is added to what is there: 1 - (done / after)^(1/2)."""

    def predict_proba(self, rows):
        done = np.maximum(rows[:, DONE], 0.5)
        added = np.exp2(rows[:, len(READING.names)]) - 1 if rows.shape[1] > len(READING.names) else 0.0
        found = 1 - np.sqrt(done / (done + added))
        return np.stack([1 - found, found], axis=1)


class Always:
    def __init__(self, value):
        self.value = value

    def predict_proba(self, rows):
        return np.tile([1 - self.value, self.value], (len(rows), 1))

    def predict(self, rows):
        return np.full(len(rows), self.value)


def model(most):
    actions = [Action("dvts-4", count) for count in (1, 2, 4) if count <= most] + [Action("greedy", 1)]
    found = ByUnits()
    estimators = Estimators(Always(0.5), Platt(1.0, 0.0), found, Always(0.0), Always(0.5), Always(100.0), Always(0.0))
    return LearnedGainModel(estimators, actions, READING, {"dvts-4": most, "greedy": 1})


def state(trees):
    unit = Unit("dvts-4", (Attempt("7", (0.5,), 50),), (), 100, 100)
    return Evidence("how much?", 5, (Unit("greedy", (Attempt("7", (0.5,), 50),)), *[unit] * trees))


def gains(made, trees):
    (forecast,) = made.forecasts([state(trees)])
    return {one.action.count: (one.gain, one.beyond) for one in forecast.options}


def test_within_what_was_recorded_nothing_is_marked_and_beyond_it_everything():
    made = model(8)
    assert not any(beyond for _, beyond in gains(made, 4).values())
    assert {count: beyond for count, (_, beyond) in gains(made, 6).items()} == {1: False, 2: False, 4: True}
    assert all(beyond for _, beyond in gains(made, 8).values())
    (forecast,) = made.forecasts([state(8)])
    assert [one.generated for one in forecast.options] == [100.0, 200.0, 400.0], "costs are those of all units"


def test_gains_beyond_go_by_the_ratio_of_what_is_added_to_what_is_there():
    made = model(8)
    for trees in (8, 16, 100):
        for count, (gain, _) in gains(made, trees).items():
            assert gain == pytest.approx(0.5 * (1 - (trees / (trees + count)) ** 0.5) / 2)
    by_trees = [gains(made, trees)[4][0] for trees in range(4, 60)]
    assert by_trees == sorted(by_trees, reverse=True)


@pytest.mark.parametrize("most", [1, TREND - 1])
def test_too_few_recorded_units_show_no_trend(most):
    assert not gains(model(most), most)


def test_a_greedy_solution_is_never_drawn_again():
    (forecast,) = model(8).forecasts([state(20)])
    assert {one.action.kind for one in forecast.options} == {"dvts-4"}
