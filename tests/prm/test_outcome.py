"""Outcome reward models: transformers' own scores, chosen by name and architecture, and only for finished solutions."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.events import SearchEvent
from adaptive_ttc.policies.fake import FakePolicy, toy_right_so_far
from adaptive_ttc.prm import FakePRM, ScoreRequest, Traits, load_prm
from adaptive_ttc.prm.base import traits_of
from adaptive_ttc.prm.checkpoint import load_tokenizer
from adaptive_ttc.solver import Solver
from tests.prm.tiny import REQUESTS, save_weights
from tests.prm.tiny_outcome import reference_outcome, rendered, save_outcome

QUESTION = "Add 3, 44, 5, 66 and 777."


@pytest.mark.parametrize(("kind", "pad_is_end"), [("llama", False), ("llama", True), ("qwen3", False)])
async def test_scores_are_those_of_transformers(kind: str, pad_is_end: bool, tmp_path: Path) -> None:
    folder = save_outcome(tmp_path, kind, pad_is_end=pad_is_end)
    prm, tokenizer = load_prm(folder), load_tokenizer(folder)
    found = set()
    for request in (*REQUESTS, REQUESTS[0]):
        scored = await prm.score(request)
        assert scored.scores == pytest.approx(
            [reference_outcome(folder, tokenizer, request)] * len(request.steps), abs=1e-5
        )
        assert prm.count_tokens(request) == len(rendered(tokenizer, request)) - pad_is_end
        assert scored.prm_tokens + scored.cached_tokens == prm.count_tokens(request)
        found.add(scored.scores[0])
    assert len(found) == len(REQUESTS)
    assert scored.prm_tokens == 0, "it was read before"
    await prm.aclose()


def test_a_folder_is_known_by_its_architecture_and_a_hub_model_by_its_name(tmp_path: Path) -> None:
    prm = load_prm(save_outcome(tmp_path))
    assert traits_of(prm) == Traits(finished_only=True)
    with pytest.raises(ConfigError, match="has 2 labels; an outcome reward model has one"):
        load_prm(save_outcome(tmp_path / "two", labels=2))


def test_a_classifier_with_another_head_is_to_be_served(tmp_path: Path) -> None:
    save_outcome(tmp_path)
    from safetensors.torch import load_file

    weights = load_file(tmp_path / "model.safetensors")
    weights["classifier.weight"] = weights.pop("score.weight")
    save_weights(tmp_path, weights)
    with pytest.raises(ConfigError, match="serve it, and read it with engine='served', pooling='classify'"):
        load_prm(tmp_path)


class Outcome(FakePRM):
    """One score for all steps, of the last one; keeps what it was asked."""

    traits = Traits(finished_only=True)

    @classmethod
    def of_the_toy(cls) -> Outcome:
        fake = cls(lambda question, steps: 0.0)
        fake._score_all = lambda request: (
            [0.1 + 0.8 * toy_right_so_far(request.question, request.steps[:-1])] * len(request.steps)
        )
        return fake


@pytest.mark.parametrize("strategy", ["beam_search", "dvts"])
async def test_searches_over_steps_are_refused_before_anything_is_sampled(strategy: str) -> None:
    policy = FakePolicy.generative()
    async with Solver(policy, Outcome.of_the_toy()) as solver:
        with pytest.raises(ConfigError, match=r"scores finished ones alone: take best_of_n .* process reward model"):
            await solver.solve(QUESTION, strategy=strategy, n=4, beam_width=2, budget_tokens=1_000)
        with pytest.raises(ConfigError, match="take agg_strategy='last'"):
            await solver.solve(QUESTION, strategy="best_of_n", n=2, agg_strategy="prod", budget_tokens=1_000)
    assert not policy.requests


async def test_best_of_n_takes_the_best_and_what_was_cut_is_not_scored() -> None:
    prm = Outcome.of_the_toy()
    async with Solver(FakePolicy.generative(error_rate=0.1), prm) as solver:
        solution = await solver.solve(QUESTION, strategy="best_of_n", n=8, budget_tokens=20_000)
        assert solution.answer == "895"
        asked = len(prm.requests)
        cut = await solver.solve(QUESTION, strategy="weighted_best_of_n", n=8, budget_tokens=120, id="cut")
    assert any(one.prefix.finish == "budget" for one in cut.candidates)
    for one in cut.candidates:
        assert (one.score is None) == (one.prefix.finish == "budget")
    assert len(prm.requests) - asked <= sum(one.prefix.finish == "eos" for one in cut.candidates)


@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")
async def test_a_budget_alone_buys_whole_samples() -> None:
    prm = Outcome.of_the_toy()
    async with Solver(FakePolicy.generative(error_rate=0.1), prm) as solver:
        asked = {"budget_tokens": 6_000, "count": "generated+prm", "max_tokens": 200, "min_gain": 0.0}
        solution = await solver.solve(QUESTION, **asked)
    assert solution.spent <= 6_000
    assert all("boxed" in request.steps[-1] for request in prm.requests)
    kinds = {event.options["kind"] for event in solution.trace.of(SearchEvent) if "kind" in event.options}
    assert kinds == {"sample"}


def test_the_one_score_stands_for_every_step() -> None:
    request = ScoreRequest("1 + 1?", ("a", "b", "c"))
    assert Outcome.of_the_toy()._score_all(request) == [0.1] * 3
