"""What looks tell within a problem, from made-up samples."""

import pytest

from adaptive_ttc.calibration.collect.records import ProblemRecord, UnitRecord
from adaptive_ttc.estimate.features import Attempt, Unit
from tests.bench.toys import load


def record(number, answers):
    """A problem whose right samples are short and unsure, and whose wrong ones say one thing."""
    looks = {"right": (10, -2.0), "wrong": (20, -0.5)}
    attempts = [Attempt(one, (), looks[one][0], -5.0, "eos", looks[one][1]) for one in answers]
    units = tuple(UnitRecord(Unit("sample", (one,)), (one.answer == "right",)) for one in attempts)
    return ProblemRecord(str(number), "?", "right", 5, {"sample": units})


def test_looks_are_judged_within_problems_and_votes_by_them(monkeypatch):
    held = [record(0, ["right", "right", "wrong"]), record(1, ["right", "wrong"]), record(2, ["right"])]
    told = load(monkeypatch, "signs").figures(held, (4.0,))
    assert (told["problems"], told["mixed"]) == (3, 2)
    assert "auc.score" not in told
    assert told["auc.shortness"][0] == 1.0
    assert told["auc.logprob"][0] == 0.0
    assert told["auc.answer_logprob"][0] == 0.0
    assert told["right.0"] == pytest.approx(2.5 / 3)
    assert told["right.4"] == pytest.approx(1 / 3)
    assert told["less_even.4"][0] == pytest.approx(-0.5)
