"""Right solutions from JSON Lines: chats, prompts with completions, or problems with reference solutions; no torch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.training.graded import lines_of, row_of
from adaptive_ttc.types import Problem, join_steps

_WORKED = re.compile(r"<<[^<>]*>>")  # GSM8K's notes for a calculator
_FINAL = "####"

_REMEDY = "`adaptive-ttc export --format sft FILE` makes right solutions of samples"


@dataclass(frozen=True, slots=True)
class Solved:
    """A problem with a solution to learn.

    Attributes:
        problem: its chat up to where the solution begins.
        solution: its text.
    """

    problem: Problem
    solution: str

    @property
    def key(self) -> str:
        """Solutions of one key are of one problem."""
        return " ".join(self.problem.question.split())


@dataclass(frozen=True, slots=True)
class SolvedData:
    """What files hold.

    Attributes:
        rows: in the order of the files, each once.
        repeated: rows that were there before.
        digest: SHA-256 of what was read.
    """

    rows: tuple[Solved, ...]
    repeated: int
    digest: str


def read_solutions(paths: Sequence[str | Path]) -> SolvedData:
    """Read files, plain or gzip; a row's keys tell its format.

    ``messages`` is a chat that ends with the solution, as ``export --format sft`` writes it; ``prompt`` and
    ``completion`` are its two parts, texts or chats (TRL's prompt-completion). A row of a data set has ``problem`` or
    ``question`` and ``solution``, or GSM8K's ``answer``: its lines become steps, notes for a calculator go, and
    ``#### 42`` becomes a last step with ``\\boxed{42}``.

    Raises:
        ConfigError: a file cannot be read, or a row is of no such format.
    """
    digest = hashlib.sha256()
    found: dict[Solved, None] = {}
    number = 0
    for where, line in lines_of(paths):
        digest.update(line.encode())
        found.setdefault(_solved(line, where))
        number += 1
    if not found:
        raise ConfigError(f"{', '.join(map(str, paths))} hold no solutions; {_REMEDY}")
    return SolvedData(tuple(found), number - len(found), digest.hexdigest())


def held_out_solutions(rows: Sequence[Solved], share: float, seed: int) -> tuple[list[Solved], list[Solved]]:
    """Part the rows by problem: those to learn, and those of a share of the problems, at least one.

    ConfigError: all rows are of one problem.
    """
    keys = sorted({row.key for row in rows}, key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode()).digest())
    if len(keys) < 2:
        raise ConfigError("all solutions are of one problem; the loss is measured on others: bring more problems")
    apart = set(keys[: max(1, round(share * len(keys)))])
    return [row for row in rows if row.key not in apart], [row for row in rows if row.key in apart]


def _solved(line: str, where: str) -> Solved:
    def fault(what: str) -> ConfigError:
        return ConfigError(f"{where}: {what}; {_REMEDY}")

    entries = row_of(line, fault)
    problem, solution = _parts(entries, fault)
    if not isinstance(solution, str) or not solution.strip():
        raise fault("the solution is no text, or empty")
    try:
        return Solved(Problem.of(problem, id=""), solution.strip())
    except ConfigError as error:
        raise fault(str(error)) from error


def _parts(entries: Mapping[str, Any], fault: Callable[[str], ConfigError]) -> tuple[Any, Any]:
    """The problem, a text or a chat, and the solution of a row."""
    if "messages" in entries:
        return _chat(entries["messages"], fault)
    if "completion" in entries:
        return entries.get("prompt"), _said(entries["completion"])
    for name, what in _OTHERS.items():
        if name in entries:
            raise fault(f"a row with {name} is {what}, of which a policy is not fine-tuned")
    problem = next((entries[name] for name in ("problem", "question") if name in entries), None)
    if problem is None:
        raise fault("neither messages, prompt with completion, nor problem or question with a solution")
    if "solution" in entries:
        return problem, entries["solution"]
    answer = entries.get("answer")
    if not isinstance(answer, str) or _FINAL not in answer:
        raise fault("it has no solution, and no answer that ends in '#### 42', as GSM8K's do")
    return problem, reference_solution(answer)


_OTHERS = {
    "chosen": "a preference pair",
    "completions": "a solution with step labels",
    "labels": "a solution with step labels",
    "correct": "a sample, right or wrong",
}


def _chat(messages: Any, fault: Callable[[str], ConfigError]) -> tuple[Any, Any]:
    if not isinstance(messages, list) or len(messages) < 2:
        raise fault("messages is a chat that ends with the solution")
    last = messages[-1]
    if not isinstance(last, Mapping) or last.get("role") != "assistant":
        raise fault("the last of the messages is the assistant's, with the solution")
    return messages[:-1], last.get("content")


def _said(completion: Any) -> Any:
    """The text of a completion, which may be a chat of one turn."""
    if isinstance(completion, list) and len(completion) == 1 and isinstance(completion[0], Mapping):
        return completion[0].get("content")
    return completion


def reference_solution(answer: str) -> str:
    """GSM8K's ``answer`` as steps that end with a box."""
    work, _, final = answer.rpartition(_FINAL)
    steps = [" ".join(_WORKED.sub("", line).split()) for line in work.splitlines()]
    return join_steps([*filter(None, steps), f"The answer is $\\boxed{{{final.strip()}}}$."])
