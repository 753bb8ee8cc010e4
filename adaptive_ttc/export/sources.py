"""Where graded solutions come from: files of samples, or a run over a data set. Each brings problem after problem."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from adaptive_ttc.answers import Grader
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.datasets import Row, load_problems
from adaptive_ttc.evaluation.evaluate import names_of
from adaptive_ttc.evaluation.settled import holds_settled
from adaptive_ttc.evaluation.traces import TraceProblem, holds_traces, read_trace_files
from adaptive_ttc.export.file import read_export
from adaptive_ttc.export.samples import GradedProblem, GradedSample, normalised
from adaptive_ttc.files.typed import damage_told

_READER = "adaptive_ttc.calibration.collect.samples"
"""What reads stores and records, which are built on the core; imported when there is one to read."""

_SQLITE = b"SQLite format 3\x00"


class Source(Protocol):
    """Problems with graded solutions, one after the other.

    Attributes:
        size: how many problems it has.
        policy: the fingerprint of the model that wrote the solutions; empty where that is not known.
        system: the system prompt that it was asked with; empty for none, and where that is not known.
        spaces: the answer spaces that its problems name.
        told: what the data card says of it.
    """

    size: int
    policy: str
    system: str
    spaces: frozenset[str | None]
    told: dict[str, Any]

    def problems(self, grader: Grader) -> AsyncIterator[GradedProblem]:
        """The problems; what a source does not grade itself, the grader does."""


def open_source(path: str | Path, rows: Callable[[], Sequence[Row]] | None, grader: Grader) -> Source:
    """A file of samples: traces, what ``export --format rollouts`` wrote, a calibration's store, a Recorder's record.

    ``rows`` loads the problems with right answers, for files that hold none; None: the file's own data set.

    Raises:
        ConfigError: it is none of these, or needs a data set.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"there is no file {file}: name a store, traces, a record or what `export` wrote")
    with file.open("rb") as opened:
        store = opened.read(len(_SQLITE)) == _SQLITE
    if store:
        found: Source = import_module(_READER).StoreSource(file, rows)
        return found
    if holds_settled(file):
        raise ConfigError(
            f"{file} holds answers and no solutions: export from samples (docs/training.md), or draw them (--dataset)"
        )
    if holds_traces(file):
        return TraceSource(file, grader)
    if holds_rollouts(file):
        return RolloutSource(file)
    record: Source = import_module(_READER).RecordSource(file, rows)
    return record


class TraceSource:
    """Files of traces (``docs/traces.md``), which are read whole."""

    def __init__(self, path: Path, grader: Grader) -> None:
        self._found = read_trace_files(path, grader.space)
        self.size, self.policy = len(self._found.problems), ""
        self.system, self.spaces = "", frozenset[str | None]()
        self.told = {"traces": str(path), "fingerprint": self._found.fingerprint, "models": list(self._found.models)}

    async def problems(self, grader: Grader) -> AsyncIterator[GradedProblem]:
        """Problems without a question are left out as such that have no text."""
        for one in self._found.problems:
            yield await _of_trace(one, grader.for_problem())


async def _of_trace(problem: TraceProblem, grader: Grader) -> GradedProblem:
    samples = []
    for one in problem.samples:
        correct = one.correct
        if correct is None:
            correct = one.answer is not None and await grader.equal(problem.gold, one.answer)
        text, answer = one.text or "", one.answer
        samples.append(GradedSample(text=text, correct=correct, answer=answer, scores=one.scores, tokens=one.tokens))
    row = Row(problem=problem.question, unique_id=problem.id)
    right = problem.gold or next((one.answer for one in samples if one.correct and one.answer), "")
    if right:
        row["answer"] = right
    return GradedProblem(row=row, samples=tuple(samples))


def holds_rollouts(path: str | Path) -> bool:
    """Whether a file begins as those of ``export --format rollouts`` do."""
    try:
        first = next(read_export(path), {})
    except (ConfigError, UnicodeDecodeError):
        return False
    return {"id", "problem", "text", "correct", "token_ids"} <= first.keys()


class RolloutSource:
    """What ``export --format rollouts`` wrote, read problem by problem; its card tells who wrote the solutions."""

    def __init__(self, path: Path) -> None:
        self._path = path
        digest = hashlib.sha256()
        self.size, self.policy, self.system, last = 0, "", "", None
        spaces = set[str | None]()
        for line in read_export(path):
            digest.update(f"{line.get('id')}\x1f{line.get('text')}\x1f{line.get('correct')}\n".encode())
            self.policy = self.policy or str(line.get("policy") or "")
            self.system = self.system or str(line.get("system") or "")
            spaces.add(line.get("answers"))
            self.size += line.get("id") != last
            last = line.get("id")
        self.spaces = frozenset(spaces)
        self.told = {"rollouts": str(path), "fingerprint": digest.hexdigest()[:16]}

    async def problems(self, grader: Grader) -> AsyncIterator[GradedProblem]:
        """As they were graded."""
        with damage_told(self._path, ConfigError, "name the file that `export --format rollouts` wrote"):
            for _, lines in groupby(read_export(self._path), key=lambda line: line["id"]):
                yield _of_lines(lines)


def _of_lines(lines: Iterable[dict[str, Any]]) -> GradedProblem:
    samples, row = [], None
    for line in lines:
        if row is None:
            row = Row(problem=line["problem"], unique_id=line["id"])
            if line.get("gold"):
                row["answer"] = line["gold"]
            if line.get("answers"):
                row["answers"] = line["answers"]
        samples.append(
            GradedSample(
                text=line["text"],
                correct=line["correct"],
                answer=line["answer"],
                scores=tuple(line["scores"]),
                tokens=line["tokens"],
                token_ids=tuple(line["token_ids"]),
                finish=line["finish"],
                answer_at=line["answer_at"],
                thought=line["thought"],
            )
        )
    assert row is not None
    return GradedProblem(row=row, samples=tuple(samples))


@dataclass(frozen=True, slots=True)
class Excluded:
    """Problems that must not be exported, such as those of a test set, by digests of their texts."""

    digests: frozenset[bytes]

    @classmethod
    def of(cls, names: Iterable[str]) -> Excluded:
        """Those of files or data sets. ConfigError: one cannot be read."""
        return cls(frozenset(_digest(row["problem"]) for name in names for row in _rows(name)))

    def holds(self, row: Row) -> bool:
        """Whether a problem is among them: their texts are the same but for case, blanks and the look of characters."""
        return _digest(row["problem"]) in self.digests


def _rows(name: str) -> Iterator[Row]:
    yield from load_problems(name, gold="optional")


def _digest(text: str) -> bytes:
    return hashlib.sha256(normalised(text).casefold().encode("utf-8", "replace")).digest()[:16]


class SeveralSources:
    """Several sources as one; ids begin with the number of their source."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self.size = sum(one.size for one in sources)
        self.policy = _one_of((one.policy for one in sources), "several models")
        self.system = _one_of((one.system for one in sources), "")
        self.spaces = frozenset[str | None]().union(*(one.spaces for one in sources))
        self.told = {f"source {number}": one.told for number, one in enumerate(sources, start=1)}

    async def problems(self, grader: Grader) -> AsyncIterator[GradedProblem]:
        """Those of the first source first."""
        for number, source in enumerate(self._sources, start=1):
            async for problem in source.problems(grader):
                row = problem.row.copy()
                row["unique_id"] = f"{number}:{row['unique_id']}"
                yield replace(problem, row=row)


def _one_of(values: Iterable[str], otherwise: str) -> str:
    """The value that all have."""
    found = set(values)
    return found.pop() if len(found) == 1 else otherwise


def open_sources(paths: Sequence[str], rows: Callable[[], Sequence[Row]] | None, grader: Grader) -> Source:
    """One file of samples, or several; see :func:`open_source`."""
    if twice := sorted({path for path in paths if paths.count(path) > 1}):
        raise ConfigError(f"{twice[0]} is given twice: give it once")
    found = [open_source(path, rows, grader) for path in paths]
    return found[0] if len(found) == 1 else SeveralSources(found)


def named_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows, each with a name of its own."""
    named = [row.copy() for row in rows]
    for row, name in zip(named, names_of(rows), strict=True):
        row["unique_id"] = name
    return named


def rows_digest(rows: Iterable[Row]) -> str:
    """Changes with the problems' texts and right answers."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row['problem']}\x1f{row.get('answer')}\x1e".encode("utf-8", "replace"))
    return digest.hexdigest()[:16]
