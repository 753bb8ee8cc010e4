"""The bench of equality on a few recorded samples."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from tests.bench.toys import load


def test_verdicts_are_compared_with_recorded_ones_and_with_those_of_another_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = load(monkeypatch, "equality")
    monkeypatch.setattr(bench, "table", lambda name: [("1/2", "0.5"), ("7", "8")])
    gold, traces, kept = tmp_path / "gold.jsonl", tmp_path / "traces.jsonl", tmp_path / "kept.json"
    gold.write_text("".join(json.dumps({"answer": one}) + "\n" for one in ("7", "7.0", "8", r"\frac12")), "utf-8")
    samples = [
        {"answer": "0.5", "correct": True},
        {"text": r"so \boxed{\frac12}", "correct": True},
        {"text": r"so \boxed{\frac13}", "correct": True},  # recorded wrongly
        {"text": "nothing", "correct": False},
    ]
    problems = [{"gold": "1/2", "samples": samples}, {"gold": "7", "samples": [{"answer": "8", "correct": False}]}]
    traces.write_text("".join(json.dumps(one) + "\n" for one in problems), "utf-8")
    before = tmp_path / "before.json"
    before.write_text(json.dumps([["1/2", "0.5", False], ["1/2", r"\frac13", True]]), "utf-8")
    figures = bench.measure(argparse.Namespace(gold=gold, traces=[traces], keep=kept, before=before))
    assert figures == {
        "equal": 2, "equal_wrong": 1, "unequal": 2, "unequal_wrong": 1,
        "gold_texts": 4, "gold_pairs": 6, "gold_equal": 1,
        "answers": 3, "pairs": 3, "agree": 2, "changed": 2, "gained": 1, "lost": 1, "requests": 0,
    }  # fmt: skip
    assert "gained: 1/2   0.5   1, 1" in capsys.readouterr().out
    assert ["1/2", r"\frac12", True] in json.loads(kept.read_text("utf-8"))
