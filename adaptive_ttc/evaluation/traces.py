"""Reads traces: samples that any model once wrote for problems with known answers, one JSON object a problem.

``docs/traces.md`` describes the format. Nothing is graded here: answers are as written, or extracted from texts.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adaptive_ttc.answers.spaces.base import AnswerSpace, answer_in
from adaptive_ttc.answers.spaces.mathematics import MATH
from adaptive_ttc.answers.thinking import after_thought
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.files.bounded import SAMPLES, read_lines, read_whole
from adaptive_ttc.files.typed import damage_told

CHARS_PER_TOKEN = 3
"""Characters that a token is taken for where tokens were not counted; solutions of mathematics have 2.9 to 3.3."""

MOST_TOKENS = 2**24
"""Tokens of one sample at most: far above any model's, far below what fills a machine."""

NAN = math.nan
_SMALLER = "give several smaller files of traces"


@dataclass(frozen=True, slots=True)
class TraceSample:
    """One solution."""

    answer: str | None  # in canonical form; None where it holds no answer
    text: str | None  # None where only the answer was kept
    tokens: int  # at least 1
    scores: tuple[float, ...] = ()  # of its steps, or of the whole; each in [0, 1]; empty where it was not scored
    logprob: float = NAN  # sum over its tokens in nats; nan where it is not known
    correct: bool | None = None  # None where it is still to be graded
    answer_logprob: float = NAN  # mean over the tokens of its answer in nats; nan where it is not known


@dataclass(frozen=True, slots=True)
class TraceProblem:
    """One problem and its samples by one model, in the order in which they were drawn."""

    id: str  # unique among all that were read together
    group: str  # the same for all records of one problem, by whatever model or setting
    gold: str  # the right answer; empty where it is not given, and all samples are graded
    question: str  # its text; empty where it is not given
    # model, dataset: their names, or None
    model: str | None
    dataset: str | None
    samples: tuple[TraceSample, ...]
    # whether answers were extracted from texts: only then can unequal ones mean the same
    extracted: bool
    file: str  # that it was read from, the first of several
    line: str  # where there

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self.file}, {self.line}"

    @property
    def graded(self) -> bool:
        """Whether every sample says if it is right."""
        return all(sample.correct is not None for sample in self.samples)

    @property
    def text(self) -> str:
        """The question, or what stands for it: the id."""
        return self.question or self.id


@dataclass(frozen=True, slots=True)
class TraceSet:
    """The problems of one or several files, and what must be said of them."""

    problems: tuple[TraceProblem, ...]
    notes: tuple[str, ...]  # what was estimated, mapped or left out, a sentence each
    fields: frozenset[str]  # of samples, those that some sample gives
    fingerprint: str  # changes with the files' contents

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models, in order of first use; those without a name are left out."""
        return tuple(dict.fromkeys(one.model for one in self.problems if one.model is not None))

    @property
    def texts(self) -> tuple[str, ...]:
        """What each problem is called by in a replay: its question, or its id; with the id where a question repeats."""
        count = Counter(one.text for one in self.problems)
        return tuple(one.text if count[one.text] == 1 else f"{one.text}\n\n[{one.id}]" for one in self.problems)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the data sets, in order of first use."""
        return tuple(dict.fromkeys(one.dataset for one in self.problems if one.dataset is not None))


def read_trace_files(paths: str | Path | Sequence[str | Path], space: AnswerSpace = MATH) -> TraceSet:
    """Read files of traces, plain or gzip, and pool them.

    Samples of one id, data set and model are put together; ids that several models share get the model's name. Answers
    are read off texts, and written, as the ``space`` has them.

    Raises:
        ConfigError: a file cannot be read, a line is not of the format (with its number), or there are no samples.
    """
    files = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    if twice := sorted({str(file) for file in files if files.count(file) > 1}):
        raise ConfigError(f"{twice[0]} is given twice, and its samples would count twice: give it once")
    problems: list[TraceProblem] = []
    notes: list[str] = []
    fields: set[str] = set()
    digest = hashlib.sha256()
    for file in files:
        content = _content(file)
        digest.update(content.encode("utf-8", "surrogatepass"))
        with damage_told(file, ConfigError, "docs/traces.md describes the format"):
            entries = list(_entries(content, file))
            problems += _problems(entries, file, notes, space)
            fields.update(key for _, entry in entries for sample in entry["samples"] for key in _given(sample))
    if not problems:
        raise ConfigError(f"{', '.join(map(str, files)) or 'no file'} holds no samples: give a file of traces")
    return TraceSet(_named(_pooled(problems)), tuple(notes), frozenset(fields), digest.hexdigest()[:16])


def holds_traces(path: str | Path) -> bool:
    """Whether a file seems to be one of traces: its first line is an object with samples. ConfigError: too long."""
    try:
        lines = read_lines(path, SAMPLES, ConfigError, _SMALLER, packed=True)
        first = json.loads(next((line for line in lines if line.strip()), ""))
    except ConfigError:
        raise
    except (OSError, EOFError, ValueError, RecursionError, zlib.error):
        return False
    return isinstance(first, dict) and isinstance(first.get("samples"), list) and "messages" not in first


def _content(file: Path) -> str:
    try:
        return read_whole(file, SAMPLES, ConfigError, _SMALLER, packed=True).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise ConfigError(f"{file} cannot be read: {error}; give JSON Lines, plain or gzip") from error


Entries = list[tuple[str, dict[str, Any]]]


def _entries(content: str, file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where every problem stands, and its object; from lines, or from one object of ``meta`` and ``records``."""
    if (whole := _of_records(content)) is not None:
        yield from ((f"{file}, {entry['id']}", entry) for entry in whole)
        return
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{where} is not JSON ({error}): traces are one JSON object a line") from error
        if isinstance(entry, dict) and "format" in entry:
            raise ConfigError(f"{file} is a record of a Recorder: it is replayed by itself, with its data set")
        if not isinstance(entry, dict) or not isinstance(entry.get("samples"), list):
            raise ConfigError(f'{where} has no list "samples": an object is {{"id", "gold", "samples": [...]}}')
        if not all(isinstance(sample, dict) for sample in entry["samples"]):
            raise ConfigError(f'{where}: a sample is an object such as {{"answer": "5", "tokens": 120}}')
        yield where, entry


def _of_records(content: str) -> list[dict[str, Any]] | None:
    """Problems of a file of crucible-ttc, see :mod:`adaptive_ttc.policies.replay.record`; None for other files."""
    if not content.lstrip().startswith("{") or '"records"' not in content:
        return None
    try:
        whole = json.loads(content)
        known = {name: whole["meta"].get(name) for name in ("model", "dataset")}
        kept = ("text", "tokens", "correct")
        return [
            {
                **{"id": str(record["problem_id"]), "gold": record["gold"], **known},
                "samples": [
                    {**{name: trace.get(name) for name in kept}, "score": trace.get("prm_score")}
                    for trace in record["traces"]
                ],
            }
            for record in whole["records"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _given(sample: Mapping[str, Any]) -> list[str]:
    return [name for name, value in sample.items() if value is not None]


def _problems(entries: Entries, file: Path, notes: list[str], space: AnswerSpace) -> Iterator[TraceProblem]:
    """The problems of one file that have samples; what is true of the whole file is decided once."""
    samples = [sample for _, entry in entries for sample in entry["samples"]]
    given = {name for sample in samples for name in sample}
    reader = _Reader(
        space=space,
        answers="answer" in given,
        logits=any(not 0 <= score <= 1 for sample in samples for score in _numbers(sample)),
    )
    empty = sum(not entry["samples"] for _, entry in entries)
    for where, entry in entries:
        if entry["samples"]:
            yield reader.problem(where, entry, file)
    if reader.logits:
        notes.append(f"{file}: scores outside [0, 1] were taken for logits, and all mapped by a logistic function")
    if reader.estimated:
        told = f"tokens of {reader.estimated:,} samples were estimated from text, {CHARS_PER_TOKEN} characters a token"
        notes.append(f"{file}: {told}")
    if empty:
        notes.append(f"{file}: {empty} problems without samples were left out")


def _numbers(sample: Mapping[str, Any]) -> list[float]:
    """Scores that count, as far as they are numbers: those of the steps, or that of the whole."""
    found = sample.get("step_scores")
    found = found if isinstance(found, list) and found else [sample.get("score")]
    return [one for one in found if isinstance(one, int | float)]


@dataclass(slots=True)
class _Reader:
    """Reads the objects of one file."""

    space: AnswerSpace
    answers: bool  # whether the file gives answers; one that is missing is none
    logits: bool  # whether its scores are logits
    estimated: int = 0  # samples whose tokens were estimated

    def problem(self, where: str, entry: Mapping[str, Any], file: Path) -> TraceProblem:
        """One object; ConfigError where it is not of the format."""
        id, gold = _text(entry, "id", where), _text(entry, "gold", where)
        if not id:
            raise ConfigError(f'{where} has no "id": every problem has one')
        samples = tuple(
            self.sample(f"{where}, sample {number}", sample, gold)
            for number, sample in enumerate(entry["samples"], start=1)
        )
        problem = TraceProblem(
            id=id,
            group=_text(entry, "group", where) or id.partition("@")[0] or id,
            gold=gold,
            question=_text(entry, "question", where),
            model=_text(entry, "model", where) or None,
            dataset=_text(entry, "dataset", where) or None,
            samples=samples,
            extracted=not self.answers,
            file=str(file),
            line=where.removeprefix(f"{file}, "),
        )
        if not gold and not problem.graded:
            raise ConfigError(f'{where} has no "gold": give the right answer, or "correct" with every sample')
        return problem

    def sample(self, where: str, entry: Mapping[str, Any], gold: str) -> TraceSample:
        """One sample; a right one without an answer has the right answer."""
        text, correct = entry.get("text"), entry.get("correct")
        if text is not None and not isinstance(text, str):
            raise ConfigError(f'{where}: "text" is a string; got {text!r}')
        if text is None and not self.answers:
            raise ConfigError(
                f'{where} has neither "answer" nor "text": give one of them ("answer": null is no answer)'
            )
        if correct is not None and not isinstance(correct, bool):
            raise ConfigError(f'{where}: "correct" is true or false; got {correct!r}')
        canonical = self.space.canonical
        found = (
            canonical(_text(entry, "answer", where))
            if self.answers
            else answer_in(self.space, after_thought(text or ""))
        )
        if not found and correct:
            found = canonical(gold) or "right"
        tokens = self._tokens(where, entry.get("tokens"), text)
        return TraceSample(
            found or None,
            text,
            tokens,
            self._scores(where, entry),
            tokens * _logprob(where, entry, "logprob"),
            correct,
            _logprob(where, entry, "answer_logprob") if found else NAN,
        )

    def _tokens(self, where: str, tokens: object, text: str | None) -> int:
        if tokens is None:
            if text is None:
                raise ConfigError(f'{where} has no "tokens", and no text to estimate them from: give "tokens"')
            self.estimated += 1
            return max(1, round(len(text) / CHARS_PER_TOKEN))
        number = math.nan if isinstance(tokens, bool) or not isinstance(tokens, int | float) else tokens
        if 0 <= number <= MOST_TOKENS and number == int(number):
            return max(1, int(number))
        raise ConfigError(f'{where}: "tokens" is a whole number from 0 to {MOST_TOKENS:,}; got {tokens!r:.80}')

    def _scores(self, where: str, entry: Mapping[str, Any]) -> tuple[float, ...]:
        steps, score = entry.get("step_scores"), entry.get("score")
        if steps is not None and not isinstance(steps, list):
            raise ConfigError(f'{where}: "step_scores" is a list of numbers; got {steps!r}')
        found = steps or ([] if score is None else [score])
        for one in found:
            if isinstance(one, bool) or not isinstance(one, int | float) or not math.isfinite(one):
                raise ConfigError(f"{where}: a score is a finite number, or null; got {one!r}")
        return tuple(_logistic(one) if self.logits else float(one) for one in found)


def _logistic(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def _logprob(where: str, entry: Mapping[str, Any], key: str) -> float:
    mean = entry.get(key)
    if mean is None or mean in (-math.inf, math.inf) or mean != mean:  # what a sum of an impossible token came to
        return NAN
    if isinstance(mean, bool) or not isinstance(mean, int | float) or mean > 1e-3:
        raise ConfigError(f'{where}: "{key}" is a mean a token in nats, at most 0, or null; got {mean!r}')
    return min(float(mean), 0.0)


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    """A text, or a number as one; empty where it is missing."""
    value = entry.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{where}: {key!r} is a text; got {value!r}")
    return (value or "").strip()


def _pooled(problems: Sequence[TraceProblem]) -> list[TraceProblem]:
    """Samples of one problem by one model together, in the order of the files; a model without a name is the file's."""
    found: dict[tuple[str, ...], TraceProblem] = {}
    for one in problems:
        key = (one.id, one.dataset or "", one.model or one.file)
        before = found.get(key)
        if before is None:
            found[key] = one
            continue
        for name in ("gold", "question", "group", "extracted"):
            if getattr(before, name) != getattr(one, name):
                raise ConfigError(f"{one.where} and {before.where} have one id and model, and differ in {name!r}")
        found[key] = replace(before, samples=before.samples + one.samples)
    return list(found.values())


def _named(problems: Sequence[TraceProblem]) -> tuple[TraceProblem, ...]:
    """Ids that are unique: as given, else with the model's name, else with a number too."""
    count = Counter(one.id for one in problems)
    taken: set[str] = set()
    found = []
    for one in problems:
        name = f"{one.id} [{one.model or one.dataset or 'another'}]" if count[one.id] > 1 else one.id
        unique, number = name, 1
        while unique in taken:
            number += 1
            unique = f"{name} {number}"
        taken.add(unique)
        found.append(replace(one, id=unique))
    return tuple(found)
