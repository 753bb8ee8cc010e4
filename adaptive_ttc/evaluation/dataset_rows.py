"""One problem of a data set, with its right answer: which columns are read, and in which answer space."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

from adaptive_ttc.answers.spaces import phrases
from adaptive_ttc.answers.spaces.base import AnswerSpace
from adaptive_ttc.answers.spaces.mathematics import MATH
from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.types import Problem


class Row(TypedDict):
    """One problem, with MATH-500's columns; the first two are always there."""

    problem: str
    unique_id: str
    answer: NotRequired[str]  # the right one, as its answer space reads it; missing only where ``gold`` may be
    solution: NotRequired[str]
    subject: NotRequired[str]
    level: NotRequired[int]
    answers: NotRequired[str]  # the name of its answer space; missing: the solver's
    tests: NotRequired[str]  # that may be used while solving, for the space ``code``


PROBLEM, ANSWER, CHOICES = ("problem", "question", "prompt", "text"), ("answer", "answerkey"), ("choices", "options")
ID = ("unique_id", "id")
TESTS, PUBLIC_TESTS = ("tests", "test", "test_list"), ("public_tests",)
"""Names of columns, whatever their case; the first that is there counts."""

Gold = Literal["needed", "optional"]
"""Whether every row must have a right answer, or those that have none are solved and not graded."""

_LETTERS = "ABCDEFGHIJ"


def problem_of(row: Row) -> Problem:
    """The problem as the solver sees it."""
    return Problem.of(row["problem"], row["unique_id"], answers=row.get("answers"), tests=row.get("tests", ""))


def row_of(entry: object, where: str, default_id: str, answers: str | None = None, *, gold: Gold = "needed") -> Row:
    """Check one entry of a data set; other columns are dropped, and so is a level without a number.

    Its answer space is ``answers`` where that is given, ``choice`` where it lists choices, and ``number`` where its
    answer is GSM8K's ``... #### 72``. Without a column for the answer, the solution's own answer is taken, as in MATH.
    In the space ``code``, which only the caller names, the tests are the right answer. ``gold``: whether there must be
    a right answer.

    Raises:
        ConfigError: it has no problem, or no right answer in its space; ``where`` names it.
    """
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} is no JSON object with the keys 'problem' and 'answer'")
    columns = {str(key).lower(): key for key in reversed(list(entry))}
    problem = _text(entry, columns, PROBLEM, where)
    choices = _choices(next((entry[columns[name]] for name in CHOICES if name in columns), None))
    if choices:
        problem += "\n\n" + "\n".join(f"({letter}) {text}" for letter, text in zip(_LETTERS, choices, strict=False))
    named = answers or ("choice" if choices else None)
    if named is None and _is_code(columns):
        raise ConfigError(f"{where} has tests of programs: say answers='code' (--answers code) to have programs run")
    tests = _tests(entry, columns, TESTS) if named and space_of(named).tested else ""
    told = gold == "needed" or _has_gold(entry, columns)
    right = tests or (_gold(entry, columns, where) if told else "")
    named = named or _own_space(right)
    if right and choices and named == "choice":
        right = _letter(right, entry, columns, choices)
    ids = (str(value) for name in ID if (value := _value(entry, columns, name)) not in (None, ""))
    row = Row(problem=problem, unique_id=next(ids, default_id))
    if right:
        row["answer"] = read_gold(right, space_of(named), where)
    if isinstance(solution := _value(entry, columns, "solution"), str):
        row["solution"] = solution
    if isinstance(subject := _value(entry, columns, "subject"), str):
        row["subject"] = subject
    if level := re.search(r"\d+", str(_value(entry, columns, "level") or "")):
        row["level"] = int(level[0])
    if named is not None:
        row["answers"] = named
    if tests and (public := _tests(entry, columns, PUBLIC_TESTS)):
        row["tests"] = public
    return row


def read_gold(gold: str, space: AnswerSpace, where: str) -> str:
    """A right answer as its space reads it. ConfigError: there it is none; ``where`` names it."""
    try:
        return space.read_gold(gold)
    except ValueError as error:
        raise ConfigError(
            f"{where}: its right answer cannot be read in the space answers={space.name!r}: {error}; mend the row, or "
            "say what its answers are (answers=, --answers)"
        ) from error


def with_letters_told(rows: list[Row]) -> list[Row]:
    """The rows; of the space ``choice`` where all right answers are letters, of at least two kinds."""
    if any("answers" in row for row in rows):
        return rows
    try:
        letters = [space_of("choice").read_gold(row["answer"]) for row in rows if "answer" in row]
    except ValueError:
        return rows
    if len(set(letters)) < 2 or len(letters) < len(rows):
        return rows
    return [in_space(row, "choice", letter) for row, letter in zip(rows, letters, strict=True)]


def in_space(row: Row, answers: str, gold: str) -> Row:
    """The row with this answer space, and the right answer as it is there."""
    row = row.copy()
    row["answers"], row["answer"] = answers, gold
    return row


def spaces_of(rows: Iterable[Row]) -> frozenset[str | None]:
    """The answer spaces that rows name; None among them where one is read in the solver's own."""
    return frozenset(row.get("answers") for row in rows)


def space_named(rows: Iterable[Row], default: AnswerSpace) -> str:
    """The name of the one answer space that rows have, where they do not say, the ``default``; ConfigError: several."""
    names = sorted({space_of(row.get("answers"), default).name for row in rows})
    if len(names) > 1:
        raise ConfigError(f"these problems have answers of several spaces ({', '.join(names)}): name one (--answers)")
    return names[0] if names else default.name


def _value(entry: Mapping[Any, Any], columns: Mapping[str, Any], name: str) -> Any:
    return entry[columns[name]] if name in columns else None


def _text(entry: Mapping[Any, Any], columns: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    name = next((name for name in names if name in columns), None)
    value = None if name is None else entry[columns[name]]
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, float) and math.isfinite(value):
        value = str(int(value)) if value.is_integer() else repr(value)
    if not isinstance(value, str) or not value.strip():
        keys = f"its keys are {', '.join(map(str, entry))}"
        found = keys if name is None else f"its {columns[name]!r} is {value!r:.80}"
        raise ConfigError(f"{where} has no {names[0]!r} (a text that is not empty): {found}")
    return value


def _gold(entry: Mapping[Any, Any], columns: Mapping[str, Any], where: str) -> str:
    """The right answer as written, or the one of the solution."""
    solution = _value(entry, columns, "solution")
    if not any(name in columns for name in ANSWER) and isinstance(solution, str):
        found = MATH.extract(solution)
        if found is not None:
            return found
    return _text(entry, columns, ANSWER, where)


def _has_gold(entry: Mapping[Any, Any], columns: Mapping[str, Any]) -> bool:
    """Whether anything is told of the right answer, readable or not; an empty cell tells nothing."""
    if any(_value(entry, columns, name) not in (None, "") for name in ANSWER):
        return True
    solution = _value(entry, columns, "solution")
    return isinstance(solution, str) and MATH.extract(solution) is not None


def _is_code(columns: Mapping[str, Any]) -> bool:
    """Whether the tests are those of HumanEval or MBPP."""
    return "test_list" in columns or {"test", "entry_point"} <= columns.keys()


def _tests(entry: Mapping[Any, Any], columns: Mapping[str, Any], names: Sequence[str]) -> str:
    """Tests as one text, from a text or a list; HumanEval's ``check`` is called. Empty where there are none."""
    value = next((_value(entry, columns, name) for name in names if name in columns), None)
    text = "\n".join(map(str, value)) if isinstance(value, list | tuple) else str(value or "")
    if text and names is TESTS and (entry_point := _value(entry, columns, "entry_point")) and "def check(" in text:
        text += f"\ncheck({entry_point})"
    return text


def _own_space(gold: str) -> str | None:
    """``number`` for GSM8K's worked solutions; None where nothing tells."""
    span = phrases.hashes(gold)
    if span is None:
        return None
    try:
        space_of("number").read_gold(gold)
    except ValueError:
        return None
    return "number"


def _choices(value: Any) -> list[str]:
    """The texts of the choices, as a list or as ARC's ``{"text": [...], "label": [...]}``."""
    texts = value.get("text") if isinstance(value, Mapping) else value
    if not isinstance(texts, list | tuple) or not 2 <= len(texts) <= len(_LETTERS):
        return []
    return [str(text) for text in texts]


def _letter(gold: str, entry: Mapping[Any, Any], columns: Mapping[str, Any], choices: Sequence[str]) -> str:
    """The letter of the right choice from its label, text, or index (the first is 0, as in MMLU); else as written."""
    listed = next(entry[columns[name]] for name in CHOICES if name in columns)
    labels = [str(label) for label in listed.get("label", ())] if isinstance(listed, Mapping) else []
    for names in (labels, list(choices)):
        if gold in names:
            return _LETTERS[names.index(gold)]
    if gold.isdecimal() and int(gold) < len(choices):
        return _LETTERS[int(gold)]
    return gold
