"""Reads best-of-N traces that another tool recorded, which hold texts and token counts but no token ids.

It knows one layout, that of crucible-ttc: ``meta`` (``dataset``, ``model``, ``prm``, ``prm_aggregate``,
``temperature``, ``max_tokens``, ``max_n``) and ``records`` of ``problem_id`` (``<dataset>-<row>``), ``gold`` and
``traces`` of ``text``, ``tokens``, ``prm_score``. What such a file does not say is made up or left open as follows:

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
import re
from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.datasets import Row, load_problems
from adaptive_ttc.policies.replay.record import Model, Record, RecordedProblem, RecordedSample, SampleSettings
from adaptive_ttc.types import Message

EOS = 0


def is_traces(content: Any) -> bool:
    """Whether a JSON document has the layout above."""
    return (
        isinstance(content, dict) and isinstance(content.get("meta"), dict) and isinstance(content.get("records"), list)
    )


def record_of_traces(content: dict[str, Any], file: Path, problems: str | Path | None = None) -> Record:
    """Make a record of them.

    Args:
        content: the document.
        file: where it was read, for messages and to find the problems beside it.
        problems: the data set whose rows the problem ids number.

    Raises:
        ConfigError: something is missing, or the data set does not fit.
    """
    meta = content["meta"]
    try:
        if meta["prm_aggregate"] != "mean":
            raise ConfigError(f"{file} holds scores reduced by {meta['prm_aggregate']!r}; only mean is read")
        rows = load_problems(problems or file.with_name(f"{meta['dataset']}.jsonl"))
        settings = SampleSettings(temperature=meta["temperature"], max_tokens=meta["max_tokens"])
        layout = _Layout(rows, meta["max_n"], settings.max_tokens)
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


class _Layout:
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
