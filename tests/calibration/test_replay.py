"""Replays of the adaptive solver: what a hard total leaves undone."""

import numpy as np
import pytest

from adaptive_ttc.calibration.collect.records import Weights
from adaptive_ttc.calibration.judge.replay import UnitOrder, replay
from adaptive_ttc.estimate.artefact import Opening
from adaptive_ttc.estimate.gain import Action, Forecast, Option
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
