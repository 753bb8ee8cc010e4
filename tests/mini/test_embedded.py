"""The models that come with the package: their size and shape, and that the pair does its job within a budget."""

import json
import random
from itertools import islice
from pathlib import Path

import pytest
from safetensors import safe_open

import adaptive_ttc.mini
from adaptive_ttc import Solver
from adaptive_ttc.mini.minimath import right_tokens_end
from adaptive_ttc.mini.settings import PAIRS
from adaptive_ttc.mini.tokenizer import REVISE
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.types import split_steps

pytestmark = pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")

MODELS = Path(adaptive_ttc.mini.__file__).parent / "models"
SOURCE = PAIRS["mini"].source


@pytest.fixture
async def solver():
    async with Solver.mini() as solver:
        yield solver


def test_the_models_are_small_and_plain_llamas():
    assert sum(file.stat().st_size for file in MODELS.rglob("*") if file.is_file()) < 40e6
    weights = [file for file in MODELS.rglob("model.safetensors") if file.parent.name != "large"]
    assert len(weights) == 3
    for file in weights:
        with safe_open(file, "pt") as tensors:
            assert sum(tensors.get_tensor(name).numel() for name in tensors.keys()) <= 4e6  # noqa: SIM118
        config = json.loads((file.parent / "config.json").read_text())
        assert config["architectures"] == ["LlamaForCausalLM"]
        assert config["max_position_embeddings"] >= 4096


def test_the_larger_policy_is_larger():
    sizes = {}
    for name in ("policy", "large"):
        with safe_open(MODELS / name / "model.safetensors", "pt") as tensors:
            sizes[name] = sum(tensors.get_tensor(key).numel() for key in tensors.keys())  # noqa: SIM118
    assert 4 <= sizes["large"] / sizes["policy"] <= 8


def test_the_policy_says_what_it_revises_after_and_the_larger_one_that_it_was_not_trained_to():
    configs = {name: json.loads((MODELS / name / "config.json").read_text()) for name in ("policy", "large")}
    assert configs["policy"]["revision_prompt"] == REVISE
    assert "revision_prompt" not in configs["large"]


async def test_an_easy_problem_is_solved_within_the_budget(solver):
    solution = await solver.solve("Evaluate $3 + 4$.", budget_tokens=600, strategy="weighted_best_of_n", n=16)
    assert solution.answer == "7"
    assert 0 < solution.usage.completion_tokens <= 600
    assert solution.usage.prm_tokens > 0


async def test_the_same_seed_gives_the_same_solution(solver):
    first, second = [await solver.solve("Solve $2x + 3 = 9$ for $x$.", budget_tokens=500) for _ in range(2)]
    assert [c.prefix.token_ids for c in first.candidates] == [c.prefix.token_ids for c in second.candidates]


async def test_the_prm_prefers_right_solutions(solver):
    rng, wins = random.Random(0), []
    for _, _, exercise in islice(SOURCE.exercises("test", 5), 150):
        right = SOURCE.solve(exercise, rng, {})
        wrong = SOURCE.solve(exercise, rng, {kind: 2 * rate for kind, rate in SOURCE.slips.items()})
        if right_tokens_end(exercise, wrong) < len(wrong):
            pair = [ScoreRequest(exercise.question, split_steps(text)) for text in (right, wrong)]
            better, worse = [(await solver.prm.score(request)).scores[-1] for request in pair]
            wins.append(better > worse)
    assert len(wins) > 60
    assert sum(wins) / len(wins) > 0.9


async def test_text_that_it_never_saw_is_read_and_answered_with_something_or_nothing(solver):
    solution = await solver.solve("Wie viel ist zwei plus zwei? 二加二 ∑", budget_tokens=100)
    assert solution.usage.completion_tokens <= 100


async def test_many_problems_share_a_budget(solver):
    sums = {f"Evaluate ${a} + {b}$.": str(a + b) for a, b in ((3, 4), (5, 8), (2, 9), (12, 7))}
    pool = solver.solve_many(list(sums), budget_tokens=1500)
    solutions = await pool
    assert 0 < pool.spent == pool.usage.completion_tokens <= 1500
    assert sum(solution.answer == sums[solution.problem.question] for solution in solutions) >= 3
    assert all(solution.usage.prm_tokens > 0 for solution in solutions)
