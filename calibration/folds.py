"""Which problems belong to which fold, and the guard that no problem is predicted by what was fitted on it.

It knows nothing of what is fitted: a model is whatever a training function returns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from adaptive_ttc.calibration.records import ProblemRecord
from adaptive_ttc.errors import CalibrationError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fitted(Generic[T]):
    """What was fitted, and on which problems; the model is had only for others.

    Attributes:
        trained_on: ids.
    """

    _model: T
    trained_on: frozenset[str]

    def for_problems(self, ids: Iterable[str]) -> T:
        """The model, to predict these problems.

        Raises:
            CalibrationError: it was fitted on one of them.
        """
        leaked = sorted(self.trained_on.intersection(ids))
        if leaked:
            raise CalibrationError(
                f"{len(leaked)} problem(s), {leaked[0]!r} among them, would be predicted by what was fitted on them: "
                "predict with the model of their own fold, or take other problems"
            )
        return self._model


@dataclass(frozen=True, slots=True)
class Folds:
    """A partition of problems.

    Attributes:
        count: of folds.
        fold: id -> number of its fold.
    """

    count: int
    fold: Mapping[str, int]

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

    def model_for(self, id: str) -> T:
        """The model that has not seen this problem.

        Raises:
            CalibrationError: the problem has no fold, or the model of its fold was fitted on it.
        """
        if id not in self.folds.fold:
            raise CalibrationError(f"problem {id!r} has no fold: make folds of all the problems that are predicted")
        return self.models[self.folds.fold[id]].for_problems([id])

    def held_out(self, records: Sequence[ProblemRecord]) -> Iterator[tuple[T, list[ProblemRecord]]]:
        """Every model with the problems of its fold, none of which it was fitted on."""
        for number, fitted in enumerate(self.models):
            part = self.folds.held_out(number, records)
            yield fitted.for_problems(record.id for record in part), part


def crossfit(records: Sequence[ProblemRecord], folds: int, seed: int) -> Folds:
    """Assign problems to folds by a hash of seed and id: whatever their order, and as evenly as their number allows.

    Raises:
        CalibrationError: fewer than two folds, fewer than two problems a fold, or an id that is not unique.
    """
    ids = [record.id for record in records]
    if len(set(ids)) < len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise CalibrationError(f"problem {twice!r} is there twice, so that it could be in two folds: keep one")
    if folds < 2 or len(ids) < 2 * folds:
        raise CalibrationError(
            f"{len(ids)} problem(s) make no {folds} folds: take at least 2 folds and two problems for each"
        )
    order = sorted(ids, key=lambda id: (hashlib.sha256(f"{seed}/{id}".encode()).digest(), id))
    return Folds(folds, {id: rank % folds for rank, id in enumerate(order)})
