"""The solver against strict rounds on toy engines: the same searches, only in another order."""

import pytest

from adaptive_ttc.types import Problem
from tests.bench.toys import bench, rows, toys


@pytest.fixture
def pipeline(monkeypatch):
    return bench(monkeypatch, "pipeline")


async def test_both_sides_do_the_same_searches(pipeline):
    figures = await pipeline.measure(limit=8, rounds=1, seed=2)
    assert figures["same_candidates"] == 1
    assert figures["strict_rounds"] >= 5
    assert figures["tokens"] > 1000
    assert figures["problems"] == 8
    assert figures["wall_ratio"] == pytest.approx(figures["seconds"] / figures["strict_seconds"])
    assert 0 < figures["policy_busy_share"] <= 1
    assert 0 < figures["strict_policy_busy_share"] <= 1


async def test_another_seed_is_another_search(pipeline):
    problems = [Problem.of(row["problem"], row["unique_id"]) for row in rows()[:3]]
    async with toys() as solver:
        first, _ = await pipeline.pipelined(solver, problems, 1)
        other, _ = await pipeline.strict(solver, problems, 2)
    assert not any(map(pipeline.same, first, other))


async def test_strict_rounds_never_sample_and_score_at_once(pipeline):
    problems = [Problem.of(row["problem"], row["unique_id"]) for row in rows()[:4]]
    overlaps = {}
    for side in (pipeline.strict, pipeline.pipelined):
        solver, seen = toys(), []
        score = solver.prm.score

        async def watched(request, solver=solver, seen=seen, score=score):
            seen.append(solver.policy.in_flight)
            return await score(request)

        solver.prm.score = watched
        async with solver:
            await side(solver, problems, 0)
        overlaps[side] = max(seen)
    assert overlaps[pipeline.strict] == 0
    assert overlaps[pipeline.pipelined] > 0
