"""The file that a pool of problems goes on from after a crash: what was asked, and what every problem has got so far.

It knows neither engines nor event loops. Units that a slice may spend are entered before it begins, and what it spent
when it ends: a slice that has begun and not ended counts with all that it may have spent. What a problem has got is its
trace, from which it is solved again without an engine (`run/retrace.py`).
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from adaptive_ttc.answers.spaces.mathematics import MATH
from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.database import Database
from adaptive_ttc.errors import CheckpointError
from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.events import DoneEvent, Event, Route
from adaptive_ttc.files.bounded import SAMPLES
from adaptive_ttc.files.typed import checked, damage_told
from adaptive_ttc.policy import second_policy, second_weight
from adaptive_ttc.run.request import Resources, SolveRequest
from adaptive_ttc.run.verify import Verdict
from adaptive_ttc.stopping.registry import told
from adaptive_ttc.tracing.trace import event_as_data, event_of, plain
from adaptive_ttc.types import Ending, Problem, Stopped, Usage

# Units are text: a budget of floating-point operations may be larger than what SQLite holds as a number. Answers are
# text in JSON: a model may write half of a surrogate pair.
_TABLES = """
CREATE TABLE call (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE problems (number INTEGER PRIMARY KEY, digest TEXT NOT NULL, closing BLOB);
CREATE TABLE slices (
    id INTEGER PRIMARY KEY, problem INTEGER NOT NULL REFERENCES problems, units TEXT NOT NULL, drawn BLOB
);
CREATE INDEX slices_of_problem ON slices (problem);
CREATE TABLE verdicts (
    problem INTEGER NOT NULL REFERENCES problems, answer TEXT NOT NULL, verdict INTEGER, PRIMARY KEY (problem, answer)
) WITHOUT ROWID;
"""


REMEDY = "name another file, or delete it to begin anew"


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a slice added to its problem."""

    events: tuple[Event, ...]  # of its trace
    # of the tokens of every solution that it handed in, and the means of the most probable ones at their places
    logprobs: Mapping[Route, tuple[float, ...]]
    top_logprobs: Mapping[Route, tuple[float, ...]]
    usage: Usage  # of the problem, up to its end


@dataclass(frozen=True, slots=True)
class Stored:
    """What is known of a problem from earlier runs."""

    drawn: tuple[Drawn, ...]  # by its slices that ended, in order
    units: tuple[int, ...]  # what each of them spent
    lost: int  # most units that slices have spent of which nothing else is known
    closing: tuple[Event, ...] | None  # of its trace, after its last slice; None where it was not settled
    verdicts: Mapping[str, Verdict]  # of the caller's check, by answer

    @property
    def spent(self) -> int:
        """Units that it has cost."""
        return sum(self.units) + self.lost

    @property
    def events(self) -> tuple[Event, ...]:
        """Its trace so far."""
        return tuple(event for one in self.drawn for event in one.events) + (self.closing or ())

    @property
    def ending(self) -> Ending:
        """Why a settled problem got no more."""
        (done,) = (event for event in self.events if isinstance(event, DoneEvent))
        return Ending(Stopped(done.stopped), done.why)


class Checkpoint(Database):
    """The file of one call of ``solve_many``; one process at a time has it open.

    Raises:
        CheckpointError: the file is of something else, of another version, damaged, not writable, or in use.
    """

    application: ClassVar[int] = 0x41545452  # "ATTR"
    schema: ClassVar[int] = 2
    tables: ClassVar[str] = _TABLES
    wait: ClassVar[float] = 2.0
    error: ClassVar[type[CheckpointError]] = CheckpointError
    words: ClassVar[Mapping[str, str]] = {
        "locked": "wait for the run that writes to it, or see to its folder and disk",
        "damaged": f"no checkpoint, or is damaged: {REMEDY}",
        "version": "{path} is a checkpoint of schema {found}, and this version reads {schema}: finish that run with "
        "the version that began it, or name another file",
    }
    pragmas: ClassVar[tuple[str, ...]] = ("locking_mode = EXCLUSIVE", *Database.pragmas)

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        with self._transaction():  # takes the lock
            pass

    @property
    def spent(self) -> int:
        """Units that all runs so far have spent, or may have."""
        with self._errors():
            rows = self._db.execute("SELECT units FROM slices").fetchall()
        with self._reading():
            return sum(_units(units) for (units,) in rows)

    def claim(self, call: Mapping[str, str]) -> None:
        """Enter what is asked in a new file. CheckpointError: the file is of a call that asked for something else."""
        with self._transaction():
            before = dict(self._db.execute("SELECT name, value FROM call"))
            if not before:
                self._db.executemany("INSERT INTO call VALUES (?, ?)", call.items())
                return
        names = [name for name in {**call, **before} if call.get(name) != before.get(name)]
        if names:
            values = "; ".join(f"{name} was {_short(before.get(name))}, is {_short(call.get(name))}" for name in names)
            raise CheckpointError(
                f"{self.path} is the checkpoint of another call ({values}): make the same call again to go on with it, "
                "or name another file"
            )

    def enter(self, number: int, problem: Problem) -> Stored:
        """What is stored of the problem of this number, which is entered where it is new. CheckpointError: there it is
        another one.
        """
        digest = digest_of([problem])
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO problems VALUES (?, ?, NULL)", (number, digest))
            before, closing = self._db.execute(
                "SELECT digest, closing FROM problems WHERE number = ?", (number,)
            ).fetchone()
            rows = self._db.execute(
                "SELECT units, drawn FROM slices WHERE problem = ? ORDER BY id", (number,)
            ).fetchall()
            judged = self._db.execute("SELECT answer, verdict FROM verdicts WHERE problem = ?", (number,)).fetchall()
        if before != digest:
            raise CheckpointError(
                f"problem {number + 1} of {self.path} was another one: let the source bring the same problems in the "
                "same order, or name another file"
            )
        ended = [(units, drawn) for units, drawn in rows if drawn is not None]
        with self._reading():
            return Stored(
                drawn=tuple(_drawn(drawn) for _, drawn in ended),
                units=tuple(_units(units) for units, _ in ended),
                lost=sum(_units(units) for units, drawn in rows if drawn is None),
                closing=None if closing is None else tuple(_event(entry) for entry in _unpacked(closing)),
                verdicts={_text(answer): None if verdict is None else bool(verdict) for answer, verdict in judged},
            )

    def begin(self, number: int, units: int) -> int:
        """Enter, before it begins, a slice that may spend ``units``; returns its id."""
        with self._transaction():
            row = (number, str(units))
            return int(self._db.execute("INSERT INTO slices VALUES (NULL, ?, ?, NULL)", row).lastrowid or 0)

    def end(self, slice_id: int, spent: int, drawn: Drawn | None) -> None:
        """Enter what a slice spent, and what it added; None where that is lost."""
        blob = None
        if drawn is not None:
            logprobs = [[path, values, drawn.top_logprobs.get(path, ())] for path, values in drawn.logprobs.items()]
            blob = _packed([_as_data(drawn.events), logprobs, asdict(drawn.usage)])
        with self._transaction():
            self._db.execute("UPDATE slices SET units = ?, drawn = ? WHERE id = ?", (str(spent), blob, slice_id))

    def judge(self, number: int, answer: str, verdict: Verdict) -> None:
        """Enter what the caller's check said of an answer."""
        with self._transaction():
            row = (number, json.dumps(answer), verdict)
            self._db.execute("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?)", row)

    def settle(self, number: int, closing: Iterable[Event]) -> None:
        """Enter that nothing more will be done for a problem, with the rest of its trace."""
        with self._transaction():
            self._db.execute("UPDATE problems SET closing = ? WHERE number = ?", (_packed(_as_data(closing)), number))

    def _reading(self) -> AbstractContextManager[None]:
        return damage_told(self.path, CheckpointError, REMEDY)


def call_of(
    request: SolveRequest, resources: Resources, calibrated: Calibrated, problems: Sequence[Problem] | None
) -> dict[str, str]:
    """What makes two calls the same, by name; ``problems``: None where they are not known yet."""
    rule = getattr(calibrated.gain, "rule", None)
    made = calibrated.meta.get("digest") or (calibrated.table.source if rule is None else told(rule))
    asked = {name: getattr(request, name) for name in ("count", "seed", "min_gain", "max_rounds", "per_problem_max")}
    named = {
        "problems": "of a source" if problems is None else f"{len(problems)}, {digest_of(problems)}",
        "budget_tokens": request.budget,
        **asked,
        "options": request.strategy,
        "vote": request.vote,
        "policy": resources.policy.fingerprint,
        "prm": resources.prm and resources.prm.fingerprint,
        "verify": "none" if resources.verify is None else "given",
        "calibration": f"{type(calibrated.gain).__name__}, {made}",
    }
    if second_policy(resources.policy) is not None:
        named["second_weight"] = second_weight(resources.policy)
    if (space := resources.grader.space) != MATH:
        named["answers"] = space.name
    return {name: str(value) for name, value in named.items()}


def digest_of(problems: Iterable[Problem]) -> str:
    """A hash of ids, texts, and what answers are where problems say it, in order."""
    hashed = hashlib.sha256()
    for one in problems:
        told: list[Any] = [one.id, [[turn.role, turn.content] for turn in one.messages]]
        if one.answers is not None or one.tests:
            told += ["" if one.answers is None else space_of(one.answers).name, one.tests]
        hashed.update(json.dumps(told).encode() + b"\n")
    return hashed.hexdigest()[:32]


def _drawn(blob: bytes) -> Drawn:
    events, logprobs, usage = _unpacked(blob)
    found = {tuple(path): tuple(values) for path, values, *_ in logprobs}
    top = {tuple(path): tuple(values) for path, _, *more in logprobs for values in more}
    return checked(Drawn(tuple(map(_event, events)), found, top, checked(Usage(**usage))))


def _event(entry: dict[str, Any]) -> Event:
    return checked(event_of(entry))


def _text(value: str) -> str:
    text = json.loads(value)
    if not isinstance(text, str):
        raise ValueError(f"an answer is {text!r:.80}")
    return text


def _as_data(events: Iterable[Event]) -> list[dict[str, Any]]:
    return [event_as_data(event) for event in events]


def _packed(value: object) -> bytes:
    return zlib.compress(json.dumps(value, default=plain, separators=(",", ":")).encode(), 1)


def _unpacked(blob: bytes) -> Any:
    unpacking = zlib.decompressobj()
    text = unpacking.decompress(blob, SAMPLES)
    if not unpacking.eof:
        raise ValueError(f"an entry is cut off, or holds more than {SAMPLES:,} bytes")
    return json.loads(text)


def _units(text: str) -> int:
    units = int(text)
    if units < 0:
        raise ValueError(f"{units} units were spent")
    return units


def _short(text: str | None) -> str:
    text = text or "none"
    return text if len(text) <= 80 else f"{text[:38]}...{text[-38:]}"
