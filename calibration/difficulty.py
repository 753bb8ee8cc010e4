"""Fits the classifiers of difficulty of all stages, and measures them on problems that they have not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from adaptive_ttc.calibration.classifier import DifficultyClassifier, Fitting
from adaptive_ttc.calibration.folds import CrossFitted, Folds
from adaptive_ttc.calibration.labels import Bins, check_folds, counts_of
from adaptive_ttc.calibration.metrics import Predictions, StageMetrics, measure
from adaptive_ttc.calibration.records import ProblemRecord
from adaptive_ttc.calibration.stages import PERMUTATIONS, StageRows, possible_stages, stage_rows
from adaptive_ttc.estimate.difficulty import DifficultyModel, Stage
from adaptive_ttc.estimate.features import Reading


@dataclass(frozen=True, slots=True)
class Difficulty:
    """What was learned of difficulty.

    Attributes:
        bins: of pass@1, on the problems that it was learned from.
        model: what runs.
        losses: stage -> family of models -> log-loss out of fold, in nats, of which the least was kept.
    """

    bins: Bins
    model: DifficultyModel
    losses: Mapping[str, Mapping[str, float]]


class DifficultyTrainer:
    """Trains on any of the problems whose rows it made once.

    Args:
        records: all problems.
        reading: how evidence becomes features.
        kind: units that pass@1 is counted on.
        fitting: of the classifiers.
        permutations: orders of a problem's samples.
    """

    def __init__(
        self,
        records: Sequence[ProblemRecord],
        reading: Reading,
        kind: str = "sample",
        fitting: Fitting | None = None,
        permutations: int = PERMUTATIONS,
    ) -> None:
        self.reading, self.kind, self.fitting = reading, kind, fitting or Fitting()
        self.stages: tuple[Stage, ...] = possible_stages(records, kind)
        self.rows: dict[str, StageRows] = {
            stage.name: stage_rows(records, stage, reading, kind, permutations, self.fitting.seed)
            for stage in self.stages
        }

    def train(self, records: Sequence[ProblemRecord]) -> Difficulty:
        """Fit bins and classifiers on these problems, and on no others.

        Raises:
            CalibrationError: there is no difficulty to be learned from them; what to do is said.
        """
        bins = Bins.fit(counts_of(records, self.kind))
        ids = [record.id for record in records]
        models, losses = {}, {}
        for name, all_rows in self.rows.items():
            rows = all_rows.of(ids)
            soft = bins.soft(rows.right, rows.drawn)
            classifier = DifficultyClassifier(self.reading.names, self.fitting)
            models[name] = classifier.fit(rows.features, soft, rows.weight, rows.problem).model_
            losses[name] = dict(classifier.losses_)
        return Difficulty(bins, DifficultyModel(bins.edges, self.reading, models), losses)

    def held_out(self, fitted: CrossFitted[Difficulty], records: Sequence[ProblemRecord]) -> dict[str, Predictions]:
        """Stage -> predictions of every problem by the model that has not seen it."""
        found: dict[str, list[Predictions]] = {name: [] for name in self.rows}
        for difficulty, part in fitted.held_out(records):
            for name, parts in found.items():
                rows = self.rows[name].of([record.id for record in part])
                posterior = difficulty.model.stages[name].predict_proba(rows.features)
                soft = difficulty.bins.soft(rows.right, rows.drawn)
                parts.append(Predictions(posterior, soft, rows.problem, rows.right, rows.drawn, rows.weight))
        return {name: _joined(parts) for name, parts in found.items()}


def crossfitted_difficulty(
    records: Sequence[ProblemRecord], folds: Folds, trainer: DifficultyTrainer
) -> CrossFitted[Difficulty]:
    """One :class:`Difficulty` for each fold, fitted on the others.

    Raises:
        CalibrationError: the folds are too small, or there is no difficulty to be learned outside one of them.
    """
    check_folds(len(records), folds.count)
    return folds.fit(records, trainer.train)


def measured_difficulty(
    records: Sequence[ProblemRecord], fitted: CrossFitted[Difficulty], trainer: DifficultyTrainer
) -> dict[str, StageMetrics]:
    """Stage -> metrics on held-out problems."""
    bins = Bins.fit(counts_of(records, trainer.kind))
    return {name: measure(found, bins) for name, found in trainer.held_out(fitted, records).items()}


def _joined(parts: Sequence[Predictions]) -> Predictions:
    return Predictions(
        np.concatenate([part.posterior for part in parts]),
        np.concatenate([part.soft for part in parts]),
        np.concatenate([part.problem for part in parts]),
        np.concatenate([part.right for part in parts]),
        np.concatenate([part.drawn for part in parts]),
        np.concatenate([part.weight for part in parts]),
    )
