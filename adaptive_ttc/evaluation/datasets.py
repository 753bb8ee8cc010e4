"""Loads problems with their right answers: MiniMath, JSON Lines files, Hub data sets."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.traces import holds_traces, read_trace_files

if TYPE_CHECKING:
    from adaptive_ttc.mini.minimath import Split


class Row(TypedDict):
    """One problem, with MATH-500's columns; the first three are always there."""

    problem: str
    answer: str
    unique_id: str
    solution: NotRequired[str]
    subject: NotRequired[str]
    level: NotRequired[int]


MINIMATH: Mapping[str, tuple[Split, int]] = {
    "minimath-500": ("test", 500),
    "minimath-calibration": ("calibration", 2000),
    "minimath-train": ("train", 2000),
}
"""Name -> split and number of problems of the fixed set, whose seed is :data:`FIXED_SEED`."""

FIXED_SEED = 0

_HUB_NAME = re.compile(r"(?P<name>[\w-][\w.-]*/[\w.-]+)(?:/(?P<config>[\w.-]+))?(?::(?P<split>\w+))?")


def load_problems(name_or_path: str | Path, limit: int | None = None, seed: int | None = None) -> list[Row]:
    """Load the problems of a data set.

    Args:
        name_or_path: one of :data:`MINIMATH`, followed by ``:PAIR`` for the problems of another pair of mini models
            (``minimath-500:mini-b``); the path of a JSON Lines file with the keys ``problem`` and ``answer``, or of a
            file of traces (``docs/traces.md``); or a Hub data set with these columns, ``owner/name[/config][:split]``,
            whose split is ``test`` when none is named.
        limit: at most so many problems, from the beginning.
        seed: of MiniMath: draws a fresh set of the same distribution and size (None is the fixed set); of other data
            sets: shuffles them before ``limit`` cuts.

    Raises:
        ConfigError: no such data set, a row without a problem or an answer (with its number), or no rows.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit={limit} must be at least 1")
    name, _, pair = str(name_or_path).partition(":")
    if name in MINIMATH:
        return _minimath(name, pair or "mini", limit, seed)
    rows = list(islice(_other_rows(name_or_path), limit if seed is None else None))
    if not rows:
        raise ConfigError(f"{name_or_path} holds no problems; give a file with one JSON object a line")
    if seed is not None:
        random.Random(seed).shuffle(rows)
    return rows[:limit]


def _minimath(name: str, pair: str, limit: int | None, seed: int | None) -> list[Row]:
    """Problems of one of the :data:`MINIMATH` sets; fewer of them are the first of more."""
    from adaptive_ttc.mini.settings import PAIRS

    if pair not in PAIRS:
        raise ConfigError(f"no pair of mini models is called {pair!r}; known: {', '.join(PAIRS)}")
    split, size = MINIMATH[name]
    rows = PAIRS[pair].source.rows(split, min(size, limit or size), FIXED_SEED if seed is None else seed)
    return [Row(**row) for row in rows]


def _other_rows(name_or_path: str | Path) -> Iterator[Row]:
    path = Path(name_or_path)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give a JSON Lines file")
    if path.is_file():
        return _trace_rows(path) if holds_traces(path) else _file_rows(path)
    hub = _HUB_NAME.fullmatch(str(name_or_path))
    if hub is None or path.suffix in (".jsonl", ".json"):
        raise ConfigError(
            f"there is no file {path} and no data set of that name; give {', '.join(MINIMATH)}, "
            "the path of a JSON Lines file, or a Hub data set 'owner/name[/config][:split]'"
        )
    return _hub_rows(hub["name"], hub["config"], hub["split"] or "test")


def _trace_rows(path: Path) -> Iterator[Row]:
    """The problems of traces, by the texts by which replays know them."""
    found = read_trace_files(path)
    for text, one in zip(found.texts, found.problems, strict=True):
        right = (sample.answer for sample in one.samples if sample.correct and sample.answer)
        yield Row(problem=text, answer=one.gold or next(right, "not known"), unique_id=one.id)


def _file_rows(path: Path) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    where = f"{path}, line {number}"
                    yield _row(_parsed(line, where), where, f"{path.stem}/{number}")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text ({error}); give a JSON Lines file") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is not JSON ({error}); the file must hold one JSON object a line") from error


def _hub_rows(name: str, config: str | None, split: str) -> Iterator[Row]:
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigError(
            f"{name} is no local file, and the Hub is read with the 'datasets' library, which is not installed: "
            "pip install 'adaptive-ttc[datasets]'"
        ) from error
    try:
        loaded: Iterable[Any] = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the library raises errors of many kinds, its own, the Hub's and the network's
        raise ConfigError(
            f"the data set {name} (config {config or 'default'}, split {split}) cannot be loaded: "
            f"{type(error).__name__}: {error}; name another as 'owner/name[/config][:split]'"
        ) from error
    for number, entry in enumerate(loaded, start=1):
        yield _row(entry, f"{name}, row {number}", f"{name}/{split}/{number}")


def _row(entry: object, where: str, default_id: str) -> Row:
    """Check one entry; other columns are dropped, and so is a level without a number."""
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} is no JSON object with the keys 'problem' and 'answer'")
    row = Row(
        problem=_text(entry, "problem", where),
        answer=_text(entry, "answer", where),
        unique_id=str(entry.get("unique_id") or default_id),
    )
    if isinstance(entry.get("solution"), str):
        row["solution"] = entry["solution"]
    if isinstance(entry.get("subject"), str):
        row["subject"] = entry["subject"]
    if level := re.search(r"\d+", str(entry.get("level", ""))):
        row["level"] = int(level[0])
    return row


def _text(entry: Mapping[str, object], key: str, where: str) -> str:
    value = entry.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        found = f"its keys are {', '.join(map(str, entry))}" if key not in entry else f"its {key!r} is {value!r}"
        raise ConfigError(f"{where} has no {key!r} (a text that is not empty): {found}")
    return value
