"""Learns the gain of more work from replayed runs (`rows.py`); see :mod:`adaptive_ttc.estimate.gain`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression

from adaptive_ttc.calibration.collect.records import ProblemRecord
from adaptive_ttc.calibration.fit.bin_gains import fit_bin_gains
from adaptive_ttc.calibration.fit.blend import OutOfFold, VoteLevel, fit_weights
from adaptive_ttc.calibration.fit.classifier import coarse, fillable
from adaptive_ttc.calibration.fit.difficulty import Counts, counts_of
from adaptive_ttc.calibration.fit.rows import (
    GainSettings,
    TrainingRows,
    possible_actions,
    reading_of,
    recorded,
    training_rows,
)
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.blended_gain import BlendedGainModel
from adaptive_ttc.estimate.difficulty import Platt
from adaptive_ttc.estimate.gain import Action, Array, Estimators, LearnedGainModel, action_columns
from adaptive_ttc.estimate.table import Vote
from adaptive_ttc.strategies.adaptive import SAMPLE

Learned = LearnedGainModel | BlendedGainModel


@dataclass(frozen=True, slots=True)
class GainLearner:
    """Fits gain models on any subset of the problems, whose rows are made once."""

    rows: TrainingRows  # of all problems
    actions: tuple[Action, ...]  # what may be done
    vote: Vote  # over all solutions of a state
    most: Mapping[str, int]  # units recorded of every kind
    learning: GainSettings  # how
    counts: Counts  # right and drawn samples of all problems
    votes: VoteLevel | None  # agreement among them; None without samples

    @classmethod
    def of(
        cls,
        records: Sequence[ProblemRecord],
        vote: Vote,
        learning: GainSettings | None = None,
        kinds: Collection[str] | None = None,
    ) -> Self:
        """Replay the problems; ``kinds`` are the kinds of units that may be drawn, by default all recorded ones."""
        learning, most = learning or GainSettings(), recorded(records)
        most = {kind: count for kind, count in most.items() if kinds is None or kind in kinds}
        actions = possible_actions(most)
        if not actions:
            raise CalibrationError("no unit of work was recorded for every problem: collect at least `sample` units")
        rows = training_rows(records, actions, vote, learning)
        votes = VoteLevel.of(records, vote) if SAMPLE in most else None
        return cls(rows, actions, vote, most, learning, counts_of(records), votes)

    def learn(self, problems: Sequence[int] | None = None) -> LearnedGainModel:
        """Fit on these problems, by their numbers, and on no others."""
        return fit(self._rows(problems), self.actions, self.vote, self.most, self.learning, self.counts)[0]

    def blended(self, problems: Sequence[int] | None = None) -> Learned:
        """The same, blended with what agreement among the votes tells, where there are samples."""
        rows = self._rows(problems)
        learned, outside = fit(rows, self.actions, self.vote, self.most, self.learning, self.counts)
        weights = fit_weights(self.votes, rows, self.actions, outside) if self.votes else None
        if self.votes is None or weights is None:
            return learned
        return BlendedGainModel(learned, self.votes.fitted(np.unique(rows.problem).tolist()), weights)

    def _rows(self, problems: Sequence[int] | None) -> TrainingRows:
        return self.rows if problems is None else self.rows.of(problems)


def fit(
    rows: TrainingRows,
    actions: Sequence[Action],
    vote: Vote,
    most: Mapping[str, int],
    learning: GainSettings,
    counts: Counts,
) -> tuple[LearnedGainModel, OutOfFold]:
    """Fit the boosted model to rows, and the gains by difficulty; ``counts``: right and drawn samples of all problems.

    Also what these foretell out of fold. CalibrationError: no answer is right, or none wrong, or there is one group.
    """
    if rows.right.min() == rows.right.max() or len(np.unique(rows.group)) < 2:
        raise CalibrationError(
            "every replayed answer is right, or every one wrong: there is nothing to learn; take problems of mixed "
            "difficulty, or more of them"
        )
    rows, reading = replace(rows, states=coarse(rows.states)), reading_of(vote, actions)

    def boosted(part: TrainingRows) -> LearnedGainModel:
        return LearnedGainModel(_estimators(part, actions, learning), actions, reading, most)

    model, outside, trees = boosted(rows), _out_of_fold(rows, learning), np.zeros(len(rows.after))
    now, fold = _platt(outside, rows.right)(outside), rows.fold()
    for number in np.unique(fold).tolist():
        others, held = (rows.of(np.unique(rows.problem[part]).tolist()) for part in (fold != number, fold == number))
        known = boosted(others)
        trees[(fold == number)[rows.owner]] = known.boosted_gains(
            held.states, held.owner, held.tried, known.right(held.states)
        )
    bins = fit_bin_gains(rows, len(actions), reading.names, counts, trees, now)
    learned = LearnedGainModel(model.estimators, actions, reading, most, bins[0] if bins else None)
    return learned, OutOfFold(now, bins[1] if bins else trees)


def _estimators(rows: TrainingRows, actions: Sequence[Action], learning: GainSettings) -> Estimators:
    outside = _out_of_fold(rows, learning)
    curve = _platt(outside, rows.right)
    columns, now = action_columns(actions), rows.right[rows.owner]
    still = np.hstack([rows.states, np.zeros((len(rows.states), columns.shape[1]))])
    moved = np.hstack([rows.states[rows.owner], columns[rows.tried]])
    told = np.hstack([moved, coarse(curve(outside)[:, None])[rows.owner]])
    # right answers are rarely lost
    few = replace(learning, iterations=learning.iterations // 3, leaf=learning.leaf * 7)
    many = replace(learning, iterations=learning.iterations * 2, leaf=max(1, learning.leaf // 2))
    rising = np.zeros(still.shape[1])
    rising[-columns.shape[1] :] = 1
    return Estimators(
        right=_classifier(rows.states, rows.right, learning),
        curve=curve,
        found=_classifier(told, rows.after, learning, 1 - now),
        lost=_classifier(told, 1 - rows.after, few, now),
        rising=_classifier(np.vstack([still, moved]), np.concatenate([rows.right, rows.after]), many, rising=rising),
        generated=_regressor(moved, rows.generated, learning),
        prm=_regressor(moved, rows.prm, learning),
    )


def _out_of_fold(rows: TrainingRows, learning: GainSettings, folds: int = 3) -> Array:
    """P(the answer in hand is right) of every state, by an estimator that has not seen its group."""
    found = np.zeros(len(rows.right))
    number = rows.fold(folds)
    for fold in range(folds):
        out = number == fold
        if out.any() and not out.all():
            model = _classifier(rows.states[~out], rows.right[~out], learning)
            found[out] = model.predict_proba(rows.states[out])[:, 1]
    return found


def _platt(predicted: Array, target: Array) -> Platt:
    """Platt scaling of out-of-fold predictions (Platt 1999)."""
    clipped = np.clip(predicted, 1e-6, 1 - 1e-6)
    logit = (np.log(clipped) - np.log1p(-clipped))[:, None]
    rows, labels = np.tile(logit, (2, 1)), np.repeat([1, 0], len(target))
    fit = LogisticRegression(C=100.0).fit(rows, labels, sample_weight=np.concatenate([target, 1 - target]))
    return Platt(max(float(fit.coef_[0, 0]), 0.05), float(fit.intercept_[0]))


def _trees(learning: GainSettings) -> dict[str, Any]:
    """Hyperparameters of every estimator."""
    fixed = {"learning_rate": 0.1, "max_bins": 63, "max_leaf_nodes": 16, "early_stopping": False}
    return {**fixed, "min_samples_leaf": learning.leaf, "random_state": learning.seed}


def _classifier(
    features: Array, target: Array, learning: GainSettings, weight: Array | None = None, rising: Array | None = None
) -> HistGradientBoostingClassifier:
    """Fit a target between 0 and 1 as two weighted rows; a missing label gets one row of negligible weight."""
    weight = np.ones(len(target)) if weight is None else weight
    rows = np.concatenate([np.arange(len(target))] * 2)
    labels = np.repeat([1, 0], len(target))
    weights = np.concatenate([weight * target, weight * (1 - target)])
    kept = weights > 0
    for label in (0, 1):
        if not kept[labels == label].any():
            first = int(np.argmax(labels == label))
            kept[first], weights[first] = True, 1e-6
    model = HistGradientBoostingClassifier(
        max_iter=learning.iterations, monotonic_cst=rising, l2_regularization=1.0, **_trees(learning)
    )
    return model.fit(fillable(features[rows[kept]]), labels[kept], sample_weight=weights[kept])


def _regressor(features: Array, target: Array, learning: GainSettings) -> HistGradientBoostingRegressor:
    model = HistGradientBoostingRegressor(max_iter=learning.iterations // 2, **_trees(learning))
    return model.fit(fillable(features), target)
