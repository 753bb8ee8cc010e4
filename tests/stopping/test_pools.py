"""Rules for a shared budget, and for scores: their optimum, and what they are worth beside uniform sampling."""

import itertools
import math

import numpy as np
import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.stopping.base import Draw, Pool
from adaptive_ttc.stopping.beta import leads
from adaptive_ttc.stopping.pandora_ucb import PandoraUcb
from adaptive_ttc.stopping.pets import SHARES, agreement, allotment, gain
from adaptive_ttc.stopping.registry import make_rule
from adaptive_ttc.stopping.simulated import leader, shared
from tests.stopping.simulation import draws_of

EARLY, LATE = Pool(left=1.0, problems=10, samples=100), Pool(left=0.0, problems=10, samples=0)


def agreeing(name: str, each: int) -> float:
    """Share of problems whose vote is the mode, with a budget of so many samples for each on average."""
    found = []
    for seed in range(3):
        rng, problems = np.random.default_rng(seed), []
        for _ in range(60):
            shares = np.sort(rng.dirichlet([6 * rng.random() + 0.5, 1.0, 0.5, 0.5]))[::-1]
            problems.append(draws_of(rng.choice(4, 32, p=shares).tolist()))
        rule = make_rule(name, level=0.8) if name == "adaptive_consistency" else make_rule(name)
        found += [leader(one) == "0" for one in shared(rule, problems, each * len(problems))]
    return float(np.mean(found))


@pytest.mark.parametrize("name", ["adaptive_consistency", "blend_asc", "least_settled", "pets"])
def test_a_shared_budget_goes_further_than_uniform(name):
    gains = [agreeing(name, each) - agreeing("uniform", each) for each in (4, 6)]
    assert sum(gains) > 0.02
    assert min(gains) > -0.02


def test_blend_asc_follows_the_posterior_early_and_the_martingale_late():
    rule = make_rule("blend_asc")
    for a, b in itertools.product(range(7), repeat=2):
        draws = draws_of("a" * max(a, b) + "b" * min(a, b))
        high, low = max(a, b), min(a, b)
        assert rule.worth(draws, EARLY) == pytest.approx(8 * (1 - leads(high, low)), rel=1e-6)
        density = (high + low + 1) * math.comb(high + low, low) / 2 ** (high + low)
        assert rule.worth(draws, LATE) == pytest.approx(min(1.0, density) / 0.75, rel=1e-6)
    assert rule.worth(draws_of("aa"), EARLY) == pytest.approx(rule.worth(draws_of("aa"), LATE))
    assert rule.worth(draws_of("ab"), LATE) > rule.worth(draws_of("abab"), LATE), "of equal ones the fewer samples"


def test_the_least_settled_problem_goes_first_and_is_not_stayed_with():
    rule = make_rule("least_settled")
    order = ["", "ab", "a", "abab", "ababab", "aa", "aaa"]
    worths = [rule.worth(draws_of(answers)) for answers in order]
    assert worths == sorted(worths, reverse=True)
    assert rule.worth(draws_of("aab")) == pytest.approx((1 - leads(2, 1)) / 4)
    assert rule.worth(draws_of("aaaa")) == 0 < make_rule("least_settled", level=0.99).worth(draws_of("aaaa"))
    assert rule.worth([*draws_of("a"), *draws_of([None])]) > rule.worth(draws_of("aa"))
    with pytest.raises(ConfigError, match="decay"):
        make_rule("least_settled", decay=-1.0)


def test_pets_divides_a_mean_budget_as_no_other_division_can():
    mean = 3.0
    best = allotment(mean)
    assert sum(best) == mean * len(SHARES)
    value = sum(agreement(share, n) for share, n in zip(SHARES, best, strict=True))
    for other in itertools.product(range(1, 9), repeat=len(SHARES)):
        if sum(other) == sum(best):
            assert sum(agreement(share, n) for share, n in zip(SHARES, other, strict=True)) <= value + 1e-12


def test_pets_agreement_is_that_of_a_majority():
    rng = np.random.default_rng(4)
    for share, n in ((0.57, 15), (0.65, 9), (0.75, 5)):
        votes = rng.binomial(n, share, 100_000)
        assert agreement(share, n) == pytest.approx(np.mean(votes > n / 2), abs=0.03)
        assert gain(share, n) == pytest.approx(agreement(share, n + 1) - agreement(share, n), abs=1e-12)


def test_pets_gives_settled_problems_few_samples_and_follows_the_pool():
    rule = make_rule("pets", mean=6.0)
    assert rule.worth(draws_of("a")) > rule.worth(draws_of("ab")) > 0, "warming up comes first"
    assert rule.worth(draws_of("aaaaa")) == 0 < rule.worth(draws_of("aabab"))
    assert rule.worth(draws_of("aaaa"), Pool(0.5, 10, 500)) > 0
    assert rule.worth(draws_of("aaaa"), Pool(0.1, 10, 0)) == 0
    with pytest.raises(ConfigError, match="mean"):
        make_rule("pets", mean=0.5)


def fair_cap(values, cost: float) -> float:
    """The exact fair cap of a known distribution, ``values`` of equal probability: E[(v - cap)+] = cost."""
    ordered = np.sort(values)[::-1]
    caps = (np.cumsum(ordered) - cost * len(ordered)) / np.arange(1, len(ordered) + 1)
    below = np.append(ordered[1:], -np.inf)
    return float(caps[np.argmax(caps >= below)])


SCORES = {
    "uniform": lambda rng, n: rng.random(n),
    "low": lambda rng, n: rng.beta(2, 5, n),
    "two humps": lambda rng, n: np.where(rng.random(n) < 0.3, rng.beta(20, 3, n), rng.beta(2, 8, n)),
    "exponential": lambda rng, n: np.minimum(0.4 + rng.exponential(0.05, n), 1.0),
}


def test_the_exact_fair_cap():
    values = np.random.default_rng(1).random(500)
    for cost in (0.001, 0.02, 0.2, 0.7):
        assert np.maximum(values - fair_cap(values, cost), 0).mean() == pytest.approx(cost, abs=1e-12)
    uniform = (np.arange(100_000) + 0.5) / 100_000
    assert fair_cap(uniform, 0.02) == pytest.approx(1 - math.sqrt(0.04), abs=1e-4)


@pytest.mark.parametrize("name", SCORES)
def test_pandora_expects_the_rise_that_one_more_score_brings(name):
    rule, rng = PandoraUcb(), np.random.default_rng(9)
    for n in (2, 4, 9, 16):
        drawn = SCORES[name](rng, 1500 * (n + 1)).reshape(1500, n + 1)
        rise = np.maximum(drawn[:, n] - drawn[:, :n].max(axis=1), 0).mean()
        expected = np.mean([rule.rise(scores) for scores in drawn[:, :n].tolist()])
        assert rise * (0.4 if n < 9 else 0.8) <= expected <= rise * 3


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("cost", [0.003, 0.01, 0.03])
def test_pandora_comes_near_the_best_fixed_number_without_knowing_the_distribution(name, cost):
    """Net of costs, between what is optimal where the distribution is known, and the best number of samples."""
    rng, most = np.random.default_rng(12), 50
    exact, rule = fair_cap(SCORES[name](rng, 100_000), cost), PandoraUcb(cost=cost, most=most)
    drawn = SCORES[name](rng, 200 * most).reshape(200, most)
    taken = np.where((drawn >= exact).any(axis=1), (drawn >= exact).argmax(axis=1) + 1, most)
    optimum = np.mean([row[:n].max() - cost * n for row, n in zip(drawn, taken, strict=True)])
    fixed = max(drawn[:, :n].max(axis=1).mean() - cost * n for n in range(1, most + 1))
    learned = []
    for row in drawn.tolist():
        n = 2
        while n < most and rule.rise(row[:n]) > cost:
            n += 1
        learned.append(max(row[:n]) - cost * n)
    assert optimum >= np.mean(learned) >= fixed - 0.07


def test_pandora_needs_scores_to_stop():
    rule = make_rule("pandora_ucb", most=30)
    assert rule.worth(draws_of("a" * 20)) > 1
    scored = [Draw("a", 1, score=score) for score in (0.99, 0.98, 0.985, 0.995, 0.99)]
    assert rule.worth(scored) == 0
    assert rule.worth(scored[:1]) > 1
    for options in ({"cost": 0.0}, {"delta": 1.0}, {"least": 1}):
        with pytest.raises(ConfigError):
            make_rule("pandora_ucb", **options)
