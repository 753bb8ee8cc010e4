"""Writes a record as JSON Lines and reads it back; it answers no request.

The first line is an object with ``format``, ``version``, models, sampling settings; every other line is a
problem with its samples. Field names are those of :mod:`adaptive_ttc.policies.replay.record`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.result_file import writable
from adaptive_ttc.policies.replay.record import Model, Record, RecordedProblem, RecordedSample, SampleSettings
from adaptive_ttc.policies.replay.traces import is_traces, record_of_traces
from adaptive_ttc.types import Message

FORMAT = "adaptive_ttc.replay"
VERSION = 1

_LISTS = ("path", "token_ids", "ends", "logprobs", "scores", "prm_counts")


def save_record(record: Record, path: str | Path) -> None:
    """Write a record; an older file of that name is replaced, whole or not at all.

    Raises:
        ConfigError: the file cannot be written.
    """
    target = writable(path)
    partial = target.with_name(target.name + ".partial")
    with partial.open("w", encoding="utf-8") as lines:
        lines.write(_line(_header(record)))
        for problem in record.problems:
            lines.write(_line(asdict(problem)))
    partial.replace(target)


def load_record(path: str | Path, *, problems: str | Path | None = None) -> Record:
    """Read a record, or a file of traces (see :mod:`adaptive_ttc.policies.replay.traces`).

    Args:
        path: the file.
        problems: for a file of traces without the problems' texts, the data set that holds them; by default the
            JSON Lines file of the data set's name beside it.

    Raises:
        ConfigError: there is no such file, it is no record, of another version, or damaged (with the line).
    """
    file = Path(path)
    try:
        with file.open(encoding="utf-8") as lines:
            header = _parsed(lines.readline())
            if isinstance(header, dict) and header.get("format") == FORMAT:
                return _record(header, lines, file)
        content = _parsed(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read as a record: {error}; give the file that a Recorder saved") from error
    if is_traces(content):
        return record_of_traces(content, file, problems)
    raise ConfigError(f"{file} is no record: give a file that a Recorder saved, or one of recorded traces")


def _header(record: Record) -> dict[str, Any]:
    entries = {key: value for key, value in vars(record).items() if key != "problems"}
    models = {key: value and asdict(value) for key, value in entries.items() if key in ("policy", "prm", "settings")}
    return {"format": FORMAT, "version": VERSION, **entries, **models}


def _record(header: dict[str, Any], lines: Iterable[str], file: Path) -> Record:
    if header.get("version") != VERSION:
        raise ConfigError(f"{file} has version {header.get('version')!r}, this library reads {VERSION}; record it anew")
    number = 1
    try:
        problems = []
        for number, line in enumerate(lines, start=2):  # noqa: B007  the error names it
            if line.strip():
                problems.append(_problem(json.loads(line)))
        number = 1
        return Record(
            policy=Model(**header["policy"]),
            prm=None if header["prm"] is None else Model(**header["prm"]),
            settings=SampleSettings(**header["settings"]),
            problems=tuple(problems),
            **{key: header[key] for key in ("max_context", "detail", "counted", "left_out")},
        )
    except (KeyError, TypeError, ValueError) as error:  # ConfigError is a ValueError
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, ConfigError) else str(error)
        raise ConfigError(f"{file}, line {number} is damaged ({reason}); record it anew") from error


def _problem(entry: dict[str, Any]) -> RecordedProblem:
    return RecordedProblem(
        **{
            **entry,
            "messages": tuple(Message(**turn) for turn in entry["messages"]),
            "prompt_ids": tuple(entry["prompt_ids"]),
            "samples": tuple(
                RecordedSample(**{**sample, **{key: tuple(sample[key]) for key in _LISTS}})
                for sample in entry["samples"]
            ),
        }
    )


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
