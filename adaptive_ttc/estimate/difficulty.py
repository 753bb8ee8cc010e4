"""How hard a problem is, as a posterior over five bins, read off what is known of it; it knows no budget and no arm.

A model holds one classifier for each stage of evidence. It shows a classifier no more than the stage is made of, so
that what the classifier sees live is what it was trained on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.features import Evidence, Reading, Unit, family_of
from adaptive_ttc.estimate.ordinal import BINS, StageModel
from adaptive_ttc.estimate.skops_io import read_estimators, write_estimators

FILE = "classifier.skops"
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Stage:
    """How much is known of a problem.

    Attributes:
        name: of the stage.
        steps: scored first steps of independent samples, finished or not.
        finished: finished samples.
        greedy: finished greedy solutions.
    """

    name: str
    steps: int = 0
    finished: int = 0
    greedy: int = 0

    def view(self, evidence: Evidence) -> Evidence | None:
        """The evidence cut down to this stage; None where it holds less, or where no PRM has scored it yet."""
        units: list[Unit] = []
        if self.steps:
            units += _first_steps(evidence)[: self.steps]
        if self.finished:
            units += _finished(evidence, "sample")[: self.finished]
        if self.greedy:
            units += _finished(evidence, "greedy")[: self.greedy]
        if len(units) < self.steps + self.finished + self.greedy:
            return None
        scored = any(attempt.scores for unit in units for attempt in unit.attempts)
        if (self.finished or self.greedy) and not scored:
            return None
        return Evidence(evidence.question, evidence.prompt_tokens, tuple(units))


STAGES = (
    Stage("prompt"),
    Stage("first_steps_2", steps=2),
    Stage("first_steps_4", steps=4),
    Stage("greedy", greedy=1),
    Stage("finished_4", finished=4),
    Stage("finished_8", finished=8),
)
"""From the poorest to the richest."""


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
        """Write all classifiers to one file; its SHA-256 belongs in the metadata beside it.

        Raises:
            CalibrationError: an estimator is of a type that would not be read again.
        """
        probes = np.linspace(0, 1, 3)[:, None] * np.ones(len(self.reading.names))
        content = {
            "schema": SCHEMA,
            "edges": list(self.edges),
            "reading": {"agg_strategy": self.reading.agg_strategy, "families": list(self.reading.families)},
            "features": list(self.reading.names),
            "probes": probes,
            "stages": {
                name: {**model.as_data(), "answers": model.predict_proba(probes)} for name, model in self.stages.items()
            },
        }
        return write_estimators(path, content)

    @classmethod
    def load(cls, path: str | Path, sha256: str) -> DifficultyModel:
        """Read what :meth:`save` wrote, and check that it still answers as it did.

        Raises:
            CalibrationError: the file is missing, changed, cut off, foreign, of another schema, or answers differently
                than where it was made. Nothing in it was executed.
        """
        content = read_estimators(path, sha256)
        if content.get("schema") != SCHEMA:
            raise CalibrationError(f"{path} has schema {content.get('schema')}, not {SCHEMA}: fit anew")
        try:
            reading = Reading(content["reading"]["agg_strategy"], tuple(content["reading"]["families"]))
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


def load_difficulty(directory: str | Path) -> DifficultyModel:
    """The model of a calibration directory, whose ``meta.json`` holds ``{"files": {"classifier.skops": SHA-256}}``.

    Raises:
        CalibrationError: see :meth:`DifficultyModel.load`; or the metadata are missing or hold no checksum.
    """
    meta = Path(directory) / "meta.json"
    try:
        digest = json.loads(meta.read_text(encoding="utf-8"))["files"][FILE]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CalibrationError(f"{meta} is missing or names no checksum of {FILE}: fit anew") from error
    return DifficultyModel.load(Path(directory) / FILE, str(digest))


def _first_steps(evidence: Evidence) -> list[Unit]:
    """Those that were drawn from the question alone, each as a sample that has gone no further."""
    return [
        Unit("sample", (), (step,), step.tokens)
        for unit in evidence.units
        if family_of(unit.kind) in ("sample", "dvts", "beam_search")
        for step in unit.first_steps
        if not math.isnan(step.score)
    ]


def _finished(evidence: Evidence, kind: str) -> list[Unit]:
    return [unit for unit in evidence.units if unit.kind == kind and unit.attempts]
