"""The estimators against enumeration of every subset and every order of ties, on pools small enough for it."""

import math
from fractions import Fraction
from itertools import combinations, permutations, product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptive_ttc.evaluation.metrics import (
    NO_ANSWER,
    auc,
    best_of_k,
    interval,
    paired_interval,
    pass_at_k,
    quintiles,
    vote_at_k,
    voted_right,
    within_auc,
)
from adaptive_ttc.types import ROOT, Candidate
from adaptive_ttc.voting import VOTES, tally, total_of, weight_of

LEVELS = (0.1, 0.2, 0.3, 0.7)

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def pools(draw, largest=7):
    """(class, score) of every sample and the set of right classes; class -1 holds no answer."""
    samples = draw(st.lists(st.tuples(st.integers(-1, 2), st.sampled_from(LEVELS)), min_size=1, max_size=largest))
    right = draw(st.sets(st.integers(0, 2)))
    k = draw(st.integers(1, len(samples)))
    return samples, right, k


def subsets(samples, k):
    return list(combinations(samples, k))


@unhurried
@given(pools())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(case):
    samples, right, k = case
    every = subsets(samples, k)
    expected = sum(any(name in right for name, _ in chosen) for chosen in every) / len(every)
    assert pass_at_k([name in right for name, _ in samples], k) == pytest.approx(expected, abs=1e-12)


@settings(unhurried, max_examples=60)
@given(pools(largest=5))
def test_best_of_k_averages_over_subsets_and_over_all_orders_of_ties(case):
    samples, right, k = case
    correct = [name in right for name, _ in samples]
    scores = [score if name != NO_ANSWER else -math.inf for name, score in samples]
    wins = []
    for order in permutations(range(len(samples))):
        ranked = sorted(order, key=lambda index: -scores[index])  # stable: ties stand in the order of the permutation
        wins.extend(correct[chosen[0]] for chosen in map(list, subsets(ranked, k)))  # subsets keep the order
    expected = sum(map(Fraction, wins)) / len(wins)
    assert best_of_k(correct, scores, k) == pytest.approx(float(expected), abs=1e-12)


def share_of_win(chosen, right, weigh):
    totals = {}
    for name, score in chosen:
        if name != NO_ANSWER:
            totals[name] = totals.get(name, Fraction(0)) + weigh(score)
    winners = [name for name in totals if totals[name] == max(totals.values())]
    return Fraction(sum(name in right for name in winners), len(winners)) if winners else Fraction(0)


WEIGHTS = {
    "majority": (lambda score: Fraction(1), None),
    "weighted": (lambda score: Fraction(str(score)), lambda score: score),
    "negative": (lambda score: Fraction(str(score)) - Fraction(1, 2), lambda score: score - 0.5),
}


@pytest.mark.parametrize("vote", WEIGHTS)
@unhurried
@given(case=pools())
def test_votes_average_over_subsets_and_split_ties(vote, case):
    samples, right, k = case
    exact, weigh = WEIGHTS[vote]
    every = subsets(samples, k)
    expected = sum(share_of_win(chosen, right, exact) for chosen in every) / len(every)
    weights = None if weigh is None else [weigh(score) for _, score in samples]
    estimate = vote_at_k(
        [name for name, _ in samples], [name in right for name, _ in samples], k, weights=weights, subsets=200
    )
    assert estimate == pytest.approx(float(expected), abs=1e-9)


def test_votes_over_random_subsets_come_near_the_exact_value():
    classes = [0] * 5 + [1] * 6 + [2] * 3 + [NO_ANSWER] * 2
    correct = [name == 0 for name in classes]
    exact = vote_at_k(classes, correct, 6, subsets=10_000)  # all C(16, 6) = 8008
    sampled = [vote_at_k(classes, correct, 6, subsets=400, seed=(1, number)) for number in range(50)]
    assert len(set(sampled)) > 10
    assert np.mean(sampled) == pytest.approx(exact, abs=0.01)


def test_the_first_k_samples_get_no_preference():
    classes = [0] * 8 + [1] * 24
    correct = [name == 0 for name in classes]
    assert vote_at_k(classes, correct, 8) < 0.1
    assert best_of_k(correct, [0.5] * 32, 1) == pytest.approx(0.25)


def test_two_votes_of_one_pool_see_the_same_subsets():
    rng = np.random.default_rng(3)
    classes = rng.integers(0, 4, 40)
    correct = classes == 0
    flat = vote_at_k(classes, correct, 10, weights=np.full(40, 0.3))
    assert flat == pytest.approx(vote_at_k(classes, correct, 10), abs=1e-12)


def test_a_tie_is_a_tie_in_whatever_order_its_scores_are_added():
    scores = [0.1, 0.2, 0.3, 0.3, 0.2, 0.1]  # 0.1 + 0.2 + 0.3 > 0.3 + 0.2 + 0.1 in floating point
    assert vote_at_k([0, 0, 0, 1, 1, 1], [True] * 3 + [False] * 3, 6, weights=scores) == 0.5


def test_votes_at_the_whole_pool_are_exact():
    classes = [0] * 33 + [1] * 31
    assert vote_at_k(classes, [name == 0 for name in classes], 64) == 1.0
    assert vote_at_k([NO_ANSWER] * 64, [False] * 64, 16) == 0.0


def test_large_pools_do_not_overflow():
    correct = [True] + [False] * 2047
    assert pass_at_k(correct, 1024) == pytest.approx(0.5)
    assert best_of_k(correct, [1.0, *[0.5] * 2047], 1024) == pytest.approx(0.5)


@pytest.mark.parametrize("k", [0, 4])
def test_k_outside_the_pool_is_refused(k):
    with pytest.raises(ValueError, match="between 1 and the 3 samples"):
        pass_at_k([True, False, False], k)
    with pytest.raises(ValueError, match="between 1 and the 3 samples"):
        vote_at_k([0, 1, 1], [True, False, False], k)


def test_inputs_that_would_be_misread_are_refused():
    with pytest.raises(ValueError, match="list of bool"):
        pass_at_k([1, 0, 1], 1)  # 0 and 1 could as well be indices
    with pytest.raises(ValueError, match="graded alike"):
        vote_at_k([0, 0], [True, False], 1)
    with pytest.raises(ValueError, match="at least 200"):
        vote_at_k([0, 0], [True, True], 1, subsets=100)
    with pytest.raises(ValueError, match="2 finite numbers"):
        vote_at_k([0, 0], [True, True], 1, weights=[math.nan, 1])
    with pytest.raises(ValueError, match="2 numbers"):
        best_of_k([True, False], [0.5], 1)


@unhurried
@given(st.lists(st.tuples(st.sampled_from(LEVELS), st.booleans()), min_size=1, max_size=12))
def test_auc_is_the_share_of_pairs_in_order(samples):
    right = [score for score, label in samples if label]
    wrong = [score for score, label in samples if not label]
    value = auc([score for score, _ in samples], [label for _, label in samples])
    if not right or not wrong:
        assert math.isnan(value)
    else:
        pairs = [(a > b) + (a == b) / 2 for a in right for b in wrong]
        assert value == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


def test_within_auc_counts_every_mixed_problem_once():
    easy = ([0.9] * 20, [True] * 20)
    sure = ([0.9, 0.1], [True, False])
    poor = ([0.2] * 10 + [0.8] * 30, [True] * 10 + [False] * 30)
    assert within_auc([easy, sure, poor]) == 0.5
    assert math.isnan(within_auc([easy]))


def test_a_problem_level_offset_moves_the_overall_auc_and_not_the_one_within():
    problems = [([0.9, 0.8], [False, True]), ([0.2, 0.1], [False, True])]
    assert within_auc(problems) == 0.0
    assert auc([0.9, 0.8, 0.2, 0.1], [False, True, False, True]) == 0.25


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for number in range(200):
        found = interval(rng.random(80) < 0.4, resamples=400, seed=number)
        hits += found.low <= 0.4 <= found.high
    assert 180 <= hits <= 199


def test_interval_repeats_and_is_as_wide_as_the_spread_says():
    values = np.random.default_rng(1).random(30)
    assert interval(values, seed=5) == interval(values, seed=5)
    found = interval(values, seed=5)
    other = interval(values, seed=6)
    assert found != other
    assert found.low < values.mean() < found.high
    assert found.low == pytest.approx(other.low, abs=0.02)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(30), rel=0.1)


def test_pairing_takes_out_what_the_problems_share():
    rng = np.random.default_rng(2)
    shared = (rng.random(300) < 0.5).astype(float)
    better = np.clip(shared + (rng.random(300) < 0.05), 0, 1)
    gain = paired_interval(better, shared)
    assert gain.low > 0
    assert gain.mean == pytest.approx((better - shared).mean())
    assert interval(better).low < interval(shared).high  # unpaired, nothing could be said


def test_intervals_refuse_what_they_cannot_mean():
    with pytest.raises(ValueError, match="one a problem"):
        interval([])
    with pytest.raises(ValueError, match="one a problem"):
        interval([0.1, math.nan])
    with pytest.raises(ValueError, match="pair of values"):
        paired_interval([1, 2], [1])
    with pytest.raises(ValueError, match="level"):
        interval([1.0], level=1.0)


def test_an_interval_over_groups_holds_the_truth_where_rows_of_a_group_err_together():
    rng, missed = np.random.default_rng(0), {"rows": 0, "groups": 0}
    names = [f"problem {row // 21}" for row in range(45 * 21)]
    for _ in range(60):
        values = (rng.normal(0, 0.2, (45, 1)) + rng.normal(0, 0.3, (45, 21))).ravel()
        for by, groups in (("rows", None), ("groups", names)):
            found = interval(values, groups, resamples=300)
            assert found.mean == pytest.approx(values.mean())
            missed[by] += not found.low <= 0 <= found.high
    assert missed["groups"] <= 8
    assert missed["rows"] >= 20


def test_groups_of_one_are_rows_and_groups_of_several_sizes_count_by_their_rows():
    values = np.random.default_rng(1).random(30)
    assert interval(values, [str(n) for n in range(100, 130)], resamples=200) == interval(values, resamples=200)
    found = paired_interval([1.0, 1.0, 1.0, 0.0], np.zeros(4), ["a", "a", "a", "b"], resamples=500)
    assert (found.mean, found.low, found.high) == (0.75, 0.0, 1.0)
    with pytest.raises(ValueError, match="a group for every value"):
        interval(values, ["a"])


@unhurried
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=23))
def test_quintiles_are_even_and_fall_with_the_pass_rate(rates):
    bins = quintiles(rates)
    sizes = np.bincount(bins, minlength=5)
    assert sizes.sum() == len(rates)
    assert sizes.max() - sizes.min() <= 1
    for first, second in combinations(range(len(rates)), 2):
        if rates[first] > rates[second]:
            assert bins[first] <= bins[second]
        elif rates[first] == rates[second]:
            assert bins[first] <= bins[second]  # in the problems' own order


@unhurried
@given(
    st.lists(
        st.tuples(st.sampled_from([*"123", None]), st.sampled_from((0.0, 0.2, 0.5, 0.5000001, 0.7, 1.0))),
        min_size=1,
        max_size=9,
    ),
    st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=4),
    st.sampled_from((0.2, 0.5, 0.9)),
)
def test_the_vectorised_vote_agrees_with_the_solvers_vote_and_lets_ties_share(samples, pools, b):
    drawn = np.array([row[: len(samples)] for row in pools])
    classes = ("1", "2", "3")
    member = np.array([[float(answer == name) for name in classes] for answer, _ in samples])
    weights = np.array([[weight_of(score, vote, b) for _, score in samples] for vote in VOTES])
    for right in np.eye(3, dtype=bool):
        found = voted_right(drawn, member, right, weights, [vote == "best" for vote in VOTES])
        for pool, vote in product(range(len(drawn)), VOTES):
            held = [
                Candidate(ROOT, *(2 * (answer,)), score)
                for (answer, score), one in zip(samples, drawn[pool], strict=True)
                if one
            ]
            totals = {
                name: total_of([weight_of(one.score, vote, b) for one in held if one.answer == name], vote)
                for name in {one.answer for one in held if one.answer}
            }
            tied = [name for name, total in totals.items() if total == pytest.approx(max(totals.values()), abs=1e-9)]
            ranked = tally(held, vote, b)
            assert not ranked or ranked[0].answer in tied
            share = sum(bool(right[classes.index(name)]) for name in tied) / len(tied) if tied else 0.0
            assert found[VOTES.index(vote), pool] == pytest.approx(share)
            if len(tied) == 1:
                assert found[VOTES.index(vote), pool] == right[classes.index(ranked[0].answer)]


def test_a_sample_without_a_say_has_no_class_and_half_the_win_is_shared():
    drawn, member = np.ones((1, 3), dtype=bool), np.eye(3)
    weights = np.array([[math.nan, -1.0, -1.0], [math.nan, 0.3, 0.3], [math.nan] * 3])
    found = voted_right(drawn, member, np.array([True, True, False]), weights, [False, True, False])
    assert found.tolist() == [[0.5], [0.5], [0.0]]
