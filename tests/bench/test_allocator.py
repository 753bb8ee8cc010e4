"""The known model against brute force, and the bench's figures on tiny settings."""

import itertools
from functools import partial

import pytest

from tests.bench.toys import load


@pytest.fixture
def known(monkeypatch):
    return load(monkeypatch, "allocator_known_model")


@pytest.fixture
def bench(monkeypatch):
    return load(monkeypatch, "allocator")


def small(known, vote="majority", costs=(1,)):
    right = ((0.35,), (0.6,), (0.9,)) if len(costs) == 1 else ((0.35, 0.6), (0.6, 0.7), (0.9, 0.95))
    return known.KnownModel((0.2, 0.5, 0.3), right, costs=costs, cap=7, vote=vote)


@pytest.mark.parametrize("units", [1, 2, 3, 4, 5])
def test_the_accuracy_of_a_majority_is_that_of_all_sequences(known, units):
    model = small(known)
    total = 0.0
    for weight, (p,) in zip(model.weights, model.right, strict=True):
        for votes in itertools.product((0, 1), repeat=units):
            chance = weight
            for vote in votes:
                chance *= p if vote else 1 - p
            total += chance * (sum(votes) * 2 > units) + chance * (sum(votes) * 2 == units) / 2
    assert model.future(model.start, known.Action(0, units)) == pytest.approx(total)


@pytest.mark.parametrize("vote", ["majority", "posterior"])
def test_samples_that_can_no_longer_change_the_vote_cost_nothing(known, vote):
    model = small(known, vote)
    action = known.Action(0, 3)
    one = ((1, 0),)
    # from one vote, three more: two are drawn at least; the third only where they did not decide it
    first, other = (chance for chance, _ in sorted(model.after(one, known.Action(0, 1)), key=lambda pair: pair[1]))
    assert first + other == pytest.approx(1)
    assert 1 <= model.takes(one, action) < 3
    assert model.takes(one, known.Action(0, 1)) == 0
    assert model.takes(((0, 0),), known.Action(0, 1)) == 1
    assert model.takes(((4, 0),), action) == 0


@pytest.mark.parametrize("vote", ["majority", "posterior"])
@pytest.mark.parametrize("costs", [(1,), (1, 2)])
@pytest.mark.parametrize("price", [0.001, 0.02])
def test_no_rule_beats_the_dynamic_programme(known, bench, vote, costs, price):
    model = small(known, vote, costs)
    best = model.worth(model.best_rule(price)).at(price)
    rules = [
        bench.allocator_rule(price, model.options),
        bench.allocator_rule(price, model.committed),
        bench.allocator_rule(price, partial(model.options, slices=4)),
        bench.allocator_rule(price, partial(model.options, longest=1)),
        lambda state: known.Action(0, 1) if model.spent(state) < 5 else None,
        lambda state: None,
    ]
    values = [model.worth(rule).at(price) for rule in rules]
    assert max(values) <= best + 1e-12
    assert values[-1] == pytest.approx(0.5)
    assert best > max(values[-2:])


def test_one_more_vote_never_changes_a_majority_so_one_step_stays_at_one(known, bench):
    model = small(known)
    greedy = model.worth(bench.allocator_rule(0.001, partial(model.options, longest=1)))
    envelope = model.worth(bench.allocator_rule(0.001, model.options))
    assert greedy.cost == 1
    assert envelope.cost > 3
    assert envelope.right > greedy.right + 0.05


def test_the_frontier_is_reached_by_no_uniform_allocation(known):
    model = small(known)
    frontier = known.Frontier.of(model, [0.0005, 0.001, 0.003, 0.01, 0.03, 0.1])
    assert list(frontier.right) == sorted(frontier.right)
    for units in (1, 3, 5):
        assert model.future(model.start, known.Action(0, units)) <= frontier.right_at(units) + 1e-9
    assert frontier.cost_of(frontier.right_at(2.5)) == pytest.approx(2.5)


def test_figures_of_tiny_settings(bench):
    figures = bench.measure(40, 3, cap=8, live=(5, 20), number=200, rounds=1)
    assert figures["overspent"] == 0
    assert figures["growth"] == pytest.approx(figures["us_per_decision.20"] / figures["us_per_decision.5"])
    assert figures["bytes_per_problem"] > 500
    assert 0 <= figures["dp_regret"] <= figures["dp_regret.max"] < 1
    assert figures["dp_regret"] <= figures["dp_regret.one_step"]
    assert figures["dp_regret"] <= figures["dp_regret.after_first"]
    documented = bench.__doc__
    for key in figures:
        assert f"``{key}``" in documented or key.startswith("us_per_decision."), key
    text = bench.section(figures)
    assert f"{figures['dp_regret']:.2%}" in text


def test_a_pool_keeps_to_its_budget_and_beats_uniform(known, bench):
    model = bench.models(None, 24)["able"]
    right, kept = bench.pooled(model, 4, 300, seed=1)
    assert kept
    assert right > model.future(model.start, known.Action(0, 4))


@pytest.mark.parametrize("at_once", [1, 4])
def test_options_by_agreement_are_those_of_single_samples_or_several_within_the_cap(known, bench, at_once):
    model = bench.on_grid(bench.models(None, 12)["able"])
    offers = bench.AgreementOffers(model, at_once)
    assert offers(((12, 0),)) == []
    assert {one.action.units for one in offers(((1, 1),))} == {1}, "two votes are little to go on"
    assert max(one.action.units for one in offers(((4, 4),))) == min(4, at_once)
    best = model.worth(model.best_rule(0.003)).at(0.003)
    ours = model.worth(bench.allocator_rule(0.003, offers)).at(0.003)
    assert model.future(model.start, known.Action(0, 1)) < ours <= best + 1e-12
