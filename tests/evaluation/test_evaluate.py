"""Many problems through one solver: outcomes, failures, pools and what they say of a strategy."""

from dataclasses import replace

import numpy as np
import pytest

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.evaluation.evaluate import Pool, draw_pools, solve_rows, solve_rows_together
from adaptive_ttc.evaluation.metrics import NO_ANSWER
from adaptive_ttc.policies.fake import FakePolicy, toy_answer, toy_right_so_far
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Problem

QUESTIONS = [f"Add {11 * i % 37} + {i + 3} + {5 * i % 23}." for i in range(12)]
ROWS = [
    {"problem": question, "answer": toy_answer(question), "unique_id": f"sum/{i}"}
    for i, question in enumerate(QUESTIONS)
]


def solver(prm=True, **settings):
    reward = FakePRM.truthful(toy_right_so_far) if prm else None
    return Solver(FakePolicy.generative(error_rate=0.15, **settings), reward)


async def outcomes_of(one, rows=ROWS, concurrency=32, **request):
    found = {}
    async with one:
        await solve_rows(
            one, rows, request, lambda outcome: found.update({outcome.index: outcome}), concurrency=concurrency
        )
    return [found[index] for index in range(len(rows))]


async def test_outcomes_are_graded_against_their_own_answers():
    outcomes = await outcomes_of(solver(), strategy="majority", n=3)
    assert [outcome.row for outcome in outcomes] == ROWS
    judged = [outcome.solution.answer == outcome.row["answer"] for outcome in outcomes]
    assert [outcome.correct for outcome in outcomes] == judged
    assert 0 < sum(judged) < len(ROWS)


async def test_concurrency_changes_no_outcome_and_bounds_what_is_at_work():
    wide, narrow = solver(), solver()
    together = await outcomes_of(wide, n=2, strategy="majority")
    apart = await outcomes_of(narrow, n=2, strategy="majority", concurrency=1)
    assert [one.solution.candidates for one in together] == [one.solution.candidates for one in apart]
    assert narrow.policy.max_running == 2 < wide.policy.max_running
    with pytest.raises(ConfigError, match="concurrency=0"):
        await outcomes_of(solver(), n=2, concurrency=0)


async def test_a_failing_problem_stops_no_other():
    broken = solver()
    prompt = broken.policy.encode(Problem.of(QUESTIONS[4]))
    broken.policy.fail(EngineError("out of memory"), matching=lambda request: request.prompt_ids == prompt)
    outcomes = await outcomes_of(broken, strategy="majority", n=2)
    assert [outcome.index for outcome in outcomes if outcome.error] == [4]
    assert outcomes[4].solution is None
    assert not outcomes[4].correct
    assert "out of memory" in str(outcomes[4].error)


@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")
async def test_rows_of_one_name_under_a_shared_budget_are_graded_each_by_its_own_answer():
    rows = [{**row, "unique_id": "the same"} for row in ROWS]
    found = {}
    async with solver() as one:
        await solve_rows_together(
            one, rows, {}, lambda outcome: found.update({outcome.index: outcome}), budget=3000, concurrency=3
        )
    assert sorted(found) == list(range(len(rows)))
    for index, outcome in found.items():
        assert outcome.solution.problem.question == outcome.row["problem"] == rows[index]["problem"]
        assert outcome.correct == (outcome.solution.answer == rows[index]["answer"])


@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")
async def test_equal_problems_of_one_name_are_told_apart_whoever_makes_the_problems_anew(monkeypatch):
    rows = [{**ROWS[0], "answer": answer} for answer in (ROWS[0]["answer"], "no such answer")]
    rows += [{**ROWS[1], "unique_id": f"{ROWS[0]['unique_id']}#2"}]
    one = solver()
    make = one.solve_many
    monkeypatch.setattr(one, "solve_many", lambda problems, **options: make(map(replace, problems), **options))
    found = {}
    async with one:
        await solve_rows_together(one, rows, {}, lambda outcome: found.update({outcome.index: outcome}), budget=3000)
    assert sorted(found) == [0, 1, 2]
    assert len({outcome.solution.problem.id for outcome in found.values()}) == 3
    assert found[0].solution.problem.id == ROWS[0]["unique_id"]
    for index, outcome in found.items():
        assert outcome.solution.problem.question == rows[index]["problem"]
        assert outcome.correct == (outcome.solution.answer == rows[index]["answer"])
    assert not found[1].correct


async def test_pools_hold_every_sample_graded_in_the_order_of_the_rows():
    one = solver()
    seen = []
    async with one:
        pools = await draw_pools(one, ROWS, 8, seen.append)
    assert [pool.row for pool in pools] == ROWS
    assert len(seen) == len(ROWS)
    for pool in pools:
        assert {len(part) for part in (pool.correct, pool.classes, pool.scores, pool.tokens, pool.texts)} == {8}
        boxed = [f"\\boxed{{{pool.row['answer']}}}" in text for text in pool.texts]
        assert pool.correct.tolist() == boxed
        assert len(set(pool.classes[pool.correct].tolist())) <= 1
        assert ((pool.scores >= 0) & (pool.scores <= 1)).all()
    assert sum(int(pool.tokens.sum()) for pool in pools) == one.policy.completion_tokens
    assert 0 < np.mean([pool.pass_at(1) for pool in pools]) < 1


async def test_a_pool_says_what_the_strategies_themselves_find():
    names = ("majority", "best_of_n", "weighted_best_of_n")
    async with solver() as one:
        pools = await draw_pools(one, ROWS, 9, lambda pool: None)
    for name in names:
        outcomes = await outcomes_of(solver(), strategy=name, n=9)
        for pool, outcome in zip(pools, outcomes, strict=True):
            estimate = pool.accuracy(name, 9)
            assert estimate == outcome.correct or 0 < estimate < 1  # a tie, which the solver breaks


async def test_without_a_prm_there_is_a_majority_and_nothing_else():
    async with solver(prm=False) as one:
        pools = await draw_pools(one, ROWS[:3], 4, lambda pool: None)
    assert all(np.isnan(pool.scores).all() for pool in pools)
    assert pools[0].accuracy("majority", 1) == pytest.approx(pools[0].pass_at(1))
    assert pools[0].accuracy("weighted_best_of_n", 4) == 0.0


def test_samples_without_answer_or_score_have_no_vote_in_a_pool():
    pool = Pool(
        row=ROWS[0],
        correct=np.array([True, False, False, True]),
        classes=np.array([0, 1, NO_ANSWER, 0]),
        scores=np.array([np.nan, 0.2, 0.9, 0.1]),
        tokens=np.full(4, 5),
        texts=("",) * 4,
    )
    assert pool.accuracy("majority", 4) == 1.0
    assert pool.accuracy("weighted_best_of_n", 4) == 0.0  # 0.1 against 0.2
    assert pool.accuracy("best_of_n", 4) == 0.0
    assert pool.accuracy("best_of_n", 1) == 0.25  # the last one alone
    with pytest.raises(ConfigError, match="no estimate of 'dvts'"):
        pool.accuracy("dvts", 4)
