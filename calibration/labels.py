"""Labels of difficulty from counted successes: five bins of the pass rate, as probabilities; it knows no feature.

A rate measured on n samples is uncertain, so a problem is in every bin with the probability that its rate lies there,
under a Beta posterior whose prior all problems together decide (empirical Bayes).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats  # type: ignore[import-untyped]

from adaptive_ttc.calibration.records import ProblemRecord
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.difficulty import BINS

Array = NDArray[np.float64]

LEAST_PROBLEMS = 20
LEAST_PER_FOLD = 4
_ALIKE = 0.01  # p-value above which the counts look like those of equally hard problems
_PRIOR = (0.05, 200.0)  # bounds of both parameters


@dataclass(frozen=True, slots=True)
class Counts:
    """Successes of problems.

    Attributes:
        right: shape [problems]; may be broken, where a unit hands in several solutions.
        drawn: shape [problems].
    """

    right: Array
    drawn: Array

    @property
    def rates(self) -> Array:
        """The measured pass@1, shape [problems]; nan where nothing was drawn."""
        rates = np.divide(self.right, self.drawn, out=np.full(len(self.drawn), np.nan), where=self.drawn > 0)
        return np.asarray(rates)


def outcomes(record: ProblemRecord, kind: str = "sample") -> Array:
    """Share of right solutions of every unit of that kind; 0 for a unit without any."""
    units = record.units.get(kind, ())
    return np.array([sum(one.correct) / len(one.correct) if one.correct else 0.0 for one in units])


def counts_of(records: Sequence[ProblemRecord], kind: str = "sample") -> Counts:
    """Right and drawn units of every problem."""
    results = [outcomes(record, kind) for record in records]
    return Counts(np.array([one.sum() for one in results]), np.array([float(len(one)) for one in results]))


def counts_without(record: ProblemRecord, shown: Collection[int], kind: str = "sample") -> tuple[float, float]:
    """Right and drawn units of a problem, without those whose indices are shown to a classifier.

    What a classifier sees must not be counted in what it is to predict: on a small pool it would only recite it.
    """
    kept = np.delete(outcomes(record, kind), list(shown))
    return float(kept.sum()), float(len(kept))


@dataclass(frozen=True, slots=True)
class Prior:
    """Beta(a, b) over pass rates of problems."""

    a: float
    b: float

    @classmethod
    def fit(cls, counts: Counts) -> Prior:
        """Most probable under the Beta-binomial likelihood of the counts, with a weak pull towards Beta(1, 1)."""

        def loss(logs: Array) -> float:
            a, b = np.exp(logs)
            likelihood = special.betaln(a + counts.right, b + counts.drawn - counts.right) - special.betaln(a, b)
            return float(-likelihood.sum() + (logs**2).sum() / 2)

        bounds = [tuple(np.log(_PRIOR))] * 2
        found = optimize.minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=bounds)
        a, b = np.exp(found.x)
        return cls(float(a), float(b))


@dataclass(frozen=True, slots=True)
class Bins:
    """Five bins of difficulty.

    Attributes:
        edges: four pass rates, falling; bin 0, the easiest, holds the rates from the first edge on.
        prior: over rates.
    """

    edges: tuple[float, ...]
    prior: Prior

    @classmethod
    def fit(cls, counts: Counts) -> Bins:
        """Quintiles of pass@1, the rates being spread by what their counts leave open.

        Quintiles of the measured rates themselves coincide as soon as a fifth of the problems is never solved.

        Raises:
            CalibrationError: the problems are too few, or all look equally hard: there are no bins to tell apart.
        """
        check_counts(counts)
        prior = Prior.fit(counts)
        a, b = prior.a + counts.right, prior.b + counts.drawn - counts.right
        grid = special.expit(np.linspace(-12, 12, 241))
        below = np.array([special.betainc(a, b, rate).mean() for rate in grid])
        edges = np.interp(np.arange(BINS - 1, 0, -1) / BINS, below, grid)
        return cls(tuple(edges.tolist()), prior)

    def bin_of(self, rate: float) -> int:
        """The bin of a rate."""
        return int(sum(rate < edge for edge in self.edges))

    def harder(self, right: ArrayLike, drawn: ArrayLike) -> Array:
        """P(harder than edge k | counts), shape [problems, 4], falling along k."""
        won, lost = np.asarray(right, dtype=float), np.asarray(drawn, dtype=float) - np.asarray(right, dtype=float)
        return np.stack(
            [special.betainc(self.prior.a + won, self.prior.b + lost, edge) for edge in self.edges], axis=-1
        )

    def soft(self, right: ArrayLike, drawn: ArrayLike) -> Array:
        """P(bin | counts), shape [problems, 5]."""
        harder = self.harder(right, drawn)
        ends = np.ones((*harder.shape[:-1], 1))
        return -np.diff(np.concatenate([ends, harder, 0 * ends], axis=-1), axis=-1)


def check_counts(counts: Counts) -> None:
    """Refuse counts from which no difficulty can be learned.

    Raises:
        CalibrationError: what is wrong, and what to do.
    """
    problems = len(counts.drawn)
    if problems < LEAST_PROBLEMS:
        raise CalibrationError(f"{problems} problem(s) are too few for five bins: take at least {LEAST_PROBLEMS}")
    if (counts.drawn < 2).any():
        raise CalibrationError(
            f"{int((counts.drawn < 2).sum())} problem(s) have fewer than 2 graded samples, so that how hard they are "
            "cannot be told from chance: draw more, or leave them out"
        )
    total, drawn = counts.right.sum(), counts.drawn.sum()
    for result, advice, edge in (("wrong", "easier", 0.0), ("right", "harder", drawn)):
        if total == edge:
            raise CalibrationError(
                f"every sample of every problem is {result}, so that there is no difficulty to learn: take {advice} "
                "problems, and check how answers are graded"
            )
    mean = total / drawn
    excess = ((counts.right - mean * counts.drawn) ** 2 / (counts.drawn * mean * (1 - mean))).sum()
    if stats.chi2.sf(excess, problems - 1) > _ALIKE:
        raise CalibrationError(
            f"all problems look equally hard (each is solved at about {mean:.0%}, up to chance): take problems of "
            "mixed difficulty, or draw more samples of each"
        )


def check_folds(problems: int, folds: int) -> None:
    """Refuse folds that hold too little to measure anything.

    Raises:
        CalibrationError: there are fewer than four problems a fold.
    """
    if problems < LEAST_PER_FOLD * folds:
        raise CalibrationError(
            f"{problems} problems are too few for {folds} folds: take at most {max(problems // LEAST_PER_FOLD, 1)} "
            f"folds, or at least {LEAST_PER_FOLD * folds} problems"
        )
