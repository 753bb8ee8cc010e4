"""Loads problems with their right answers: MiniMath, JSON Lines files, Hub data sets."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.errors import ConfigError, install_command, see
from adaptive_ttc.evaluation.dataset_rows import Gold, in_space, read_gold, row_of, with_letters_told
from adaptive_ttc.evaluation.dataset_rows import Row as Row
from adaptive_ttc.evaluation.dataset_rows import problem_of as problem_of
from adaptive_ttc.evaluation.dataset_rows import spaces_of as spaces_of
from adaptive_ttc.evaluation.traces import holds_traces, read_trace_files
from adaptive_ttc.files.bounded import PROBLEM, read_lines

if TYPE_CHECKING:
    from adaptive_ttc.mini.minimath import Split


MINIMATH: Mapping[str, tuple[Split, int]] = {
    "minimath-500": ("test", 500),
    "minimath-calibration": ("calibration", 2000),
    "minimath-train": ("train", 2000),
}
"""Name -> split and number of problems of the fixed set, whose seed is :data:`FIXED_SEED`."""

FIXED_SEED = 0

_HUB_NAME = re.compile(r"(?P<name>[\w-][\w.-]*/[\w.-]+)(?:/(?P<config>[\w.-]+))?(?::(?P<split>\w+))?")


def load_problems(
    name_or_path: str | Path,
    limit: int | None = None,
    seed: int | None = None,
    answers: str | None = None,
    *,
    gold: Gold = "needed",
) -> list[Row]:
    """Load the problems of a data set.

    Args:
        name_or_path: one of :data:`MINIMATH`, followed by ``:PAIR`` for the problems of another pair of mini models
            (``minimath-500:mini-b``); the path of a JSON Lines file with the keys ``problem`` and ``answer``, or of a
            file of traces (``docs/traces.md``); or a Hub data set with these columns, ``owner/name[/config][:split]``,
            whose split is ``test`` when none is named. Columns of GSM8K, MATH, AIME, MMLU and ARC are known
            (``docs/answers.md``).
        limit: at most so many problems, from the beginning.
        seed: of MiniMath: draws a fresh set of the same distribution and size (None is the fixed set); of other data
            sets: shuffles them before ``limit`` cuts.
        answers: the name of the answer space in which right answers are read; None: the data set's own, where its
            answers tell it, else ``math``.
        gold: ``optional`` takes rows of files and Hub data sets without a right answer.

    Raises:
        ConfigError: no such data set or answer space, a row without a problem or without a right answer (with its
            number), or no rows.
    """
    space_of(answers)
    if limit is not None and limit < 1:
        raise ConfigError(f"limit={limit} must be at least 1")
    name, _, pair = str(name_or_path).partition(":")
    if name in MINIMATH:
        return _minimath(name, pair or "mini", limit, seed, answers)
    rows = with_letters_told(list(islice(_other_rows(name_or_path, answers, gold), limit if seed is None else None)))
    if not rows:
        raise ConfigError(f"{name_or_path} holds no problems; give a file with one JSON object a line")
    if seed is not None:
        random.Random(seed).shuffle(rows)
    return rows[:limit]


def _minimath(name: str, pair: str, limit: int | None, seed: int | None, answers: str | None) -> list[Row]:
    """Problems of one of the :data:`MINIMATH` sets; fewer of them are the first of more."""
    from adaptive_ttc.mini.settings import PAIRS

    if pair not in PAIRS:
        raise ConfigError(f"no pair of mini models is called {pair!r}; known: {', '.join(PAIRS)}")
    split, size = MINIMATH[name]
    rows = PAIRS[pair].source.rows(split, min(size, limit or size), FIXED_SEED if seed is None else seed)
    return [_in_space(cast(Row, {**row}), answers, row["unique_id"]) for row in rows]


def _in_space(row: Row, answers: str | None, where: str) -> Row:
    """A row in this answer space, if one is given."""
    if answers is None:
        return row
    return in_space(row, answers, read_gold(row["answer"], space_of(answers), where))


def _other_rows(name_or_path: str | Path, answers: str | None, gold: Gold) -> Iterator[Row]:
    path = Path(name_or_path)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give a JSON Lines file")
    if path.is_file():
        return _trace_rows(path, answers) if holds_traces(path) else _file_rows(path, answers, gold)
    hub = _HUB_NAME.fullmatch(str(name_or_path))
    if hub is None or path.suffix in (".jsonl", ".json"):
        raise ConfigError(
            f"there is no file {path} and no data set of that name; give {', '.join(MINIMATH)}, "
            "the path of a JSON Lines file, or a Hub data set 'owner/name[/config][:split]'"
        )
    return _hub_rows(hub["name"], hub["config"], hub["split"] or "test", answers, gold)


def _trace_rows(path: Path, answers: str | None) -> Iterator[Row]:
    """The problems of traces, by the texts by which replays know them."""
    found = read_trace_files(path, space_of(answers))
    for text, one in zip(found.texts, found.problems, strict=True):
        right = (sample.answer for sample in one.samples if sample.correct and sample.answer)
        row = Row(problem=text, answer=one.gold or next(right, "not known"), unique_id=one.id)
        yield _in_space(row, answers, one.where) if one.gold else row


def _file_rows(path: Path, answers: str | None, gold: Gold) -> Iterator[Row]:
    try:
        lines = read_lines(path, PROBLEM, ConfigError, "give a JSON Lines file, one problem a line")
        for number, line in enumerate(lines, start=1):
            if line.strip():
                where = f"{path}, line {number}"
                yield row_of(_parsed(line, where), where, f"{path.stem}/{number}", answers, gold=gold)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text ({error}); give a JSON Lines file") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is not JSON ({error}); the file must hold one JSON object a line") from error


def _hub_rows(name: str, config: str | None, split: str, answers: str | None, gold: Gold) -> Iterator[Row]:
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigError(
            f"{name} is no local file, and the Hub is read with the 'datasets' library, which is not installed: "
            f"{install_command('datasets')} {see('answers.md#data-sets')}"
        ) from error
    try:
        loaded: Iterable[Any] = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the library raises errors of many kinds, its own, the Hub's and the network's
        raise ConfigError(
            f"the data set {name} (config {config or 'default'}, split {split}) cannot be loaded: "
            f"{type(error).__name__}: {error}; name another as 'owner/name[/config][:split]'"
        ) from error
    for number, entry in enumerate(loaded, start=1):
        yield row_of(entry, f"{name}, row {number}", f"{name}/{split}/{number}", answers, gold=gold)
