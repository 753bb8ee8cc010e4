"""The append-only SQLite file of drawn units, safe for several writers and for a kill at any moment.

With a write-ahead log a unit is one transaction. Nothing written is changed or written twice, except the answer
classes of a problem, which depend on all its units. Units are JSON; an unknown number (nan) is ``null``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from adaptive_ttc.answers import GRADER_VERSION
from adaptive_ttc.calibration.collect.units import Drawn, PoolKey, Start, Work, row_digest
from adaptive_ttc.database import Database
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.features import NAN, Attempt, FirstStep, Unit
from adaptive_ttc.evaluation.datasets import Row
from adaptive_ttc.evaluation.result_file import writable
from adaptive_ttc.files.typed import checked, damage_told
from adaptive_ttc.types import Prefix

_TABLES = """
CREATE TABLE pools (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE);
CREATE TABLE problems (
    id INTEGER PRIMARY KEY, pool INTEGER NOT NULL REFERENCES pools, name TEXT NOT NULL, digest TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, UNIQUE (pool, name, digest)
);
CREATE TABLE units (
    problem INTEGER NOT NULL REFERENCES problems, kind TEXT NOT NULL, number INTEGER NOT NULL,
    attempts TEXT NOT NULL, first_steps TEXT NOT NULL, generated INTEGER NOT NULL, prm INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL, flops REAL NOT NULL, PRIMARY KEY (problem, kind, number)
) WITHOUT ROWID;
CREATE TABLE starts (
    problem INTEGER NOT NULL REFERENCES problems, number INTEGER NOT NULL, sample TEXT NOT NULL,
    PRIMARY KEY (problem, number)
) WITHOUT ROWID;
CREATE TABLE classes (
    problem INTEGER NOT NULL REFERENCES problems, answer TEXT NOT NULL, class TEXT NOT NULL, correct INTEGER NOT NULL,
    PRIMARY KEY (problem, answer)
) WITHOUT ROWID;
"""

# beside the grades, so that files without it are of the same schema
_UNDECIDED = """
CREATE TABLE IF NOT EXISTS undecided (
    problem INTEGER NOT NULL REFERENCES problems, answer TEXT NOT NULL, PRIMARY KEY (problem, answer)
) WITHOUT ROWID
"""


# the version of the grader that gave a problem's grades: those of another one count as missing, and are given anew;
# in files without this table they are of the first
_GRADERS = (
    "CREATE TABLE IF NOT EXISTS graders (problem INTEGER PRIMARY KEY REFERENCES problems, version INTEGER NOT NULL)"
)

_GRADES = ("classes", "undecided", "graders")
"""Tables that hold the grades of a problem."""


@dataclass(frozen=True, slots=True)
class Grade:
    """The class of an answer, by its canonical text, and whether it is right; where time or memory did not suffice to
    tell, it counts as wrong for now and is not ``decided``.
    """

    answer_class: str
    correct: bool
    decided: bool = True


@dataclass(frozen=True, slots=True)
class StoredProblem:
    """All that is stored of a problem: its units by kind, in order of index, and the grades on their answers."""

    name: str
    digest: str
    prompt_tokens: int
    units: Mapping[str, Mapping[int, Drawn]]
    grades: Mapping[str, Grade]

    @property
    def answers(self) -> set[str]:
        """All answers of all its units."""
        drawn = (one for units in self.units.values() for one in units.values())
        return {attempt.answer for one in drawn for attempt in one.unit.attempts if attempt.answer is not None}

    @property
    def ungraded(self) -> set[str]:
        """Those of its answers that have no grade yet, or none that was decided."""
        return self.answers - {answer for answer, grade in self.grades.items() if grade.decided}


class Store(Database):
    """A file of units; open it in every process that writes or reads it. ``:memory:`` keeps everything in memory.

    Raises:
        CalibrationError: the file is no store, of another version, damaged, or stays locked; ConfigError: not writable.
    """

    application = 0x41545443  # "ATTC"
    schema = 1
    tables = _TABLES
    wait = 120.0
    error = CalibrationError
    words: ClassVar[Mapping[str, str]] = {
        "locked": "end what keeps it locked, or see to its folder and disk",
        "damaged": "no store of calibration, or is damaged: name another file, or restore it from a copy",
        "version": "{path} has the store's schema {found}, and this version reads {schema}: collect into a new file, "
        "or read it with the version that wrote it",
    }

    def __init__(self, path: str | Path) -> None:
        super().__init__(path if str(path) == ":memory:" else writable(path))
        with self._errors():
            self._db.execute(_UNDECIDED)
            self._db.execute(_GRADERS)

    @classmethod
    def deserialized(cls, data: bytes) -> Self:
        """A store in memory that holds what :meth:`serialized` gave."""
        store = cls(":memory:")
        store._db.deserialize(data)
        return store

    def serialized(self) -> bytes:
        """All that a store in memory holds."""
        return self._db.serialize()

    def copy_from(self, other: Store, key: PoolKey, rows: Iterable[Row]) -> None:
        """Add what another store holds of some problems; its grades replace those that are here."""
        for row in rows:
            found = other.find(key, row)
            if found is None:
                continue
            (prompt_tokens,) = other._db.execute("SELECT prompt_tokens FROM problems WHERE id = ?", (found,)).fetchone()
            number = self.problem(key, row, prompt_tokens)
            with self._transaction():
                for table in _GRADES:
                    self._db.execute(f"DELETE FROM {table} WHERE problem = ?", (number,))
                for table in ("units", "starts", *_GRADES):
                    for _, *values in other._db.execute(f"SELECT * FROM {table} WHERE problem = ?", (found,)):
                        places = ", ".join("?" * (len(values) + 1))
                        self._db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({places})", (number, *values))

    def keys(self) -> list[PoolKey]:
        """Settings under which units were drawn, oldest first."""
        with self._errors():
            texts = [text for (text,) in self._db.execute("SELECT key FROM pools ORDER BY id")]
        with damage_told(self.path, CalibrationError, "it is of another version: name another file"):
            return [checked(PoolKey(**json.loads(text))) for text in texts]

    def problem(self, key: PoolKey, row: Row, prompt_tokens: int) -> int:
        """Number of a problem in this file, which is entered where it is new: by id, text and right answer."""
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO pools (key) VALUES (?)", (key.text,))
            (pool,) = self._db.execute("SELECT id FROM pools WHERE key = ?", (key.text,)).fetchone()
            named = (pool, row["unique_id"], row_digest(row))
            self._db.execute(
                "INSERT OR IGNORE INTO problems (pool, name, digest, prompt_tokens) VALUES (?, ?, ?, ?)",
                (*named, prompt_tokens),
            )
            found = self._db.execute("SELECT id FROM problems WHERE pool = ? AND name = ? AND digest = ?", named)
            return int(found.fetchone()[0])

    def find(self, key: PoolKey, row: Row) -> int | None:
        """The number of a problem in this file; None where it is new."""
        query = (
            "SELECT p.id FROM problems p JOIN pools o ON o.id = p.pool WHERE o.key = ? AND p.name = ? AND p.digest = ?"
        )
        with self._errors():
            found = self._db.execute(query, (key.text, row["unique_id"], row_digest(row))).fetchone()
        return None if found is None else int(found[0])

    def indices(self, problem: int) -> dict[str, set[int]]:
        """The indices of the units of every kind that a problem has."""
        found: dict[str, set[int]] = {}
        with self._errors():
            for kind, number in self._db.execute("SELECT kind, number FROM units WHERE problem = ?", (problem,)):
                found.setdefault(kind, set()).add(number)
        return found

    def add(self, problem: int, drawn: Drawn) -> None:
        """Keep a unit; one that is there already (another writer was first) stays as it is."""
        unit = drawn.unit
        texts = attempts_to_text(unit.attempts), steps_to_text(unit.first_steps)
        row = (problem, unit.kind, drawn.index, *texts, *astuple(drawn.work))
        with self._transaction():
            new = self._db.execute("INSERT OR IGNORE INTO units VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row).rowcount
            if new and drawn.start is not None:
                start = (problem, drawn.index, start_to_text(drawn.start))
                self._db.execute("INSERT INTO starts VALUES (?, ?, ?)", start)

    def starts(self, problem: int, samples: Sequence[int]) -> list[Start]:
        """Samples to go on from, in the order of the indices; CalibrationError where one is missing."""
        query = "SELECT sample FROM starts WHERE problem = ? AND number = ?"
        found = []
        with self._errors():
            for number in samples:
                row = self._db.execute(query, (problem, number)).fetchone()
                if row is None:
                    raise CalibrationError(f"{self.path} holds no sample {number} of a problem; collect it first")
                with damage_told(self.path, CalibrationError, _RESTORE):
                    found.append(start_of(row[0]))
        return found

    def judge(self, problem: int, grades: Mapping[str, Grade]) -> None:
        """Replace the grades of a problem."""
        rows = [(problem, answer, one.answer_class, one.correct) for answer, one in grades.items()]
        with self._transaction():
            for table in _GRADES:
                self._db.execute(f"DELETE FROM {table} WHERE problem = ?", (problem,))
            self._db.execute("INSERT INTO graders VALUES (?, ?)", (problem, GRADER_VERSION))
            self._db.executemany("INSERT INTO classes VALUES (?, ?, ?, ?)", rows)
            later = [(problem, answer) for answer, one in grades.items() if not one.decided]
            self._db.executemany("INSERT INTO undecided VALUES (?, ?)", later)

    def holding(self, problem: int) -> StoredProblem:
        """All that is stored of one problem."""
        return next(self._holdings("WHERE id = ?", problem))

    def holdings(self, key: PoolKey) -> Iterator[StoredProblem]:
        """All that is stored under a key, problem by problem."""
        return self._holdings("WHERE pool = (SELECT id FROM pools WHERE key = ?)", key.text)

    def _holdings(self, where: str, value: object) -> Iterator[StoredProblem]:
        """The chosen problems with their units and grades; every table is read once."""
        chosen = f"SELECT id FROM problems {where}"
        with self._errors():
            units = self._grouped(f"SELECT * FROM units WHERE problem IN ({chosen}) ORDER BY problem", value)
            classes = self._grouped(f"SELECT * FROM classes WHERE problem IN ({chosen}) ORDER BY problem", value)
            open_ = self._grouped(f"SELECT * FROM undecided WHERE problem IN ({chosen}) ORDER BY problem", value)
            graders = dict(self._db.execute(f"SELECT * FROM graders WHERE problem IN ({chosen})", (value,)))
            query = f"SELECT id, name, digest, prompt_tokens FROM problems {where} ORDER BY id"
            for problem, name, digest, prompt_tokens in self._db.execute(query, (value,)).fetchall():
                with damage_told(self.path, CalibrationError, _RESTORE):
                    kinds: dict[str, dict[int, Drawn]] = {}
                    for row in units.get(problem, ()):
                        kinds.setdefault(row[1], {})[row[2]] = _drawn(row)
                    later = {answer for _, answer in open_.get(problem, ())}
                    current = graders.get(problem, 1) == GRADER_VERSION
                    grades = {
                        answer: Grade(name, bool(correct), answer not in later)
                        for _, answer, name, correct in (classes.get(problem, ()) if current else ())
                    }
                    stored = StoredProblem(name, digest, prompt_tokens, kinds, grades)
                yield stored

    def _grouped(self, query: str, value: object) -> dict[int, list[Any]]:
        rows = self._db.execute(query, (value,)).fetchall()
        return {problem: list(group) for problem, group in groupby(rows, key=itemgetter(0))}


def _drawn(row: Sequence[Any]) -> Drawn:
    _, kind, number, attempts, first_steps, *charged = row
    work = Work(*charged)
    unit = Unit(kind, tuple(attempts_of(attempts)), steps_of(first_steps), work.generated, work.prm)
    return checked(Drawn(number, unit, work))


T = TypeVar("T")

_RESTORE = "collect into a new file, or restore this one from a copy"


def attempts_to_text(attempts: tuple[Attempt, ...]) -> str:
    """A list of ``[answer, scores, tokens, logprob, finish, answer_logprob]``."""
    return _dump(
        [
            [one.answer, one.scores, one.tokens, _known(one.logprob), one.finish, _known(one.answer_logprob)]
            for one in attempts
        ]
    )


def attempts_of(text: str) -> list[Attempt]:
    """What :func:`attempts_to_text` wrote; earlier versions wrote no ``answer_logprob``."""
    return _read(
        text,
        lambda rows: [
            Attempt(answer, tuple(scores), tokens, _number(logprob), finish, _number(told[0] if told else None))
            for answer, scores, tokens, logprob, finish, *told in rows
        ],
    )


def steps_to_text(steps: tuple[FirstStep, ...]) -> str:
    """A list of ``[score, tokens, logprob]``."""
    return _dump([[_known(one.score), one.tokens, _known(one.logprob)] for one in steps])


def steps_of(text: str) -> tuple[FirstStep, ...]:
    """What :func:`steps_to_text` wrote."""
    return _read(
        text,
        lambda rows: tuple(FirstStep(_number(score), tokens, _number(logprob)) for score, tokens, logprob in rows),
    )


def start_to_text(start: Start) -> str:
    """A sample's first step and the whole of it, with their tokens, texts and costs."""
    return _dump(
        [
            [
                one.token_ids,
                one.text,
                one.scores,
                one.logprob,
                one.finish,
                one.path,
                *astuple(work),
                _known(one.answer_logprob),
                one.answer_at,
                one.thought,
            ]
            for one, work in ((start.first, start.first_work), (start.whole, start.whole_work))
        ]
    )


def start_of(text: str) -> Start:
    """What :func:`start_to_text` wrote."""

    def parsed(rows: list[list[Any]]) -> Start:
        (first, first_work), (whole, whole_work) = ((_prefix_of(row), Work(*row[6:10])) for row in rows)
        return checked(Start(first, first_work, whole, whole_work))

    return _read(text, parsed)


def _prefix_of(row: list[Any]) -> Prefix:
    token_ids, text, scores, logprob, finish, path = row[:6]
    # earlier versions wrote neither how sure the policy was of its answer, nor where that begins
    told = _number(row[10]) if len(row) > 10 else NAN
    answer_at, thought = row[11:] or (0, 0)
    return Prefix(
        tuple(token_ids),
        text,
        tuple(scores),
        logprob,
        finish,
        tuple(path),
        answer_logprob=told,
        answer_at=answer_at,
        thought=thought,
    )


def _number(value: float | None) -> float:
    return NAN if value is None else value


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _read(text: str, make: Callable[[Any], T]) -> T:
    with damage_told("an entry of the store", CalibrationError, _RESTORE):
        return make(json.loads(text))
