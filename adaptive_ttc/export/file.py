"""The file of an export: lines are added problem by problem, and a run that was killed goes on from it.

Beside the file stands a journal, ``FILE.progress``: what was asked for, then an object for every problem that is done,
with the length of the file after its lines, and for every lease of a shared budget. A problem's lines are written
before its entry; lines without an entry are cut off when the run goes on, and the problem is done again. A lease that
no entry settles counts as spent, so that the budget holds whatever is killed.

Parquet cannot be added to: its lines are gathered in ``FILE.lines`` and rewritten at the end.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, Self

from adaptive_ttc.errors import ConfigError, install_command
from adaptive_ttc.evaluation.result_file import writable
from adaptive_ttc.evaluation.settled import AGAIN, differences, lock, write_whole
from adaptive_ttc.files.bounded import PROBLEM, read_lines

SCHEMA = 1
ROW_GROUP = 1000  # lines of a Parquet file that are in memory at once

Line = Mapping[str, Any]


class ExportFile:
    """A file of lines, open for those of more problems.

    Args:
        path: made where there is none; Parquet where it ends in ``.parquet``, else JSON Lines.
        run: what is asked for, as JSON has it.

    Attributes:
        done: ids of the problems that are done.
        counts: sums of what the problems' entries count.
        charged: units of a shared budget that are spent, or may be: those of leases that are open, or were cut off by a
            kill.
        complete: whether an earlier run had come to the end.

    Raises:
        ConfigError: it cannot be written, belongs to another run or to none, or another process writes to it.
    """

    def __init__(self, path: str | Path, run: Mapping[str, Any]) -> None:
        self.path = writable(path)
        self.parquet = self.path.suffix == ".parquet"
        if self.parquet:
            _pyarrow()
        self.lines_path = self.path.with_name(self.path.name + ".lines") if self.parquet else self.path
        self.journal_path = self.path.with_name(self.path.name + ".progress")
        self.done: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.charged = 0
        self.complete = False
        self._open_leases: dict[str, int] = {}
        self._run = json.loads(json.dumps(dict(run)))
        if self.path.exists() and not self.journal_path.exists():
            raise ConfigError(f"{self.path} is there, and was begun by no export: name another file with --out")
        with ExitStack() as stack:
            self._journal = stack.enter_context(self.journal_path.open("a+b", buffering=0))
            lock(self._journal, self.path)
            end = self._taken_up()
            self._lines = stack.enter_context(self.lines_path.open("ab", buffering=0))
            if not self.complete:
                self._cut(end)
            self._opened = stack.pop_all()

    def lease(self, id: str, units: int) -> None:
        """Set units of a shared budget aside for a problem, until :meth:`add` settles them."""
        self._note({"lease": id, "units": units})
        self._lease(id, units)

    def keep(self, id: str, units: int) -> None:
        """A problem was ended before its time: of its lease only what was spent stays charged."""
        self._note({"kept": id, "units": units})
        self._keep(id, units)

    def add(self, id: str, lines: Sequence[Line], counts: Mapping[str, int], spent: int = 0) -> None:
        """Write the lines of a problem; they are with the operating system when this returns.

        ``counts`` are added to :attr:`counts`; ``spent``: units of a shared budget, in place of those
        of the problem's lease.
        """
        text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
        write_whole(self._lines, text, self.path)
        entry = {"id": id, "end": self._lines.tell(), "counts": dict(counts), "spent": spent}
        self._note(entry)
        self._settle(entry)

    def finish(self) -> None:
        """All problems are done: make the Parquet file, where it is one."""
        if self.parquet and self.lines_path.exists():
            partial = self.path.with_name(self.path.name + ".partial")
            if _to_parquet(self.lines_path, partial):
                partial.replace(self.path)
        if not self.complete:
            self._note({"complete": True})
            self.complete = True
        if self.parquet:
            self.lines_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close it; again is fine."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _note(self, entry: Mapping[str, Any]) -> None:
        write_whole(self._journal, json.dumps(entry, ensure_ascii=False) + "\n", self.journal_path)

    def _lease(self, id: str, units: int) -> None:
        self._open_leases[id] = units  # one of a run that was killed stays charged
        self.charged += units

    def _keep(self, id: str, units: int) -> None:
        self.charged += units - self._open_leases.pop(id, units)

    def _settle(self, entry: Mapping[str, Any]) -> None:
        self.done.add(entry["id"])
        self.counts.update(entry["counts"])
        self.charged += entry["spent"] - self._open_leases.pop(entry["id"], 0)

    def _taken_up(self) -> int:
        """Read the journal, with a last entry that is not whole cut off; how long the file of lines is to be."""
        try:
            entries = list(_entries(self.journal_path))
        except (ValueError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.journal_path} is damaged ({error}): name another file with --out") from error
        if not entries:
            self._journal.truncate(0)
            self._note({"schema": SCHEMA, "run": self._run})
            return 0
        return self._read(entries)

    def _read(self, entries: Sequence[tuple[dict[str, Any], int]]) -> int:
        end, whole = 0, 0
        try:
            (head, whole), *rest = entries
            if head["schema"] != SCHEMA:
                raise ConfigError(f"{self.journal_path} is of schema {head['schema']}: name another file with --out")
            if not rest:  # nothing came of it: another run may begin
                self._journal.truncate(0)
                self._note({"schema": SCHEMA, "run": self._run})
                return 0
            if head["run"] != self._run:
                found = differences(head["run"], self._run)
                raise ConfigError(f"{self.path} was begun with other arguments ({found}): {AGAIN}")
            for entry, whole in rest:  # noqa: B007  the file is cut to it
                if "lease" in entry:
                    self._lease(entry["lease"], entry["units"])
                elif "kept" in entry:
                    self._keep(entry["kept"], entry["units"])
                elif "complete" in entry:
                    self.complete = True
                else:
                    self._settle(entry)
                    end = entry["end"]
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{self.journal_path} is no journal of an export: name another file") from error
        self._journal.truncate(whole)
        return end

    def _cut(self, end: int) -> None:
        """Cut the file of lines to what the journal knows of."""
        size = self.lines_path.stat().st_size
        if size < end:
            raise ConfigError(
                f"{self.lines_path} holds less than {self.journal_path} says: put it back, or name another file"
            )
        self._lines.truncate(end)


def _entries(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """The whole entries of a journal, each with where it ends."""
    end = 0
    for line in read_lines(path, PROBLEM, ConfigError, "name another file"):
        if not line.endswith("\n"):
            return  # a run was killed while it wrote this line
        end += len(line.encode("utf-8"))
        yield json.loads(line), end


def read_export(path: str | Path) -> Iterator[dict[str, Any]]:
    """The lines of a JSON Lines file, one by one. ConfigError: it holds something else."""
    remedy = "name the file that `export` wrote"
    for number, line in enumerate(read_lines(path, 4 * PROBLEM, ConfigError, remedy, packed=True), start=1):
        try:
            found = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{path}, line {number} is not JSON ({error}): {remedy}") from error
        if not isinstance(found, dict):
            raise ConfigError(f"{path}, line {number} is no object: {remedy}")
        yield found


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigError(
            f"Parquet is written with pyarrow, which is not installed: {install_command('datasets')}, or let the file "
            "end in .jsonl"
        ) from error
    return pyarrow


def _to_parquet(lines: Path, path: Path) -> bool:
    """Rewrite lines as Parquet, in groups; the columns' types are those of all of them. False: there are none."""
    pyarrow = _pyarrow()
    schema = None
    for table in _tables(lines, pyarrow, None):
        schema = (
            table.schema
            if schema is None
            else pyarrow.unify_schemas([schema, table.schema], promote_options="permissive")
        )
    if schema is None:
        return False
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for table in _tables(lines, pyarrow, schema):
            writer.write_table(table)
    return True


def _tables(lines: Path, pyarrow: Any, schema: Any) -> Iterator[Any]:
    found = read_export(lines)
    while group := list(islice(found, ROW_GROUP)):
        yield pyarrow.Table.from_pylist(group, schema=schema)
