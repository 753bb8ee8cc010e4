"""What agreement tells: against simulation, against brute force, and where it is known exactly."""

import math
import random

import numpy as np
import pytest

from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.agreement import (
    AHEAD,
    DISCOUNTS,
    RATES,
    SHAPE,
    SILENT,
    SPREADS,
    AgreementModel,
    log_likelihood,
    log_silent,
)
from adaptive_ttc.estimate.agreement_gain import AgreementGainModel
from adaptive_ttc.estimate.answer_prior import AnswerPrior, Component, likelihood, shipped_prior
from adaptive_ttc.estimate.features import Attempt, Evidence, Unit
from adaptive_ttc.voting import VoteWeights

FLAT = np.full(SHAPE, 1 / math.prod(SHAPE))


def component(weights=FLAT, name="made up"):
    return Component(name, name, "a set", 10, weights, 100.0)


def at(rate, spread, silent):
    """A prior that is sure of a problem's nature."""
    weights = np.zeros(SHAPE)
    weights[rate, spread, silent] = 1.0
    return weights


def drawn(rng, cell, count, right, wrong):
    """Draw so many more samples from a problem of this cell; returns votes of the right answer and the wrong ones."""
    p, theta, alpha, q = RATES[cell[0]], SPREADS[cell[1]], DISCOUNTS[cell[1]], SILENT[cell[2]]
    wrong = list(wrong)
    for _ in range(count):
        if rng.random() < q:
            continue
        if rng.random() < p:
            right += 1
            continue
        place = rng.random() * (sum(wrong) + theta)
        for number, votes in enumerate(wrong):
            place -= votes - alpha
            if place < 0:
                wrong[number] += 1
                break
        else:
            wrong.append(1)
    return right, wrong


def leads(right, wrong):
    most = max(wrong, default=0)
    return 1.0 if right > most else 1 / (1 + wrong.count(most)) if right and right == most else 0.0


@pytest.mark.parametrize("cell", [(4, 1, 0), (6, 3, 2), (3, 6, 1)])
@pytest.mark.parametrize("pattern", [(0, []), (1, [1]), (2, [2, 1])])
def test_gains_are_those_of_a_simulation(cell, pattern):
    right, wrong = pattern
    rng = random.Random(str((cell, pattern)))
    model = AgreementModel(at(*cell))
    # which answer is right is not told: the posterior over it is Bayes' own
    answers = sorted(([(float(right), 0.0)] if right else []) + [(float(vote), 0.0) for vote in wrong], reverse=True)
    outlook = model.outlook(answers, 0)
    held = np.array([*(vote for vote, _ in answers), 0.0])
    log = log_likelihood(held, [vote for vote, _ in answers])[:, cell[0], cell[1]]
    chances = np.exp(log - log.max()) / np.exp(log - log.max()).sum()
    assert outlook.right == pytest.approx(chances[0] if answers else 0.0)
    runs, total = 1500, np.zeros(2)
    for _ in range(runs):
        (which,) = rng.choices(range(len(held)), chances)
        first = [vote for number, (vote, _) in enumerate(answers) if number != which]
        before = leads(held[which], first)
        for step, ahead in enumerate((2, 8)):
            total[step] += leads(*drawn(rng, cell, ahead, held[which], first)) - before
    expected = [outlook.gains[AHEAD.index(ahead)] for ahead in (2, 8)]
    assert max(abs(a - b) for a, b in zip(expected, total / runs, strict=True)) < 0.045, (expected, total / runs)


def test_probabilities_of_patterns_sum_to_one():
    """Of three answered samples: all partitions, with the number of ways in which each arises."""
    patterns = {(3,): 1, (2, 1): 3, (1, 1, 1): 1}
    for rate in (2, 7):
        for spread in range(len(SPREADS)):
            total = 0.0
            for votes, ways in patterns.items():
                held = np.array([*sorted(set(votes), reverse=True), 0.0])
                several = [*(votes.count(vote) for vote in held[:-1]), 1]
                log = log_likelihood(held, list(votes))[:, rate, spread]
                total += ways * float(np.dot(several, np.exp(log)))
            assert total == pytest.approx(1.0)


def test_a_second_vote_never_changes_a_majority():
    outlook = AgreementModel(FLAT).outlook([(1.0, 0.0)], 0)
    assert outlook.gains[0] == pytest.approx(0.0, abs=1e-9)
    assert outlook.gains[3] > 0.01


def test_agreement_makes_sure_and_silence_makes_hard():
    model = AgreementModel(FLAT)
    rights = [model.outlook([(float(votes), 0.0)], 0).right for votes in (1, 2, 4, 8)]
    assert rights == sorted(rights)
    easy, silent = model.outlook([(4.0, 0.0)], 0).difficulty, model.outlook([], 4).difficulty
    assert easy[0] > silent[0]
    assert silent[-1] > easy[-1]
    assert sum(easy) == pytest.approx(1)
    assert model.outlook([], 3).right == 0


@pytest.mark.parametrize("silent", [3_300, 100_000])
@pytest.mark.parametrize("answers", [[], [(40.0, 0.0), (3.0, 0.0)]])
def test_thousands_of_silent_samples_leave_a_forecast(silent, answers):
    outlook = AgreementModel(shipped_prior().weights).outlook(answers, silent)
    assert 0 <= outlook.right <= 1
    assert np.all(np.abs(outlook.gains) <= 1)


def test_a_tilt_moves_the_posterior_toward_what_looks_right():
    model = AgreementModel(FLAT)
    plain, better, worse = (model.outlook([(1.0, tilt), (1.0, -tilt)], 0).right for tilt in (0.0, 1.0, -1.0))
    assert worse < plain < better
    assert model.outlook([(1.0, 1.0), (1.0, -1.0)], 0) == model.outlook([(1.0, 1.04), (1.0, -0.96)], 0)


@pytest.mark.parametrize("weights", [np.ones(3), -FLAT, np.zeros(SHAPE), FLAT * np.nan])
def test_what_is_no_prior_is_refused(weights):
    with pytest.raises(CalibrationError, match="prior over answers"):
        AgreementModel(weights)


# ---- priors ---------------------------------------------------------------------------------------------------


def test_a_prior_comes_back_from_its_data_and_what_is_damaged_is_refused():
    prior = AnswerPrior.of([component(at(2, 1, 0), "hard"), component(at(10, 0, 0), "easy")])
    again = AnswerPrior.of_data(prior.as_data())
    assert again.shares == pytest.approx(prior.shares)
    assert np.abs(again.weights - prior.weights).max() < 0.01
    data = prior.as_data()
    for damaged in ({**data, "schema": 0}, {**data, "components": []}, {"schema": 1}, {**data, "shape": [1]}):
        with pytest.raises(CalibrationError):
            AnswerPrior.of_data(damaged)
    with pytest.raises(CalibrationError, match="cannot read"):
        AnswerPrior.read("no such file.json")


def test_a_pool_shows_which_component_it_is_like():
    prior = AnswerPrior.of([component(at(1, 4, 0), "hard"), component(at(11, 0, 0), "easy")])
    agreeing = [likelihood([4.0], 0)] * 20
    scattered = [likelihood([1.0, 1.0, 1.0, 1.0], 0)] * 20
    assert prior.sharpened(agreeing).shares[1] > 0.85
    assert prior.sharpened(scattered).shares[0] > 0.85
    assert prior.sharpened([]) == prior
    assert math.fsum(prior.sharpened(agreeing).shares) == pytest.approx(1)


def test_the_shipped_prior_is_whole_and_leaves_out_what_is_named():
    prior = shipped_prior()
    assert len(prior.components) > 5
    assert prior.weights.sum() == pytest.approx(1)
    one = prior.components[0]
    assert one.name not in {kept.name for kept in prior.without([one.model]).components}
    with pytest.raises(CalibrationError):
        prior.without([each.model for each in prior.components])


def test_a_likelihood_counts_every_answer_that_may_be_right():
    votes, silent = [2.0, 1.0, 1.0], 1
    held = np.array([2.0, 1.0, 1.0, 0.0])
    direct = np.exp(log_likelihood(held, votes)[..., None] + log_silent(4.0, silent)).sum(axis=0)
    found = likelihood(votes, silent)
    assert found / found.max() == pytest.approx(direct / direct.max())


# ---- forecasts ------------------------------------------------------------------------------------------------


def evidence(*answers, tokens=100, logprob=math.nan):
    attempts = [Attempt(answer, (), tokens, logprob * tokens) for answer in answers]
    return Evidence("?", 5, tuple(Unit("sample", (one,), generated=tokens) for one in attempts))


def test_forecasts_have_the_cost_of_the_problems_own_samples():
    model = AgreementGainModel(AnswerPrior.of([component()]), tokens=400.0, own=1.0)
    (known,) = model.forecasts([evidence("1", "2", tokens=100)])
    costs = {option.action.count: option.generated for option in known.options}
    assert costs[1] == pytest.approx((200 + 400) / 3)
    assert costs[8] == pytest.approx(8 * costs[1])
    assert all(option.prm == 0 for option in known.options)


def test_votes_with_higher_log_probability_lead_and_are_surer():
    model = AgreementGainModel(AnswerPrior.of([component()]), tokens=100.0, center=-0.5)
    sure = Attempt("1", (), 100, -10.0)
    unsure = Attempt("2", (), 100, -90.0)
    for order in ((sure, unsure), (unsure, sure)):
        answers, silent = model.answers(order)
        assert silent == 0
        assert answers[0][1] > answers[1][1]
    weigh = VoteWeights(logprob=2.0)
    assert weigh.of(None, -10.0, 100) / weigh.of(None, -90.0, 100) == pytest.approx(math.exp(1.6))
    assert weigh.of(None, math.nan, 100) == 1.0


def test_solutions_of_one_tree_are_one_vote_and_its_leading_answer_is_heard():
    def solution(answer):
        return Attempt(answer, (0.5,), 100, math.nan, False)

    model = AgreementGainModel(shipped_prior(), tokens=100.0)
    tree = Unit("dvts-4", (solution("8"), solution("7"), solution("7"), solution(None)), 400, 500)
    sample = Unit("sample", (solution("7"),), 100, 100)
    searched, sampled = model.forecasts([Evidence("q", 10, (sample, tree)), Evidence("q", 10, (sample, sample))])
    assert searched.right == sampled.right
    assert [one.gain for one in searched.options] == [one.gain for one in sampled.options]
    (silent,) = model.forecasts([Evidence("q", 10, (Unit("dvts-4", (solution(None), solution(None)), 200, 200),))])
    assert silent.right == model.forecasts([evidence(None)])[0].right


def test_a_pool_learns_lengths_and_what_its_problems_are_like():
    prior = AnswerPrior.of([component(at(1, 4, 0), "hard"), component(at(11, 0, 0), "easy")])
    pool = AgreementGainModel(prior, tokens=1000.0).pool()
    before = pool.forecasts([evidence("1", tokens=50)])[0]
    pool.learn([evidence("1", "1", tokens=50)] * 3)
    assert pool.tokens == 1000.0, "three problems say nothing of the others"
    pool.learn([evidence("1", "1", tokens=50)] * 40)
    after = pool.forecasts([evidence("1", tokens=50)])[0]
    assert 50 < pool.tokens < 150
    assert after.right > before.right
    assert pool.pool().tokens == 1000.0, "another pool begins anew"
