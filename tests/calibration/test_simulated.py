"""The simulated records are what the tests of calibration take them for."""

import numpy as np
import pytest

from tests.calibration.simulated import simulated_record, simulated_records


def right(record, kind):
    return np.array([correct for one in record.units[kind] for correct in one.correct])


def test_samples_are_right_at_the_rate_of_their_problem_and_trees_more_often():
    records = [simulated_record(0.4, 64, f"{seed}", trees=8) for seed in range(60)]
    rates = np.array([right(record, "sample").mean() for record in records])
    assert rates.mean() == pytest.approx(0.4, abs=0.03)
    assert rates.std() < 0.09
    assert np.mean([right(record, "dvts-4").mean() for record in records]) > 0.5
    assert np.mean([right(record, "beam_search-16-4").mean() for record in records]) > 0.5


def test_units_are_whole_and_trees_begin_with_the_samples_first_steps():
    record = simulated_records(1, 32, seed=3, trees=8)[0]
    assert {kind: len(units) for kind, units in record.units.items()} == {
        "greedy": 1, "sample": 32, "dvts-4": 8, "beam_search-16-4": 2,
    }  # fmt: skip
    steps = [one.unit.first_steps[0] for one in record.units["sample"]]
    for index, tree in enumerate(record.units["dvts-4"]):
        assert list(tree.unit.first_steps) == steps[4 * index : 4 * index + 4]
    for units in record.units.values():
        for one in units:
            assert len(one.correct) == len(one.unit.attempts) >= 1
            assert all(a.tokens > 0 and len(a.scores) > 1 for a in one.unit.attempts)
            assert [a.answer == record.answer for a in one.unit.attempts] == list(one.correct)


def test_a_seed_gives_the_same_records_and_another_seed_others():
    assert simulated_records(3, 4, seed=1) == simulated_records(3, 4, seed=1)
    assert simulated_records(3, 4, seed=1) != simulated_records(3, 4, seed=2)
