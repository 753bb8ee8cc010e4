"""The chain of recipes/word_problems.py: how problems are parted, what its commands are, what it measures."""

import importlib.util
import json
from pathlib import Path

import pytest

from adaptive_ttc.cli import main
from adaptive_ttc.configuration.recipe import read_recipe

FILE = Path(__file__).parents[2] / "recipes" / "word_problems.py"


@pytest.fixture(scope="module")
def chain():
    spec = importlib.util.spec_from_file_location("word_problems", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def options(chain, tmp_path):
    rows = [
        {"question": f"What is {k} + 1?", "answer": f"{k} + 1 = <<{k}+1={k + 1}>>{k + 1}\n#### {k + 1}"}
        for k in range(20)
    ]
    for name, some in (("train", rows), ("real", rows[:2]), ("made", rows[2:5])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    words = ["--policy", str(tmp_path), "--data", str(tmp_path / "train.jsonl"), "--work", str(tmp_path / "work")]
    words += ["--test", str(tmp_path / "real.jsonl"), str(tmp_path / "made.jsonl")]
    return chain.parser().parse_args([*words, "--verifier-problems", "4", "--calibration-problems", "3"])


def test_no_problem_is_in_two_parts_or_in_a_test(chain, options):
    chain.part(options)
    parts = [chain._rows(options.work / f"{name}.jsonl") for name in ("calibration", "verifier", "policy", "test")]
    assert [len(part) for part in parts] == [3, 4, 8, 5]
    assert len({row["question"] for part in parts for row in part}) == 20
    assert [row["id"] for row in parts[3]] == ["real/0", "real/1", "made/0", "made/1", "made/2"]


def test_parts_of_other_sizes_do_not_mix(chain, options):
    chain.part(options)
    chain.part(options)
    options.calibration_problems = 5
    with pytest.raises(SystemExit, match="another --work"):
        chain.part(options)


def test_too_few_problems_are_told(chain, options):
    options.verifier_problems = 30
    with pytest.raises(SystemExit, match="too few"):
        chain.part(options)


def test_its_recipes_are_read_and_its_commands_are_real_ones(chain, options, monkeypatch):
    """All commands in their order, each in place of a run noted and answered with what it would leave."""
    asked = []
    rollout = {"correct": True, "answer": "1", "scores": [0.5], "tokens": 5}

    def command(self, words):
        asked.append(words)
        out = Path(words[words.index("--out" if "--out" in words else "--json") + 1])
        if words[0].startswith("train"):
            out.mkdir()
            look = {"step": 0, "auc_within": 0.7 if "outcome" in words else 0.6}
            (out / "training.json").write_text(json.dumps({"looks": [look], "best_step": 0}))
        elif words[0] == "eval":
            out.write_text(json.dumps({"figures": {"correct": [True] * 5, "tokens": [4] * 5}}))
        elif words[0] == "export":
            problems = chain._rows(Path(words[words.index("--dataset") + 1]))
            lines = [{"id": row.get("id", "x"), **rollout} for row in problems for _ in range(2)]
            out.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return 0

    monkeypatch.setattr(chain.Chain, "_command", command)
    options.kinds = ["implicit", "outcome"]
    chain.Chain(options).run()
    found = json.loads((options.work / "figures.json").read_text())
    names = [words[0] for words in asked]
    assert sorted(names[:2]) == ["export", "train-policy"]
    assert names[2:5] == ["export", "train-prm", "train-prm"]
    assert names[5:] == ["export", "calibrate", "eval"]
    assert found["real.after.single"] == found["made.after.weighted"] == found["real.adaptive"] == [1.0, 1.0, 1.0]
    assert found["real.gain"] == [0.0, 0.0, 0.0]
    assert (found["budget"], found["adaptive_tokens"]) == (50, 20)
    pair = read_recipe(options.work / "pair.toml")
    assert pair.prm == str(options.work / "prm-outcome")
    assert read_recipe(options.work / "before.toml").prm is None
    for words in asked:  # the parsers know every option
        with pytest.raises(SystemExit) as ended:
            main([*words, "--help"])
        assert ended.value.code == 0


def test_vllm_is_told_what_it_may_take(chain, options):
    options.engine = "vllm"
    options.work.mkdir()
    chain.Chain(options).recipe("after", options.policy)
    recipe = read_recipe(options.work / "after.toml")
    assert recipe.engine == "vllm"
    assert recipe.policy_settings["gpu_memory_utilization"] == options.share
