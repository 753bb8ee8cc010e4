"""Five ordered bins from binary classifiers; it knows no evidence and no problem.

A classifier answers "harder than edge k?" for the four edges between the bins; curves that were fitted out of fold make
its answers probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.estimate.skops_io import TreeClassifier

BINS = 5
"""Bins of difficulty; bin 0 holds the easiest fifth of the problems, bin 4 the hardest."""

_EDGES = BINS - 1
_FLOOR = 0.002  # no bin is less probable: a classifier that is sure of itself has seen a thousand problems at most
_SEEN = np.tril(np.ones((_EDGES, _EDGES)))[:, 1:]  # edge k as a thermometer: k >= 1, k >= 2, k >= 3

Array = NDArray[np.float64]


class Classifier(Protocol):
    """A fitted binary classifier: one that was read from a file, or one of scikit-learn."""

    def predict_proba(self, X: Array) -> Array:  # noqa: N803
        """Shape [rows, 2]."""
        ...


@dataclass(frozen=True, slots=True)
class Linear:
    """A fitted logistic regression with what was done to its columns before, as plain numbers.

    Attributes:
        fill: for columns whose value is not known.
        weights: of the columns.
        missing: what is added where a column is not known.
        intercept: in nats.
    """

    fill: tuple[float, ...]
    weights: tuple[float, ...]
    missing: tuple[float, ...]
    intercept: float

    def predict_proba(self, X: Array) -> Array:  # noqa: N803
        """Shape [rows, 2]."""
        unknown = np.isnan(X)
        logit = np.where(unknown, self.fill, X) @ self.weights + unknown @ np.array(self.missing) + self.intercept
        positive = _sigmoid(logit)
        return np.stack([1 - positive, positive], axis=1)


@dataclass(frozen=True, slots=True)
class Platt:
    """A calibration curve with two parameters (Platt 1999): sigmoid(slope * logit(p) + offset)."""

    slope: float
    offset: float

    def __call__(self, probability: Array) -> Array:
        """Calibrated, shape as given."""
        clipped = np.clip(probability, 1e-6, 1 - 1e-6)
        logit = np.log(clipped) - np.log1p(-clipped)
        return _sigmoid(self.slope * logit + self.offset)


@dataclass(frozen=True, slots=True)
class Isotonic:
    """A calibration curve of any rising shape: straight lines between the points (x, y)."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, probability: Array) -> Array:
        """Calibrated, shape as given."""
        return np.asarray(np.interp(probability, self.x, self.y))


@dataclass(frozen=True, slots=True)
class StageModel:
    """The posterior over bins at one stage, from one binary classifier of (features, edge): "harder than the edge?".

    Attributes:
        family: ``logistic`` or ``boosting``.
        estimator: reads the columns and then the edge as a thermometer (k >= 1, k >= 2, k >= 3): an ordinal model
            as a binary one on four rows a problem (Li and Lin 2006).
        columns: of the features.
        curves: one calibration curve an edge, fitted out of fold.
    """

    family: str
    estimator: Classifier
    columns: tuple[int, ...]
    curves: tuple[Platt | Isotonic, ...]

    def predict_proba(self, features: Array) -> Array:
        """Shape [problems, 5], from features of shape [problems, features]."""
        raw = uncalibrated(self.estimator, features[:, list(self.columns)])
        return bins_of(np.stack([curve(raw[:, k]) for k, curve in enumerate(self.curves)], axis=1))

    def as_data(self) -> dict[str, Any]:
        """For a file of estimators."""
        return {
            "family": self.family,
            "estimator": _plain(self.estimator) if isinstance(self.estimator, Linear) else self.estimator,
            "columns": list(self.columns),
            "curves": [_plain(curve) for curve in self.curves],
        }

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> StageModel:
        """And back."""
        estimator, curves = data["estimator"], tuple(_curve_of(curve) for curve in data["curves"])
        if isinstance(estimator, dict):
            estimator = Linear(**{key: _frozen(value) for key, value in estimator.items()})
        return cls(data["family"], estimator, tuple(data["columns"]), curves)


def bins_of(harder: Array) -> Array:
    """P(bin), shape [problems, 5], from P(harder than edge k), shape [problems, 4], whatever the order of these."""
    falling = -np.sort(-harder, axis=1)  # rearranged: never further from the truth (Chernozhukov et al. 2010)
    ends = np.ones((len(harder), 1))
    bins = -np.diff(np.hstack([ends, falling, 0 * ends]), axis=1)
    return np.asarray((bins + _FLOOR) / (1 + BINS * _FLOOR))


def with_edges(features: Array) -> Array:
    """One row for every edge of every problem: shape [4 * problems, columns + 3]."""
    return np.hstack([np.repeat(features, _EDGES, axis=0), np.tile(_SEEN, (len(features), 1))])


def uncalibrated(estimator: Classifier, features: Array) -> Array:
    """P(harder than edge k) as the estimator has it, shape [problems, 4]."""
    rows = with_edges(features)
    if isinstance(estimator, Linear | TreeClassifier):
        return estimator.predict_proba(rows)[:, 1].reshape(-1, _EDGES)
    with one_thread():
        return estimator.predict_proba(rows)[:, 1].reshape(-1, _EDGES)


def _plain(values: Linear | Platt | Isotonic) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(values).items()}


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _curve_of(data: Mapping[str, Any]) -> Platt | Isotonic:
    if set(data) == {"slope", "offset"}:
        return Platt(float(data["slope"]), float(data["offset"]))
    return Isotonic(tuple(data["x"]), tuple(data["y"]))


@cache
def _thread_pools() -> Any:
    import sklearn.ensemble  # noqa: F401  its pool must be there to be found
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


def one_thread() -> Any:
    """A context in which scikit-learn keeps to one thread: few rows are done before a second one has woken up."""
    return _thread_pools().limit(limits=1)


def _sigmoid(logit: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logit)))  # 1 / (1 + exp(-logit)), which overflows far below 0
