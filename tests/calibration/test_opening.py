"""What a problem begins with: as votes where a budget pays for no search and votes were better than one greedy one."""

import numpy as np
import pytest

from adaptive_ttc.calibration.collect.arms import parse_arms
from adaptive_ttc.calibration.collect.records import Weights
from adaptive_ttc.calibration.fit.accuracy import Curves
from adaptive_ttc.calibration.judge.gains import opening_of
from tests.calibration.simulated import simulated_records

RECORDS = simulated_records(30, 8, 3)
NAMES = ["greedy", "majority:4", "dvts:4x4"]
TOKENS = [50.0, 200.0, 400.0]


def opening(greedy, votes, names=NAMES):
    rng = np.random.default_rng(0)
    arms = tuple(parse_arms(names))
    means = dict(zip(NAMES, (greedy, votes, 0.8), strict=True))
    accuracy = np.array([means[name] for name in names]) + rng.normal(0, 0.05, (len(RECORDS), len(arms)))
    generated = np.tile([TOKENS[NAMES.index(name)] for name in names], (len(RECORDS), 1))
    curves = Curves(arms, tuple(record.id for record in RECORDS), accuracy, generated, generated / 2)
    return opening_of(RECORDS, curves, Weights(prm=2.0))


def test_votes_open_what_pays_for_no_search_where_they_are_better():
    found = opening(0.5, 0.6)
    assert (found.votes_generated, found.votes_prm) == (450, 225)
    both = 450 + 2 * 225
    assert found.within(both - 1, 1.0, 2.0).kind == "sample"
    assert found.within(both, 1.0, 2.0).kind == "greedy"
    assert found.within(both, 3.0, 6.0).kind == "sample"


@pytest.mark.parametrize(("greedy", "votes"), [(0.6, 0.5), (0.5, 0.501)])
def test_a_greedy_solution_opens_where_votes_are_not_surely_better(greedy, votes):
    found = opening(greedy, votes)
    assert (found.votes_generated, found.within(10, 1.0, 2.0).kind) == (0, "greedy")


def test_where_nothing_was_searched_the_greedy_solution_opens():
    assert opening(0.5, 0.6, NAMES[:2]).votes_generated == 0
