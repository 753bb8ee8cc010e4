"""Graded solutions of calibration stores and of records, for ``adaptive-ttc export``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from adaptive_ttc.answers import Grader
from adaptive_ttc.answers.spaces.base import answer_in
from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.calibration.collect.store import Store
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.datasets import Row, load_problems, spaces_of
from adaptive_ttc.export.samples import GradedProblem, GradedSample, graded
from adaptive_ttc.policies.replay.record import RecordedProblem, load_record
from adaptive_ttc.strategies.adaptive import SAMPLE
from adaptive_ttc.types import Prefix

Rows = Callable[[], Sequence[Row]]


class StoreSource:
    """The samples of a store under its last settings; of its other units only the answers were kept.

    ConfigError: it holds nothing, or its problems cannot be loaded.
    """

    def __init__(self, path: Path, rows: Rows | None) -> None:
        self._path = path
        with Store(path) as store:
            keys = store.keys()
            if not keys:
                raise ConfigError(f"{path} holds no units yet: collect into it first")
            self._key = key = keys[-1]
            named = (
                rows() if rows else load_problems(key.dataset, answers=None if key.answers == "math" else key.answers)
            )
            self._rows = [row for row in named if "answer" in row and store.find(key, row) is not None]
        self.size, self.policy, self.system = len(self._rows), key.policy, ""
        self.spaces = spaces_of(self._rows)
        if not self._rows:
            raise ConfigError(f"{path} holds none of these problems; it was drawn from {key.dataset}: give --dataset")
        self.told: dict[str, Any] = {"store": str(path), "settings": key.text, "settings_in_file": len(keys)}

    async def problems(self, grader: Grader) -> AsyncIterator[GradedProblem]:
        """Problem by problem; answers that the store has not graded are graded here."""
        with Store(self._path) as store:
            for row in self._rows:
                number = store.find(self._key, row)
                assert number is not None
                held = store.holding(number)
                judge = grader.for_problem(space_of(row.get("answers"), grader.space))
                indices = sorted(held.units.get(SAMPLE, {}))
                samples = []
                for start in store.starts(number, indices):
                    answer = answer_in(judge.space, start.whole.answer_text, start.whole.finish)
                    grade = None if answer is None else held.grades.get(answer)
                    right = grade.correct if grade else answer is not None and await judge.equal(row["answer"], answer)
                    samples.append(GradedSample.of(start.whole, answer, right))
                yield GradedProblem(row=row, samples=tuple(samples))


class RecordSource:
    """The samples of a record, whose problems and right answers a data set tells.

    ConfigError: it is no record, or no data set is given.
    """

    def __init__(self, path: Path, rows: Rows | None) -> None:
        record = load_record(path)
        if rows is None:
            raise ConfigError(f"{path} is a record, which holds no right answers: give the data set with --dataset")
        known = {row["problem"]: row for row in rows()}
        self._problems: list[tuple[Row, RecordedProblem]] = [
            (known.get(one.question, Row(problem=one.question, unique_id=one.id)), one) for one in record.problems
        ]
        self.size, self.policy, self.system = len(self._problems), record.policy.fingerprint, ""
        self.spaces = spaces_of(row for row, _ in self._problems)
        models = {"policy": record.policy.name, "prm": None if record.prm is None else record.prm.name}
        self.told: dict[str, Any] = {"record": str(path), **models}

    async def problems(self, grader: Grader) -> AsyncIterator[GradedProblem]:
        """In the record's order; those that the data set does not hold come without a right answer."""
        for row, one in self._problems:
            prefixes = [
                Prefix(
                    sample.token_ids,
                    sample.text,
                    sample.scores,
                    finish=sample.finish,
                    path=sample.path,
                    answer_at=sample.answer_at,
                    thought=sample.thought,
                )
                for sample in one.samples
            ]
            judge = grader.for_problem(space_of(row.get("answers"), grader.space))
            samples = await graded(prefixes, row["answer"], judge) if "answer" in row else ()
            yield GradedProblem(row=row, samples=samples)
