"""The policy is the same on vLLM and on transformers, and solvers run on it with a PRM on transformers."""

import importlib
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="make test-vllm runs it in an environment with vLLM")

from adaptive_ttc.loading import MINI_POLICY, MINI_PRM
from adaptive_ttc.policies.transformers import TransformersPolicy
from adaptive_ttc.prm import load_prm
from adaptive_ttc.solver import Solver
from tests.vllm import engines

QUESTIONS = ("What is 12 + 30 + 7?", "Compute 99 + 1 + 2 + 3 + 4 + 5.", "Add 3, 14 and 15.")


async def test_equal_tokens_at_temperature_0_and_equal_pass_rates_at_0_8(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
    agreement = importlib.import_module("engine_agreement")
    ours, theirs = TransformersPolicy.from_pretrained(MINI_POLICY), engines.policy()
    figures = await agreement.measure(ours, theirs, MINI_POLICY, limit=200, samples=2, seed=None)
    assert figures["problems"] == 200
    assert figures["greedy_unexplained"] == 0
    assert figures["greedy_identical"] >= 190
    assert figures["logprob_difference"] < 1e-3
    # twice the 95% interval, so that only a difference fails which no other draw of problems explains
    reach = figures["pass1_difference_high"] - figures["pass1_difference_low"]
    assert abs(figures["pass1_difference"]) <= reach
    assert 0 < figures["pass1_vllm"] < 1
    await ours.aclose()
    await theirs.aclose()


@pytest.mark.parametrize(
    "request_",
    [
        {"strategy": "weighted_best_of_n", "n": 8},
        {"strategy": "beam_search", "n": 4, "beam_width": 2},
        {"strategy": "weighted_best_of_n", "n": 8, "budget_tokens": 300},
        {"strategy": "beam_search", "n": 4, "beam_width": 2, "budget_tokens": 300},
    ],
)
async def test_searches_run_on_it(request_):
    policy = engines.policy()
    async with Solver(policy, load_prm(MINI_PRM), seed=1) as solver:
        for question in QUESTIONS:
            solution = await solver.solve(question, **request_)
            again = await solver.solve(question, **request_)
            usage = solution.usage
            assert solution.spent == usage.completion_tokens <= request_.get("budget_tokens", 10**9)
            assert usage.num_calls > 0
            assert usage.prm_tokens > 0
            # a problem with its own account gives the same result again, though the cache now answers for its prompts
            assert [one.prefix.token_ids for one in again.candidates] == [
                one.prefix.token_ids for one in solution.candidates
            ]
            finished = [one for one in solution.candidates if one.prefix.finished]
            assert finished
            assert all(0 <= one.score <= 1 for one in finished if one.score is not None)


async def test_a_stopped_search_leaves_nothing_in_flight():
    policy = engines.endless()
    async with Solver(policy, load_prm(MINI_PRM)) as solver:
        solution = await solver.solve(QUESTIONS[0], strategy="weighted_best_of_n", n=8, max_tokens=2000, deadline=0.2)
        assert solution.usage.completion_tokens < 8 * 2000
        assert solution.usage.lost_tokens == 0
        host = engines.host(engines.WIDE)

        async def unfinished(engine):
            return engine.get_num_unfinished_requests()

        assert await host.call(unfinished) == 0
