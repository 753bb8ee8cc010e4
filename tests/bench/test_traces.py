"""The comparison of rules on recorded samples: its figures, on a small made-up set."""

import gzip
import importlib
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def traces(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "bench")
    return importlib.import_module("traces")


def written(tmp_path, problems=12, samples=6):
    rng = random.Random(0)
    lines = []
    for number in range(problems):
        rate = (0.9, 0.5, 0.2)[number % 3]
        drawn = []
        for _ in range(samples):
            right = rng.random() < rate
            answer = "7" if right else str(rng.randrange(100, 104))
            drawn.append({"answer": answer, "correct": right, "tokens": rng.randrange(50, 150)})
        lines.append(
            json.dumps({"id": f"p{number}", "gold": "7", "model": "made up", "dataset": "d", "samples": drawn})
        )
    file = tmp_path / "made.jsonl.gz"
    with gzip.open(file, "wt") as out:
        out.write("\n".join(lines) + "\n")
    return file


def test_figures_of_all_rules_with_intervals(traces, tmp_path, monkeypatch, capsys):
    out = tmp_path / "figures.json"
    argv = ["traces.py", "--traces", str(written(tmp_path)), "--json", str(out), "--orders", "2", "--calibration", "8"]
    monkeypatch.setattr(sys, "argv", argv)
    traces.main()
    found = json.loads(out.read_text())
    figures = found.get("figures", found)
    rules = figures["rules"]
    assert {"uniform", "adaptive_consistency", "esc", "ours, no calibration", "ours, 8 problems"} <= set(rules)
    budgets = len(rules["uniform"])
    for points in rules.values():
        assert len(points) == budgets
        assert all(0 <= one["low"] <= one["accuracy"] <= one["high"] <= 1 for one in points)
        assert [one["tokens"] for one in points] == sorted(one["tokens"] for one in points)
    for name in ("less_uniform", "less_adaptive_consistency"):
        assert len(figures[name]) == budgets
        assert all(low <= mean <= high for _, mean, low, high in figures[name])
    for row, (budget, *_) in enumerate(figures["less_uniform"]):
        assert all(points[row]["tokens"] <= budget + 0.1 for points in rules.values()), "no rule spends more"
    assert figures["tokens_for_uniform_best"]["uniform"] <= 1
    assert "less uniform" in capsys.readouterr().out


def test_a_curve_that_never_gets_there_has_no_ratio(traces):
    base = traces.Curve(np.array([[0.2], [0.8]]), np.array([100.0, 200.0]), np.zeros((2, 1)))
    better = traces.Curve(np.array([[0.6], [1.0]]), np.array([100.0, 200.0]), np.zeros((2, 1)))
    worse = traces.Curve(np.array([[0.1], [0.2]]), np.array([100.0, 200.0]), np.zeros((2, 1)))
    assert traces.tokens_ratio(better, base) == 0.75
    assert traces.tokens_ratio(worse, base) is None
