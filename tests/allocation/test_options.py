"""A forecast as options: what was begun costs only its rest."""

from dataclasses import replace

import pytest

from adaptive_ttc.allocation.options import AGEING, GROWTH, MARGIN, Pace, priced, slice_units, within_record
from adaptive_ttc.estimate.features import Attempt, Evidence, Unit
from adaptive_ttc.estimate.gain import Action, Option

SAMPLES = [Option.in_tokens(Action("sample", count), count / 100, 50.0 * count, 40.0 * count) for count in (1, 4, 8)]


def options(evidence, prm=2.0):
    return priced(SAMPLES, evidence, 1.0, prm)


def evidence(*begun):
    return Evidence("how much?", 10, (Unit("sample", (Attempt("1", (0.5,), 50),), (), 50, 40),), begun)


def test_an_option_costs_all_its_units_and_a_slice_of_samples_is_four():
    one, four, eight = options(evidence())
    assert [option.cost for option in (one, four, eight)] == [130.0, 520.0, 1040.0]
    planned = 50 + 2 * 80  # twice the PRM tokens that it is expected to take are set aside
    assert [option.slice_cost for option in (one, four, eight)] == [MARGIN * count * planned for count in (1, 4, 4)]
    assert one.gain == pytest.approx(0.01)
    assert not one.within(129)


def test_what_was_cut_is_paid_for_already():
    one, four, eight = options(evidence(Unit("sample", generated=30)))
    assert [option.cost for option in (one, four, eight)] == [100.0, 490.0, 1010.0]
    assert one.slice_cost == MARGIN * 180


def test_what_outlived_its_cost_is_expected_to_take_a_share_of_it_and_is_tried_with_whatever_is_left():
    one, four, _ = options(evidence(Unit("sample", generated=200, prm=50)))
    assert one.cost == pytest.approx(AGEING * 300)
    assert one.within(1)
    assert four.cost == 220.0
    assert not four.within(219)


def test_what_outlived_its_cost_gains_less():
    fresh, outlived = (options(evidence(Unit("sample", generated=tokens)))[0] for tokens in (130, 260))
    assert outlived.gain == pytest.approx(fresh.gain / 2)


def opened(*begun):
    searches = (("greedy", 0.6, 60.0, 80.0), ("dvts-4", 0.7, 240.0, 220.0))
    some = [Option.in_tokens(Action(kind, 1), *values) for kind, *values in searches]
    return priced(some, Evidence("how much?", 10, (), begun), 1.0, 2.0)


def test_while_there_is_no_solution_what_was_cut_is_all_that_is_offered_and_ends_as_it_was_begun():
    assert [option.action.kind for option in opened()] == ["greedy", "dvts-4"]
    (unscored,) = opened(Unit("greedy", generated=50))
    assert (unscored.cost, unscored.slice_cost) == (10.0, 20)
    (scored,) = opened(Unit("greedy", generated=50, prm=50))
    assert scored.cost == 60 + 2 * 80 - 150


def test_cut_solutions_of_another_kind_change_nothing():
    assert options(evidence(Unit("greedy", generated=30))) == options(evidence())


def test_options_end_where_a_record_does():
    options = [Option(Action("sample", count), 10.0 * count, 0.1 * count, 5) for count in (16, 1, 4, 32)]
    found = within_record(options, 6)
    assert [(one.action.count, one.cost) for one in found] == [(1, 10.0), (4, 40.0), (6, 60.0)]
    assert [one.gain for one in found] == pytest.approx([0.1, 0.4, 0.6])
    assert [one.action.count for one in within_record(options, 4)] == [1, 4]
    assert within_record(options, 0) == []


GAINS = {1: 0.01, 2: 0.02, 4: 0.05, 8: 0.4}  # most of the gain comes with the last units


@pytest.mark.parametrize(
    ("count", "done", "pace", "units"),
    [
        (8, 0, Pace(), 1),  # others wait for every place
        (8, 0, Pace(at_once=2), 2),
        (8, 0, Pace(at_once=32), 4),  # eight would still be wanted after four
        (4, 0, Pace(at_once=32), 1),  # half the gain of two lies in the first
        (8, 0, Pace(rounds=2), 4),
        (8, 0, Pace(rounds=1), 8),
        (1, 8, Pace(at_once=32), int(8 * GROWTH)),  # eight were not enough
        (1, 100, Pace(at_once=32), 8),  # never more than is on offer
    ],
)
def test_a_slice_is_the_larger_the_farther_its_problem_is_from_stopping(count, done, pace, units):
    assert slice_units(Action("dvts-4", count), GAINS, done, pace) == units


def test_several_units_are_set_aside_for_and_shrink_to_what_is_left():
    some = [Option.in_tokens(Action("dvts-4", count), gain, 100.0 * count, 0.0) for count, gain in GAINS.items()]
    *_, eight = priced(some, evidence(), 1.0, 0.0, Pace(at_once=32))
    assert (eight.at_once, eight.slice_cost) == (4, MARGIN * 400)
    assert eight.shrunk(10_000) == eight
    assert (eight.shrunk(500).at_once, eight.shrunk(500).slice_cost) == (2, MARGIN * 200)
    assert eight.shrunk(1).at_once == 1


def test_a_slice_that_is_cut_to_what_is_left_still_pays_for_the_whole_prompt():
    option = Option(Action("second:sample", 4), 1400.0, 0.5, 1400, at_once=4, prompt=1000)
    cut = option.shrunk(1250)
    assert (cut.at_once, cut.slice_cost) == (2, 1200)
    assert option.shrunk(1040).slice_cost == 1100, "one unit, with the prompt"
    assert replace(option, prompt=0).shrunk(700).slice_cost == 700
