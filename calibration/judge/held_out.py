"""Keeps fitted and judged problems apart: folds, models that refuse problems they were fitted on, shared data sets."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from adaptive_ttc.calibration.collect.records import ProblemRecord, groups_of
from adaptive_ttc.errors import CalibrationError, ConfigError
from adaptive_ttc.evaluation.datasets import Row

T = TypeVar("T")
LEAST_PER_FOLD = 4


@dataclass(frozen=True, slots=True)
class Fitted(Generic[T]):
    """A model, and the problems that it was fitted on."""

    _model: T
    trained_on: frozenset[str]  # ids

    def for_problems(self, ids: Iterable[str]) -> T:
        """The model, to predict these problems; CalibrationError where it was fitted on one of them."""
        leaked = sorted(self.trained_on.intersection(ids))
        if leaked:
            raise CalibrationError(
                f"{len(leaked)} problem(s), {leaked[0]!r} among them, would be predicted by what was fitted on them: "
                "predict with the model of their own fold, or take other problems"
            )
        return self._model


@dataclass(frozen=True, slots=True)
class Folds:
    """A partition of problems."""

    count: int  # of folds
    fold: Mapping[str, int]  # id -> number of its fold

    def training(self, number: int, records: Sequence[ProblemRecord]) -> list[ProblemRecord]:
        """All problems outside a fold, in their order."""
        return [record for record in records if self.fold[record.id] != number]

    def held_out(self, number: int, records: Sequence[ProblemRecord]) -> list[ProblemRecord]:
        """The problems of a fold, in their order."""
        return [record for record in records if self.fold[record.id] == number]

    def fit(self, records: Sequence[ProblemRecord], train: Callable[[list[ProblemRecord]], T]) -> CrossFitted[T]:
        """Train once for every fold, on all problems outside it."""
        models = []
        for number in range(self.count):
            part = self.training(number, records)
            models.append(Fitted(train(part), frozenset(record.id for record in part)))
        return CrossFitted(self, tuple(models))


@dataclass(frozen=True, slots=True)
class CrossFitted(Generic[T]):
    """One model for each fold, fitted on the others."""

    folds: Folds
    models: tuple[Fitted[T], ...]

    def held_out(self, records: Sequence[ProblemRecord]) -> Iterator[tuple[T, list[ProblemRecord]]]:
        """Every model with the problems of its fold, none of which it was fitted on."""
        for record in records:
            if record.id not in self.folds.fold:
                told = f"problem {record.id!r} has no fold: make folds of all the problems that are predicted"
                raise CalibrationError(told)
        for number, fitted in enumerate(self.models):
            part = self.folds.held_out(number, records)
            yield fitted.for_problems(record.id for record in part), part


def crossfit(records: Sequence[ProblemRecord], folds: int, seed: int) -> Folds:
    """Assign problems to folds by a hash of seed and id: independent of their order, and as evenly as possible.

    Records of one group share a fold.
    """
    ids = [record.id for record in records]
    if len(set(ids)) < len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise CalibrationError(f"problem {twice!r} is there twice, so that it could be in two folds: keep one")
    groups = set(groups_of(records))
    if folds < 2 or len(groups) < 2 * folds:
        raise CalibrationError(
            f"{len(groups)} problem(s) make no {folds} folds: take at least 2 folds and two problems for each"
        )
    fold = folds_of(groups, folds, seed)
    return Folds(folds, {record.id: fold[record.own_group] for record in records})


def parts_of(records: Sequence[ProblemRecord], most: int = 5, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """Rows to learn from and rows to judge, of other groups, for each of at most so many folds; none where there are
    too few groups.
    """
    folds = min(most, len(set(groups_of(records))) // 2)
    if folds < 2:
        return []
    fold = crossfit(records, folds, seed).fold
    numbers = [fold[record.id] for record in records]
    rows = range(len(records))
    return [
        ([row for row in rows if numbers[row] != out], [row for row in rows if numbers[row] == out])
        for out in range(folds)
    ]


def folds_of(groups: Iterable[str], folds: int, seed: int | str) -> dict[str, int]:
    """Group -> its fold: by a hash of seed and name, as evenly as possible."""
    return {name: rank % folds for rank, name in enumerate(_by_hash(set(groups), seed))}


def at_most(records: Sequence[ProblemRecord], most: int, seed: int | str) -> list[ProblemRecord]:
    """So many of the records, in their order: drawn by the hash that folds use, whatever order they came in."""
    kept = set(_by_hash((record.id for record in records), seed)[:most])
    return [record for record in records if record.id in kept]


def _by_hash(names: Iterable[str], seed: int | str) -> list[str]:
    return sorted(names, key=lambda name: (hashlib.sha256(f"{seed}/{name}".encode()).digest(), name))


def check_folds(problems: int, folds: int) -> None:
    """Refuse folds of fewer than four problems."""
    if problems < LEAST_PER_FOLD * folds:
        raise CalibrationError(
            f"{problems} problems are too few for {folds} folds: take at most {max(problems // LEAST_PER_FOLD, 1)} "
            f"folds, or at least {LEAST_PER_FOLD * folds} problems"
        )


@dataclass(frozen=True, slots=True)
class Overlap:
    """Problems that a calibration was fitted on and that it is to be judged on."""

    shared: int  # how many
    judged: int  # of so many that it is judged on

    @property
    def label(self) -> str:
        """Warning for every output; empty where nothing is shared."""
        if not self.shared:
            return ""
        return f"NOT HELD OUT: the calibration was fitted on {self.shared} of these {self.judged} problems"


def add_overlap_option(parser: argparse.ArgumentParser) -> None:
    """``--allow-overlap``."""
    parser.add_argument(
        "--allow-overlap",
        action="store_true",
        help="judge a calibration also on problems that it was fitted on; all outputs then say so",
    )


def check_overlap(meta: Mapping[str, Any], rows: Sequence[Row], allow: bool) -> Overlap:
    """Compare the texts of a calibration's problems with those that it is to be judged on.

    A prior, whose ``meta`` is empty, shares none. ConfigError where some are shared, unless ``allow`` is set.
    """
    known = set(meta.get("digests", ()))
    shared = [row for row in rows if text_digest(row["problem"]) in known]
    if shared and not allow:
        fitted_on = meta.get("dataset", {}).get("name", "an unknown data set")
        raise ConfigError(
            f"{len(shared)} of {len(rows)} problems, {shared[0]['unique_id']} among them, are ones that this "
            f"calibration was fitted on ({fitted_on}), so that its figures would flatter it: take other problems or "
            "another calibration, or give --allow-overlap, and the outputs will say so"
        )
    return Overlap(len(shared), len(rows))


def text_digest(question: str) -> str:
    """Digest of a problem's text that ignores white space."""
    return hashlib.sha256(" ".join(question.split()).encode()).hexdigest()[:16]
