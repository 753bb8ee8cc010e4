"""A real small language model solves word problems end to end, in whichever engine this environment has.

``make test-llm`` runs it with SmolLM2-135M-Instruct: once in the environment of the other tests, where transformers
runs the model, and once in vLLM's. Such a model gets one sample in seven right, so that little is asked of it.
"""

from __future__ import annotations

import asyncio
import os
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import pytest

from adaptive_ttc import CalibrationWarning, Solution, Solver
from adaptive_ttc.evaluation.datasets import load_problems, problem_of

FOLDER = os.environ.get("ADAPTIVE_TTC_LLM", "")
ENGINE = "vllm" if find_spec("vllm") else "transformers"
ROWS = load_problems(Path(__file__).with_name("problems.jsonl"))
BUDGET, SAMPLES, TOKENS = 600, 4, 150  # tokens of a problem, samples of it, and tokens of a sample at most

pytestmark = [
    pytest.mark.skipif(not FOLDER, reason="make test-llm runs it with a real language model"),
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("default"),  # vLLM warns while it starts
]


def solver() -> Solver:
    settings = {"max_batch": 40} if ENGINE == "transformers" else {"max_num_seqs": 40, "max_model_len": 1024}
    if ENGINE == "vllm":
        from adaptive_ttc.policies.vllm import CPU_SETTINGS

        settings = {**CPU_SETTINGS, **settings}
    return Solver.load(FOLDER, engine=ENGINE, answers="number", policy_settings=settings)


@pytest.fixture(scope="module")
def solutions() -> list[Solution]:
    """Votes of a few samples, each problem in a budget of its own."""

    async def solve() -> list[Solution]:
        async with solver() as one:
            asked = (
                one.solve(
                    problem_of(row), strategy="majority", n=SAMPLES, max_tokens=TOKENS, budget_tokens=BUDGET, seed=seed,
                    temperature=0.3,
                )
                for seed, row in enumerate(ROWS)
            )  # fmt: skip
            return list(await asyncio.gather(*asked))

    return asyncio.run(solve())


def test_every_problem_has_a_number_for_its_answer_or_a_reason_for_none(solutions: list[Solution]) -> None:
    assert len(solutions) == len(ROWS) == 10
    for solution in solutions:
        assert solution.error is None
        if solution.answer is None:
            assert solution.abstained
        else:
            Fraction(solution.answer)


def test_no_budget_is_overspent(solutions: list[Solution]) -> None:
    for solution in solutions:
        assert 0 < solution.spent == solution.usage.completion_tokens <= BUDGET
        assert len(solution.candidates) <= SAMPLES


def test_what_ends_by_itself_has_an_answer(solutions: list[Solution]) -> None:
    ended = [one for solution in solutions for one in solution.candidates if one.prefix.finish == "eos"]
    assert len(ended) >= 10
    assert sum(one.answer is not None for one in ended) >= 0.8 * len(ended)


def test_some_are_right(solutions: list[Solution]) -> None:
    right = [
        row["answer"] == one.answer
        for row, solution in zip(ROWS, solutions, strict=True)
        for one in solution.candidates
    ]  # fmt: skip
    assert sum(right) >= 2, "a real model gets one sample in seven right"


def test_all_in_one_budget() -> None:
    async def solve() -> list[Solution]:
        async with solver() as one:
            pool = one.solve_many([problem_of(row) for row in ROWS], budget_tokens=2500, max_tokens=TOKENS)
            return [solution async for solution in pool]

    with pytest.warns(CalibrationWarning):
        pooled = asyncio.run(solve())
    assert len(pooled) == len(ROWS)
    assert sum(solution.spent for solution in pooled) <= 2500
    assert sum(solution.answer is not None for solution in pooled) >= 5
