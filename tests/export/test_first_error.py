"""Binary search for the first error, against trying every beginning."""

import math

import pytest

from adaptive_ttc.export.first_error import every_step, first_error, shares_of_steps


def carried_out(trial, share):
    """The labels of a trial whose beginnings have these shares, and which were tried."""
    tried = []
    try:
        asked = next(trial)
        while True:
            tried.append(asked)
            asked = trial.send(share(asked))
    except StopIteration as end:
        return end.value, tried


@pytest.mark.parametrize("steps", range(1, 18))
def test_it_finds_what_trying_every_beginning_finds_with_a_logarithm_of_the_trials(steps):
    for alive in range(steps):  # so many leading steps can be completed

        def share(number, alive=alive):
            return float(number <= alive)

        found, tried = carried_out(first_error(steps, False), share)
        exhaustive, all_tried = carried_out(every_step(steps, False), share)
        assert found == exhaustive == [1.0] * alive + [0.0] * (steps - alive)
        assert len(tried) <= math.ceil(math.log2(steps)) if steps > 1 else not tried
        assert all_tried == list(range(1, steps))
        assert set(tried) <= set(all_tried)


def test_a_right_solution_is_a_roll_out_from_each_of_its_steps():
    assert carried_out(first_error(5, True), None) == ([1.0] * 5, [])


def test_soft_labels_are_the_shares_and_the_last_step_has_the_solutions_own():
    assert carried_out(shares_of_steps(4, True), lambda number: number / 10) == ([0.1, 0.2, 0.3, 1.0], [1, 2, 3])
    assert carried_out(shares_of_steps(1, False), None) == ([0.0], [])
