"""Fits the classifier of difficulty at one stage, from features and soft labels.

Two ordinal models are tried, both binary ones of "harder than edge k?" on four rows a problem (Li and Lin 2006): a
logistic one with a threshold for each edge, and boosted trees that are monotone in the features that can only rise or
only fall with difficulty. The better out of fold is kept and its probabilities are calibrated, again out of fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from adaptive_ttc.calibration.judge.held_out import check_folds, folds_of
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.difficulty import (
    BINS,
    Classifier,
    Isotonic,
    Linear,
    Platt,
    StageModel,
    bins_of,
    one_thread,
    uncalibrated,
    with_edges,
)
from adaptive_ttc.estimate.skops_io import MOST_LEAVES

Array = NDArray[np.float64]
Family = Literal["logistic", "boosting"]

ISOTONIC_FROM = 1000  # problems from which a curve of any shape is fitted rather than one with two parameters

# features that make a problem harder, if anything
RISING = ("votes.entropy", "weights.entropy", "answers.distinct", "attempts.no_answer", "attempts.unfinished")

# features that make a problem easier, if anything
FALLING = (
    *(f"{part}.score_{name}" for part in ("first_steps", "attempts") for name in ("min", "q25", "median", "q75")),
    *(f"{part}.score_{name}" for part in ("first_steps", "attempts") for name in ("max", "mean")),
    *(f"{part}.{name}" for part in ("votes", "weights") for name in ("top", "margin")),
    *("answers.lead_votes", "answers.lead_best_score", "greedy.score", "greedy.agreement", "greedy.leads"),
)


@dataclass(frozen=True, slots=True)
class Fitting:
    """Hyperparameters of a classifier."""

    folds: int = 2  # within the training set, for calibration and for the choice of the model
    iterations: int = 30  # trees. Their number is fixed: to stop early needs problems that are held out once more.
    leaves: int = 6  # of a tree, at most
    rate: float = 0.15  # of learning
    share: float = 0.03  # of all problems, at least so many in a leaf
    penalty: float = 0.1  # C of the logistic model
    families: tuple[Family, ...] = ("logistic", "boosting")  # that are tried
    seed: int = 0  # of the folds and the trees

    def __post_init__(self) -> None:
        if self.folds < 2 or self.iterations < 1 or not 2 <= self.leaves <= MOST_LEAVES or not self.families:
            raise ValueError(
                f"a fit wants at least 2 folds, 1 iteration, 2 to {MOST_LEAVES} leaves and one family of models"
            )
        if not 0 < self.share < 0.5 or self.rate <= 0 or self.penalty <= 0:
            raise ValueError("share lies between 0 and 0.5, rate and penalty above 0")


@dataclass
class DifficultyClassifier:
    """A posterior over five bins from the features of one stage; ``names`` are those of the columns."""

    names: Sequence[str]
    fitting: Fitting = Fitting()
    model_: StageModel = field(init=False)  # what runs; see :class:`adaptive_ttc.estimate.difficulty.StageModel`
    losses_: Mapping[str, float] = field(init=False)  # family -> log-loss out of fold, in nats, before calibration

    def fit(self, X: Array, soft: Array, weight: Array, group: NDArray[np.str_]) -> DifficultyClassifier:  # noqa: N803
        """Fit; CalibrationError where problems are too few, or all in one bin.

        ``X``: shape [rows, features], nan for unknown; ``soft``: P(bin), shape [rows, 5], see
        :meth:`adaptive_ttc.calibration.fit.difficulty.Bins.soft`; ``weight``: shape [rows], 1 in sum for a problem;
        ``group``: of the rows' problems, shape [rows]; the rows of a group stay in one fold.
        """
        groups = set(group.tolist())
        check_folds(len(groups), self.fitting.folds)
        most = float(np.average(soft, axis=0, weights=weight).max())
        if most > 0.98:
            raise CalibrationError(
                f"{most:.0%} of the problems are in one bin of difficulty: there is nothing to tell apart; take "
                "problems of mixed difficulty"
            )
        columns = _columns(X)
        features, harder = X[:, columns], 1 - np.cumsum(soft, axis=1)[:, :-1]
        names = [self.names[column] for column in columns]
        fold = folds_of(groups, self.fitting.folds, f"inner/{self.fitting.seed}")
        folds = np.array([fold[name] for name in group.tolist()])
        raw = {
            family: self._out_of_fold(family, names, features, harder, weight, folds)
            for family in self.fitting.families
        }
        self.losses_ = {family: log_loss(bins_of(one), soft, weight) for family, one in raw.items()}
        best = min(self.fitting.families, key=lambda family: self.losses_[family])
        estimator = self._fitted(best, names, features, harder, weight)
        calibrate = isotonic if len(groups) >= ISOTONIC_FROM else platt
        curves = tuple(calibrate(raw[best][:, k], harder[:, k], weight) for k in range(BINS - 1))
        self.model_ = StageModel(best, estimator, tuple(columns), curves)
        return self

    def predict_proba(self, X: Array) -> Array:  # noqa: N803
        """P(bin), shape [problems, 5]."""
        return self.model_.predict_proba(X)

    def _out_of_fold(
        self, family: Family, names: Sequence[str], features: Array, harder: Array, weight: Array, folds: Array
    ) -> Array:
        """P(harder than edge k) of every row, by an estimator that has not seen its problem; shape [rows, 4]."""
        found = np.empty_like(harder)
        for number in range(self.fitting.folds):
            held = folds == number
            estimator = self._fitted(family, names, features[~held], harder[~held], weight[~held])
            found[held] = uncalibrated(estimator, features[held])
        return found

    def _fitted(
        self, family: Family, names: Sequence[str], features: Array, harder: Array, weight: Array
    ) -> Classifier:
        index, label, weights = binary_rows(harder.ravel(), np.repeat(weight, BINS - 1))
        with one_thread():
            if family == "logistic":
                return _logistic(with_edges(features)[index], label, weights, self.fitting)
            return _boosting(with_edges(coarse(features))[index], label, weights, names, self.fitting)


def _logistic(rows: Array, label: NDArray[np.int_], weight: Array, fitting: Fitting) -> Linear:
    fill = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    scale, model = StandardScaler(), LogisticRegression(C=fitting.penalty, max_iter=500)
    model.fit(scale.fit_transform(fill.fit_transform(rows)), label, sample_weight=weight)
    weights = model.coef_[0] / scale.scale_
    columns = rows.shape[1]
    missing = np.zeros(columns)
    missing[fill.indicator_.features_] = weights[columns:]
    return Linear(
        tuple(fill.statistics_.tolist()),
        tuple(weights[:columns].tolist()),
        tuple(missing.tolist()),
        float(model.intercept_[0] - scale.mean_ @ weights),
    )


def _boosting(
    rows: Array, label: NDArray[np.int_], weight: Array, names: Sequence[str], fitting: Fitting
) -> Classifier:
    sign = [(name in RISING) - (name in FALLING) for name in names]
    model = HistGradientBoostingClassifier(
        learning_rate=fitting.rate,
        max_iter=fitting.iterations,
        max_leaf_nodes=fitting.leaves,
        min_samples_leaf=max(int(fitting.share * len(rows)), 2),
        max_bins=64,
        l2_regularization=1.0,
        monotonic_cst=np.array([*sign, *[-1] * (BINS - 2)]),
        early_stopping=False,
        random_state=fitting.seed,
    )
    fitted: Classifier = model.fit(rows, label, sample_weight=weight)
    return fitted


def binary_rows(target: Array, weight: Array) -> tuple[NDArray[np.int_], NDArray[np.int_], Array]:
    """Soft targets as positive and negative rows: indices, labels, weights; shares up to 0.01 are dropped."""
    index = np.tile(np.arange(len(target)), 2)
    label = np.repeat([1, 0], len(target))
    share = np.concatenate([target, 1 - target])
    kept = share > 0.01
    return index[kept], label[kept], (share * np.tile(weight, 2))[kept]


def platt(raw: Array, target: Array, weight: Array) -> Platt:
    """The sigmoid of the logit that fits best (Platt 1999); it never falls."""
    clipped = np.clip(raw, 1e-6, 1 - 1e-6)
    logit = np.log(clipped) - np.log1p(-clipped)
    index, label, weights = binary_rows(target, weight)
    found = LogisticRegression(C=10.0).fit(logit[index, None], label, sample_weight=weights)
    slope = float(found.coef_[0, 0])
    if slope > 0:
        return Platt(slope, float(found.intercept_[0]))
    share = float(np.average(target, weights=weight))
    return Platt(0.0, float(np.log(share) - np.log1p(-share)))


def isotonic(raw: Array, target: Array, weight: Array) -> Isotonic:
    """The rising curve that fits best (Zadrozny and Elkan 2002)."""
    found = IsotonicRegression(out_of_bounds="clip").fit(raw, target, sample_weight=weight)
    return Isotonic(tuple(found.X_thresholds_.tolist()), tuple(found.y_thresholds_.tolist()))


def log_loss(found: Array, soft: Array, weight: Array) -> float:
    """Cross entropy of posteriors with soft labels, both of shape [rows, 5], in nats."""
    return float(np.average(-(soft * np.log(np.maximum(found, 1e-9))).sum(axis=1), weights=weight))


def _columns(features: Array) -> list[int]:
    """Columns that tell rows apart."""
    known = ~np.isnan(features)
    low, high = np.where(known, features, np.inf).min(axis=0), np.where(known, features, -np.inf).max(axis=0)
    return np.flatnonzero((high > low) | (known.any(axis=0) & ~known.all(axis=0))).tolist()


MOST = 63  # values that are left in a column; what fits the trees has ``max_bins`` of at least this


def coarse(features: Array) -> Array:
    """Replace every value by the nearest of at most :data:`MOST` quantiles of its column; nan stays.

    Thresholds between two quantiles lie half-way, as those used here do, so trees grown on the result split the
    features themselves alike. A column without a known value becomes 0, as it cannot be binned. Shape [rows, columns].
    """
    found = np.array(features, dtype=np.float64, order="F")
    for column in found.T:
        known = ~np.isnan(column)
        if not known.any():
            column[:] = 0.0
            continue
        kept = np.unique(column[known])
        if len(kept) > MOST:
            kept = np.unique(np.quantile(column[known], np.linspace(0, 1, MOST), method="nearest"))
            column[known] = kept[np.searchsorted((kept[:-1] + kept[1:]) / 2, column[known])]
    return found


def fillable(features: Array) -> Array:
    """With 0 in columns without a known value, which a selection of coarse rows may have."""
    return np.where(np.isnan(features).all(axis=0), 0.0, features)
