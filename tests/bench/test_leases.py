"""Leases against reservation on toy engines: both sides are honest, and the figures say what they mean."""

import pytest

from adaptive_ttc.strategies import WeightedBestOfN
from adaptive_ttc.types import Problem
from tests.bench.toys import bench, toys

QUESTION = "Add 17 + 25 + 38."


@pytest.fixture
def leases(monkeypatch):
    return bench(monkeypatch, "leases")


async def test_figures_of_both_sides(leases):
    figures = await leases.measure(n=8, max_tokens=150, limit=8, seed=3)
    assert figures["overspent"] == 0
    assert figures["concurrency_ratio"] == pytest.approx(
        figures["concurrency.leases"] / figures["concurrency.reservation"]
    )
    assert figures["wall_ratio"] == pytest.approx(figures["seconds.leases"] / figures["seconds.reservation"])
    assert figures["peak.leases"] > figures["peak.reservation"] >= 1
    assert figures["peak.reservation"] <= figures["mean_budget"] / 150 + 1
    for side in ("leases", "reservation"):
        assert 0.8 < figures[f"spent_share.{side}"] <= 1
        assert 0 < figures[f"finished.{side}"] <= 8
        assert 0 <= figures[f"accuracy.{side}"] <= 1


@pytest.mark.parametrize("budget", [1, 40, 149, 150, 299, 300, 460, 10_000])
async def test_the_reference_sets_the_worst_case_aside_and_spends_no_more(leases, budget):
    async with toys() as solver:
        solver.policy = meter = leases.LoadMeter(solver.policy)
        strategy = WeightedBestOfN(n=6, max_tokens=150)
        prefixes = await leases.WorstCase(solver, Problem.of(QUESTION, "q"), strategy, budget, seed=5).run()
        whole = await solver.solve(QUESTION, id="q", strategy=strategy, seed=5)
    assert sum(len(prefix.token_ids) for prefix in prefixes) <= budget
    assert meter.peak <= 6
    reached = {prefix.path: prefix for prefix in prefixes}
    for candidate in whole.candidates:
        if one := reached.get(candidate.prefix.path):
            assert one.token_ids == candidate.prefix.token_ids[: len(one.token_ids)]
            assert one.finished == (one.token_ids == candidate.prefix.token_ids)
            assert not one.finished or one.scores == candidate.prefix.scores
    assert [prefix.path for prefix in prefixes] == [(index,) for index in range(len(prefixes))]
    if budget >= 6 * 150:
        assert prefixes == tuple(candidate.prefix for candidate in whole.candidates)


@pytest.mark.parametrize(("budget", "at_once"), [(149, 1), (150, 1), (299, 1), (300, 2), (460, 3)])
async def test_no_more_run_at_once_than_the_budget_covers(leases, budget, at_once):
    async with toys() as solver:
        solver.policy = meter = leases.LoadMeter(solver.policy)
        strategy = WeightedBestOfN(n=6, max_tokens=150)
        await leases.WorstCase(solver, Problem.of(QUESTION, "q"), strategy, budget, seed=5).run()
    assert meter.peak == at_once
    assert meter.concurrency <= at_once + 1e-9
