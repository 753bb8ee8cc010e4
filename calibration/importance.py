"""What the classifiers of difficulty live on: the loss on unseen problems when a group of features tells nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.calibration.classifier import log_loss
from adaptive_ttc.calibration.difficulty import Difficulty, DifficultyTrainer
from adaptive_ttc.calibration.folds import CrossFitted
from adaptive_ttc.calibration.records import ProblemRecord

Array = NDArray[np.float64]


def group_of(feature: str) -> str:
    """Features that say much the same are shuffled together: one alone would be made up for by the others."""
    part, _, name = feature.partition(".")
    about = {"prompt": "prompt", "votes": "agreement", "weights": "weighted agreement", "answers": "leading answer"}
    if part in about:
        return about[part]
    if part == "greedy":
        return "greedy solution"
    if part == "units":
        return "units"
    of = "first-step" if part == "first_steps" else "solution"
    if name.startswith("score"):
        return f"{of} scores"
    return f"{of} log-probability" if name.startswith("logprob") else f"{of} lengths"


def importances(
    fitted: CrossFitted[Difficulty], records: Sequence[ProblemRecord], trainer: DifficultyTrainer, seed: int = 0
) -> Mapping[str, Mapping[str, float]]:
    """Stage -> group -> rise of the log-loss in nats when the group's values are shuffled among held-out problems.

    Groups that a stage does not know are left out.
    """
    rng = np.random.default_rng(seed)
    names = trainer.reading.names
    groups = {group: [i for i, name in enumerate(names) if group_of(name) == group] for group in map(group_of, names)}
    found: dict[str, dict[str, float]] = {}
    for stage, all_rows in trainer.rows.items():
        known = {group: columns for group, columns in groups.items() if _varies(all_rows.features[:, columns])}
        rises = dict.fromkeys(known, 0.0)
        for difficulty, part in fitted.held_out(records):
            rows = all_rows.of([record.id for record in part])
            if not len(rows):
                continue
            model, soft = difficulty.model.stages[stage], difficulty.bins.soft(rows.right, rows.drawn)
            before = log_loss(model.predict_proba(rows.features), soft, rows.weight)
            for group, columns in known.items():
                shuffled = rows.features.copy()
                shuffled[:, columns] = shuffled[rng.permutation(len(rows))][:, columns]
                after = log_loss(model.predict_proba(shuffled), soft, rows.weight)
                rises[group] += (after - before) * rows.weight.sum() / all_rows.weight.sum()
        found[stage] = {group: float(rise) for group, rise in rises.items()}
    return found


def _varies(columns: Array) -> bool:
    filled = np.nan_to_num(columns, nan=-1e9)
    return bool((np.ptp(filled, axis=0) > 0).any())
