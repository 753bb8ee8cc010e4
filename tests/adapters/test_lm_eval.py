"""lm-eval with a pair as its model, and its maj@k against the library's own majority."""

import json
from collections import Counter

import pytest

from adaptive_ttc.adapters.lm_eval import AdaptiveLM, MajorityFilter
from adaptive_ttc.answers import Grader, canonical
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.datasets import load_problems
from adaptive_ttc.run.vote import grade
from adaptive_ttc.strategies.registry import make_strategy
from adaptive_ttc.types import Prefix
from adaptive_ttc.voting import select

try:
    import lm_eval
    from lm_eval.tasks import TaskManager
except ImportError:
    lm_eval = None

needs_it = pytest.mark.skipif(lm_eval is None, reason="a part of `make test-adapters`")
pytestmark = pytest.mark.filterwarnings("ignore")

K = 6
PROBLEMS = [(row["problem"], row["answer"]) for row in load_problems("minimath-500", limit=6)]
BOX = r"\\boxed\{(.*)\}"


@pytest.fixture
def task_of(tmp_path):
    """A task of lm-eval over the problems, each of which is asked ``repeats`` times."""

    def make(repeats=1, output="generate_until", **generation):
        file = tmp_path / "problems.jsonl"
        file.write_text("".join(json.dumps({"question": q, "answer": str(a)}) + "\n" for q, a in PROBLEMS))
        ours, first = {"function": "adaptive_ttc_majority"}, {"function": "take_first"}
        theirs = [{"function": "regex", "regex_pattern": BOX, "group_select": -1}, {"function": "majority_vote"}]
        more = {"doc_to_choice": ["1", "2"], "doc_to_target": 0} if output != "generate_until" else {}
        config = {
            "task": "problems", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(file)}},
            "test_split": "test", "output_type": output, "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}",
            "target_delimiter": "", "repeats": repeats, "num_fewshot": 0,
            "generation_kwargs": {"until": ["</s>"], **generation},
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
            "filter_list": [
                {"name": "ours", "filter": [ours, first]},
                {"name": "ours@3", "filter": [{**ours, "k": 3}, first]},
                {"name": "theirs", "filter": [*theirs, first]},
            ],
        }  # fmt: skip
        if more:
            config = {
                key: config[key] for key in config if key not in ("generation_kwargs", "metric_list", "filter_list")
            }
            config |= more
        return config

    return make


def evaluated(model, config, **settings):
    tasks = TaskManager(include_defaults=False)
    return lm_eval.simple_evaluate(
        model=model, tasks=[config], task_manager=tasks, log_samples=True, bootstrap_iters=0, **settings
    )


@needs_it
async def test_maj_at_k_is_the_librarys_majority(task_of):
    model = AdaptiveLM("mini", seed=5, temperature=0.8, max_tokens=80)
    found = evaluated(model, task_of(repeats=K, do_sample=True, temperature=1.0))
    rows = {name: [] for name in ("ours", "ours@3", "theirs")}
    for row in found["samples"]["problems"]:
        rows[row["filter"]].append(row)
    assert {name: len(of) for name, of in rows.items()} == dict.fromkeys(rows, len(PROBLEMS))
    exact = 0
    async with Grader() as grader:
        for ours, three, theirs in zip(*rows.values(), strict=True):
            [texts] = ours["resps"]
            assert len(texts) == K
            assert len(set(texts)) > 1
            for row, k in ((ours, K), (three, 3)):
                prefixes = [Prefix(text=text, finish="eos") for text in texts[:k]]
                [said] = row["filtered_resps"]
                assert said == (select(await grade(prefixes, make_strategy("majority", n=k), grader), "majority") or "")
            read = [grader.read(text) for text in texts]
            votes = Counter(read).most_common()
            if None not in read and (len(votes) == 1 or votes[0][1] > votes[1][1]):  # no tie
                exact += 1
                assert ours["filtered_resps"] == [canonical(theirs["filtered_resps"][0])]
    assert exact >= 2
    right = [row["filtered_resps"] == [row["target"]] for row in rows["ours"]]
    assert found["results"]["problems"]["exact_match,ours"] == sum(right) / len(right)
    model.close()


@needs_it
def test_a_budget_is_spent_on_every_problem(task_of):
    found = evaluated("adaptive_ttc", task_of(), model_args="pretrained=mini,budget_tokens=400,seed=0")
    assert found["results"]["problems"]["exact_match,ours"] >= 0.5


@needs_it
def test_a_running_loop_and_chats_are_no_hindrance(task_of):
    model = AdaptiveLM("mini", strategy="greedy")

    async def within():
        return evaluated(model, task_of(), apply_chat_template=True)

    import asyncio

    found = asyncio.run(within())
    samples = found["samples"]["problems"]
    assert samples[0]["arguments"][0][0].startswith("user: ")
    assert model.spent > 0
    model.close()


@needs_it
def test_what_cannot_be_had_is_refused(task_of):
    model = AdaptiveLM("mini")
    with pytest.raises(ConfigError, match="generative"):
        evaluated(model, task_of(output="multiple_choice"))
    with pytest.raises(ConfigError, match="top_k"):
        evaluated(model, task_of(top_k=3))
    model.close()


def test_the_majority_knows_equal_answers():
    if lm_eval is None:
        with pytest.raises(ConfigError, match=r"pip install .*lm-eval"):
            MajorityFilter()
        with pytest.raises(ConfigError, match=r"pip install .*lm-eval"):
            AdaptiveLM("mini")
        return
    texts = ["\\boxed{3}", "\\boxed{\\frac{1}{2}}", "\\boxed{3}", "\\boxed{0.5}", "\\boxed{\\frac{2}{4}}", "none"]
    assert MajorityFilter().apply([texts, ["none"], ["\\boxed{b}", "\\boxed{a}"]]) == [["0.5"], [""], ["a"]]
    assert MajorityFilter(k=3).apply([texts]) == [["3"]]
