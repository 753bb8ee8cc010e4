"""What became of each problem, a JSON line each as it settles, in a file from which the same run goes on.

A line is one object, with the keys of :class:`Settled` (``docs/batch.md``), ``schema`` and ``run``, which tells what
was asked for. It is written whole and at once, so that a run that is killed loses at most the line under way.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any, Self

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.evaluate import Outcome
from adaptive_ttc.evaluation.metrics import interval
from adaptive_ttc.evaluation.result_file import writable
from adaptive_ttc.events import DoneEvent
from adaptive_ttc.files.bounded import PROBLEM, read_lines
from adaptive_ttc.solution import Solution
from adaptive_ttc.types import Stopped, Usage

SCHEMA = 1

_BEGINNING = f'{{"schema": {SCHEMA}, "id": '  # of every line
_WRITTEN_BY = "`solve --dataset` and `eval` write such files with --out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of one problem.

    Attributes:
        id: of the problem, unique in its file.
        problem: its text.
        answer: or None where there is none.
        gold: the right answer; None where the data set tells none.
        correct: whether the answer is right; None without ``gold``.
        confidence: as :attr:`~adaptive_ttc.solution.Solution.confidence`.
        strategy: what was run.
        stopped: why it got no more work, see :class:`~adaptive_ttc.types.Stopped`; ``why`` says it in words.
        error: what ended it early, or None.
        spent: what the budget was charged; of ``budget``, the problem's own, or None.
        tokens: ``generated`` (``thinking`` among them), ``prompt`` (cached ones too), ``prm`` (read or written).
        flops: of both models.
        candidates: solutions that were handed in; ``effective_n`` of them vote. None where solving failed.
        seconds: that it took.
    """

    id: str
    problem: str
    answer: str | None = None
    gold: str | None = None
    correct: bool | None = None
    confidence: float | None = None
    strategy: str | None = None
    stopped: str
    why: str
    error: str | None = None
    spent: int = 0
    budget: int | None = None
    tokens: Mapping[str, int]
    flops: float = 0.0
    candidates: int | None = None
    effective_n: int | None = None
    seconds: float = 0.0

    @classmethod
    def of(cls, outcome: Outcome, id: str) -> Self:
        """What became of a problem of that name."""
        row, solution, error = outcome.row, outcome.solution, outcome.error
        known: dict[str, Any] = {"id": id, "problem": row["problem"], "gold": row.get("answer")}
        known |= {"correct": outcome.correct, "error": error and f"{type(error).__name__}: {error}"}
        if solution is None:
            known |= _cost_of(None if error is None else error.solution)
            return cls(**known, stopped=Stopped.FAILED.value, why=f"it failed: {error}")
        done = solution.trace.last(DoneEvent)
        return cls(
            **known,
            **_cost_of(solution),
            answer=solution.answer,
            confidence=solution.confidence,
            strategy=solution.strategy.name,
            stopped=solution.stopped.value,
            why=done.why if done else solution.stopped.value,
            candidates=len(solution.candidates),
            effective_n=solution.effective_n,
        )

    def line(self, run: Mapping[str, Any]) -> str:
        """Its line in a file, of a run that was asked for so."""
        return json.dumps({"schema": SCHEMA, **asdict(self), "run": run}, ensure_ascii=False) + "\n"


def _cost_of(solution: Solution | None) -> dict[str, Any]:
    """What was computed and charged for it, also where it came to nothing."""
    usage = Usage() if solution is None else solution.usage
    tokens = {
        "generated": usage.completion_tokens,
        "thinking": usage.thinking_tokens,
        "prompt": usage.prompt_tokens + usage.cached_prompt_tokens,
        "prm": usage.prm_tokens,
    }
    charged = {} if solution is None else {"spent": solution.spent, "budget": solution.budget}
    return {**charged, "tokens": tokens, "flops": usage.flops, "seconds": round(usage.wall_time, 3)}


_KINDS: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "Mapping[str, int]": (dict,),
}


class SettledFile:
    """A file of settled problems, open for more of them.

    Those that it holds, but for failed ones, which are tried again, are in :attr:`settled`, by id. A line that was
    under way when a run was killed is dropped.

    Args:
        path: made where there is none.
        run: what is asked for, as JSON has it.

    Raises:
        ConfigError: it cannot be written, holds something else or the problems of another run, or another process
            writes to it.
    """

    def __init__(self, path: str | Path, run: Mapping[str, Any]) -> None:
        self.path, self._run = writable(path), json.loads(json.dumps(dict(run)))
        self._file = self.path.open("a+b", buffering=0)
        try:
            lock(self._file, self.path)
            if not os.path.samestat(os.fstat(self._file.fileno()), self.path.stat()):
                raise _in_use(self.path)  # it has put a new file in the place of the one that was opened here
            self.settled = self._taken_up()
        except BaseException:
            self._file.close()
            raise

    def write(self, one: Settled) -> None:
        """Add a problem; its line is with the operating system when this returns. ConfigError: that takes no more."""
        write_whole(self._file, one.line(self._run), self.path)
        self.settled[one.id] = one

    def close(self) -> None:
        """Close it; again is fine."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _taken_up(self) -> dict[str, Settled]:
        """What is there, with the file cut to it."""
        found = read_settled(self.path)
        for _, run in found:
            if run != self._run:
                raise ConfigError(
                    f"{self.path} was begun with other arguments ({differences(run, self._run)}): {AGAIN}"
                )
        kept = [(one, run) for one, run in found if one.error is None]
        text = "".join(one.line(run) for one, run in kept).encode("utf-8", "replace")
        if len(text) != self.path.stat().st_size:
            partial = self.path.with_name(self.path.name + ".partial")
            partial.write_bytes(text)
            replacement = partial.open("a+b", buffering=0)
            lock(replacement, self.path)
            partial.replace(self.path)
            self._file.close()
            self._file = replacement
        return {one.id: one for one, _ in kept}


AGAIN = "give those again to go on, or name another file with --out"


def read_settled(path: str | Path) -> list[tuple[Settled, dict[str, Any]]]:
    """The problems of a file in their order, each with what its run was asked for.

    A last line that is not whole is left out.

    Raises:
        ConfigError: it holds something else, or is of a later version.
        OSError: it cannot be read.
    """
    found = []
    try:
        for number, line in enumerate(read_lines(path, 2 * PROBLEM, ConfigError, "name another file"), start=1):
            if not line.endswith("\n") and (line.startswith(_BEGINNING) or _BEGINNING.startswith(line)):
                break  # a run was killed while it wrote this line
            found.append(_parsed(line, f"{path}, line {number}"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} holds no settled problems ({error}); {_WRITTEN_BY}") from error
    return found


def holds_settled(path: str | Path) -> bool:
    """Whether a file begins as those of settled problems do."""
    with Path(path).open("rb") as file:
        return file.read(len(_BEGINNING)) == _BEGINNING.encode()


def _parsed(line: str, where: str) -> tuple[Settled, dict[str, Any]]:
    try:
        entry = json.loads(line)
        schema, run = entry.pop("schema"), entry.pop("run")
        one = Settled(**entry) if schema == SCHEMA else None
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{where} is no settled problem ({str(error)[:80]}); {_WRITTEN_BY}: name another file"
        ) from error
    if one is None:
        raise ConfigError(f"{where} is of schema {schema}, and this version reads {SCHEMA}: name another file")
    wrong = [part.name for part in fields(Settled) if not _fits(getattr(one, part.name), str(part.type))]
    if wrong or not isinstance(run, dict):
        raise ConfigError(
            f"{where} is no settled problem: its {(wrong or ['run'])[0]} is of another kind: {_WRITTEN_BY}"
        )
    return one, run


def _fits(value: Any, kind: str) -> bool:
    """Whether a value of JSON is of the kind that its field is declared to be."""
    kind, _, none = kind.partition(" | ")
    if value is None:
        return bool(none)
    if isinstance(value, bool) != (kind == "bool") or not isinstance(value, _KINDS[kind]):
        return False
    if isinstance(value, dict):
        return all(type(number) is int for number in value.values()) and {"generated", "prm"} <= value.keys()
    return not isinstance(value, float) or math.isfinite(value)


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What was asked for otherwise by an earlier run than now, in words."""
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    return ", ".join(f"{name} {there.get(name)!r} there and {here.get(name)!r} here" for name in names)


def lock(file: IO[bytes], path: Path) -> None:
    """Keep other processes from writing to what ``path`` names while this file is open. ConfigError: one does."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise _in_use(path) from error


def write_whole(file: IO[bytes], text: str, path: Path) -> None:
    """Add a text to ``path``, a file without a buffer, of which a full disk may take a part. ConfigError: it did."""
    left = memoryview(text.encode("utf-8", "replace"))
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise ConfigError(
            f"{path} takes no more lines ({error.strerror or error}): make room; the same command goes on"
        ) from error


def _in_use(path: Path) -> ConfigError:
    return ConfigError(f"another process writes to {path}: wait for it, or name another file with --out")


def figures_of(settled: Sequence[Settled], asked: int, wall_time: float) -> dict[str, Any]:
    """What came of ``asked`` problems, in numbers (``eval --help`` lists them); means of no problems are None."""
    solved = [one for one in settled if one.candidates is not None]
    graded = [one.correct for one in settled if one.correct is not None]
    accuracy = interval(graded) if graded else None

    def total(name: str) -> int:
        return sum(one.tokens.get(name, 0) for one in settled)

    def mean(values: Iterable[int | None]) -> float | None:
        return sum(value or 0 for value in values) / len(solved) if solved else None

    return {
        "accuracy": accuracy and accuracy.mean,
        "accuracy_low": accuracy and accuracy.low,
        "accuracy_high": accuracy and accuracy.high,
        "problems": len(settled),
        "graded": len(graded),
        "failed": sum(one.error is not None for one in settled),
        "unfinished": asked - len(settled),
        "unanswered": sum(one.answer is None for one in solved),
        "generated_tokens": total("generated"),
        **({"thinking_tokens": total("thinking")} if total("thinking") else {}),
        "prm_tokens": total("prm"),
        "flops": sum(one.flops for one in settled),
        "generated_tokens_per_problem": mean(one.tokens["generated"] for one in solved),
        "candidates": mean(one.candidates for one in solved),
        "effective_n": mean(one.effective_n for one in solved),
        "wall_time": wall_time,
        "overspent": sum(one.budget is not None and one.spent > one.budget for one in settled),
        "correct": [None if one.correct is None else int(one.correct) for one in settled],
        "tokens": [one.tokens["generated"] for one in settled],
    }
