"""The demonstration on toy engines: what it prints, draws and writes belongs together."""

import importlib
import json
from pathlib import Path

import pytest

from adaptive_ttc.policies.fake import FakePolicy, toy_answer, toy_right_so_far
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver

BENCH = Path(__file__).parents[2] / "bench"


def rows():
    questions = [f"Add {' + '.join(str(7 * i % 50 + 3 * k) for k in range(2 + i % 6))}." for i in range(18)]
    return [
        {"problem": one, "answer": toy_answer(one), "level": 1 + i % 6, "subject": f"kind {i % 5}", "unique_id": str(i)}
        for i, one in enumerate(questions)
    ]


@pytest.fixture
def demo(monkeypatch):
    pytest.importorskip("matplotlib", reason="the figures need the extra 'plot'")
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    module = importlib.import_module("demo")
    pair = FakePolicy.generative(error_rate=0.15), FakePRM.truthful(toy_right_so_far)
    monkeypatch.setattr(Solver, "mini", lambda *, seed=0: Solver(*pair, seed=seed))
    monkeypatch.setattr(module, "load_problems", lambda name, limit=None, seed=None: rows()[:limit])
    return module


def test_table_picture_and_figures_tell_the_same(demo, tmp_path, capsys):
    picture, target = tmp_path / "new" / "accuracy.png", tmp_path / "out.json"
    assert demo.main(["--limit", "12", "--picture", str(picture), "--json", str(target)]) == 0
    printed = capsys.readouterr().out
    figures = json.loads(target.read_text())["figures"]
    names = {f"{what}.{one}.{n}" for what in ("accuracy", "low", "high") for one in demo.STRATEGIES for n in demo.SIZES}
    assert set(figures) == names | {f"generated_tokens.{n}" for n in demo.SIZES} | {"problems", "samples", "wall_time"}
    for strategy in demo.STRATEGIES:
        for n in demo.SIZES:
            mean, low, high = (figures[f"{what}.{strategy}.{n}"] for what in ("accuracy", "low", "high"))
            assert low <= mean <= high
            assert f"{mean:.3f} [{low:.3f}, {high:.3f}]" in printed
    assert figures["accuracy.majority.1"] == pytest.approx(figures["accuracy.weighted_best_of_n.1"])
    assert figures["accuracy.weighted_best_of_n.64"] > figures["accuracy.weighted_best_of_n.1"]
    assert figures["generated_tokens.64"] == pytest.approx(64 * figures["generated_tokens.1"])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_three_problems_of_different_level_and_subject_are_shown(demo, tmp_path, capsys):
    assert demo.main(["--limit", "1", "--picture", str(tmp_path / "x.png")]) == 0
    printed = capsys.readouterr().out
    for row in demo.shown_rows(rows()):
        assert row["problem"] in printed
    assert [row["level"] for row in demo.shown_rows(rows())] == [1, 3, 5]
    assert len({row["subject"] for row in demo.shown_rows(rows())}) == 3
    assert printed.count("Answers (weighted vote)") == 3
    assert printed.count("16 samples") == 3
