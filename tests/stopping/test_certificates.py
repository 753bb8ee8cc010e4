"""Certificates err at most as often as they say, whenever they are looked at, whatever the answers."""

import itertools
import math

import numpy as np
import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.stopping.base import Draw
from adaptive_ttc.stopping.evidence import log_evidence
from adaptive_ttc.stopping.martingale import leader_evidence
from adaptive_ttc.stopping.registry import make_rule
from tests.stopping.simulation import draws_of, false_certificate, stops_after

NEAR_TIE = (0.34, 0.33, 0.33)
MANY = (0.06, *[0.047] * 20)
CLEAR = (0.6, 0.25, 0.15)
RUNS, HORIZON, LEVEL = 200, 50, 0.8


def test_evidence_is_a_martingale_under_a_tie():
    for wins, losses in itertools.product(range(12), repeat=2):
        after = (math.exp(log_evidence(wins + 1, losses)) + math.exp(log_evidence(wins, losses + 1))) / 2
        assert after == pytest.approx(math.exp(log_evidence(wins, losses)), rel=1e-9)
    assert log_evidence(0, 0) == pytest.approx(0)
    assert log_evidence(0, 4000) < -5


def test_evidence_is_the_integral_that_it_stands_for():
    q = 0.5 + (np.arange(400_000) + 0.5) / 800_000
    density = 1 / np.sqrt(q * (1 - q))
    for wins, losses in ((5, 0), (9, 3), (2, 7)):
        mean = np.average((2 * q) ** wins * (2 - 2 * q) ** losses, weights=density)
        assert math.exp(log_evidence(wins, losses)) == pytest.approx(mean, rel=2e-3)


@pytest.mark.parametrize("name", ["martingale", "cite"])
@pytest.mark.parametrize("shares", [(0.5, 0.5), NEAR_TIE, (0.4, 0.35, 0.25)])
def test_every_sequence_of_a_few_samples_counted_out(name, shares):
    """The probability of a false certificate at any time, summed over all sequences; ``cite`` certifies no tied one."""
    rule, n = make_rule(name, level=0.55), 7
    unique = name == "cite" and shares[0] == shares[1]
    modes = set() if unique else {str(k) for k, share in enumerate(shares) if share == max(shares)}
    wrong = 0.0
    for answers in itertools.product(range(len(shares)), repeat=n):
        if false_certificate(rule, draws_of(answers), modes):
            wrong += math.prod(shares[answer] for answer in answers)
    assert wrong <= 0.45


def growing(rng):
    """Answers that never run out: the k-th sample is new with probability 1/2, and the mode has a share of 0.15."""
    return ["mode" if rng.random() < 0.15 else f"new {k}" if rng.random() < 0.6 else "rival" for k in range(HORIZON)]


@pytest.mark.parametrize("name", ["martingale", "cite"])
@pytest.mark.parametrize("shares", [(0.501, 0.499), NEAR_TIE, MANY, CLEAR, None])
def test_false_certificates_are_rare_under_optional_stopping(name, shares):
    rule, rng = make_rule(name, level=LEVEL), np.random.default_rng(7)
    wrong = 0
    for _ in range(RUNS):
        if shares is None:
            answers, modes = growing(rng), {"rival"}  # .85 * .4 = .34 of the samples
        else:
            answers, modes = rng.choice(len(shares), HORIZON, p=shares).tolist(), {"0"}
        wrong += false_certificate(rule, draws_of(answers), modes)
    assert wrong / RUNS <= 1 - LEVEL


def test_weighted_votes_are_certified_by_their_mean_weight():
    """``a`` is drawn less often than ``b``, but weighs more: only ``a`` may be certified by weight."""
    rule, rng = make_rule("cite", level=LEVEL, weighted=True, cap=3.0), np.random.default_rng(3)
    right = wrong = 0
    for _ in range(80):
        draws = [
            Draw("a", 1, rng.uniform(1, 3)) if rng.random() < 0.4 else Draw("b", 1, rng.uniform(0, 1.2))
            for _ in range(80)
        ]
        wrong += false_certificate(rule, draws, {"a"})
        certificate = rule.certificate(draws)
        right += certificate is not None and certificate.answer == "a"
    assert wrong / 80 <= 1 - LEVEL
    assert right / 80 > 0.5
    plain = make_rule("cite", level=LEVEL).certificate(draws_of("aabbbbbbbbbbbbbbbb"))
    assert plain is not None
    assert plain.answer == "b"


def test_a_weight_above_the_cap_counts_as_the_cap():
    rule = make_rule("cite", weighted=True, cap=1.0)
    assert rule.certificate([Draw("a", 1, 1.0), *[Draw("a", 1, 1e9)] * 4]) is None
    with pytest.raises(ConfigError, match="cap"):
        make_rule("cite", cap=0.0)


@pytest.mark.parametrize(("name", "samples"), [("martingale", 7), ("cite", 8)])
def test_samples_that_all_agree_are_soon_enough(name, samples):
    rule = make_rule(name, level=0.95)
    assert stops_after(rule, draws_of("a" * 20)) == samples
    certificate = rule.certificate(draws_of([None, *"aaaa", None, *"aaaa"]))
    assert certificate is not None
    assert (certificate.answer, certificate.level) == ("a", 0.95)
    assert "mode certified at 95 %; correctness not verified" in str(certificate)


def test_clear_leaders_are_certified_and_ties_are_not():
    for name in ("martingale", "cite"):
        rule, rng = make_rule(name, level=LEVEL), np.random.default_rng(11)
        clear = [stops_after(rule, draws_of(rng.choice(3, 120, p=CLEAR).tolist())) for _ in range(60)]
        assert np.mean(np.array(clear) < 120) > 0.9
        assert stops_after(rule, draws_of([0, 1] * 60)) == 120


def test_evidence_won_for_one_answer_is_not_given_to_another():
    """A leads for long, then B overtakes it: all samples for A while it led are evidence for A alone."""
    draws = draws_of("a" * 8 + "b" * 9)
    answer, log_e = leader_evidence(draws)
    assert answer == "b"
    assert log_e < 0
