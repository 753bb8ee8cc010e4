"""What a classifier of difficulty is shown of recorded problems at every stage, and what it is not; it fits nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.calibration.labels import LEAST_PROBLEMS, counts_without
from adaptive_ttc.calibration.records import ProblemRecord
from adaptive_ttc.estimate.difficulty import STAGES, Stage
from adaptive_ttc.estimate.features import Evidence, Reading

Array = NDArray[np.float64]

PERMUTATIONS = 2
"""Random orders of a problem's samples that are shown; more cost time and tell little that is new."""

_LEFT = 2  # samples that are not shown, at least: the label is counted on them


@dataclass(frozen=True, slots=True)
class StageRows:
    """What is known at a stage, once for every problem and order of its samples.

    Attributes:
        features: shape [rows, features].
        problem: shape [rows], ids.
        right, drawn: shape [rows]: samples that the row does not show.
        weight: shape [rows]: those of a problem sum to 1.
    """

    features: Array
    problem: NDArray[np.str_]
    right: Array
    drawn: Array
    weight: Array

    def __len__(self) -> int:
        return len(self.weight)

    def of(self, ids: Sequence[str]) -> StageRows:
        """The rows of these problems."""
        kept = np.isin(self.problem, list(ids))
        return StageRows(self.features[kept], self.problem[kept], self.right[kept], self.drawn[kept], self.weight[kept])


def stage_evidence(record: ProblemRecord, stage: Stage, order: Sequence[int]) -> Evidence | None:
    """What is known of a problem at a stage when its samples come in this order; None where it holds too few."""
    samples = record.units.get("sample", ())
    shown = [samples[index].unit for index in order[: _shown(stage)]]
    greedy = [one.unit for one in record.units.get("greedy", ())[: stage.greedy]]
    return stage.view(record.nothing().plus(*shown, *greedy))


def possible_stages(records: Sequence[ProblemRecord], kind: str = "sample") -> tuple[Stage, ...]:
    """The stages that were recorded for nearly all problems: nine in ten of them, and enough to learn from."""
    least = max(0.9 * len(records), min(LEAST_PROBLEMS, len(records)))
    return tuple(stage for stage in STAGES if sum(_holds(record, stage, kind) for record in records) >= least)


def stage_rows(
    records: Sequence[ProblemRecord],
    stage: Stage,
    reading: Reading,
    kind: str = "sample",
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> StageRows:
    """Rows of all problems that hold the stage.

    Args:
        records: the problems.
        stage: what is shown.
        reading: how evidence becomes features.
        kind: units that pass@1 is counted on.
        permutations: orders of the samples; one where no sample is shown.
        seed: of the orders.
    """
    features, problem, right, drawn, weight = [], [], [], [], []
    orders = permutations if _shown(stage) else 1
    for record in records:
        if not _holds(record, stage, kind):
            continue
        for number in range(orders):
            order = list(range(len(record.units.get("sample", ()))))
            random.Random(f"{seed}/{number}/{record.id}").shuffle(order)
            evidence = stage_evidence(record, stage, order)
            if evidence is None:
                continue
            won, rest = counts_without(record, order[: _shown(stage)] if kind == "sample" else (), kind)
            features.append(reading.features(evidence))
            problem.append(record.id)
            right.append(won)
            drawn.append(rest)
            weight.append(1 / orders)
    shape = (len(features), len(reading.names))
    return StageRows(
        np.array(features).reshape(shape), np.array(problem), np.array(right), np.array(drawn), np.array(weight)
    )


def _shown(stage: Stage) -> int:
    return max(stage.steps, stage.finished)


def _holds(record: ProblemRecord, stage: Stage, kind: str) -> bool:
    order = range(len(record.units.get("sample", ())))
    shown = _shown(stage) if kind == "sample" else 0
    enough = len(record.units.get(kind, ())) >= shown + _LEFT
    return enough and stage_evidence(record, stage, order) is not None
