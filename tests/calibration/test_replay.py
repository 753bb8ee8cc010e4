"""Replays of the adaptive solver: what a hard total leaves undone."""

from dataclasses import replace

import numpy as np
import pytest

from adaptive_ttc.calibration.collect.records import Weights
from adaptive_ttc.calibration.judge.replay import UnitOrder, replay, replay_each
from adaptive_ttc.estimate.artefact import Opening
from adaptive_ttc.estimate.gain import Action, Forecast, Option
from adaptive_ttc.estimate.pair_calibration import prior_of
from adaptive_ttc.estimate.table import Vote
from tests.calibration.simulated import simulated_records


@pytest.mark.parametrize("seed", range(5))
def test_a_total_that_pays_for_every_opening_finishes_them_all_though_many_outlive_what_was_set_aside(seed):
    records = simulated_records(40, 4, seed)
    greedy = [record.units["greedy"][0] for record in records]
    lengths = [one.unit.generated for one in greedy]

    def forecast(states):
        option = Option.in_tokens(Action("greedy", 1), 0.5, float(np.mean(lengths)), 0.0)
        return [Forecast(0.5, () if state.counts() else (option,)) for state in states]

    opening = Opening("greedy", False, int(np.quantile(lengths, 0.8)), 0)
    assert sum(length > opening.generated for length in lengths) >= 4
    orders = [UnitOrder(record, 0) for record in records]
    runs = replay(orders, forecast, Vote(), sum(lengths), Weights(1.0, 0.0), opening)
    assert [run.cost for run in runs] == lengths
    assert sum(run.accuracy for run in runs) == sum(one.correct[0] for one in greedy)


def test_records_without_greedy_solutions_are_opened_with_a_sample():
    records = [replace(record, units={"sample": record.units["sample"]}) for record in simulated_records(10, 4, 0)]
    orders = [UnitOrder(record, 0) for record in records]
    prior = prior_of(400, prm=False)
    for budget in (200, 4_000, 40_000):
        for runs in (replay, replay_each):
            ended = runs(orders, prior.gain.forecasts, Vote(), budget, Weights(), prior.opening)
            spent = [run.cost for run in ended]
            assert sum(spent) <= budget if runs is replay else max(spent) <= budget
            if budget > 200:
                assert all(run.generated > 0 for run in ended)
                assert all(dict(run.state.taken).keys() == {"sample"} for run in ended)
