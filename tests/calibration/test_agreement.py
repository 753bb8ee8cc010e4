"""What is fitted to graded samples, and how rules are replayed on them."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest

from adaptive_ttc.allocation.allocator import Allocator
from adaptive_ttc.calibration.collect.records import ProblemRecord, UnitRecord
from adaptive_ttc.calibration.fit.agreement import (
    STRENGTHS,
    choose_weights,
    component_of,
    graded_likelihood,
    model_of,
    own_length,
)
from adaptive_ttc.calibration.judge.held_out import crossfit
from adaptive_ttc.calibration.judge.sampling import Order, Rule, alike, by_forecast, by_rule, curve, curves, mean_tokens
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.agreement import RATES, SHAPE
from adaptive_ttc.estimate.agreement_gain import AgreementGainModel
from adaptive_ttc.estimate.answer_prior import AnswerPrior
from adaptive_ttc.estimate.features import Attempt, Unit
from adaptive_ttc.stopping.registry import make_rule
from adaptive_ttc.voting import VoteWeights


def record(number, rate, *, samples=12, tokens=100, sure=0.0, seed=0):
    """A problem of this pass rate, whose wrong answers scatter; right samples have a higher log-probability."""
    rng = random.Random(f"{seed}/{number}")
    units = []
    for _ in range(samples):
        right = rng.random() < rate
        answer = "right" if right else f"wrong {rng.randrange(6)}"
        rate_of_token = -0.5 + (sure if right else -sure) + rng.gauss(0, 0.05)
        length = max(1, round(tokens * rng.uniform(0.5, 1.5)))
        units.append(
            UnitRecord(Unit("sample", (Attempt(answer, (), length, rate_of_token * length),), (), length), (right,))
        )
    return ProblemRecord(f"p{number}", "?", "right", 5, {"sample": tuple(units)}, f"p{number}")


def records(count=60, **settings):
    rates = [0.95, 0.6, 0.3, 0.05]
    return [record(number, rates[number % 4], **settings) for number in range(count)]


@pytest.fixture(scope="module")
def model():
    """Fitted to problems whose right samples look it."""
    return model_of(records(24, samples=8, sure=0.06)).model


def test_a_problem_that_strength_is_judged_by_has_not_sharpened_the_prior_of_its_fold(monkeypatch):
    made = records(20, samples=3)
    pairs = [replace(one, id=f"{one.id} {model}") for one in made for model in "ab"]
    likelihoods = [graded_likelihood(one).tobytes() for one in pairs]
    sharpened, learned = AnswerPrior.sharpened, []

    def watched(self, seen, *args):
        learned.append([one.tobytes() for one in seen])
        return sharpened(self, seen, *args)

    monkeypatch.setattr(AnswerPrior, "sharpened", watched)
    fitted = model_of(pairs, folds=4)
    folds = crossfit(pairs, 4, 0)
    for number, one in enumerate(learned[:4]):
        assert one == [likelihoods[row] for row, pair in enumerate(pairs) if folds.fold[pair.id] != number]
    assert fitted.strength in STRENGTHS
    assert -10 < fitted.held_out < 0
    assert learned[-1] == likelihoods, "what ships is fitted to all"


def test_the_fitted_prior_is_near_the_pass_rates_it_was_fitted_to():
    fitted = component_of(records(), "made up", "m", "d")
    mean = float((fitted.weights.sum(axis=(1, 2)) * RATES).sum())
    assert mean == pytest.approx(np.mean([0.95, 0.6, 0.3, 0.05]), abs=0.06)
    assert fitted.tokens == pytest.approx(mean_tokens(records()))
    assert fitted.weights.shape == SHAPE


def test_a_likelihood_knows_the_right_answer():
    easy, hard = graded_likelihood(record(0, 0.95)), graded_likelihood(record(3, 0.02))
    assert RATES[np.unravel_index(easy.argmax(), SHAPE)[0]] > 0.7
    assert RATES[np.unravel_index(hard.argmax(), SHAPE)[0]] < 0.2
    assert easy.max() == 1.0


def test_log_probabilities_weigh_votes_where_they_tell_and_forecasts_use_them(model):
    assert model.weights.logprob >= 2
    assert model.signs.logprob >= 1
    right, wrong = Attempt("1", (), 100, -30.0), Attempt("2", (), 100, -70.0)
    better, worse = (model.model.outlook(*model.answers([one])).right for one in (right, wrong))
    assert better > worse + 0.05


def test_how_sure_the_policy_was_of_answers_counts_where_it_tells_and_where_it_is_known():
    def told(one, right):
        known = -0.1 if right else -1.5
        (attempt,) = one.unit.attempts
        return replace(one, unit=replace(one.unit, attempts=(replace(attempt, answer_logprob=known),)))

    held = records(24, samples=8)
    telling = [
        replace(one, units={"sample": tuple(told(unit, unit.correct[0]) for unit in one.units["sample"])})
        for one in held
    ]
    blind = [replace(one, units={"sample": tuple(told(unit, True) for unit in one.units["sample"])}) for one in held]
    assert choose_weights(telling).answer > 0
    assert choose_weights(blind) == choose_weights(held)
    assert choose_weights(held).answer == 0


def test_nothing_to_fit_is_refused():
    with pytest.raises(CalibrationError, match="draw some"):
        model_of([ProblemRecord("p", "?", "1", 5, {}, "p")])


def test_the_weight_of_the_common_length_is_the_ratio_of_variances():
    alike_lengths = [record(number, 0.5, tokens=100) for number in range(30)]
    unlike = [record(number, 0.5, tokens=100 * (1 + 10 * (number % 3))) for number in range(30)]
    assert own_length(alike_lengths) > 1
    assert own_length(unlike) < 0.5


def test_forecasts_of_a_fitted_prior_hold_on_other_problems():
    """Slope of true on forecast gain, four samples ahead."""
    even = VoteWeights(score=0.0)
    model = AgreementGainModel(AnswerPrior.of([component_of(records(80), "a", "b", "c")]), even, even, tokens=100.0)
    forecast, true = [], []
    for one in records(160, seed=1):
        order = Order.of(one, 0)
        accuracy = order.accuracy(model.weight)
        for n in (1, 2, 4):
            outlook = model.model.outlook(*model.answers(order.attempts[:n]))
            forecast.append(outlook.gains[3])
            true.append(accuracy[n + 4] - accuracy[n])
    slope = np.polyfit(forecast, true, 1)[0]
    assert 0.7 < slope < 1.3


# ---- replays --------------------------------------------------------------------------------------------------


def test_no_budget_is_overspent_and_more_of_it_never_undoes_a_sample():
    held = records(20)
    budgets = [30 * 20.0, 150 * 20.0, 400 * 20.0, 1e9]
    for rule in (by_rule(make_rule("uniform")), by_rule(make_rule("adaptive_consistency", level=0.8))):
        found = curve([Order.of(one, 0) for one in held], [rule] * 20, budgets)
        assert (found.spent * 20 <= np.array(budgets)).all()
        assert (np.diff(found.samples, axis=0) >= 0).all()
    assert found.samples[-1].max() <= 12


def test_uniform_takes_turns():
    held = records(8)
    found = curve([Order.of(one, 0) for one in held], [by_rule(make_rule("uniform"))] * 8, [100 * 8 * 4.5])
    assert found.samples[0].max() - found.samples[0].min() <= 1


def test_the_order_of_worth_is_the_allocators(model):
    """One pass by worth draws what the allocator draws, where every slice is one sample."""
    held = records(12)
    rule = by_forecast("votes", model)
    orders = [Order.of(one, 0) for one in held]
    found = curve(orders, [rule] * 12, [350.0 * 12])
    allocator = Allocator(350 * 12, hysteresis=0.0)
    taken = {one.id: 0 for one in held}
    by_id = {order.record.id: order for order in orders}
    for one in held:
        allocator.arrive(one.id, 1)
    spent = 0
    while decision := allocator.next():
        order, n = by_id[decision.problem], taken[decision.problem]
        cost = int(order.spent[n + 1] - order.spent[n])
        if spent + cost > 350 * 12:
            break
        spent += cost
        taken[decision.problem] += 1
        allocator.charged(decision.problem, 0)
        (forecast,) = model.forecasts([order.evidence(n + 1)])
        able = [option for option in forecast.options if n + 1 < len(order.attempts)]
        allocator.offer(decision.problem, able)
    drawn = np.array([taken[one.id] for one in held])
    assert np.abs(drawn - found.samples[0]).sum() <= 6, "the price of what is left moves the last ones"


def test_a_rule_that_learns_is_told_whenever_samples_have_doubled():
    told = []
    rule = Rule("learning", lambda order, n: 1.0, alike, lambda orders, taken: told.append(sum(taken)))
    curve([Order.of(one, 0) for one in records(10)], [rule] * 10, [1e9])
    assert told == [10, 20, 40, 80]


def test_means_over_orders_have_the_shape_of_budgets_and_problems():
    held = records(6)
    pool = AgreementGainModel(AnswerPrior.of([component_of(held, "a", "b", "c")]), tokens=100.0).pool()
    found = curves(held, by_forecast("votes", pool), [100.0, 500.0], orders=2)
    assert found.accuracy.shape == (2, 6)
    assert not math.isnan(found.accuracy.sum())
