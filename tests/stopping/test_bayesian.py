"""The Bayesian rules against numerical integration and against counting out."""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.stopping.bayesian_stopping import SHAPES, posterior
from adaptive_ttc.stopping.beta import incomplete_beta, leads
from adaptive_ttc.stopping.gamma import first_is_largest
from adaptive_ttc.stopping.registry import make_rule
from adaptive_ttc.stopping.simulated import leader
from tests.stopping.simulation import draws_of, stops_after


def test_the_largest_of_two_shares_is_a_beta_tail():
    for a, b in ((1.0, 1.3), (5.0, 2.0), (40.0, 33.3)):
        assert first_is_largest(a, (b,)) == pytest.approx(incomplete_beta(b, a, 0.5), abs=1e-6)


def test_the_largest_of_several_shares_against_drawn_dirichlets():
    rng = np.random.default_rng(0)
    for shape in ((4.0, 3.0, 1.3), (8.0, 2.0, 2.0, 2.0, 1.3), (3.0, 3.0, 3.0)):
        drawn = rng.dirichlet(shape, 200_000)
        assert first_is_largest(shape[0], shape[1:]) == pytest.approx(np.mean(drawn.argmax(axis=1) == 0), abs=0.005)
    assert first_is_largest(2.0, (2.0, 2.0, 2.0, 2.0)) == pytest.approx(0.2, abs=1e-9)


def test_the_bayes_factor_stops_where_the_odds_say():
    rule = make_rule("bayes_factor", factor=10.0, unseen=0.3)
    for answers in ("a", "aa", "aaab", "aaaabbc"):
        ranked = sorted((answers.count(one) for one in set(answers)), reverse=True)
        p = first_is_largest(ranked[0] + 1.0, (*[one + 1.0 for one in ranked[1:]], 1.3))
        assert rule.right(draws_of(answers)) == pytest.approx(p)
        factor = (len(ranked) + 1) * p / (1 - p)
        assert (rule.worth(draws_of(answers)) == 0) == (factor >= 10)
    assert stops_after(make_rule("bayes_factor", factor=1000.0), draws_of("a" * 40)) > stops_after(
        rule, draws_of("a" * 40)
    )
    with pytest.raises(ConfigError, match="factor"):
        make_rule("bayes_factor", factor=1.0)


def counted_out(shape, n):
    """(largest count, second, rest) -> probability, and that the leader is the mode; ties drawn at random."""
    shares = (shape[0], shape[1], *[(1 - shape[0] - shape[1]) / shape[2]] * shape[2])
    found = defaultdict(lambda: np.zeros(2))
    for counts in itertools.product(range(n + 1), repeat=len(shares)):
        if sum(counts) == n:
            p = math.factorial(n) * math.prod(s**c / math.factorial(c) for s, c in zip(shares, counts, strict=True))
            top = max(counts)
            second = sorted(counts)[-2]
            mode = (counts[0] == top) / counts.count(top)
            found[top, second, n - top - second] += np.array([p, p * mode])
    return found


@pytest.mark.parametrize("shape", [(0.5, 0.3, 3), (0.3, 0.28, 2), (0.85, 0.05, 4)])
def test_the_aggregated_posterior_is_exact_for_one_shape(shape):
    for n in (1, 2, 3, 5, 6):
        for (first, second, rest), (whole, mode) in counted_out(shape, n).items():
            assert posterior((shape,), first, second, rest) == pytest.approx(mode / whole, rel=1e-9), (n, first, second)


def test_the_aggregated_posterior_mixes_shapes_by_their_likelihood():
    shapes = ((0.5, 0.3, 3), (0.85, 0.05, 4))
    whole, mode = sum(counted_out(shape, 5)[3, 1, 1] for shape in shapes)
    assert posterior(shapes, 3, 1, 1) == pytest.approx(mode / whole, rel=1e-9)


def test_the_posterior_is_calibrated_where_its_prior_holds():
    rule, rng = make_rule("bayesian_stopping", level=0.9), np.random.default_rng(5)
    right, told = [], []
    for _ in range(240):
        first, second, tail = SHAPES[rng.integers(len(SHAPES))]
        shares = (first, second, *[(1 - first - second) / tail] * tail)
        draws = draws_of(rng.choice(len(shares), 40, p=shares).tolist())
        n = stops_after(rule, draws)
        if n < 40:
            right.append(leader(draws[:n]) == "0")
            told.append(rule.right(draws[:n]))
    assert len(told) > 120
    assert min(told) >= 0.9
    assert np.mean(right) == pytest.approx(np.mean(told), abs=0.05)


def test_more_answers_than_any_shape_has_are_not_settled():
    assert make_rule("bayesian_stopping").worth(draws_of(range(40))) > 0
    assert posterior(SHAPES, 90, 5, 5) > 0.99


def test_adaptive_consistency_is_the_flat_prior_over_two():
    assert leads(6, 2) == pytest.approx(incomplete_beta(3, 7, 0.5), abs=1e-12)
