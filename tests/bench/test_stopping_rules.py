"""The simulation of stopping rules: its parts on a few runs, and its tables."""

import math

import pytest

from adaptive_ttc.stopping.registry import make_rule
from tests.bench.toys import load


@pytest.fixture
def bench(monkeypatch):
    return load(monkeypatch, "stopping_rules")


def test_a_sure_answer_is_certified_soon_and_a_tie_never_wrongly(bench):
    wrong, samples, ratio = bench.one_problem("cite", bench.RULES["cite"], "sure", 5, 0)
    assert (wrong, samples < 30) == (0, True)
    assert ratio == pytest.approx(samples / (2 * math.log(1 / 0.05) / 0.9**2))
    wrong, samples, ratio = bench.one_problem("esc", bench.RULES["esc"], "tie", 3, 0)
    assert wrong == 0
    assert math.isnan(ratio)


def test_draws_of_every_distribution(bench):
    for name in bench.DISTRIBUTIONS:
        draws, modes = bench.drawn(name, bench.np.random.default_rng(0), weighted=True)
        assert len(draws) == bench.HORIZON
        assert modes <= {draw.answer for draw in draws}
        assert min(draw.weight for draw in draws) < 0.7


def test_a_shared_budget_is_given_out_whole(bench):
    (problems,) = bench.pools(0, number=6, pools=1)
    assert bench.shared(make_rule("uniform"), problems, 18) == bench.shared(make_rule("uniform", most=3), problems, 99)


def test_scores_are_worth_less_to_who_must_learn_them(bench):
    found = bench.net("uniform", 20, 0)
    assert found["known"] > found["pandora_ucb"] > found["exponential tail"] - 0.2


def test_tables(bench, monkeypatch):
    monkeypatch.setattr(bench, "RULES", {"esc": make_rule("esc")})
    monkeypatch.setattr(bench, "SHARED", {"uniform": make_rule("uniform")})
    monkeypatch.setattr(bench, "HORIZON", 12)
    monkeypatch.setattr(bench, "pools", lambda seed: [])
    monkeypatch.setattr(bench, "EACH", ())
    monkeypatch.setattr(bench, "microseconds", lambda rule: 1.0)
    text = bench.section(bench.measure(2, 0), 2)
    assert "| esc |" in text
    assert "Microseconds" in text
