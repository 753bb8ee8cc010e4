"""Graded units of problems, and how they are read from a store."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain

from adaptive_ttc.calibration.collect.store import Grade, Store, StoredProblem
from adaptive_ttc.calibration.collect.units import Drawn, PoolKey, row_digest, with_starts
from adaptive_ttc.estimate.features import Evidence, Unit
from adaptive_ttc.evaluation.datasets import Row
from adaptive_ttc.strategies.adaptive import SECOND


@dataclass(frozen=True, slots=True)
class UnitRecord:
    """A unit and whether its attempts are right."""

    unit: Unit  # what was done; answer classes agree across all units of the problem
    correct: tuple[bool, ...]  # of every attempt, in their order
    prompt_tokens: int = 0  # prompt and prefix tokens that the policy computed, as measured
    flops: float = 0.0  # of policy and PRM, as measured

    @property
    def right_answers(self) -> Iterator[str]:
        """Of its attempts."""
        pairs = zip(self.unit.attempts, self.correct, strict=True)
        return (attempt.answer for attempt, correct in pairs if correct and attempt.answer is not None)


@dataclass(frozen=True, slots=True)
class ProblemRecord:
    """All graded units of one problem."""

    id: str  # of the problem, unique in its data set
    question: str  # its text
    answer: str  # the right one
    prompt_tokens: int  # of the rendered problem
    # the units of every kind, in the order of their index; those of a kind are exchangeable
    units: Mapping[str, tuple[UnitRecord, ...]] = field(default_factory=dict)
    # the same for all records of one problem, by whatever model or setting; folds keep them together; empty: its own
    group: str = ""

    @property
    def text(self) -> str:
        """The question, or what stands for it where it is not known."""
        return self.question or self.group or self.id

    @property
    def own_group(self) -> str:
        """What errs together with it: its group, or where it has none, itself."""
        return self.group or self.id

    def nothing(self) -> Evidence:
        """Evidence before any work."""
        return Evidence(self.question, self.prompt_tokens)

    def right(self) -> dict[str, float]:
        """Answer -> share of its attempts that are right; 0 or 1 where equal answers are graded alike."""
        found: dict[str, list[bool]] = {}
        for units in self.units.values():
            for one in units:
                for attempt, correct in zip(one.unit.attempts, one.correct, strict=True):
                    if attempt.answer is not None:
                        found.setdefault(attempt.answer, []).append(correct)
        return {answer: sum(flags) / len(flags) for answer, flags in found.items()}


def groups_of(records: Sequence[ProblemRecord]) -> list[str]:
    """The group of every record, whose members err together; one without a group is one by itself."""
    return [record.own_group for record in records]


@dataclass(frozen=True, slots=True)
class Weights:
    """What a token costs, in tokens of the policy: the unit of every budget and cost of a calibration."""

    generated: float = 1.0  # a token that the policy delivers
    # a token that the PRM scores: P_prm / P_policy where cost is measured by parameters, 0 where only generated tokens
    # count
    prm: float = 0.0
    # a prompt token of the second policy of a cascade, charged with its first unit; prompts of the first are left out
    second_prompt: float = 0.0

    def cost(self, unit: Unit) -> float:
        """Cost of one unit."""
        return self.generated * unit.generated + self.prm * unit.prm


def load_records(
    store: Store, key: PoolKey, rows: Sequence[Row], demand: Mapping[str, int] | None = None
) -> list[ProblemRecord]:
    """Records of the rows whose units exist and are graded, in the order of the rows; other rows are left out.

    ``demand``: kind -> number of units of a problem; records hold these and the samples that trees and chains start
    from. None takes all units from the first of each kind up to the first gap.
    """
    wanted = None if demand is None else with_starts(demand)
    asked = {(row["unique_id"], row_digest(row)) for row in rows}
    with _no_collector():
        held = {(one.name, one.digest): one for one in store.holdings(key) if (one.name, one.digest) in asked}
        found = (record_of(row, held.get((row["unique_id"], row_digest(row))), wanted) for row in rows)
        return [record for record in found if record is not None]


def with_second(
    records: Sequence[ProblemRecord], others: Sequence[ProblemRecord], weight: float
) -> list[ProblemRecord]:
    """The records of a cascade: units of the first policy, and beside them those of the second as ``second:KIND``, a
    token of which counts ``weight`` of the first's; problems that both have. Answers of the two policies are the same
    where both are right, or of one text.
    """
    found, merged = {record.id: record for record in others}, []
    for record in records:
        if record.id in found:
            right = next((answer for one in chain(*record.units.values()) for answer in one.right_answers), None)
            units = {SECOND + kind: of_kind for kind, of_kind in found[record.id].units.items()}
            weighed = {kind: tuple(_weighed(one, kind, weight, right) for one in units[kind]) for kind in units}
            merged.append(replace(record, units={**record.units, **weighed}))
    return merged


def _weighed(one: UnitRecord, kind: str, weight: float, right: str | None) -> UnitRecord:
    attempts = tuple(
        replace(attempt, answer=right or attempt.answer) if correct else attempt
        for attempt, correct in zip(one.unit.attempts, one.correct, strict=True)
    )
    generated = round(weight * one.unit.generated)
    return replace(one, unit=replace(one.unit, kind=kind, attempts=attempts, generated=generated))


def record_of(row: Row, held: StoredProblem | None, wanted: Mapping[str, int] | None) -> ProblemRecord | None:
    """The record of one problem; None where a unit that is wanted, or a grade, is missing."""
    if held is None:
        return None
    if wanted is None:
        wanted = {kind: _leading(units) for kind, units in held.units.items()}
    if any(_leading(held.units.get(kind, {})) < number for kind, number in wanted.items()):
        return None
    kept = {kind: [held.units[kind][index] for index in range(number)] for kind, number in wanted.items()}
    try:
        units = {kind: tuple(_graded(one, held.grades) for one in drawn) for kind, drawn in kept.items()}
    except KeyError:  # an answer that no grade was given on yet
        return None
    return ProblemRecord(row["unique_id"], row["problem"], row["answer"], held.prompt_tokens, units)


def _graded(drawn: Drawn, grades: Mapping[str, Grade]) -> UnitRecord:
    attempts, correct = [], []
    for attempt in drawn.unit.attempts:
        if attempt.answer is None:
            attempts.append(attempt)
            correct.append(False)
            continue
        grade = grades[attempt.answer]
        same = grade.answer_class == attempt.answer
        attempts.append(attempt if same else replace(attempt, answer=grade.answer_class))
        correct.append(grade.correct)
    unit = replace(drawn.unit, attempts=tuple(attempts))
    return UnitRecord(unit, tuple(correct), drawn.work.prompt_tokens, drawn.work.flops)


def _leading(units: Mapping[int, Drawn]) -> int:
    """Number of units before the first gap."""
    return next(index for index in range(len(units) + 1) if index not in units)


@contextmanager
def _no_collector() -> Iterator[None]:
    """Turn off garbage collection: nothing here forms cycles, and its passes would take most of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
