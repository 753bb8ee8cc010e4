"""What every arm reaches and costs on every problem, and by bins of difficulty; it chooses nothing.

Sampling arms are expectations over subsets of the problem's pool, never its first samples: exact for one sample and
for the whole pool, the mean over at least 200 random subsets between (METHODS of arXiv 2408.03314 count generations;
here cost is tokens). Means of cells with few problems are shrunk towards what arm and bin alone predict, since the
best of many noisy means looks better than it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from adaptive_ttc.calibration.arms import Arm
from adaptive_ttc.calibration.decks import Vote
from adaptive_ttc.calibration.records import ProblemRecord, UnitRecord, Weights
from adaptive_ttc.calibration.votes import judged, subsets
from adaptive_ttc.errors import CalibrationError

Array = NDArray[np.float64]

DRAWS = 200
LEVEL = 0.95
RESAMPLES = 1_000


@dataclass(frozen=True, slots=True)
class Curves:
    """Every arm on every problem, all of shape [problems, arms].

    Attributes:
        arms: the columns.
        ids: the rows.
        accuracy: probability that the arm's answer is right.
        generated: expected tokens of the policy.
        prm: expected tokens of the PRM; 0 for arms that need no scores.
    """

    arms: tuple[Arm, ...]
    ids: tuple[str, ...]
    accuracy: Array
    generated: Array
    prm: Array

    def cost(self, weights: Weights) -> Array:
        """Shape [problems, arms]."""
        return weights.generated * self.generated + weights.prm * self.prm

    def column(self, name: str) -> int:
        """Of an arm by its name."""
        return [arm.name for arm in self.arms].index(name)

    def rows(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Curves:
        """Of some problems."""
        ids = tuple(np.array(self.ids, dtype=object)[chosen])
        return Curves(self.arms, ids, self.accuracy[chosen], self.generated[chosen], self.prm[chosen])


def answerable(records: Sequence[ProblemRecord], arms: Sequence[Arm]) -> tuple[list[Arm], list[Arm]]:
    """The arms that every problem's units answer, and those they do not."""
    able = [arm for arm in arms if all(len(record.units.get(arm.kind, ())) >= arm.units for record in records)]
    return able, [arm for arm in arms if arm not in able]


def measure(records: Sequence[ProblemRecord], arms: Sequence[Arm], vote: Vote, *, seed: int = 0) -> Curves:
    """Every arm on every problem.

    The arms of samples take the vote that they are named after; searches and revisions take ``vote``.

    Args:
        records: with the units that the arms need, see :func:`answerable`.
        arms: what is measured.
        vote: of the searches; its reduction of step scores is everybody's.
        seed: of the subsets.

    Raises:
        CalibrationError: a problem lacks units.
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
    return Curves(tuple(able), tuple(record.id for record in records), accuracy, generated, prm)


def _accuracies(units: Sequence[UnitRecord], arms: Sequence[Arm], vote: Vote, rng: np.random.Generator) -> Array:
    """Of arms of one kind on one problem, shape [arms]; the subsets of all sizes are voted on at once."""
    sizes = sorted({arm.units for arm in arms})
    drawn = [subsets(len(units), size, DRAWS, rng) if size > 1 else np.eye(len(units), dtype=bool) for size in sizes]
    votes = list(dict.fromkeys(_vote_of(arm, vote) for arm in arms))
    values = judged(units, np.concatenate(drawn), votes)
    ends = np.cumsum([len(one) for one in drawn])
    means = np.stack([part.mean(axis=1) for part in np.split(values, ends[:-1], axis=1)], axis=1)
    return means[[votes.index(_vote_of(arm, vote)) for arm in arms], [sizes.index(arm.units) for arm in arms]]


@dataclass(frozen=True, slots=True)
class BinCurves:
    """Every arm in every bin of difficulty, the easiest first, all of shape [bins, arms].

    Attributes:
        accuracy: mean over the problems of the bin, each weighted by how probably it belongs there.
        shrunk: the same, shrunk and made monotone over the bins; what decisions are made by.
        low, high: ends of the 95 % bootstrap interval of ``accuracy`` over problems.
        generated, prm: mean tokens.
    """

    accuracy: Array
    shrunk: Array
    low: Array
    high: Array
    generated: Array
    prm: Array

    def cost(self, weights: Weights) -> Array:
        """Shape [bins, arms]."""
        return weights.generated * self.generated + weights.prm * self.prm


def by_bins(curves: Curves, membership: Array, *, seed: int = 0) -> BinCurves:
    """Means by bin.

    Args:
        curves: of the problems.
        membership: shape [problems, bins]: probability that a problem is of a bin.
        seed: of the bootstrap.
    """
    accuracy = _means(curves.accuracy, membership)
    rng = np.random.default_rng(seed)
    n = len(membership)
    drawn = np.stack([_means(curves.accuracy[rows], membership[rows]) for rows in rng.integers(0, n, (RESAMPLES, n))])
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    variance = np.nanvar(drawn, axis=0)
    return BinCurves(
        accuracy=accuracy,
        shrunk=monotone(shrink(accuracy, variance), membership.sum(axis=0)),
        low=low,
        high=high,
        generated=_means(curves.generated, membership),
        prm=_means(curves.prm, membership),
    )


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
    names = {"majority": "majority", "best_of_n": "best", "weighted_best_of_n": "weighted"}
    if arm.strategy in names:
        return Vote(names[arm.strategy], vote.b, vote.reading)  # type: ignore[arg-type]
    return vote
