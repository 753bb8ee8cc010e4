"""How hard a problem is, as a posterior over five bins given its evidence.

A model holds one classifier for each stage of evidence. It shows a classifier only the stage's evidence, so that it
sees live what it was trained on. A classifier answers "harder than edge k?" for the four edges between the bins; curves
that were fitted out of fold make its answers probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.features import Evidence, Reading, Unit, family_of
from adaptive_ttc.estimate.skops_io import TreeClassifier, read_estimators, write_estimators
from adaptive_ttc.strategies.adaptive import is_second

BINS = 5  # bins of difficulty; bin 0 holds the easiest fifth of the problems, bin 4 the hardest

_EDGES = BINS - 1
_FLOOR = 0.002  # no bin is less probable: a classifier that is sure of itself has seen a thousand problems at most
_SEEN = np.tril(np.ones((_EDGES, _EDGES)))[:, 1:]  # edge k as a thermometer: k >= 1, k >= 2, k >= 3

Array = NDArray[np.float64]


class Classifier(Protocol):
    """A fitted binary classifier: one that was read from a file, or one of scikit-learn."""

    def predict_proba(self, X: Array) -> Array:  # noqa: N803
        """Shape [rows, 2]."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A fitted logistic regression with its imputation, as plain numbers."""

    fill: tuple[float, ...]  # for columns whose value is not known
    weights: tuple[float, ...]  # of the columns
    missing: tuple[float, ...]  # what is added where a column is not known
    intercept: float  # in nats

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
    """The posterior over bins at one stage, from one binary classifier of (features, edge): "harder than the edge?"."""

    family: str  # ``logistic`` or ``boosting``
    # reads the columns and then the edge as a thermometer (k >= 1, k >= 2, k >= 3): an ordinal model as a binary one on
    # four rows a problem (Li and Lin 2006)
    estimator: Classifier
    columns: tuple[int, ...]  # of the features
    curves: tuple[Platt | Isotonic, ...]  # one calibration curve an edge, fitted out of fold

    def predict_proba(self, features: Array) -> Array:
        """Shape [problems, 5], from features of shape [problems, features]."""
        raw = uncalibrated(self.estimator, features[:, list(self.columns)])
        return bins_of(np.stack([curve(raw[:, k]) for k, curve in enumerate(self.curves)], axis=1))

    def as_data(self) -> dict[str, Any]:
        """For a file of estimators."""
        return {
            "family": self.family,
            "estimator": asdict(self.estimator) if isinstance(self.estimator, Linear) else self.estimator,
            "columns": list(self.columns),
            "curves": [asdict(curve) for curve in self.curves],
        }

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> StageModel:
        """From :meth:`as_data`."""
        estimator = data["estimator"]
        if isinstance(estimator, dict):
            estimator = Linear(**_tuples(estimator))
        curves = (
            Platt(**one) if set(one) == {"slope", "offset"} else Isotonic(**_tuples(one)) for one in data["curves"]
        )
        return cls(data["family"], estimator, tuple(data["columns"]), tuple(curves))


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


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


@cache
def _thread_pools() -> Any:
    import sklearn.ensemble  # noqa: F401  its pool must be there to be found
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


def one_thread() -> Any:
    """A context in which scikit-learn uses one thread: few rows are done before a second one has woken up."""
    return _thread_pools().limit(limits=1)


def _sigmoid(logit: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logit)))  # 1 / (1 + exp(-logit)), which overflows far below 0


SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Stage:
    """An amount of evidence."""

    name: str  # of the stage
    steps: int = 0  # scored first steps of independent samples, finished or not
    finished: int = 0  # finished samples
    greedy: int = 0  # finished greedy solutions
    scored: bool = True  # whether a PRM has seen the solutions; if not, scores that there are already are not shown

    def view(self, evidence: Evidence) -> Evidence | None:
        """The evidence cut down to this stage; None where it holds less, or no scores where these are wanted."""
        units: list[Unit] = []
        if self.steps:
            units += _first_steps(evidence)[: self.steps]
        if self.finished:
            units += _finished(evidence, "sample")[: self.finished]
        if self.greedy:
            units += _finished(evidence, "greedy")[: self.greedy]
        if len(units) < self.steps + self.finished + self.greedy:
            return None
        if not self.scored:
            units = [unit.unscored() for unit in units]
        elif (self.finished or self.greedy) and not any(one.scores for unit in units for one in unit.attempts):
            return None
        return Evidence(evidence.question, evidence.prompt_tokens, tuple(units))


STAGES = (
    Stage("prompt"),
    Stage("first_steps_2", steps=2),
    Stage("first_steps_4", steps=4),
    *(Stage(f"unscored_{count}", finished=count, scored=False) for count in (1, 2, 4)),
    Stage("unscored_greedy", greedy=1, scored=False),
    Stage("unscored_8", finished=8, scored=False),
    Stage("greedy", greedy=1),
    Stage("finished_4", finished=4),
    Stage("finished_8", finished=8),
)
"""From the poorest to the richest. What no PRM has scored still shows agreement, lengths and log-probabilities."""


class DifficultyModel:
    """The classifiers of all stages.

    Args:
        edges: four pass rates, falling: a problem is in bin 0 from the first on, in bin 4 under the last.
        reading: how evidence becomes features.
        stages: name -> classifier; ``prompt`` among them, so that there is always an answer.
    """

    def __init__(self, edges: Sequence[float], reading: Reading, stages: Mapping[str, StageModel]) -> None:
        self.edges = tuple(edges)
        self.reading = reading
        self.stages = dict(stages)
        self._order = [stage for stage in reversed(STAGES) if stage.name in self.stages]
        falling = all(high > low for high, low in zip(self.edges, self.edges[1:], strict=False))
        if len(self.edges) != BINS - 1 or not falling or "prompt" not in self.stages:
            raise CalibrationError("a difficulty model wants four falling edges and a classifier of the prompt alone")

    def stage(self, evidence: Evidence) -> Stage:
        """The richest trained stage that the evidence satisfies."""
        return self._seen(evidence)[0]

    def posterior(self, evidence: Evidence) -> tuple[float, ...]:
        """Probability of every bin, the easiest first."""
        return self.posteriors([evidence])[0]

    def posteriors(self, states: Sequence[Evidence]) -> list[tuple[float, ...]]:
        """One for each; many at once cost little more than one."""
        seen = [self._seen(evidence) for evidence in states]
        found: list[tuple[float, ...]] = [()] * len(states)
        for name in {stage.name for stage, _ in seen}:
            rows = [index for index, (stage, _) in enumerate(seen) if stage.name == name]
            features = np.stack([self.reading.features(seen[index][1]) for index in rows])
            for index, row in zip(rows, self.stages[name].predict_proba(features).tolist(), strict=True):
                found[index] = tuple(row)
        return found

    def _seen(self, evidence: Evidence) -> tuple[Stage, Evidence]:
        views = ((stage, stage.view(evidence)) for stage in self._order)
        return next((stage, view) for stage, view in views if view is not None)

    def save(self, path: str | Path) -> str:
        """Write all classifiers to one file; returns its SHA-256. CalibrationError: a type that would not be read
        again.
        """
        probes = np.linspace(0, 1, 3)[:, None] * np.ones(len(self.reading.names))
        content = {
            "schema": SCHEMA,
            "edges": list(self.edges),
            "reading": self.reading.as_data(),
            "features": list(self.reading.names),
            "probes": probes,
            "stages": {
                name: {**model.as_data(), "answers": model.predict_proba(probes)} for name, model in self.stages.items()
            },
        }
        return write_estimators(path, content)

    @classmethod
    def load(cls, path: str | Path, sha256: str) -> DifficultyModel:
        """Read what :meth:`save` wrote, and check that it still answers as it did; nothing in it is executed.

        CalibrationError: the file is missing, changed, cut off, foreign, of another schema, or answers differently
        here.
        """
        content = read_estimators(path, sha256)
        if content.get("schema") != SCHEMA:
            raise CalibrationError(f"{path} has schema {content.get('schema')}, not {SCHEMA}: fit anew")
        try:
            reading = Reading.of_data(content["reading"])
            known = list(reading.names) == content["features"]
            stages = {name: StageModel.of_data(data) for name, data in content["stages"].items()}
            model = cls(content["edges"], reading, stages)
            same = known and all(
                np.allclose(stages[name].predict_proba(content["probes"]), data["answers"], atol=1e-6)
                for name, data in content["stages"].items()
            )
        except CalibrationError:
            raise
        except Exception as error:
            raise CalibrationError(f"{path} holds no difficulty model that runs here ({error!r}): fit anew") from error
        if not same:
            raise CalibrationError(
                f"{path} answers differently here than where it was made: its features or trees are others; fit anew"
            )
        return model


def _first_steps(evidence: Evidence) -> list[Unit]:
    """First steps drawn from the question alone, each as a sample that has gone no further."""
    return [
        Unit("sample", (), (step,), step.tokens)
        for unit in evidence.units
        if family_of(unit.kind) in ("sample", "dvts", "beam_search") and not is_second(unit.kind)
        for step in unit.first_steps
        if not math.isnan(step.score)
    ]


def _finished(evidence: Evidence, kind: str) -> list[Unit]:
    return [unit for unit in evidence.units if unit.kind == kind and unit.attempts]
