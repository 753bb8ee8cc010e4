"""Graded samples from JSON Lines: labels of steps (TRL's stepwise supervision), or of whole solutions; no torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adaptive_ttc.answers.spaces.base import AnswerSpace, answer_in
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.files.bounded import PROBLEM, read_lines
from adaptive_ttc.types import join_steps, split_steps

_QUESTIONS = ("problem", "question", "prompt")
_TEXTS = ("text", "solution", "completion", "response")


@dataclass(frozen=True, slots=True)
class Graded:
    """One solution, or the beginning of one.

    Attributes:
        question: the problem's text.
        steps: shape [steps], none of them empty.
        labels: shape [steps]: how probably the solution is right so far, in [0, 1]; nan where that is not known.
        answer: the canonical final answer; None where there is none.
    """

    question: str
    steps: tuple[str, ...]
    labels: tuple[float, ...]
    answer: str | None

    @property
    def key(self) -> str:
        """Solutions of one key are of one problem."""
        return " ".join(self.question.split())

    @property
    def outcome(self) -> float:
        """The last step's label; nan where it is not known."""
        return self.labels[-1]

    def last_only(self) -> Graded:
        """The same without the labels of all steps but the last."""
        return replace(self, labels=(*[math.nan] * (len(self.labels) - 1), self.outcome))


@dataclass(frozen=True, slots=True)
class GradedData:
    """What files hold.

    Attributes:
        rows: in the order of the files.
        left_out: rows without a label.
        digest: SHA-256 of what was read.
    """

    rows: tuple[Graded, ...]
    left_out: int
    digest: str


def read_graded(paths: Sequence[str | Path], space: AnswerSpace) -> GradedData:
    """Read files, plain or gzip; a row's keys tell its format.

    A row with ``completions`` has the steps there and a bool, a number in [0, 1] or null a step in ``labels``. Another
    has ``steps`` or a text (``text``, ``solution``, ``completion``, ``response``) and ``correct``, which is put to
    every step. The problem is ``problem``, ``question`` or ``prompt``, a text or the messages of a chat, whose last
    turn of the user counts. A sample's final answer is read off its text, in the answer space.

    Raises:
        ConfigError: a file cannot be read, a row is of neither format, or the labels are all right or all wrong.
    """
    digest = hashlib.sha256()
    rows: list[Graded] = []
    left_out = 0
    for where, line in lines_of(paths):
        digest.update(line.encode())
        row = _graded(line, where, space)
        if row is None:
            left_out += 1
        else:
            rows.append(row)
    values = [label for row in rows for label in row.labels if not math.isnan(label)]
    if not values or min(values) > 0.5 or max(values) <= 0.5:
        found = "no label" if not values else f"only {'right' if min(values) > 0.5 else 'wrong'} ones"
        raise ConfigError(
            f"{', '.join(map(str, paths))} hold {len(rows)} samples with {found}; a verifier learns from right and "
            "wrong samples: draw more of them, at a higher temperature or of other problems"
        )
    return GradedData(tuple(rows), left_out, digest.hexdigest())


def by_problem(rows: Iterable[Graded]) -> dict[str, list[Graded]]:
    """The rows of every problem, in the order in which they come."""
    found: dict[str, list[Graded]] = {}
    for row in rows:
        found.setdefault(row.key, []).append(row)
    return found


def mixed(rows: Iterable[Graded]) -> bool:
    """Whether there are right and wrong outcomes among the rows."""
    return len({row.outcome > 0.5 for row in rows if not math.isnan(row.outcome)}) == 2


def held_out(rows: Sequence[Graded], share: float, seed: int) -> tuple[list[Graded], list[Graded]]:
    """Part the rows by problem: those to train on, and those of a share of the problems with right and wrong outcomes
    and of the same share of the others, at least one of either where there are two.

    ConfigError: all rows are of one problem.
    """
    problems = by_problem(rows)
    if len(problems) < 2:
        raise ConfigError("all samples are of one problem; a verifier is measured on others: bring more problems")
    apart: set[str] = set()
    for kind in (True, False):
        keys = [key for key, some in problems.items() if mixed(some) is kind]
        keys.sort(key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode()).digest())
        apart.update(keys[: min(len(keys) - 1, max(1, round(share * len(keys))))] if len(keys) > 1 else ())
    if not apart:  # one problem of either kind
        apart.add(min(problems))
    return [row for row in rows if row.key not in apart], [row for row in rows if row.key in apart]


def lines_of(paths: Sequence[str | Path]) -> Iterator[tuple[str, str]]:
    """Where each line of files stands, and the line, blank ones left out. ConfigError: a file cannot be read."""
    for path in paths:
        try:
            for number, line in enumerate(read_lines(path, PROBLEM, ConfigError, "split it", packed=True), start=1):
                if line.strip():
                    yield f"{path}, line {number}", line
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {path} ({error}); give JSON Lines, plain or gzip") from error


def row_of(line: str, fault: Callable[[str], ConfigError]) -> dict[str, Any]:
    """The JSON object in a line. Raises what ``fault`` makes of the words, where it is none."""
    try:
        entries = json.loads(line)
    except ValueError as error:
        raise fault(f"no JSON ({error})") from error
    if not isinstance(entries, dict):
        raise fault("a row is a JSON object")
    return entries


def _graded(line: str, where: str, space: AnswerSpace) -> Graded | None:
    """The sample in a line; None where it has no label."""

    def fault(what: str) -> ConfigError:
        return ConfigError(f"{where}: {what}; `adaptive-ttc export --format prm` or `rollouts` writes such files")

    entries = row_of(line, fault)
    question = _question(entries)
    if not question:
        raise fault(f"no text under {', '.join(_QUESTIONS)}")
    steps, labels = _stepwise(entries, fault) if "completions" in entries else _whole(entries, fault)
    kept = [(step, label) for step, label in zip(steps, labels, strict=True) if step.strip()]
    if not kept or all(math.isnan(label) for _, label in kept):
        return None
    answer = answer_in(space, join_steps([step for step, _ in kept]))
    return Graded(question, tuple(step.strip() for step, _ in kept), tuple(label for _, label in kept), answer)


def _question(entries: Mapping[str, Any]) -> str:
    for name in _QUESTIONS:
        value = entries.get(name)
        if isinstance(value, list):
            turns = [turn for turn in value if isinstance(turn, dict) and turn.get("role") == "user"]
            value = turns[-1].get("content") if turns else None
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def _stepwise(entries: Mapping[str, Any], fault: Callable[[str], ConfigError]) -> tuple[list[str], list[float]]:
    steps, labels = entries["completions"], entries.get("labels")
    if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
        raise fault("completions is a list of texts, one a step")
    if not isinstance(labels, list) or len(labels) != len(steps):
        raise fault("labels is a list with one label for each of the completions")
    return steps, [_label(label, fault) for label in labels]


def _whole(entries: Mapping[str, Any], fault: Callable[[str], ConfigError]) -> tuple[list[str], list[float]]:
    steps = entries.get("steps")
    if steps is None:
        text = next((entries[name] for name in _TEXTS if isinstance(entries.get(name), str)), None)
        steps = None if text is None else list(split_steps(text))
    if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
        raise fault(f"neither completions with labels, nor steps or {', '.join(_TEXTS)} with correct")
    if "correct" not in entries:
        raise fault("correct is missing")
    return steps, [_label(entries["correct"], fault)] * len(steps)


def _label(value: Any, fault: Callable[[str], ConfigError]) -> float:
    if value is None:
        return math.nan
    if not isinstance(value, bool | int | float) or not 0 <= value <= 1:
        raise fault(f"a label is true, false, null or a number from 0 to 1; got {value!r:.40}")
    return float(value)
