"""A SQLite file that survives a kill at any moment: opened, made or refused, with its errors in this library's terms.

It knows nothing of what is kept in it. With a write-ahead log a transaction is there whole or not at all.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

from adaptive_ttc.errors import AdaptiveTTCError


class Database:
    """A file of one kind, which a subclass describes; ``:memory:`` keeps everything in memory.

    Raises:
        error: of the subclass: the file is of something else, of another version, damaged, or stays locked.
    """

    application: ClassVar[int]  # SQLite's application_id of such files
    schema: ClassVar[int]
    tables: ClassVar[str]  # SQL that makes them
    wait: ClassVar[float]  # seconds that a writer waits for another's transaction
    error: ClassVar[type[AdaptiveTTCError]]  # what is raised
    # ends of messages, of the keys ``locked``, ``damaged``, ``version`` (with ``{path}``, ``{found}``, ``{schema}``)
    words: ClassVar[Mapping[str, str]]
    pragmas: ClassVar[tuple[str, ...]] = (
        "journal_mode = WAL",
        "synchronous = NORMAL",  # survives the death of a process; after that of the machine, last commits are missing
    )

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with self._errors():
            self._db = sqlite3.connect(path, timeout=self.wait, isolation_level=None)
        try:
            with self._errors():
                self._open()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; again is fine."""
        self._db.close()

    def _open(self) -> None:
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        if application != self.application:
            self._make()
        # a view in place of a table could have any number of rows, and a trigger could change any
        kinds = "type IN ('view', 'trigger') OR sql LIKE 'CREATE VIRTUAL%'"
        if found := self._db.execute(f"SELECT name FROM sqlite_master WHERE {kinds}").fetchone():
            raise self.error(f"{self.path} is {self.words['damaged']} ({found[0]!r} is no table of its own)")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version != self.schema:
            raise self.error(self.words["version"].format(path=self.path, found=version, schema=self.schema))
        for pragma in self.pragmas:
            self._db.execute(f"PRAGMA {pragma}")

    def _make(self) -> None:
        """Make the tables in an empty file; of several processes that try, one succeeds."""
        with self._transaction():
            if self._db.execute("PRAGMA application_id").fetchone()[0] == self.application:
                return
            if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise self.error(f"{self.path} is a database of something else; name another file")
            for statement in self.tables.split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id = {self.application}")
            self._db.execute(f"PRAGMA user_version = {self.schema}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise self.error(f"{self.path} cannot be used ({error}): {self.words['locked']}") from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # SQLite quotes what it stumbles over
            raise self.error(f"{self.path} is {self.words['damaged']} ({error})") from error
