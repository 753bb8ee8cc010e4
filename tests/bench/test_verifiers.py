"""Samples of a mini policy are drawn and graded, and verifiers measured on them."""

import json
from argparse import Namespace

import pytest

from adaptive_ttc.answers import parse_space
from adaptive_ttc.loading import MINI_PRM
from adaptive_ttc.training.graded import Graded, read_graded
from tests.bench.toys import load


async def test_samples_are_drawn_graded_and_measured(monkeypatch, tmp_path):
    bench = load(monkeypatch, "verifiers")
    options = Namespace(draw="train", limit=4, n=4, seed=1, out=tmp_path / "some.jsonl", models=None, pair="mini")
    bench.draw(options)
    by_step = [json.loads(line) for line in options.out.read_text().splitlines()]
    by_answer = [json.loads(line) for line in (tmp_path / "some.rollouts.jsonl").read_text().splitlines()]
    assert len(by_step) == len(by_answer) == 16
    for one in by_step:
        assert one["labels"] == sorted(one["labels"], reverse=True)  # after a mistake nothing is right
    rows = read_graded([tmp_path / "some.rollouts.jsonl"], parse_space("math")).rows
    scores = await bench.scores_of(str(MINI_PRM), rows)
    assert [len(one) for one in scores] == [len(row.steps) for row in rows]


def test_figures_are_of_problems(monkeypatch):
    rows = [
        Graded("a", ("x",), (1.0,), "1"),
        Graded("a", ("x", "y"), (1.0, 0.0), "2"),
        Graded("b", ("x",), (1.0,), "1"),
    ]
    within, of_steps, gains = load(monkeypatch, "verifiers").by_problem_figures(rows, [(0.9,), (0.1, 0.2), (0.1,)])
    assert within == [1.0]
    assert of_steps == [0.5]
    assert gains == pytest.approx([0.5, 0.0])


def test_a_ratio_is_paired_by_problem(monkeypatch):
    found = load(monkeypatch, "verifiers").ratio([0.4, 0.2, 0.9, 0.6], [0.8, 0.4, 1.8, 1.2])
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
