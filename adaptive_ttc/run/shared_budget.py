"""One budget for problems that are solved in parts, each by a pool of its own, in any number of processes: a file.

It knows neither problems nor pools. A part leases units before it begins and settles with what it spent; what is leased
and not settled counts as spent, so that the budget holds whatever dies.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from adaptive_ttc.database import Database
from adaptive_ttc.errors import CheckpointError, ConfigError
from adaptive_ttc.files.typed import damage_told
from adaptive_ttc.types import whole

# Units are text: a budget of floating-point operations may be larger than what SQLite holds as a number.
_TABLES = """
CREATE TABLE budget (units TEXT NOT NULL, weights TEXT NOT NULL);
CREATE TABLE leases (part INTEGER PRIMARY KEY, units TEXT NOT NULL, checkpoint TEXT, spent TEXT);
"""


@dataclass(frozen=True, slots=True)
class _Lease:
    units: int
    checkpoint: str | None
    spent: int | None  # once it has settled

    @property
    def charged(self) -> int:
        """Units that nobody else can have."""
        return self.units if self.spent is None else self.spent


class SharedBudget(Database):
    """A budget that parts of one set of problems lease from, each the share that falls to it of what is then left.

    Any number of processes of one machine may have it open at once. Every process makes it with the same arguments::

        with SharedBudget("budget.db", 40_000_000, parts=64) as budget:
            units = budget.lease(part, checkpoint=f"part-{part}.db")
            pool = solver.solve_many(problems, budget_tokens=units, checkpoint=f"part-{part}.db")
            async for solution in pool:
                ...
            budget.settle(part, pool.spent)

    What the parts that have settled did not spend is shared by those that begin later: have more parts than processes.
    Parts should be alike, such as random ones of all problems, as no unit moves between two that run at once.

    Args:
        path: of the file, which is made where it is not there; ``:memory:`` for the parts of one process.
        units: the budget, in whatever unit the parts count; at least 0.
        parts: their number, or what each of them weighs beside the others, such as the number of its problems.

    Raises:
        ConfigError: units or weights are out of range.
        CheckpointError: the file holds another budget, is of something else, damaged, or cannot be written.
    """

    application: ClassVar[int] = 0x41545442  # "ATTB"
    schema: ClassVar[int] = 1
    tables: ClassVar[str] = _TABLES
    wait: ClassVar[float] = 10.0
    error: ClassVar[type[CheckpointError]] = CheckpointError
    words: ClassVar[Mapping[str, str]] = {
        "locked": "wait for the process that writes to it, or see to its folder and disk",
        "damaged": "no shared budget, or is damaged: name another file, or delete it to begin anew",
        "version": "{path} is a shared budget of schema {found}, and this version reads {schema}: name another file",
    }
    pragmas: ClassVar[tuple[str, ...]] = ("journal_mode = WAL", "synchronous = FULL")

    def __init__(self, path: str | Path, units: int, parts: int | Sequence[int]) -> None:
        self.units = whole("the budget", units)
        weights = [1] * parts if isinstance(parts, int) else [whole("a weight", one) for one in parts]
        if self.units < 0 or not weights or min(weights) < 1:
            raise ConfigError(
                f"a shared budget has at least 0 units and one part, of weight 1 or more; got {units} units"
            )
        self._weights = weights
        super().__init__(path)
        try:
            self._claim()
        except BaseException:
            self.close()
            raise

    @property
    def spent(self) -> int:
        """What parts have spent, or may have: those that have not settled count with all that they leased."""
        with self._errors():
            return sum(one.charged for one in self._leases().values())

    @property
    def left(self) -> int:
        """Units for parts that have not begun; once all have, nobody's."""
        return self.units - self.spent

    def lease(self, part: int, checkpoint: str | Path | None = None) -> int:
        """Units for a part, from 0 on: of what is left, its share by weight among the parts that have not begun.

        A part that has begun and not settled gets the same again, where it goes on from the same ``checkpoint``, the
        file of its ``solve_many``: that knows what was spent. It is known by its place beside the budget's file, so
        that both may be moved together, and a file of its name in another folder is another one.

        Raises:
            ConfigError: there is no such part, it has settled, or it has begun without that checkpoint; or that is no
                file, such as ``:memory:``.
        """
        self._check(part)
        file = None if checkpoint is None else self._beside(checkpoint)
        with self._transaction():
            begun = self._leases()
            if part in begun:
                return self._again(part, begun[part], file)
            left = self.units - sum(one.charged for one in begun.values())
            waiting = sum(weight for number, weight in enumerate(self._weights) if number not in begun)
            units = left * self._weights[part] // waiting
            self._db.execute("INSERT INTO leases VALUES (?, ?, ?, NULL)", (part, str(units), file))
            return units

    def settle(self, part: int, spent: int) -> None:
        """Say what a part has spent in all; the rest of its lease is left for others.

        ConfigError: there is no such part, it has leased nothing or less, or it has settled.
        """
        self._check(part)
        spent = whole("what a part has spent", spent)
        with self._transaction():
            lease = self._leases().get(part)
            if lease is None or lease.spent is not None:
                raise ConfigError(f"part {part} of {self.path} has {'settled already' if lease else 'leased nothing'}")
            if not 0 <= spent <= lease.units:
                raise ConfigError(
                    f"part {part} of {self.path} has leased {lease.units:,} units: it cannot have spent {spent:,}"
                )
            self._db.execute("UPDATE leases SET spent = ? WHERE part = ?", (str(spent), part))

    def _again(self, part: int, lease: _Lease, file: str | None) -> int:
        if lease.spent is not None:
            raise ConfigError(f"part {part} of {self.path} has settled: it gets nothing more")
        if file is None or file != lease.checkpoint:
            remedy = f"give its checkpoint, {lease.checkpoint}" if lease.checkpoint else "lease with a checkpoint"
            raise ConfigError(
                f"part {part} of {self.path} has begun, and may have spent its {lease.units:,} units; to go on with "
                f"parts that were cut off, {remedy}"
            )
        return lease.units

    def _beside(self, checkpoint: str | Path) -> str:
        """The place of a file, seen from the folder of the budget's."""
        if str(checkpoint) in ("", ":memory:"):
            raise ConfigError(f"checkpoint={str(checkpoint)!r} is no file, and forgets what was spent: name one")
        try:
            return Path(os.path.relpath(checkpoint, self.path.parent)).as_posix()
        except ValueError:  # on another drive
            return str(Path(checkpoint).absolute())

    def _leases(self) -> dict[int, _Lease]:
        """By part."""
        rows = self._db.execute("SELECT part, units, checkpoint, spent FROM leases").fetchall()
        with damage_told(self.path, CheckpointError, self.words["damaged"]):
            return {
                int(part): _Lease(int(units), checkpoint, None if spent is None else int(spent))
                for part, units, checkpoint, spent in rows
            }

    def _check(self, part: int) -> None:
        if not 0 <= part < len(self._weights):
            raise ConfigError(f"{self.path} has the parts 0 to {len(self._weights) - 1}; there is no part {part}")

    def _claim(self) -> None:
        """Enter the budget in a new file."""
        asked = (str(self.units), " ".join(map(str, self._weights)))
        with self._transaction():
            row = self._db.execute("SELECT units, weights FROM budget").fetchone()
            if row is None:
                self._db.execute("INSERT INTO budget VALUES (?, ?)", asked)
            elif tuple(row) != asked:
                parts = len(str(row[1]).split())
                raise CheckpointError(
                    f"{self.path} is a budget of {row[0]} units in {parts} parts, which weigh what they did then: give "
                    "the same ones, or name another file"
                )
