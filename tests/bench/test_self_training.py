"""Rounds of self-training: pools are read of exported samples, and curves and gains are those of the samples."""

import json

import numpy as np
import pytest

from tests.bench.toys import load


def rows(id, answers, gold="1", tokens=10):
    return [
        {
            "id": id,
            "answer": one,
            "correct": one == gold,
            "scores": [0.1, 0.9 if one == gold else 0.2],
            "tokens": tokens,
        }
        for one in answers
    ]


def pools(bench, tmp_path, *problems):
    file = tmp_path / "samples.jsonl"
    some = [row for number, answers in enumerate(problems) for row in rows(f"p{number:02}", answers)]
    file.write_text("".join(json.dumps(row) + "\n" for row in some))
    return bench.read_pools(file)


def test_pools_hold_the_samples_of_each_problem(monkeypatch, tmp_path):
    bench = load(monkeypatch, "self_training")
    one, other = pools(bench, tmp_path, ["1", "2", None], ["3", "3", "1"])
    assert one.classes.tolist() == [0, 1, -1]
    assert other.correct.tolist() == [False, False, True]
    assert other.scores.tolist() == [0.2, 0.2, 0.9]


def test_a_better_policy_gains_and_is_cheaper(monkeypatch, tmp_path):
    bench = load(monkeypatch, "self_training")
    monkeypatch.setattr(bench, "SIZES", (1, 2, 4))
    worse = pools(bench, tmp_path, *[["1", "1", "2", "3"]] * 10)
    better = pools(bench, tmp_path, *[["1", "1", "1", "3"]] * 10)
    found = bench.figures_of([worse, better])
    assert found["round0.pass_at_1"] == [0.5, 0.5, 0.5]
    assert found["round1.gain"] == [0.25, 0.25, 0.25]
    assert found["round0.majority"] == pytest.approx([0.5, 0.5, 1.0], abs=0.02)
    assert found["round1.ratio_majority"][0] < 1
    assert found["round1.gain_weighted"] == pytest.approx([0.0, 0.0, 0.0], abs=1e-9)
    assert found["round0.prm_auc"] == [1.0, 1.0, 1.0]


def test_one_round_is_three_commands_and_goes_on(monkeypatch, tmp_path):
    """Small as it can be: drawn, selected, trained and measured, and nothing is done twice."""
    bench = load(monkeypatch, "self_training")
    monkeypatch.setattr(bench, "SIZES", (1, 2))
    asked = []
    commands = load(monkeypatch, "mini_pairs")
    real = commands.adaptive_ttc
    monkeypatch.setattr(commands, "adaptive_ttc", lambda words: asked.append(words[0]) or real(words))
    words = ["--work", str(tmp_path / "work"), "--json", str(tmp_path / "figures.json"), "--rounds", "1"]
    words += ["--problems", "6", "--samples", "2", "--epochs", "1", "--fresh", "2", "--fresh-samples", "2"]
    words += ["--calibration-problems", "0"]
    assert bench.main(words) == 0
    assert asked == ["export", "export", "train-policy", "export", "export"]
    assert (tmp_path / "work" / "policy1" / "training.json").exists()
    first = json.loads((tmp_path / "figures.json").read_text())
    assert bench.main(words) == 0
    assert asked.count("train-policy") == 1
    again = json.loads((tmp_path / "figures.json").read_text())
    figures = [np.hstack(list(one["figures"].values())) for one in (first, again)]
    np.testing.assert_array_equal(*figures)
