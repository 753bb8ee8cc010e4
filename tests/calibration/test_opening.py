"""What a problem begins with: as votes where a budget pays for no search and votes were better than one greedy one, and
by the second policy of a cascade where a budget pays for that and replays were better.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from adaptive_ttc.calibration.collect.arms import parse_arms
from adaptive_ttc.calibration.collect.records import Weights, with_second
from adaptive_ttc.calibration.fit.accuracy import Curves
from adaptive_ttc.calibration.judge import openings
from adaptive_ttc.calibration.judge.gains import FoldModels
from adaptive_ttc.calibration.judge.openings import SHARES, opened_by_second, opening_of
from adaptive_ttc.calibration.judge.replay import UnitOrder, replay
from adaptive_ttc.estimate.artefact import Opening
from adaptive_ttc.estimate.gain import Action, Forecast, GainModel, Option
from adaptive_ttc.estimate.table import Vote
from tests.calibration.simulated import simulated_record, simulated_records

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


class Never(GainModel):
    """Nothing that follows an opening gains anything."""

    def forecasts(self, states):
        return [Forecast(0.5, (Option.in_tokens(Action("sample", 1), -0.1, 100.0, 0.0),)) for _ in states]


def cascade(first, second):
    """Problems that the policies solve at these rates."""
    rates = (first, second)
    small, large = ([simulated_record(rate, 4, f"a-{n}", trees=0, beams=0) for n in range(60)] for rate in rates)
    return with_second(small, large, 5.0)


def decided(records):
    generated = [one.unit.generated for record in records for one in record.units["greedy"]]
    begin = Opening("greedy", True, int(np.quantile(generated, 0.9)), 0)
    folds = [FoldModels(part, None, Never()) for part in (records[:30], records[30:])]
    found, replays = opened_by_second(begin, folds, Vote(), Weights(second_prompt=5.0), 0)
    assert (replays is None) == (not records[0].units.get("second:greedy"))
    return begin, found


def test_the_second_policy_opens_from_the_budget_on_that_pays_for_it_where_it_is_right_more_often():
    records = cascade(0.2, 0.9)
    _, found = decided(records)
    of_second = [one.unit.generated for record in records for one in record.units["second:greedy"]]
    assert found.second_generated == np.ceil(np.quantile(of_second, 0.9))
    assert found.second_from in SHARES[:4], "with fewer units than its opening takes most have no answer at all"
    assert found.second_from * found.second_generated > 0.6 * np.mean(of_second)


@pytest.mark.parametrize("rates", [(0.9, 0.3), (0.6, 0.6)])
def test_the_first_opens_at_every_budget_where_the_second_is_no_better(rates):
    begin, found = decided(cascade(*rates))
    assert found == begin
    assert found.within(10**6, 1.0, 0.0) == begin


@pytest.mark.parametrize("worse", [0.0, 0.01])
def test_the_first_opens_where_the_second_gains_by_chance_alone(worse, monkeypatch):
    rng, records = np.random.default_rng(0), cascade(0.5, 0.5)

    def chance(orders, forecast, vote, budget, weights, opening, least):
        rate = 0.5 - worse * (opening.second_from > 0)
        return [SimpleNamespace(accuracy=float(rng.random() < rate)) for _ in orders]

    monkeypatch.setattr(openings, "replay", chance)
    monkeypatch.setattr(openings, "UnitOrder", lambda record, seed: record)
    opened = [decided(records)[1].second_from > 0 for _ in range(15)]
    assert sum(opened) <= 3, "the best of ten budgets is above 0 four times of five"


def test_problems_of_a_group_are_one_witness():
    rng = np.random.default_rng(2)
    gains = np.repeat(rng.normal(0.12, 0.3, (1, 20)), 30, axis=1) * np.ones((len(SHARES), 1))
    alone = [record.__class__(f"r{n}", "?", "1", 5) for n, record in enumerate(RECORDS[:1] * 600)]
    grouped = [replace(record, group=f"g{n // 30}") for n, record in enumerate(alone)]
    assert openings._surely_from(gains, alone, 0) > 0
    assert openings._surely_from(gains - gains.mean() + 0.06, alone, 0) > 0
    assert openings._surely_from(gains - gains.mean() + 0.06, grouped, 0) == 0


def test_one_policy_has_no_second_opening():
    begin, found = decided(simulated_records(60, 4, 3))
    assert found == begin


PAID = Weights(second_prompt=5.0)
OF_SECOND = Opening("greedy", True, 10, 0, second_generated=10_000, second_prm=0, second_from=1.0)


def test_a_replay_charges_the_prompt_of_the_second_once():
    (record,) = cascade(0.5, 0.5)[:1]
    (paid,) = replay([UnitOrder(record, 0)], Never().forecasts, Vote(), 10**6, PAID, OF_SECOND)
    (free,) = replay([UnitOrder(record, 0)], Never().forecasts, Vote(), 10**6, Weights(), OF_SECOND)
    assert paid.state.taken == free.state.taken == (("second:greedy", 1),)
    assert paid.cost - free.cost == round(5.0 * record.prompt_tokens) > 0


def test_a_replayed_opening_by_the_second_is_promised_its_prompt_too():
    (record,) = cascade(0.5, 0.5)[:1]
    tokens = record.units["second:greedy"][0].unit.generated
    sized = replace(OF_SECOND, second_generated=tokens)
    (one,) = replay([UnitOrder(record, 0)], Never().forecasts, Vote(), 10**6, PAID, sized)
    assert (one.state.taken, one.rounds) == ((("second:greedy", 1),), 1)


class Wants(GainModel):
    """The first slice of one kind, all of another, and the rest of the first; keeps what it was shown."""

    def __init__(self, begun, whole):
        self.begun, self.whole, self.seen = begun, whole, []

    def forecasts(self, states):
        self.seen += states
        return [Forecast(0.5, self.options(state)) for state in states]

    def options(self, state):
        done, begun = {unit.kind for unit in state.units}, {unit.kind for unit in state.begun}
        kind = self.whole if self.begun in begun and self.whole not in done else self.begun
        gain = 0.0 if self.begun in done else 0.1
        return (Option.in_tokens(Action(kind, 1), gain, 1.0, 0.0),)


def test_the_prompt_is_no_part_of_a_unit_that_was_begun_and_is_paid_for_once_beside_another():
    (record,) = cascade(0.5, 0.5)[:1]
    wants, opening = Wants("second:greedy", "second:sample"), Opening("greedy", True, 1000, 0)
    (one,) = replay([UnitOrder(record, 0)], wants.forecasts, Vote(), 10**6, Weights(second_prompt=1.0), opening)
    begun = next(unit for state in wants.seen for unit in state.begun)
    assert begun.kind == "second:greedy"
    assert begun.generated <= 2, "of what was promised beside the prompt"
    assert one.state.taken == (("greedy", 1), ("second:sample", 1), ("second:greedy", 1))
    assert one.cost == record.prompt_tokens + one.generated
