"""Measurements of a pair of mini models find its models and name its own problems."""

import argparse
import json

import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.datasets import load_problems
from adaptive_ttc.mini.settings import PAIRS
from tests.bench.toys import load


@pytest.fixture
def models(tmp_path):
    """A folder that holds a policy and a PRM, as far as can be seen from outside."""
    for name in ("policy", "prm"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text("{}")
    return tmp_path / "models"


def asked(commands, name):
    """The value of an option in each of the commands that have it."""
    return [words[words.index(name) + 1] for words in commands if name in words]


def test_the_pair_is_the_embedded_one_or_lies_in_the_folder_named(monkeypatch, models):
    bench = load(monkeypatch, "mini_pairs")
    parser = argparse.ArgumentParser()
    bench.add_pair_options(parser)
    assert load_problems(bench.pair_of(parser.parse_args([])).dataset("minimath-train"), 5) == load_problems(
        "minimath-train", 5
    )
    other = bench.pair_of(parser.parse_args(["--models", str(models), "--pair", "mini-b"]))
    assert (other.policy, other.prm) == (models / "policy", models / "prm")
    assert {row["subject"] for row in load_problems(other.dataset("minimath-train"), 50)} == set(
        PAIRS["mini-b"].source.families
    )


def test_models_that_are_not_there_are_told_at_once(monkeypatch, models):
    bench = load(monkeypatch, "mini_pairs")
    with pytest.raises(ConfigError, match=r"no models of the pair 'mini-b'.*--models DIR"):
        bench.pair_of(argparse.Namespace(models=None, pair="mini-b"))
    (models / "prm" / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"no model in .*prm.*--models DIR"):
        bench.pair_of(argparse.Namespace(models=models, pair="mini-b"))


def test_every_command_of_a_verifier_is_for_the_pair(monkeypatch, models):
    bench, given = load(monkeypatch, "rollout_verifier"), []
    monkeypatch.setattr(bench, "run", given.append)
    assert bench.main(["made", "--models", str(models), "--pair", "mini-b"]) == 0
    commands = bench.commands(given[0], bench.pair_of(given[0])).values()
    assert asked(commands, "--dataset") == ["minimath-train:mini-b"]
    assert asked(commands, "--policy") == [str(models / "policy")] * 3
    assert asked(commands, "--learning-rate") == ["3e-4"]


def test_every_command_of_self_training_is_for_the_pair(monkeypatch, models, tmp_path):
    commands = []

    def run(words):
        commands.append(words)
        out = words[words.index("--out" if "--out" in words else "--json") + 1]
        if "rollouts" in words:
            row = {"id": "0", "answer": "1", "correct": True, "scores": [0.5], "tokens": 9}
            tmp_path.joinpath(out).write_text((json.dumps(row) + "\n") * 16)
        if words[0] == "eval":
            figures = {"figures": {"correct": [True], "tokens": [9], "overspent": 0}}
            tmp_path.joinpath(out).write_text(json.dumps(figures))
        return 0

    monkeypatch.setattr(load(monkeypatch, "mini_pairs"), "adaptive_ttc", run)
    bench = load(monkeypatch, "self_training")
    work = tmp_path / "work"
    assert bench.main(["--work", str(work), "--models", str(models), "--pair", "mini-b", "--fresh", "1"]) == 0
    train, fresh = "minimath-train:mini-b", str(work / "fresh.jsonl")
    assert asked(commands, "--dataset") == [train, train, *[fresh] * 3, "minimath-calibration:mini-b", *[fresh] * 3]
    own, first, second = str(models / "policy"), str(work / "policy1"), str(work / "policy2")
    assert asked(commands, "--policy") == [own, own, first, own, own, first, second, *[first] * 4]
    assert set(asked(commands, "--prm")) == {str(models / "prm")}
    (row,) = (work / "fresh.jsonl").read_text().splitlines()
    assert json.loads(row)["subject"] in PAIRS["mini-b"].source.families
