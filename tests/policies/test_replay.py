"""Replays: the same as the live run at any N and budget, refusals before any sampling, draws without replacement."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_ttc.driver.driver import Driver
from adaptive_ttc.errors import CalibrationWarning, ConfigError
from adaptive_ttc.evaluation.evaluate import draw_pools, solve_rows
from adaptive_ttc.evaluation.metrics import NO_ANSWER
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policies.fake import FakePolicy, toy_answer, toy_right_so_far
from adaptive_ttc.policies.replay import Recorder, ReplayPolicy, ReplayPRM, SampleSettings, load_record
from adaptive_ttc.policies.replay.policy import PrefixIndex
from adaptive_ttc.policy import Limited, SampleRequest
from adaptive_ttc.prm import FakePRM, ScoreRequest, load_prm
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies import Majority, WeightedBestOfN
from adaptive_ttc.types import Problem
from adaptive_ttc.wrappers import WrappedPolicy

QUESTIONS = [f"Add {11 * i % 37} + {i + 3} + {5 * i % 23}." for i in range(4)]
ROWS = [
    {"problem": question, "answer": toy_answer(question), "unique_id": f"sum/{i}"}
    for i, question in enumerate(QUESTIONS)
]
SAMPLED = ("majority", "best_of_n", "weighted_best_of_n")
POOL = 12


def models():
    return FakePolicy.generative(error_rate=0.15), FakePRM.truthful(toy_right_so_far)


@asynccontextmanager
async def live():
    async with Solver(*models()) as solver:
        yield solver


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> str:
    """A file of ``POOL`` samples of every question."""
    recorder = Recorder(*models())

    async def draw():
        async with Solver(recorder.policy, recorder.prm) as solver:
            await draw_pools(solver, ROWS, POOL, lambda pool: None)

    anyio.run(draw)
    path = tmp_path_factory.mktemp("record") / "pools.jsonl"
    assert recorder.save(path).left_out == 0
    return str(path)


@asynccontextmanager
async def replayed(path, seed=0):
    async with Solver(ReplayPolicy.load(path, seed=seed), ReplayPRM.load(path)) as solver:
        yield solver


def without_time(usage):
    return {name: getattr(usage, name) for name in ("completion_tokens", "prm_tokens", "num_calls", "num_prm_calls")}


@pytest.mark.parametrize("strategy", SAMPLED)
@pytest.mark.parametrize("n", [1, 5, POOL])
async def test_a_replay_is_the_live_run(saved, strategy, n):
    async with live() as real, replayed(saved) as played:
        for row in ROWS:
            request = {"strategy": strategy, "n": n, "id": row["unique_id"]}
            expected = await real.solve(row["problem"], **request)
            solution = await played.solve(row["problem"], **request)
            assert solution.candidates == expected.candidates
            assert solution.answer_classes == expected.answer_classes
            assert without_time(solution.usage) == without_time(expected.usage)
            assert solution.usage.flops > 0


@pytest.mark.parametrize("budget", [1, 20, 60, 150, 151, 300, 600, 1200])
async def test_at_any_budget_the_same_tokens_are_cut_at_the_same_places(saved, budget):
    async with live() as real, replayed(saved) as played:
        for row in ROWS:
            request = {"strategy": "majority", "n": 8, "budget_tokens": budget, "id": row["unique_id"]}
            expected = await real.solve(row["problem"], **request)
            solution = await played.solve(row["problem"], **request)
            assert solution.candidates == expected.candidates
            assert solution.spent == expected.spent <= budget


@pytest.mark.parametrize("count", ["generated+prm", "flops"])
async def test_what_scoring_costs_is_charged_as_it_was(saved, count):
    async with live() as real, replayed(saved) as played:
        for row in ROWS:
            request = {"strategy": "best_of_n", "n": 6, "count": count, "id": row["unique_id"]}
            assert (await played.solve(row["problem"], **request)).spent == (
                await real.solve(row["problem"], **request)
            ).spent
            for budget in (900, 1500, 3000):
                units = budget * (2000 if count == "flops" else 1)
                solution = await played.solve(row["problem"], **request, budget_tokens=units)
                usage = solution.usage
                assert solution.spent <= units
                if count == "generated+prm":
                    assert solution.spent == usage.completion_tokens + usage.prm_tokens


async def test_seeds_are_draws_without_replacement(saved):
    [problem] = [one for one in load_record(saved).problems if one.id == "sum/2"]
    pool = [sample.token_ids for sample in problem.samples]
    assert len(set(pool)) > 6
    prompt = problem.prompt_ids

    async def drawn(seed, places):
        policy = ReplayPolicy.load(saved, seed=seed)
        return [
            (
                await policy.sample(SampleRequest(id="a", prompt_ids=prompt, max_tokens=2048, seed=9, path=(j,)))
            ).token_ids
            for j in places
        ]

    assert await drawn(0, range(POOL)) == pool
    for seed in (1, 2, 2**40):
        whole = await drawn(seed, range(POOL))
        assert whole != pool
        assert sorted(whole) == sorted(pool)
        assert whole == await drawn(seed, range(POOL))
    assert {(await drawn(seed, [0]))[0] for seed in range(1, 80)} == set(pool)


async def test_problems_are_permuted_independently_of_each_other(saved):
    policy = ReplayPolicy.load(saved, seed=3)
    orders = set()
    for problem in policy.record.problems:
        place = {sample.token_ids: index for index, sample in reversed(list(enumerate(problem.samples)))}
        got = [
            await policy.sample(
                SampleRequest(id="a", prompt_ids=problem.prompt_ids, max_tokens=2048, seed=0, path=(j,))
            )
            for j in range(POOL)
        ]
        orders.add(tuple(place[sampled.token_ids] for sampled in got))
    assert len(orders) == len(QUESTIONS)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"strategy": "majority", "n": POOL + 1}, f"holds {POOL} samples of this problem, not n={POOL + 1}"),
        ({"strategy": "majority", "n": 2, "temperature": 0.7}, "drawn with temperature=0.8"),
        ({"strategy": "majority", "n": 2, "top_p": 0.9}, "drawn with top_p=1"),
        ({"strategy": "majority", "n": 2, "max_tokens": 4096}, "drawn with max_tokens=2048"),
        ({"strategy": Majority(n=2, temperature=0.5)}, "drawn with temperature=0.8"),
        ({"strategy": "greedy"}, "greedy with temperature=0 cannot be replayed; take majority"),
        ({"strategy": "beam_search", "n": 4}, "no steps that could be gone on from"),
        ({"strategy": "dvts", "n": 4}, "no steps that could be gone on from"),
        ({"strategy": "revision", "n": 4}, "no revisions"),
    ],
)
@pytest.mark.parametrize("watched", [False, True])
async def test_what_was_not_recorded_is_refused_before_any_sampling(saved, request_, reason, watched):
    asked = []
    async with replayed(saved) as solver:
        whole = solver.policy.sample
        solver.policy.sample = lambda request: (asked.append(request), whole(request))[1]
        if watched:
            solver.policy = WrappedPolicy(solver.policy)
        with pytest.raises(ConfigError, match=reason):
            await solver.solve(QUESTIONS[0], **request_)
        assert asked == []
        await solver.solve(QUESTIONS[0], strategy="majority", n=POOL)
        assert len(asked) == POOL


async def test_a_budget_alone_draws_samples_and_no_more_than_were_recorded(saved):
    async with replayed(saved) as solver:
        with pytest.warns(CalibrationWarning):
            solution = await solver.solve(QUESTIONS[0], budget_tokens=200)
        assert 0 < solution.spent <= 200
        async with solver.solve_many(QUESTIONS, budget_tokens=10**6) as pool:
            solutions = [one async for one in pool]
        recorded = {problem.question: problem for problem in solver.policy.record.problems}
        for one in solutions:
            assert one.error is None
            drawn = [candidate.prefix.token_ids for candidate in one.candidates]
            samples = [sample.token_ids for sample in recorded[one.problem.question].samples]
            assert len(drawn) <= POOL
            assert all(drawn.count(ids) <= samples.count(ids) for ids in drawn)


async def test_an_unknown_problem_is_named(saved):
    async with replayed(saved) as solver:
        with pytest.raises(ConfigError, match=r"problem 'new' \('Add 1 \+ 1\.'\.\.\.\) is not among the 4 problems"):
            await solver.solve("Add 1 + 1.", id="new", strategy="majority", n=1)
        outcomes = {}
        rows = [*ROWS, {"problem": "Add 2 + 2.", "answer": "4", "unique_id": "x"}]
        await solve_rows(solver, rows, {"strategy": "majority", "n": 2}, lambda one: outcomes.update({one.index: one}))
        assert [index for index, outcome in outcomes.items() if outcome.error] == [4]


async def test_greedy_is_replayed_where_it_was_recorded(tmp_path):
    recorder = Recorder(*models(), settings=SampleSettings(temperature=0.0))
    async with Solver(recorder.policy, recorder.prm) as solver:
        expected = await solver.solve(QUESTIONS[1], strategy="greedy")
    recorder.save(tmp_path / "greedy.jsonl")
    policy = ReplayPolicy.load(tmp_path / "greedy.jsonl")
    async with Solver(policy) as solver:
        assert (await solver.solve(QUESTIONS[1], strategy="greedy")).answer == expected.answer
        with pytest.raises(ConfigError, match=r"temperature=0, so majority with temperature=0\.8"):
            await solver.solve(QUESTIONS[1], strategy=Majority(n=1))


async def test_a_cut_sample_is_gone_on_with(saved):
    """What one search cut, the next one takes as evidence; its continuation is the recorded rest."""
    policy = ReplayPolicy.load(saved)
    problem = Problem.of(QUESTIONS[0])
    whole = policy.record.problems[0].samples
    driver = Driver(problem, policy, Ledger(len(whole[0].token_ids) + len(whole[1].token_ids) - 9))
    first = await driver.run(Majority(n=2).search())
    assert sorted(one.finish for one in first) == ["budget", "eos"]
    driver = Driver(problem, policy, Ledger(None))
    driver.observe(first)
    both = await driver.run(Majority(n=2).search(first))
    assert sorted(one.token_ids for one in both) == sorted(sample.token_ids for sample in whole[:2])


async def test_steps_that_were_cut_in_the_middle_stay_unscored(saved):
    async with replayed(saved) as solver:
        solution = await solver.solve(QUESTIONS[0], strategy="best_of_n", n=4, budget_tokens=150)
        cut = [one for one in solution.candidates if one.prefix.finish == "budget"]
        assert cut
        assert all(one.score is None for one in cut if not one.prefix.text.endswith("\n\n"))
        assert solution.spent <= 150


async def test_pools_of_a_replay_are_the_recorded_pools(saved):
    async with live() as real, replayed(saved, seed=5) as played:
        expected = await draw_pools(real, ROWS, POOL, lambda pool: None)
        pools = await draw_pools(played, ROWS, POOL, lambda pool: None)
    for pool, other in zip(pools, expected, strict=True):
        assert sorted(pool.texts) == sorted(other.texts)
        assert (pool.classes != NO_ANSWER).all()
        for strategy in SAMPLED:
            for k in (1, 4, POOL):
                # so few subsets that they are enumerated, except for 4 of 12
                tolerance = 0.08 if k == 4 else 1e-12
                assert pool.accuracy(strategy, k) == pytest.approx(other.accuracy(strategy, k), abs=tolerance)


async def test_engines_are_found_by_name(saved):
    solver = Solver.load(saved, saved, engine="replay", policy_settings={"seed": 4})
    assert isinstance(solver.policy, ReplayPolicy)
    assert isinstance(solver.prm, ReplayPRM)
    assert isinstance(solver.policy, Limited)
    assert solver.policy.name == "fake-policy (replay)"
    assert solver.policy.fingerprint == FakePolicy.generative(error_rate=0.15).fingerprint
    await solver.aclose()
    with pytest.raises(ConfigError, match=r"runs no model.*leave out device"):
        Solver.load(saved, engine="replay", policy_settings={"device": "cpu"})
    with pytest.raises(ConfigError, match="leave out dtype"):
        load_prm(saved, dtype="float32")


async def test_a_record_without_scores_has_no_prm(tmp_path):
    recorder = Recorder(models()[0])
    async with Solver(recorder.policy) as solver:
        await solver.solve(QUESTIONS[0], n=2, strategy="majority")
    recorder.save(tmp_path / "plain.jsonl")
    with pytest.raises(ConfigError, match="holds no scores: leave the PRM out"):
        ReplayPRM.load(tmp_path / "plain.jsonl")


async def test_problems_without_scores_are_refused_where_scores_are_needed(tmp_path):
    recorder = Recorder(*models())
    async with Solver(recorder.policy, recorder.prm) as solver:
        await solver.solve(QUESTIONS[0], n=2, strategy="majority")
        await solver.solve(QUESTIONS[1], n=2, strategy="best_of_n")
    path = tmp_path / "mixed.jsonl"
    recorder.save(path)
    async with replayed(path) as solver:
        await solver.solve(QUESTIONS[0], n=2, strategy="majority")
        await solver.solve(QUESTIONS[1], n=2, strategy="best_of_n")
        with pytest.raises(ConfigError, match="holds no scores for problem"):
            await solver.solve(QUESTIONS[0], strategy=WeightedBestOfN(n=2))


async def test_prm_counts_are_those_of_the_live_prm(saved):
    _, prm = models()
    replay = ReplayPRM.load(saved)
    for problem in load_record(saved).problems:
        for sample in problem.samples:
            for k in range(1, len(sample.steps) + 1):
                request = ScoreRequest(problem.question, sample.steps[:k])
                assert replay.count_tokens(request) == prm.count_tokens(request)
                assert (await replay.score(request)).scores == (await prm.score(request)).scores
        least = ScoreRequest(problem.question, ("?",))
        assert replay.count_tokens(least) == prm.count_tokens(least)
        with pytest.raises(ConfigError, match="holds no score of this solution"):
            replay.count_tokens(ScoreRequest(problem.question, ("Something else.",)))


@given(
    st.lists(st.lists(st.integers(0, 2), max_size=5).map(tuple), max_size=12),
    st.lists(st.integers(0, 2), max_size=6).map(tuple),
)
def test_prefixes_are_found_as_by_looking_at_all(keys, asked):
    index = PrefixIndex({key: key for key in keys})
    above = [key for key in keys if asked[: len(key)] == key]
    assert index.beginning(asked) == max(above, key=len, default=None)
    below = sorted(key for key in keys if key[: len(asked)] == asked)
    assert index.starting_with(asked) == (below[0] if below else None)


def test_the_file_says_what_was_recorded(saved):
    header, *problems = [json.loads(line) for line in Path(saved).read_text("utf-8").splitlines()]
    assert header["format"] == "adaptive_ttc.replay"
    assert header["version"] == 1
    assert header["policy"]["parameters"] == header["prm"]["parameters"] == 1000
    assert header["settings"] == {"temperature": 0.8, "top_p": 1.0, "max_tokens": 2048}
    assert {problem["messages"][0]["content"] for problem in problems} == set(QUESTIONS)
    assert [len(problem["samples"]) for problem in problems] == [POOL] * len(QUESTIONS)
