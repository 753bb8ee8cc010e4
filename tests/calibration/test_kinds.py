"""Which kinds of work are offered: samples and two widths of search stay unless something is surely better."""

import numpy as np

from adaptive_ttc.calibration.collect.arms import parse_arms
from adaptive_ttc.calibration.collect.records import Weights
from adaptive_ttc.calibration.fit.accuracy import BinCurves, Curves
from adaptive_ttc.calibration.judge.kinds import _searches, offered

ARMS = parse_arms(["greedy", "majority:4", "dvts:2x2", "dvts:4x4", "beam_search:16x4", "revision:4x4"])
COST = [60, 240, 250, 260, 1000, 300]


def curves_of(accuracy, margin=0.05):
    accuracy = np.array(accuracy, dtype=float)
    cost = np.tile(np.array(COST, dtype=float), (len(accuracy), 1))
    ids = tuple(str(number) for number in range(len(accuracy)))
    by_bin = BinCurves(accuracy, accuracy, accuracy - margin, accuracy + margin, cost, 0 * cost)
    return Curves(tuple(ARMS), ids, accuracy, cost, 0 * cost), by_bin


def test_samples_and_two_widths_are_offered_though_others_look_better_on_average():
    offer = offered(*curves_of([[0.7, 0.65, 0.72, 0.75, 0.74, 0.7]] * 2), Weights())
    assert offer.kinds == ("dvts-2", "dvts-4", "greedy", "sample")
    assert set(offer.dropped) == {"beam_search-16-4", "revision-4"}
    assert all("worth 0.00 points less" in why for why in offer.dropped.values())


def test_a_kind_is_dropped_where_something_no_dearer_is_surely_better_in_every_bin_but_not_in_some():
    worse = [0.7, 0.2, 0.72, 0.75, 0.74, 0.7]
    offer = offered(*curves_of([worse, worse]), Weights())
    assert "sample" not in offer.kinds
    assert "surely better" in offer.dropped["sample"]
    assert "sample" in offered(*curves_of([worse, [0.7, 0.65, 0.72, 0.75, 0.74, 0.7]]), Weights()).kinds


def test_a_further_kind_is_offered_where_choices_by_difficulty_miss_it():
    offer = offered(*curves_of([[0.7, 0.65, 0.72, 0.75, 0.95, 0.7], [0.2, 0.2, 0.3, 0.3, 0.9, 0.2]]), Weights())
    assert "beam_search-16-4" in offer.kinds
    assert "revision-4" in offer.dropped


def test_either_policys_searches_are_kept_by_its_own_widths():
    columns = np.array(["dvts-4", "dvts-8", "beam_search-8-4", "second:beam_search-8-4", "second:beam_search-16-4"])
    firm = _searches(columns, np.array([[1.0, 2.0, 3.0, 4.0, 5.0]]))
    assert firm == {"dvts-4", "dvts-8", "second:beam_search-8-4", "second:beam_search-16-4"}
