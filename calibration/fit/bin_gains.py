"""Learns what more work gains in every bin of difficulty, and how much of a forecast that decides.

The posterior of every replayed state comes from a classifier that has not seen its problem, as it will live; so do the
gains by which the weight is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.calibration.fit.classifier import DifficultyClassifier, Fitting
from adaptive_ttc.calibration.fit.difficulty import Bins, Counts
from adaptive_ttc.calibration.fit.rows import TrainingRows
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.bin_gains import BinGains, Row, split
from adaptive_ttc.estimate.difficulty import BINS, StageModel

Array = NDArray[np.float64]
PRIOR = 500.0  # trials that a weight of one half counts for
STRENGTH = 20.0  # trials that the mean over all actions of a bin counts for in the chances of one


def fit_bin_gains(
    rows: TrainingRows, actions: int, names: Sequence[str], counts: Counts, trees: Array, now: Array
) -> tuple[BinGains, Array] | None:
    """Fit it, and blend it with the boosted model's gains: both out of fold, shape [trials].

    None where there is no difficulty to learn: too few problems or samples, or all alike.

    Args:
        rows: replayed states.
        actions: how many there are.
        names: of the features.
        counts: right and drawn samples of all problems.
        trees: shape [trials]: out of fold, gains by the boosted model.
        now: shape [states]: out of fold, probability that the answer in hand is right.
    """
    known, fold = np.unique(rows.problem), rows.fold()
    folds = np.unique(fold).tolist()
    parts = [(fold == number, rows.of(np.unique(rows.problem[fold != number]).tolist())) for number in folds]
    try:
        bins = Bins.fit(Counts(counts.right[known], counts.drawn[known]))
        posterior = _posterior(rows, names, counts, bins)
        belief = np.zeros((len(fold), BINS))
        for out, others in parts:
            belief[out] = _posterior(others, names, counts, bins).predict_proba(rows.states[out])
    except CalibrationError:
        return None
    table = np.zeros(len(rows.after))
    for out, others in parts:
        trials = out[rows.owner]
        chances = BinGains(posterior, *_chances(others, belief[~out], actions))
        owner = rows.owner[trials]
        table[trials] = chances.gains(belief[owner], rows.tried[trials], now[owner])
    weight = best_weight(rows.after - rows.right[rows.owner], trees, table)
    return BinGains(posterior, *_chances(rows, belief, actions), weight), trees + weight * (table - trees)


def best_weight(gained: Array, trees: Array, table: Array) -> float:
    """Weight of the table in the mean of two forecasts of what was gained, all of shape [trials].

    That of least squared error, drawn towards a half as by :data:`PRIOR` trials.
    """
    missed, apart = gained - trees, table - trees
    error, difference = float(missed @ apart), float(apart @ apart)
    prior = PRIOR * difference / max(len(gained), 1)
    return float(np.clip((error + prior / 2) / max(difference + prior, 1e-12), 0.0, 1.0))


def _posterior(rows: TrainingRows, names: Sequence[str], counts: Counts, bins: Bins) -> StageModel:
    """All that is known of a state -> P(bin); every problem counts alike."""
    soft = bins.soft(counts.right, counts.drawn)[rows.problem]
    weight = 1 / np.bincount(rows.problem)[rows.problem]
    groups = rows.group.astype(np.str_)
    return DifficultyClassifier(names, Fitting(families=("boosting",))).fit(rows.states, soft, weight, groups).model_


def _chances(rows: TrainingRows, belief: Array, actions: int) -> tuple[Row, tuple[Row, ...], tuple[Row, ...]]:
    """Share of right answers in every bin, and chances to find and to lose one; ``belief``: of every state."""
    right = (belief * rows.right[:, None]).sum(axis=0) / belief.sum(axis=0)
    now = rows.right[rows.owner][:, None]
    wrong, kept = split(belief[rows.owner], right)
    found = _rates(wrong * (1 - now), rows.after, rows.tried, actions)
    lost = _rates(kept * now, 1 - rows.after, rows.tried, actions)
    return tuple(right.tolist()), found, lost


def _rates(weight: Array, happened: Array, tried: NDArray[np.int64], actions: int) -> tuple[Row, ...]:
    """Frequency by action and bin, drawn towards that of all actions; ``weight``: shape [trials, bins]."""
    overall = (weight * happened[:, None]).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-12)
    rows = []
    for action in range(actions):
        own = tried == action
        times, seen = (weight[own] * happened[own, None]).sum(axis=0), weight[own].sum(axis=0)
        rows.append(tuple(((times + STRENGTH * overall) / (seen + STRENGTH)).tolist()))
    return tuple(rows)
