"""The levels of the gain model and the classifiers of difficulty, judged on a small made-up set."""

import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from adaptive_ttc.calibration.fit.gain import GainLearner
from adaptive_ttc.calibration.fit.rows import GainSettings
from adaptive_ttc.estimate.gain import Action
from tests.bench.test_traces import written
from tests.bench.toys import load


@pytest.fixture
def levels(monkeypatch):
    return load(monkeypatch, "levels")


def test_every_level_and_stage_is_judged_on_other_problems(levels, tmp_path, capsys, monkeypatch):
    quick = GainSettings(states=480, iterations=9)
    monkeypatch.setattr(levels, "GainLearner", SimpleNamespace(of=partial(GainLearner.of, learning=quick)))
    out = tmp_path / "figures.json"
    argv = ["--traces", str(written(tmp_path, problems=45)), "--problems", "24", "--splits", "1", "--json", str(out)]
    assert levels.main([*argv, "--states", "60"]) == 0
    found = json.loads(out.read_text())
    figures = found.get("figures", found)
    assert figures["fitted"] == {"24": 24}
    assert 30 <= figures["states"]["24"] <= 60
    for level in levels.LEVELS:
        told = figures["levels"]["24"][level]
        assert set(told) == {"brier", "r2.sample", "slope.sample"}
        assert 0 < told["brier"] < 0.25, "better than a coin"
        assert told["r2.sample"] <= 1
    stages = figures["difficulty"]
    assert {"prompt", "unscored_1", "unscored_4"} <= set(stages)
    assert stages["unscored_4"]["log_loss"] < stages["prompt"]["log_loss"], "agreement tells, the prompt does not"
    assert stages["unscored_4"]["auc"] > 0.6
    assert "| 24: R2 (slope) of `sample` |" in capsys.readouterr().out


def test_figures_of_a_forecast_that_promises_twice_what_comes(levels):
    actions = (Action("sample", 1), Action("dvts-4", 1))
    owner, tried = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    states = levels.States((), np.array([1.0, 0.0]), owner, tried, np.array([0.1, 0.3, 0.2, 0.0]))
    told = levels.Told(np.array([0.5, 0.5]), np.array([0.2, np.nan, 0.4, np.nan]))
    found = levels.judged(told, states, actions)
    assert set(found) == {"brier", "r2.sample", "slope.sample"}, "what is not forecast is not judged"
    assert found["brier"] == pytest.approx(0.25)
    assert found["slope.sample"] == pytest.approx(0.5)
    assert found["r2.sample"] == pytest.approx(0.0)


def test_ranks_of_uncertain_labels(levels):
    ones = np.ones(3)
    assert levels.soft_auc(np.array([0.1, 0.5, 0.9]), np.array([0.0, 0.0, 1.0]), ones) == 1
    assert levels.soft_auc(ones, np.array([0.0, 0.5, 1.0]), ones) == pytest.approx(0.5)
    # of 1.5 x 1.5 in pairs, only the middle row beside itself is no mistake, and a half of it
    assert levels.soft_auc(np.array([0.1, 0.9, 0.5]), np.array([1.0, 0.0, 0.5]), ones) == pytest.approx(0.125 / 2.25)


def test_problems_of_one_group_are_fitted_to_together_and_some_are_left(levels, tmp_path):
    file = written(tmp_path, problems=60)
    records = levels.read_traces([file]).records
    paired = [replace(one, group=f"g{number // 2}") for number, one in enumerate(records)]
    kept = levels.chosen(paired, 29, seed=0)
    assert len(kept) == 30
    assert all((number ^ 1) in kept for number in kept)
    with pytest.raises(levels.ConfigError, match="a fifth"):
        levels.chosen(paired, 55, seed=0)
