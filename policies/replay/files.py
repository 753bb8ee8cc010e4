"""Writes a record as JSON Lines and reads it back; reads best-of-N traces that another tool recorded.

The first line of a record is an object with ``format``, ``version``, models, sampling settings; every other line is a
problem with its samples. Field names are those of :mod:`adaptive_ttc.policies.replay.record`.

Traces hold texts and token counts but no token ids. One layout is known, that of crucible-ttc: ``meta`` (``dataset``,
``model``, ``prm``, ``prm_aggregate``, ``temperature``, ``max_tokens``, ``max_n``) and ``records`` of ``problem_id``
(``<dataset>-<row>``), ``gold`` and ``traces`` of ``text``, ``tokens``, ``prm_score``. What such a file does not say is
made up or left open as follows:

- Token ids are placeholders, one for every token counted, unique in the file, and the same however many problems
  the file holds. The text is dealt to a solution's tokens in equal parts of characters. 0 is the EOS.
- A solution with ``max_tokens`` tokens was cut. Any other ended by itself, and its last token is the EOS.
- A prompt is one placeholder token; prompt and PRM tokens are not known and reported as 0, so that no budget in
  FLOPs or PRM tokens can be held with it.
- Parameters are the billions that a model's name states, else 0.
- The nucleus is taken to be the whole distribution.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.datasets import Row, load_problems
from adaptive_ttc.evaluation.result_file import writable
from adaptive_ttc.policies.replay.record import Model, Record, RecordedProblem, RecordedSample, SampleSettings
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
    """Read a record, or a file of traces (see above).

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
    if _is_traces(content):
        return _record_of_traces(content, file, problems)
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


EOS = 0


def _is_traces(content: Any) -> bool:
    """Whether a JSON document has the layout above."""
    return (
        isinstance(content, dict) and isinstance(content.get("meta"), dict) and isinstance(content.get("records"), list)
    )


def _record_of_traces(content: dict[str, Any], file: Path, problems: str | Path | None = None) -> Record:
    """Make a record of traces; ConfigError where something is missing, or the data set does not fit."""
    meta = content["meta"]
    try:
        if meta["prm_aggregate"] != "mean":
            raise ConfigError(f"{file} holds scores reduced by {meta['prm_aggregate']!r}; only mean is read")
        rows = load_problems(problems or file.with_name(f"{meta['dataset']}.jsonl"))
        settings = SampleSettings(temperature=meta["temperature"], max_tokens=meta["max_tokens"])
        layout = _TraceLayout(rows, meta["max_n"], settings.max_tokens)
        return Record(
            policy=_model(meta["model"], meta),
            prm=_model(meta["prm"], meta),
            settings=settings,
            max_context=1 + settings.max_tokens,
            problems=tuple(layout.problem(entry) for entry in content["records"]),
            detail="mean",
            counted=False,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file} is no file of traces: {type(error).__name__}: {error}") from error


class _TraceLayout:
    """Where everything has its placeholder ids: prompts first, then ``max_tokens`` ids for each possible sample."""

    def __init__(self, rows: list[Row], max_n: int, max_tokens: int) -> None:
        self._rows, self._max_n, self._max_tokens = rows, max_n, max_tokens

    def problem(self, entry: dict[str, Any]) -> RecordedProblem:
        number = int(entry["problem_id"].rpartition("-")[2])
        if number >= len(self._rows) or self._rows[number]["answer"] != entry["gold"]:
            raise ConfigError(
                f"{entry['problem_id']} was recorded with the answer {entry['gold']!r}, which is not that of row "
                f"{number} of the data set; give the one that was recorded as problems=..."
            )
        return RecordedProblem(
            id=entry["problem_id"],
            messages=(Message("user", self._rows[number]["problem"]),),
            prompt_ids=(1 + number,),
            samples=tuple(self._sample(number, index, trace) for index, trace in enumerate(entry["traces"])),
        )

    def _sample(self, number: int, index: int, trace: dict[str, Any]) -> RecordedSample:
        tokens, text = trace["tokens"], trace["text"]
        cut = tokens >= self._max_tokens
        spoken = tokens if cut else tokens - 1
        first = 1 + len(self._rows) + (number * self._max_n + index) * self._max_tokens
        ends = tuple(len(text) * k // spoken for k in range(1, spoken + 1)) if spoken else ()
        return RecordedSample(
            path=(index,),
            token_ids=tuple(range(first, first + spoken)) + (() if cut else (EOS,)),
            text=text,
            ends=ends if cut else (*ends, len(text)),
            finish="length" if cut else "eos",
            scores=(trace["prm_score"],),
        )


def _model(name: str, meta: dict[str, Any]) -> Model:
    billions = re.findall(r"(?i)(?<![\d.])(\d+(?:\.\d+)?)b(?![a-z])", name)
    stated = round(float(billions[-1]) * 1e9) if billions else 0
    digest = hashlib.sha256(repr(sorted(meta.items())).encode()).hexdigest()
    return Model(name=name, fingerprint=f"traces:{name}:{digest[:16]}", parameters=stated)
