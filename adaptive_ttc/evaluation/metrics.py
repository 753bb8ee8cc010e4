"""Estimates from a pool of graded samples what k of them would find, and intervals for means over problems.

A pool is the n samples of one problem, drawn independently; every estimate at k is an expectation over the subsets of k
samples drawn from it without replacement, never its value on the first k. Samples without an answer stay in the pool
(they cost tokens): class -1, score ``-inf``, not correct.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

NO_ANSWER = -1  # the class of a sample that holds no answer and so has no vote
_TIE = 1e-12  # relative: sums of the same scores in another order differ by less


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over problems and its percentile bootstrap interval."""

    mean: float
    low: float
    high: float


def pass_at_k(correct: ArrayLike, k: int) -> float:
    """Probability that at least one of k samples (1 to n) is right, for ``correct`` of shape [n].

    It is 1 - C(n - c, k) / C(n, k) (arXiv 2107.03374, eq. 1).
    """
    right = _labels(correct)
    n, c = len(right), int(right.sum())
    _check_k(k, n)
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def best_of_k(correct: ArrayLike, scores: ArrayLike, k: int) -> float:
    """Probability that the best-scored of k samples is right, exactly.

    With samples sorted by falling score it is the sum over i = 1..n of correct_i * C(n - i, k - 1) / C(n, k). Equal
    scores are averaged over all their orders: a group of g equal scores below h higher ones holds the best sample with
    probability (C(n - h, k) - C(n - h - g, k)) / C(n, k), and each of its members is as likely to be that sample.

    Args:
        correct: shape [n], of bool.
        scores: shape [n]; -inf for a sample without an answer.
        k: from 1 to n.
    """
    right, values = _labels(correct), np.asarray(scores, dtype=float)
    n = len(right)
    _check_k(k, n)
    if values.shape != (n,) or np.isnan(values).any():
        raise ValueError(f"scores must be {n} numbers, one a sample; got shape {values.shape}")
    total, higher, ways = 0.0, 0, math.comb(n, k)
    for score in np.unique(values)[::-1]:
        group = values == score
        size = int(group.sum())
        chosen = math.comb(n - higher, k) - math.comb(n - higher - size, k)
        total += chosen / ways * float(right[group].mean())
        higher += size
    return total


def vote_at_k(
    classes: ArrayLike,
    correct: ArrayLike,
    k: int,
    *,
    weights: ArrayLike | None = None,
    subsets: int = 400,
    seed: int | Sequence[int] = 0,
) -> float:
    """Probability that the vote of k samples is right; classes that tie for the most share the win.

    Exact where there are at most ``subsets`` subsets (k = n and mostly k = 1 among them), else the mean over that many
    random ones, which depend on n, k and the seed alone, so that two votes of one pool are paired.

    Args:
        classes: shape [n], of int: the answer class of every sample, or :data:`NO_ANSWER`.
        correct: shape [n], of bool; the same for all samples of a class.
        k: from 1 to n.
        weights: shape [n]: what a sample adds to its class (its score for the weighted vote; a logit may be negative);
            1 each for the majority. Those of samples without an answer are ignored.
        subsets: at least 200.
        seed: of the random subsets.
    """
    right, labels = _labels(correct), np.asarray(classes)
    n = len(right)
    _check_k(k, n)
    if subsets < 200:
        raise ValueError(f"subsets={subsets} must be at least 200")
    votes = labels != NO_ANSWER
    if not votes.any():
        return 0.0
    names, index = np.unique(labels[votes], return_inverse=True)
    member = np.zeros((n, len(names)))
    member[np.flatnonzero(votes), index] = 1.0
    share = member.T @ right / member.sum(axis=0)
    if labels.shape != (n,) or not np.isin(share, (0.0, 1.0)).all():
        raise ValueError("all samples of an answer class must be graded alike: grade the class, not the sample")
    amounts = np.ones(n) if weights is None else np.where(votes, np.asarray(weights, dtype=float), 0.0)
    if amounts.shape != (n,) or not np.isfinite(amounts).all():
        raise ValueError(f"weights must be {n} finite numbers, one a sample")
    return float(voted_right(subsets_of(n, k, subsets, seed), member, share > 0, amounts[None]).mean())


def voted_right(
    drawn: NDArray[np.bool_],
    member: NDArray[np.float64],
    right: NDArray[np.bool_] | NDArray[np.float64],
    weights: NDArray[np.float64],
    best: Sequence[bool] = (False,),
) -> NDArray[np.float64]:
    """Probability that pools of samples are voted right; classes that tie share the win.

    :func:`adaptive_ttc.voting.tally` breaks ties by the best score and the text, which here would favour one class of
    scores that are equal by chance; but for ties the two agree.

    Args:
        drawn: shape [pools, samples]: which of them are in a pool.
        member: shape [samples, classes]: 1 where a sample's answer is of the class; a row of 0 has no answer.
        right: shape [classes]; shares where a class holds right and wrong samples.
        weights: shape [votes, samples]: what a sample adds to its class, see :func:`adaptive_ttc.voting.weight_of`; nan
            for one that has no say.
        best: shape [votes]: whether a class has the largest weight of its samples rather than their sum.

    Returns:
        Shape [votes, pools].
    """
    held, truth = drawn.astype(float), right.astype(float)
    everybody = held @ member > 0
    found = np.zeros((len(weights), len(drawn)))
    for row, (amounts, largest) in enumerate(zip(weights, best, strict=True)):
        say = ~np.isnan(amounts)
        known = np.where(say, amounts, 0.0)
        voting = member * say[:, None]
        present: NDArray[np.bool_] = everybody if say.all() else held @ voting > 0
        if largest:
            values = np.where(drawn & voting.any(axis=1), known, -np.inf)
            winners = (drawn & (values >= values.max(axis=1, keepdims=True) - _TIE)).astype(float) @ voting > 0
        else:
            totals = np.where(present, held @ (voting * known[:, None]), -np.inf)
            most = totals.max(axis=1, keepdims=True)
            # a pool without any answer has a maximum of -inf and no winner
            winners = (totals >= most - _TIE * max(1.0, float(np.abs(known).sum()))) & np.isfinite(most)
        found[row] = winners @ truth / np.maximum(winners.sum(axis=1), 1)
    return found


def interval(
    values: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Mean over problems (``values`` of shape [problems], at least one) with its percentile bootstrap interval.

    ``level`` is the mass of the interval, in (0, 1); the problems are drawn anew ``resamples`` times, with replacement.
    Where rows err together, as those of one problem by several models do, ``groups`` names the group of each, and whole
    groups are drawn: the mean is over the rows of those drawn.
    """
    measured = np.asarray(values, dtype=float)
    if measured.ndim != 1 or not len(measured) or not np.isfinite(measured).all():
        raise ValueError(f"values must be a list of finite numbers, one a problem; got shape {measured.shape}")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level={level} must be between 0 and 1 and resamples={resamples} at least 1")
    number = rows_by_group(groups, len(measured))
    sums, sizes = np.bincount(number, measured), np.bincount(number)
    rng, n = np.random.default_rng(seed), len(sums)
    at_once = max(1, 2**20 // n)
    drawn = (rng.integers(0, n, (min(at_once, resamples - done), n)) for done in range(0, resamples, at_once))
    means = [sums[rows].sum(axis=1) / sizes[rows].sum(axis=1) for rows in drawn]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(measured.mean()), float(low), float(high))


def rows_by_group(groups: Sequence[str] | None, rows: int) -> NDArray[np.int64]:
    """The number of each row's group in the order in which they come, shape [rows]; each row by itself where none are
    named.
    """
    if groups is None:
        return np.arange(rows)
    if len(groups) != rows:
        raise ValueError(f"a group for every value is needed; got {len(groups)} for {rows} values")
    number = {name: place for place, name in enumerate(dict.fromkeys(groups))}
    return np.array([number[name] for name in groups], dtype=np.int64)


def paired_interval(
    a: ArrayLike,
    b: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Mean of ``a - b`` (shape [problems] each) with its :func:`interval`: both from the same problems."""
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"a pair of values for every problem is needed; got shapes {first.shape} and {second.shape}")
    return interval(first - second, groups, level=level, resamples=resamples, seed=seed)


def auc(scores: ArrayLike, correct: ArrayLike) -> float:
    """Probability that a right sample scores above a wrong one, equal scores counting half (Mann-Whitney).

    ``scores`` and ``correct`` are of shape [n]; nan where there are not both right and wrong samples.
    """
    right, values = _labels(correct), np.asarray(scores, dtype=float)
    if values.shape != right.shape or np.isnan(values).any():
        raise ValueError(f"scores must be {len(right)} numbers, one a sample; got shape {values.shape}")
    positive = int(right.sum())
    negative = len(right) - positive
    if not positive or not negative:
        return math.nan
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[right].sum() - positive * (positive + 1) / 2) / (positive * negative))


def within_auc(pools: Iterable[tuple[ArrayLike, ArrayLike]]) -> float:
    """Mean of :func:`auc` over those problems (scores, correct) that have right and wrong samples; nan for none."""
    values = [value for value in (auc(scores, correct) for scores, correct in pools) if not math.isnan(value)]
    return math.fsum(values) / len(values) if values else math.nan


def quintiles(pass_rates: ArrayLike) -> NDArray[np.int64]:
    """The difficulty quintile of every problem, 0 the easiest, by falling pass rate (arXiv 2408.03314); shape
    [problems].

    The five are as equal in size as can be; equal rates keep the problems' order, so that nothing but the rates
    decides.
    """
    rates = np.asarray(pass_rates, dtype=float)
    if rates.ndim != 1 or not np.isfinite(rates).all():
        raise ValueError(f"pass rates must be a list of finite numbers, one a problem; got shape {rates.shape}")
    bins = np.empty(len(rates), dtype=np.int64)
    bins[np.argsort(-rates, kind="stable")] = np.arange(len(rates)) * 5 // max(1, len(rates))
    return bins


def subsets_of(n: int, k: int, most: int, seed: int | Sequence[int] | np.random.Generator) -> NDArray[np.bool_]:
    """All subsets of k of n samples if at most ``most`` or n, else ``most`` random ones; shape [subsets, n]."""
    if math.comb(n, k) <= max(most, n):
        chosen: NDArray[Any] = np.array(list(combinations(range(n), k)))
    else:
        chosen = np.random.default_rng(seed).random((most, n)).argpartition(k - 1, axis=1)[:, :k]
    drawn = np.zeros((len(chosen), n), dtype=bool)
    np.put_along_axis(drawn, chosen, True, axis=1)
    return drawn


def _labels(correct: ArrayLike) -> NDArray[np.bool_]:
    right = np.asarray(correct)
    if right.ndim != 1 or not len(right) or right.dtype != np.bool_:
        raise ValueError(f"correct must be a list of bool, one a sample; got {right.dtype} of shape {right.shape}")
    return right


def _check_k(k: int, n: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"k={k} must be between 1 and the {n} samples of the pool")
