"""Accuracy and cost of every vote and every arm on every problem, and by bins of difficulty.

Sampling arms are expectations over subsets of the problem's pool, never its first samples: exact for one sample and
for the whole pool, the mean over at least 200 random subsets between (arXiv 2408.03314 counts generations; here cost
is tokens). Means of cells with few problems are shrunk towards what arm and bin alone predict, since the best of many
noisy means looks better than it is. For the same reason the vote is chosen on some problems and judged on others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.calibration.collect.arms import Arm
from adaptive_ttc.calibration.collect.records import ProblemRecord, UnitRecord, Weights, groups_of
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.features import Attempt, family_of
from adaptive_ttc.estimate.table import Vote
from adaptive_ttc.evaluation.metrics import interval, rows_by_group, subsets_of, voted_right
from adaptive_ttc.strategies.adaptive import is_sample
from adaptive_ttc.strategies.base import AGGREGATIONS
from adaptive_ttc.types import Aggregation
from adaptive_ttc.voting import VoteName, weight_of

Array = NDArray[np.float64]

DRAWS = 200
LEVEL = 0.95
RESAMPLES = 1_000


@dataclass(frozen=True, slots=True)
class Curves:
    """Every arm on every problem, all of shape [problems, arms]."""

    arms: tuple[Arm, ...]  # the columns
    ids: tuple[str, ...]  # the rows
    accuracy: Array  # probability that the arm's answer is right
    generated: Array  # expected tokens of the policy
    prm: Array  # expected tokens of the PRM; 0 for arms that need no scores
    groups: tuple[str, ...] | None = None  # of the rows, members of which err together; None: each row is by itself

    def cost(self, weights: Weights) -> Array:
        """Units, shape [problems, arms]."""
        return weights.generated * self.generated + weights.prm * self.prm

    def column(self, name: str) -> int:
        """Column of an arm."""
        return [arm.name for arm in self.arms].index(name)

    def rows(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Curves:
        """Curves of some problems."""
        ids = tuple(np.array(self.ids, dtype=object)[chosen])
        groups = None if self.groups is None else tuple(np.array(self.groups, dtype=object)[chosen])
        return Curves(self.arms, ids, self.accuracy[chosen], self.generated[chosen], self.prm[chosen], groups)


def answerable(records: Sequence[ProblemRecord], arms: Sequence[Arm]) -> tuple[list[Arm], list[Arm]]:
    """The arms that the units of every problem answer, and the others; without any scores, none that votes by them."""
    scored = any(
        attempt.scores for record in records for units in record.units.values() for one in units
        for attempt in one.unit.attempts
    )  # fmt: skip
    able = [
        arm
        for arm in arms
        if (scored or not is_sample(arm.kind) or not arm.scored)
        and all(len(record.units.get(arm.kind, ())) >= arm.units for record in records)
    ]
    return able, [arm for arm in arms if arm not in able]


def measure(records: Sequence[ProblemRecord], arms: Sequence[Arm], vote: Vote, *, seed: int = 0) -> Curves:
    """Every arm on every problem; CalibrationError where a problem lacks units, see :func:`answerable`.

    Arms of samples take the vote that they are named after, searches and revisions ``vote``; all reduce step scores as
    ``vote`` does. ``seed`` is that of the subsets.
    """
    able, missing = answerable(records, arms)
    if missing or not records:
        names = ", ".join(arm.name for arm in missing) or "any arm"
        raise CalibrationError(f"not every problem has the units of {names}: collect them, or leave these arms out")
    shape = (len(records), len(able))
    accuracy, generated, prm = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    kinds = dict.fromkeys(arm.kind for arm in able)
    for row, record in enumerate(records):
        rng = np.random.default_rng([seed, *record.id.encode()])
        for kind in kinds:
            columns = [column for column, arm in enumerate(able) if arm.kind == kind]
            units, counts = record.units[kind], np.array([able[column].units for column in columns])
            accuracy[row, columns] = _accuracies(units, [able[column] for column in columns], vote, rng)
            generated[row, columns] = counts * np.mean([one.unit.generated for one in units])
            scored = np.array([able[column].scored for column in columns])
            prm[row, columns] = counts * np.mean([one.unit.prm for one in units]) * scored
    ids, groups = tuple(record.id for record in records), tuple(groups_of(records))
    return Curves(tuple(able), ids, accuracy, generated, prm, groups)


def _accuracies(units: Sequence[UnitRecord], arms: Sequence[Arm], vote: Vote, rng: np.random.Generator) -> Array:
    """Accuracy of arms of one kind on one problem, shape [arms]; the subsets of all sizes are voted on at once."""
    sizes = sorted({arm.units for arm in arms})
    drawn = [subsets_of(len(units), size, DRAWS, rng) for size in sizes]
    votes = list(dict.fromkeys(_vote_of(arm, vote) for arm in arms))
    values = vote_accuracy(units, np.concatenate(drawn), votes)
    means = _by_size(values, drawn)
    return means[[votes.index(_vote_of(arm, vote)) for arm in arms], [sizes.index(arm.units) for arm in arms]]


def _by_size(values: Array, drawn: Sequence[NDArray[np.bool_]]) -> Array:
    """Mean over the subsets of every size, shape [votes, sizes]; ``values``: shape [votes, subsets of all sizes]."""
    ends = np.cumsum([len(one) for one in drawn])
    return np.stack([part.mean(axis=1) for part in np.split(values, ends[:-1], axis=1)], axis=1)


@dataclass(frozen=True, slots=True)
class BinCurves:
    """Every arm in every bin of difficulty, the easiest first, all of shape [bins, arms]."""

    accuracy: Array  # mean over the problems of the bin, each weighted by how probably it belongs there
    shrunk: Array  # the same, shrunk and made monotone over the bins; what decisions are made by
    # low, high: ends of the 95 % bootstrap interval of ``accuracy`` over groups of problems
    low: Array
    high: Array
    # generated, prm: mean tokens
    generated: Array
    prm: Array

    def cost(self, weights: Weights) -> Array:
        """Units, shape [bins, arms]."""
        return weights.generated * self.generated + weights.prm * self.prm


def by_bins(curves: Curves, membership: Array, *, seed: int = 0) -> BinCurves:
    """Means by bin; ``membership``: P(problem is in bin), shape [problems, bins]; ``seed``: of the bootstrap."""
    accuracy = _means(curves.accuracy, membership)
    rng = np.random.default_rng(seed)
    number = rows_by_group(curves.groups, len(membership))
    n = int(number.max()) + 1
    counts = (np.bincount(groups, minlength=n)[number] for groups in rng.integers(0, n, (RESAMPLES, n)))
    drawn = np.stack([_means(curves.accuracy, membership * count[:, None]) for count in counts])
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    shrunk = monotone(shrink(accuracy, np.nanvar(drawn, axis=0)), membership.sum(axis=0))
    generated, prm = (_means(tokens, membership) for tokens in (curves.generated, curves.prm))
    return BinCurves(accuracy, shrunk, low, high, generated, prm)


def shrink(accuracy: Array, variance: Array) -> Array:
    """Empirical Bayes: every cell between its own mean and what its bin and its arm predict without interaction.

    With s^2 the variance of a cell's mean and t^2 that of the true interactions, estimated by moments, a cell keeps
    t^2 / (t^2 + s^2) of its own deviation.
    """
    additive = accuracy.mean(axis=1, keepdims=True) + accuracy.mean(axis=0, keepdims=True) - accuracy.mean()
    deviation = accuracy - additive
    true = max(0.0, float((deviation**2 - variance).mean()))
    kept = true / (true + variance) if true else np.zeros_like(variance)
    shrunk: Array = np.clip(additive + kept * deviation, 0.0, 1.0)
    return shrunk


def monotone(accuracy: Array, weight: Array) -> Array:
    """No arm is better in a harder bin, bins being ordered by the rate at which the policy is right."""
    from sklearn.isotonic import IsotonicRegression  # not needed to read the table

    bins = np.arange(len(accuracy))
    fit = IsotonicRegression(increasing=False)
    return np.stack([fit.fit_transform(bins, column, sample_weight=weight) for column in accuracy.T], axis=1)


def _means(values: Array, membership: Array) -> Array:
    """Shape [bins, columns]; nan for a bin without problems."""
    weight = membership.sum(axis=0)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Array = membership.T @ values / weight
    return means


def _vote_of(arm: Arm, vote: Vote) -> Vote:
    names: dict[str, VoteName] = {
        "majority": "majority", "short_m_at_k": "majority", "best_of_n": "best", "weighted_best_of_n": "weighted"
    }  # fmt: skip
    return replace(vote, name=names.get(arm.strategy, vote.name))


B = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # values of b that are tried for the logit-weighted vote
SIZES = (4, 16, 64)  # solutions drawn, of each kind of unit
VOTE_DRAWS = 8  # subsets of every pool at every size, by which votes are compared


@dataclass(frozen=True, slots=True)
class VoteChoice:
    """The chosen vote, and the accuracy of all."""

    vote: Vote  # the best on all problems
    names: tuple[str, ...]  # of all votes tried
    accuracy: NDArray[np.float64]  # shape [problems, votes]: mean over kinds and sizes
    crossfitted: float  # accuracy of the vote that was chosen without the problem, mean over problems
    optimism: float  # how much better the best looks where it was chosen


def possible_votes(scored: bool, aggregations: Sequence[Aggregation] = AGGREGATIONS) -> tuple[Vote, ...]:
    """All votes to try; without scores only the majority."""
    if not scored:
        return (Vote("majority"),)
    votes = [Vote("majority")]
    for how in aggregations:
        votes += [Vote("best", agg_strategy=how), Vote("weighted", agg_strategy=how)]
        votes += [Vote("logit_weighted", b, how) for b in B]
    return tuple(votes)


def name_of(vote: Vote) -> str:
    """Name of a vote for people."""
    b = f", b={vote.b:g}" if vote.name == "logit_weighted" else ""
    return "majority" if vote.name == "majority" else f"{vote.name} ({vote.agg_strategy}{b})"


def choose_vote(
    records: Sequence[ProblemRecord],
    folds: NDArray[np.int64],
    *,
    seed: int = 0,
    aggregations: Sequence[Aggregation] = AGGREGATIONS,
    doubted: bool = False,
) -> VoteChoice:
    """Try all votes and choose the best; CalibrationError where there are no solutions to vote on.

    ``folds``: fold of every problem, shape [problems]; ``aggregations``: reductions of step scores that are tried.
    Where scores are ``doubted``, the majority stays unless votes that were chosen on other problems beat it by their
    interval.
    """
    scored = any(
        attempt.scores for record in records for units in record.units.values() for one in units[:1]
        for attempt in one.unit.attempts
    )  # fmt: skip
    votes = possible_votes(scored, aggregations)
    accuracy = np.stack([_tried(record, votes, seed) for record in records])
    if np.isnan(accuracy).all():
        raise CalibrationError(
            f"no problem has {SIZES[0]} samples, or trees, to vote on: collect more, such as with --arms majority:1,4"
        )
    accuracy = np.nan_to_num(accuracy)
    means = accuracy.mean(axis=0)
    parts = [folds == fold for fold in np.unique(folds) if (folds != fold).any()]
    outside = [accuracy[part, int(np.argmax(accuracy[~part].mean(axis=0)))] for part in parts]
    honest = float(np.concatenate(outside).mean()) if outside else float(means.max())
    best = int(np.argmax(means))
    if doubted and best:
        gains = np.zeros(len(records))
        for part, reached in zip(parts, outside, strict=True):
            gains[part] = reached - accuracy[part, 0]
        won = interval(gains, groups_of(records), resamples=2_000, seed=seed).low > 0
        best, honest = (best, honest) if won else (0, float(means[0]))
    return VoteChoice(votes[best], tuple(map(name_of, votes)), accuracy, honest, float(means[best]) - honest)


def _tried(record: ProblemRecord, votes: Sequence[Vote], seed: int) -> NDArray[np.float64]:
    """Accuracy of every vote on one problem: the mean over draws of a size, over sizes, and over kinds."""
    results = []
    rng = np.random.default_rng([seed, *record.id.encode()])
    for kind, units in record.units.items():
        if family_of(kind) in ("sample", "dvts"):
            width = int(kind.partition("-")[2] or 1)
            sizes = [size // width for size in SIZES if 0 < size // width <= len(units)]
            if sizes:
                drawn = [subsets_of(len(units), size, VOTE_DRAWS, rng) for size in sizes]
                results.append(_by_size(vote_accuracy(units, np.concatenate(drawn), votes), drawn).mean(axis=1))
    return np.mean(results, axis=0) if results else np.full(len(votes), np.nan)


def vote_accuracy(units: Sequence[UnitRecord], drawn: NDArray[np.bool_], votes: Sequence[Vote]) -> Array:
    """P(the vote is right) over pools of units of one kind and problem, shape [votes, pools]; ties share the win.

    As live, what is not scored has no say in a vote by scores, unless nothing in the pool is.

    ``drawn``: which units are in a pool, shape [pools, units].
    """
    able = [
        (index, attempt, correct)
        for index, one in enumerate(units)
        for attempt, correct in zip(one.unit.attempts, one.correct, strict=True)
        if attempt.answer is not None
    ]
    if not able:
        return np.zeros((len(votes), len(drawn)))
    owners, attempts, correct = zip(*able, strict=True)
    names, place = np.unique([attempt.answer for attempt in attempts], return_inverse=True)
    member = np.eye(len(names))[place]
    right = member.T @ np.array(correct, dtype=float) / member.sum(axis=0)  # not 0 or 1 where answers are programs
    pools, weights, best = drawn[:, owners], _weights(attempts, votes), [vote.name == "best" for vote in votes]
    found = voted_right(pools, member, right, weights, best)
    heard = np.where(np.isnan(weights), 0.0, 1.0) @ pools.T > 0
    if heard.all():
        return found
    unscored = _weights(attempts, [vote.unscored for vote in votes])
    return np.where(heard, found, voted_right(pools, member, right, unscored, [False] * len(votes)))


def _weights(attempts: Sequence[Attempt], votes: Sequence[Vote]) -> Array:
    """Weights of attempts in votes, shape [votes, attempts]; nan where a vote needs scores and there are none."""
    rows, found = [], dict[Vote, Array]()
    for vote in votes:
        plain = replace(vote, b=0.5)  # the score at which a logit is 0
        if plain not in found:
            found[plain] = np.array([plain.weight(attempt) for attempt in attempts])
        rows.append(found[plain] - (weight_of(vote.b, vote.name) if vote.name == "logit_weighted" else 0.0))
    return np.stack(rows)
