"""Inspect with a pair as its model: usage, decisions, choices, and budgets that samples have each or together."""

import pytest

from adaptive_ttc.adapters import inspect_ai as adapter
from adaptive_ttc.errors import ConfigError

try:
    import inspect_ai
    from inspect_ai.dataset import Sample
    from inspect_ai.model import GenerateConfig, get_model
    from inspect_ai.scorer import match
    from inspect_ai.tool import ToolInfo
except ImportError:
    inspect_ai = None

needs_it = pytest.mark.skipif(inspect_ai is None, reason="a part of `make test-adapters`")
pytestmark = pytest.mark.filterwarnings("ignore")

PROBLEMS = [("Evaluate $6 \\cdot 3 - 8$.", "10"), ("Evaluate $17 \\cdot 4 - 29$.", "39"), ("Evaluate $5 + 8$.", "13")]


def task(**settings):
    samples = [Sample(input=question, target=f"\\boxed{{{answer}}}.") for question, answer in PROBLEMS]
    return inspect_ai.Task(dataset=samples, scorer=match(location="end", ignore_case=False), **settings)


@needs_it
async def test_an_answer_has_usage_and_the_decision():
    async with get_model("adaptive_ttc/mini", budget_tokens=600, seed=1, memoize=False) as model:
        found = await model.generate(PROBLEMS[0][0], config=GenerateConfig(max_tokens=200))
    assert "\\boxed{10}" in found.completion
    assert found.stop_reason == "stop"
    assert 0 < found.usage.output_tokens == found.metadata["spent"] <= found.metadata["budget"] == 600
    assert found.usage.total_tokens > found.usage.output_tokens
    assert found.metadata["answer"] == "10"
    assert found.metadata["prm_tokens"] > 0
    assert 0 < found.metadata["confidence"] <= 1


@needs_it
async def test_choices_are_samples_the_winner_first():
    async with get_model("adaptive_ttc/mini", seed=1, memoize=False) as model:
        config = GenerateConfig(num_choices=4, temperature=1.0)
        found = await model.generate(PROBLEMS[1][0], config=config)
        again = await model.generate(PROBLEMS[1][0], config=config)
        one = await model.generate(PROBLEMS[1][0], config=GenerateConfig(temperature=0.0))
    assert len(found.choices) == 4
    assert f"\\boxed{{{found.metadata['answer']}}}" in found.choices[0].message.text
    assert {one.message.text for one in found.choices} != {one.message.text for one in again.choices}
    assert len(one.choices) == 1
    assert one.metadata["n"] == 1
    assert found.metadata["strategy"] == "weighted_best_of_n"


@needs_it
async def test_what_cannot_be_had_is_refused():
    async with get_model("adaptive_ttc/mini", budget_tokens=100, memoize=False) as model:
        with pytest.raises(ConfigError, match="stop_seqs"):
            await model.generate("x", config=GenerateConfig(stop_seqs=["a"]))
        with pytest.raises(ConfigError, match="tools"):
            await model.generate("x", tools=[ToolInfo(name="t", description="t")])
    with pytest.raises(ConfigError, match="no_such_folder"):
        get_model("adaptive_ttc/./no_such_folder", memoize=False)


@needs_it
def test_models_of_one_pair_have_one_solver():
    first, second = (get_model("adaptive_ttc/mini", budget_tokens=units, memoize=False) for units in (100, 200))
    assert first.api.pair.solver is second.api.pair.solver
    other = get_model("adaptive_ttc/mini", seed=7, memoize=False)
    assert other.api.pair.solver is not first.api.pair.solver


@needs_it
def test_an_evaluation_spends_a_budget_on_each_sample(tmp_path):
    solver = adapter.adaptive_budget(300)
    [log] = inspect_ai.eval(
        task(solver=solver, epochs=2), model="adaptive_ttc/mini", log_dir=str(tmp_path), display="none"
    )
    assert log.status == "success"
    assert log.results.scores[0].metrics["accuracy"].value > 0.3
    decided = [one.output.metadata for one in log.samples]
    assert len(decided) == 6
    assert all(0 < one["spent"] <= one["budget"] == 300 for one in decided)
    assert {one["strategy"] for one in decided} == {"adaptive"}
    [usage] = log.stats.model_usage.values()
    assert usage.output_tokens == sum(one["spent"] for one in decided)


@needs_it
@pytest.mark.parametrize("at_once", [None, 2])
def test_an_evaluation_has_one_budget(tmp_path, at_once):
    together = task(solver=adapter.adaptive_budget(900, samples=len(PROBLEMS)))
    for _ in range(2):  # a second evaluation has the budget anew
        [log] = inspect_ai.eval(
            together, model="adaptive_ttc/mini", log_dir=str(tmp_path), display="none", max_samples=at_once
        )
        assert log.status == "success"
        spent = [one.output.metadata["spent"] for one in log.samples]
        assert 0 < sum(spent) <= 900
        assert min(spent) > 0


@needs_it
def test_another_model_has_no_such_budget(tmp_path):
    [log] = inspect_ai.eval(
        task(solver=adapter.adaptive_budget(300)), model="mockllm/model", log_dir=str(tmp_path), display="none"
    )
    assert log.status == "error"
    assert "adaptive_ttc/" in log.error.message


@pytest.mark.skipif(inspect_ai is not None, reason="Inspect is there")
def test_without_inspect_the_remedy_is_told():
    with pytest.raises(ConfigError, match=r"pip install .*inspect"):
        adapter.AdaptiveAPI("mini")
