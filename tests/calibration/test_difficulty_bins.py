"""Labels of difficulty honour what counts leave open, and refuse what cannot be told apart."""

import numpy as np
import pytest

from adaptive_ttc.calibration.collect.records import ProblemRecord, UnitRecord
from adaptive_ttc.calibration.fit.difficulty import Bins, Counts, Prior, counts_of, counts_without
from adaptive_ttc.calibration.judge.held_out import check_folds
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.features import Attempt, Unit


def drawn_counts(problems, draws, a=0.8, b=1.2, seed=0):
    rng = np.random.default_rng(seed)
    rates = rng.beta(a, b, problems)
    return Counts(rng.binomial(draws, rates).astype(float), np.full(problems, float(draws))), rates


def record_of(*kinds):
    units = {}
    for kind, rows in kinds:
        attempt = Attempt("a", (0.5,), 3)
        units[kind] = tuple(UnitRecord(Unit(kind, (attempt,) * len(row)), tuple(row)) for row in rows)
    return ProblemRecord("p", "?", "a", 5, units)


def test_counts_are_those_of_the_declared_kind():
    record = record_of(("sample", [[True], [False], [True], []]), ("dvts-4", [[True, True, False, False], [True]]))
    samples, trees = counts_of([record]), counts_of([record], "dvts-4")
    assert (samples.right.tolist(), samples.drawn.tolist(), samples.rates.tolist()) == ([2.0], [4.0], [0.5])
    assert (trees.right.tolist(), trees.drawn.tolist()) == ([1.5], [2.0])


def test_what_is_shown_is_not_counted():
    record = record_of(("sample", [[True], [False], [True], [True]]))
    assert counts_without(record, [0, 3]) == (1.0, 2.0)
    assert counts_without(record, []) == (3.0, 4.0)


def test_the_prior_is_found_in_the_counts():
    counts, _ = drawn_counts(3000, 32)
    prior = Prior.fit(counts)
    assert (prior.a, prior.b) == (pytest.approx(0.8, rel=0.08), pytest.approx(1.2, rel=0.08))


def bins_by_edges(bins, rates):
    return (np.asarray(rates)[:, None] < bins.edges).sum(axis=1)


def test_bins_are_fifths_of_the_true_rates():
    counts, rates = drawn_counts(3000, 32)
    bins = Bins.fit(counts)
    placed = np.bincount(bins_by_edges(bins, rates), minlength=5) / len(rates)
    assert placed == pytest.approx(np.full(5, 0.2), abs=0.025)
    assert bins.soft(counts.right, counts.drawn).mean(axis=0) == pytest.approx(np.full(5, 0.2), abs=1e-3)


def test_edges_differ_although_many_problems_are_never_solved():
    counts, _ = drawn_counts(400, 8, a=0.15, b=0.5)
    assert (counts.right == 0).mean() > 0.4
    edges = Bins.fit(counts).edges
    assert list(edges) == sorted(set(edges), reverse=True)


def test_a_bin_is_told_by_a_rate_easiest_first():
    bins = Bins((0.9, 0.6, 0.3, 0.1), Prior(1, 1))
    rates, draws = np.array([1.0, 0.91, 0.89, 0.5, 0.2, 0.0]), 100_000
    assert bins.soft(rates * draws, np.full(6, draws)).argmax(axis=1).tolist() == [0, 0, 1, 2, 3, 4]


def test_soft_labels_sharpen_with_the_draws_and_are_never_certain():
    bins = Bins((0.9, 0.6, 0.3, 0.1), Prior(1, 1))
    few, many = bins.soft([2, 128], [4, 256])
    assert few.sum() == pytest.approx(1)
    assert few.argmax() == many.argmax() == 2
    assert 0.3 < few[2] < 0.7 < 0.99 < many[2] < 1
    nothing = bins.soft(0, 0)
    assert nothing == pytest.approx([0.1, 0.3, 0.3, 0.2, 0.1])  # the prior itself
    assert bins.harder(2, 4) == pytest.approx(1 - np.cumsum(few)[:4])


def test_soft_labels_are_the_frequencies_of_the_true_bins():
    counts, rates = drawn_counts(4000, 8, seed=3)
    bins = Bins.fit(counts)
    soft = bins.soft(counts.right, counts.drawn)
    true = bins_by_edges(bins, rates)
    for right in (0, 2, 5, 8):
        alike = counts.right == right
        frequencies = np.bincount(true[alike], minlength=5) / alike.sum()
        assert frequencies == pytest.approx(soft[alike][0], abs=0.08)


@pytest.mark.parametrize(
    ("right", "drawn", "message"),
    [
        ([3] * 10 + [0] * 9, [4] * 19, "19 problem.* at least 20"),
        ([0] * 30, [8] * 30, "every sample of every problem is wrong.*easier"),
        ([8] * 30, [8] * 30, "every sample of every problem is right.*harder"),
        ([4] * 30, [8] * 30, "equally hard .*50%"),
        ([1, 0] * 20, [1] * 40, "fewer than 2 graded samples"),
    ],
)
def test_degenerate_labels_say_what_to_do(right, drawn, message):
    with pytest.raises(CalibrationError, match=message):
        Bins.fit(Counts(np.array(right, dtype=float), np.array(drawn, dtype=float)))


def test_problems_that_differ_by_chance_alone_are_equally_hard():
    rng = np.random.default_rng(0)
    counts = Counts(rng.binomial(16, 0.4, 200).astype(float), np.full(200, 16.0))
    with pytest.raises(CalibrationError, match="equally hard"):
        Bins.fit(counts)


def test_folds_with_too_few_problems_say_how_many_are_enough():
    check_folds(20, 5)
    with pytest.raises(CalibrationError, match="at most 4 folds, or at least 20 problems"):
        check_folds(19, 5)


def test_edges_stay_apart_where_most_problems_are_always_solved():
    right, drawn = np.array([8.0] * 90 + [3.0] * 10), np.full(100, 8.0)
    bins = Bins.fit(Counts(right, drawn))
    assert 1 > bins.edges[0] > bins.edges[1] > bins.edges[2] > bins.edges[3] > 0
    assert bins.soft(right, drawn).sum(axis=1) == pytest.approx(np.ones(100))
    never = Bins.fit(Counts(8 - right, drawn))
    assert 1 > never.edges[0] > never.edges[1] > never.edges[2] > never.edges[3] > 0
