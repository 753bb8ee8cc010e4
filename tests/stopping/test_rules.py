"""What every rule keeps to, and the small rules against their papers' words."""

import itertools
import math
import subprocess
import sys
import timeit
from fractions import Fraction

import numpy as np
import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.stopping.base import Certificate, Draw, Pool
from adaptive_ttc.stopping.beta import incomplete_beta, leads
from adaptive_ttc.stopping.registry import RULES, make_rule
from tests.stopping.simulation import draws_of, sampled, stops_after

POOL = Pool(left=0.5, problems=10, samples=80)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("pool", [None, POOL])
def test_every_rule_answers_any_draws(name, pool):
    rule = make_rule(name)
    assert rule.name == name
    rng = np.random.default_rng(1)
    for n in (0, 1, 2, 3, 7, 16, 40):
        drawn = [
            Draw(None if a == 0 else str(a), 50, float(w), float(s))
            for a, w, s in zip(rng.integers(0, 4, n), rng.uniform(0.2, 2, n), rng.random(n), strict=True)
        ]
        for draws in (drawn, draws_of([None] * n), draws_of([1] * n), draws_of(range(n))):
            worth, right = rule.worth(draws, pool), rule.right(draws)
            assert 0 <= worth < math.inf
            assert rule.samples(draws) >= 1
            assert right is None or 0 <= right <= 1
            assert rule.worth(draws, pool) == worth, "nothing is remembered"
    assert rule.worth([], pool) > 0, "an unseen problem gets a sample"
    assert rule.certificate([]) is None


@pytest.mark.parametrize("name", RULES)
def test_a_repeated_look_costs_little(name):
    rule, draws = make_rule(name), sampled([0.5, 0.3, 0.1, 0.1], 16, np.random.default_rng(0))
    rule.worth(draws, POOL)
    assert min(timeit.repeat(lambda: rule.worth(draws, POOL), number=200, repeat=5)) / 200 < 200e-6


@pytest.mark.parametrize("name", RULES)
def test_most_ends_sampling(name):
    assert stops_after(make_rule(name, most=6), draws_of(range(20))) == 6


def test_unknown_names_and_values_are_refused():
    with pytest.raises(ConfigError, match="choose one of uniform"):
        make_rule("nothing")
    with pytest.raises(ConfigError, match="has no option size; it has most, window"):
        make_rule("esc", size=3)
    for name, options in (("adaptive_consistency", {"level": 0.5}), ("esc", {"window": 1}), ("uniform", {"most": 0})):
        with pytest.raises(ConfigError):
            make_rule(name, **options)


def test_a_certificate_claims_the_mode_and_no_more():
    assert str(Certificate("7", 0.95, "proof")) == "mode certified at 95 %; correctness not verified"
    assert "99.5 %" in Certificate("7", 0.995, "proof").statement


def test_importing_the_rules_imports_no_scipy():
    script = "import sys, adaptive_ttc.stopping.registry; print({'scipy', 'torch', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(("a", "b"), list(itertools.product((0, 1, 3, 8, 40), repeat=2)))
def test_leads_is_the_exact_binomial_tail_and_continuous_in_weights(a, b):
    n = a + b + 1
    exact = Fraction(sum(math.comb(n, k) for k in range(a + 1)), 2**n)
    assert leads(a, b) == pytest.approx(float(exact), abs=1e-14)
    assert incomplete_beta(b + 1, a + 1, 0.5) == pytest.approx(float(exact), abs=1e-12)
    assert leads(a + 1e-9, b) == pytest.approx(float(exact), abs=1e-8)


def test_the_incomplete_beta_function_against_numerical_integration():
    grid = (np.arange(200_000) + 0.5) / 200_000
    for a, b in ((1.5, 2.5), (12.3, 4.2), (3.3, 60.7)):
        log = (a - 1) * np.log(grid) + (b - 1) * np.log1p(-grid)
        density = np.exp(log - log.max())
        below = np.cumsum(density) / density.sum()
        for x in (0.1, 0.5, 0.9):
            assert incomplete_beta(a, b, x) == pytest.approx(below[int(x * 200_000) - 1], abs=1e-5)
    assert (incomplete_beta(2, 3, 0), incomplete_beta(2, 3, 1)) == (0, 1)


def test_adaptive_consistency_stops_where_its_criterion_says():
    rule = make_rule("adaptive_consistency")
    assert [stops_after(make_rule("adaptive_consistency", level=p), draws_of("aaaaaa")) for p in (0.8, 0.95)] == [2, 4]
    assert rule.right(draws_of("aaaa")) == 0.96875
    assert rule.right(draws_of("aa")) == 0.875
    assert stops_after(rule, draws_of("abaaaaaa")) == 7  # P(5, 1) = .9375 is not enough
    assert rule.worth(draws_of("ab")) > rule.worth(draws_of("aba")) > 0, "breadth first"


def test_weights_count_as_votes():
    rule = make_rule("adaptive_consistency", level=0.8)
    heavy = [Draw("a", 1, 3.0), Draw("b", 1, 1.0)]
    assert rule.right(heavy) == pytest.approx(leads(3, 1))
    assert rule.worth(heavy) == 0 < rule.worth([Draw("a", 1), Draw("b", 1)])


@pytest.mark.parametrize("window", [2, 3, 5])
def test_esc_stops_at_the_first_whole_window_that_agrees(window):
    rule, rng = make_rule("esc", window=window), np.random.default_rng(window)
    for _ in range(300):
        answers = [None if a == 0 else int(a) for a in rng.integers(0, 3, 30)]
        windows = [answers[i : i + window] for i in range(0, 30, window)]
        agreed = next((i for i, one in enumerate(windows) if one[0] is not None and len(set(one)) == 1), None)
        expected = 30 if agreed is None else (agreed + 1) * window
        assert stops_after(rule, draws_of(answers)) == expected


def test_esc_draws_what_its_window_lacks():
    rule = make_rule("esc", window=5, most=12)
    assert [rule.samples(draws_of(range(n))) for n in (0, 1, 4, 5, 10, 11)] == [5, 4, 1, 5, 2, 1]
    assert rule.worth(draws_of("abbbbbc")) > 0, "a window is not moved"
