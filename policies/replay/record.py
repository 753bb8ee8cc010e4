"""Records (models, sampling settings, whole solutions), their files, and traces of another tool.

A file is JSON Lines: first an object with ``format``, ``version``, models and sampling settings, then a problem with
its samples on every line. Field names are those of the classes here.

Traces hold texts and token counts but no token ids. One layout is known, that of crucible-ttc: ``meta`` (``dataset``,
``model``, ``prm``, ``prm_aggregate``, ``temperature``, ``max_tokens``, ``max_n``) and ``records`` of ``problem_id``
(``<dataset>-<row>``), ``gold`` and ``traces`` of ``text``, ``tokens``, ``prm_score``. What is missing is filled in:

- Token ids are placeholders, one for every token counted, unique in the file, and the same however many problems the
  file holds. The text is dealt to a solution's tokens in equal parts of characters. 0 is the EOS.
- A solution with ``max_tokens`` tokens was cut. Any other ended by itself, and its last token is the EOS.
- A prompt is one placeholder token; prompt and PRM tokens are reported as 0, so budgets in FLOPs or PRM tokens are
  refused.
- Parameters are the billions that a model's name states, else 0.
- top_p is taken to be 1.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from adaptive_ttc.answers.thinking import after_thought
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.estimate.model_names import fingerprint_of_traces
from adaptive_ttc.evaluation.datasets import Row, load_problems
from adaptive_ttc.evaluation.result_file import writable
from adaptive_ttc.files.bounded import SAMPLES, read_lines, read_whole
from adaptive_ttc.files.typed import checked, damage_told
from adaptive_ttc.types import Message, split_steps

MOST_ID = 2**31  # above all token ids

Detail = Literal["steps", "mean"]
"""What is known of a solution's scores: one a step, or their mean alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that was recorded; 0 parameters where their number is not known."""

    name: str
    fingerprint: str
    parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSettings:
    """How all samples of a record were drawn: temperature (0 is greedy), nucleus mass, most tokens of one solution."""

    temperature: float = 0.8
    top_p: float = 1.0
    max_tokens: int = 2048

    def __post_init__(self) -> None:
        if not self.temperature >= 0 or not 0 < self.top_p <= 1 or self.max_tokens < 1:
            raise ConfigError(
                "temperature is at least 0, top_p above 0 and at most 1, max_tokens at least 1; "
                f"got {self.temperature}, {self.top_p} and {self.max_tokens}"
            )

    def __str__(self) -> str:
        return f"temperature={self.temperature:g}, top_p={self.top_p:g}, max_tokens={self.max_tokens}"


@dataclass(frozen=True, kw_only=True)
class RecordedSample:
    """A whole solution.

    Attributes:
        path: its place in the search that drew it.
        token_ids: shape [tokens], the EOS included where it was generated.
        text: the decoded tokens, without EOS.
        ends: shape [tokens]: characters of ``text`` that the first 1, 2, ... tokens stand for.
        finish: ``eos``, or ``length`` where ``max_tokens`` or the context cut it.
        logprobs: shape [tokens], in nats; empty if not recorded.
        scores: shape [steps], or [1] under the detail ``mean``; empty if not scored.
        prm_counts: shape [steps]: tokens that scoring the first 1, 2, ... steps takes uncached; empty if not recorded.
        prm_tokens: those of the whole solution that the PRM computed; its cache held the rest.
        prompt_tokens: prompt tokens computed before its first token; a prefix cache held ``cached_tokens``.
        thought: how many of ``token_ids``, from the first on, are a reasoning model's thinking.
    """

    path: tuple[int, ...]
    token_ids: tuple[int, ...]
    text: str
    ends: tuple[int, ...]
    finish: Literal["eos", "length"]
    logprobs: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    prm_counts: tuple[int, ...] = ()
    prm_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    thought: int = 0

    def __post_init__(self) -> None:
        length = len(self.token_ids)
        if not length or self.finish not in ("eos", "length"):
            raise ConfigError(f"a recorded sample holds tokens and ended by eos or length; got {self.finish!r}")
        if not all(0 <= one < MOST_ID for one in self.token_ids):
            raise ConfigError(f"token ids lie between 0 and {MOST_ID}")
        if len(self.ends) != length or list(self.ends) != sorted(self.ends) or self.ends[-1] != len(self.text):
            raise ConfigError(f"ends has one number a token, not falling, the last {len(self.text)}, the text's length")
        if len(self.logprobs) not in (0, length):
            raise ConfigError(f"{len(self.logprobs)} log-probabilities for {length} tokens")
        if not all(0 <= score <= 1 for score in self.scores):
            raise ConfigError("scores lie in [0, 1]")
        if not 0 <= self.thought <= length:
            raise ConfigError(f"{self.thought} tokens of thinking among {length}")

    @property
    def answer_at(self) -> int | None:
        """Characters before its answer; None where all of it is thinking."""
        if not self.thought:
            return 0
        return None if self.thought == len(self.token_ids) else self.ends[self.thought - 1]

    @property
    def answer_text(self) -> str:
        """What its answer is read off."""
        return "" if self.answer_at is None else self.text[self.answer_at :]

    @cached_property
    def steps(self) -> tuple[str, ...]:
        """The non-empty steps of its text."""
        return split_steps(self.text)


@dataclass(frozen=True, kw_only=True)
class RecordedProblem:
    """A problem and its samples.

    Attributes:
        id: its name.
        messages: its chat turns, by which it is found.
        prompt_ids: the prompt that the policy made of them.
        samples: in order of their paths.
        prm_least: PRM tokens of the question with a solution of one character; None if not recorded.
    """

    id: str
    messages: tuple[Message, ...]
    prompt_ids: tuple[int, ...]
    samples: tuple[RecordedSample, ...]
    prm_least: int | None = None

    def __post_init__(self) -> None:
        if not self.messages or not self.prompt_ids or not self.samples:
            raise ConfigError(f"problem {self.id!r} is recorded without messages, prompt or samples")
        if not all(0 <= one < MOST_ID for one in self.prompt_ids):
            raise ConfigError(f"problem {self.id!r}: token ids lie between 0 and {MOST_ID}")

    @property
    def question(self) -> str:
        """The text given to a PRM."""
        return self.messages[-1].content


@dataclass(frozen=True, kw_only=True)
class Record:
    """Recorded samples of a policy, perhaps with a PRM's scores.

    Attributes:
        policy: wrote the samples.
        prm: scored them, or None.
        settings: how the samples were drawn.
        max_context: of the policy.
        problems: in order of first use.
        detail: what is known of the scores.
        counted: whether prompt and PRM tokens were recorded.
        left_out: samples that were begun and did not end; leaving them out favours short ones.
    """

    policy: Model
    prm: Model | None
    settings: SampleSettings
    max_context: int
    problems: tuple[RecordedProblem, ...]
    detail: Detail = "steps"
    counted: bool = True
    left_out: int = 0

    def __post_init__(self) -> None:
        if self.detail not in get_args(Detail):
            raise ConfigError(f"unknown detail {self.detail!r}; one of {', '.join(get_args(Detail))}")
        if not self.problems:
            raise ConfigError("a record without problems can answer nothing")
        for of in ("messages", "prompt_ids"):
            if len({getattr(problem, of) for problem in self.problems}) < len(self.problems):
                raise ConfigError(f"two problems of a record have the same {of}; put their samples together")
        for problem, sample in ((one, sample) for one in self.problems for sample in one.samples):
            name, steps, tokens = f"problem {problem.id!r}", len(sample.steps), len(sample.token_ids)
            if len(sample.scores) not in (0, 1 if self.detail == "mean" else steps):
                raise ConfigError(f"{name}: {len(sample.scores)} scores for {steps} steps")
            if self.counted and sample.scores and len(sample.prm_counts) != steps:
                raise ConfigError(f"{name}: {len(sample.prm_counts)} counts for {steps} steps")
            if tokens > self.settings.max_tokens:
                raise ConfigError(f"{name}: {tokens} tokens, {self.settings.max_tokens} allowed")


FORMAT = "adaptive_ttc.replay"
VERSION = 1

_LISTS = ("path", "token_ids", "ends", "logprobs", "scores", "prm_counts")


def save_record(record: Record, path: str | Path) -> None:
    """Write a record, replacing an older file whole or not at all; ConfigError if the file cannot be written."""
    target = writable(path)
    partial = target.with_name(target.name + ".partial")
    with partial.open("w", encoding="utf-8") as lines:
        models = {name: getattr(record, name) for name in ("policy", "prm", "settings")}
        header = {key: value for key, value in vars(record).items() if key != "problems"}
        header |= {key: value and asdict(value) for key, value in models.items()}
        lines.write(_line({"format": FORMAT, "version": VERSION, **header}))
        for problem in record.problems:
            lines.write(_line(asdict(problem)))
    partial.replace(target)


def load_record(path: str | Path, *, problems: str | Path | None = None) -> Record:
    """Read a record, or a file of traces (see above).

    Args:
        path: the file.
        problems: for traces, the data set with the problems' texts; by default the JSON Lines file of the data set's
            name beside it.

    Raises:
        ConfigError: there is no such file, it is no record, of another version, or damaged (with the line).
    """
    file = Path(path)
    with damage_told(file, ConfigError, "record it anew"):
        return _loaded(file, problems)


def _loaded(file: Path, problems: str | Path | None) -> Record:
    try:
        lines = read_lines(file, SAMPLES, ConfigError, "record fewer samples of a problem")
        header = _parsed(next(lines, ""))
        if isinstance(header, dict) and header.get("format") == FORMAT:
            return _record(header, lines, file)
        content = _parsed(read_whole(file, SAMPLES, ConfigError, "give traces of fewer problems").decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read as a record: {error}; give the file that a Recorder saved") from error
    # the layout of traces, see above
    if isinstance(content, dict) and isinstance(content.get("meta"), dict) and isinstance(content.get("records"), list):
        return _record_of_traces(content, file, problems)
    raise ConfigError(f"{file} is no record: give a file that a Recorder saved, or one of recorded traces")


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
        record = Record(
            policy=Model(**header["policy"]),
            prm=None if header["prm"] is None else Model(**header["prm"]),
            settings=SampleSettings(**header["settings"]),
            problems=tuple(problems),
            **{key: header[key] for key in ("max_context", "detail", "counted", "left_out")},
        )
        return checked(record)
    except (KeyError, TypeError, ValueError) as error:  # ConfigError is a ValueError
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, ConfigError) else str(error)
        raise ConfigError(f"{file}, line {number} is damaged ({reason}); record it anew") from error


def _problem(entry: dict[str, Any]) -> RecordedProblem:
    messages = tuple(Message(**turn) for turn in entry["messages"])
    samples = ({**sample, **{key: tuple(sample[key]) for key in _LISTS}} for sample in entry["samples"])
    read = {"prompt_ids": tuple(entry["prompt_ids"]), "samples": tuple(RecordedSample(**one) for one in samples)}
    return RecordedProblem(**{**entry, "messages": messages, **read})


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


EOS = 0


def _record_of_traces(content: dict[str, Any], file: Path, problems: str | Path | None = None) -> Record:
    """Make a record of traces; ConfigError if something is missing, or the data set does not fit."""
    meta = content["meta"]
    try:
        if meta.get("prm_aggregate", "mean") != "mean":
            raise ConfigError(f"{file} holds scores reduced by {meta['prm_aggregate']!r}; only mean is read")
        rows = load_problems(problems or file.with_name(f"{meta['dataset']}.jsonl"))
        traces = [trace for entry in content["records"] for trace in entry["traces"]]
        longest = max(trace["tokens"] for trace in traces) + 1
        settings = SampleSettings(
            temperature=meta.get("temperature", SampleSettings().temperature),
            max_tokens=meta.get("max_tokens", longest),
        )
        most = meta.get("max_n") or max(len(entry["traces"]) for entry in content["records"])
        scored = any(trace.get("prm_score") is not None for trace in traces)
        return Record(
            policy=_model(meta["model"], meta),
            prm=_model(meta.get("prm") or "recorded scores", meta) if scored else None,
            settings=settings,
            max_context=1 + settings.max_tokens,
            problems=tuple(_traced_problem(entry, rows, most, settings.max_tokens) for entry in content["records"]),
            detail="mean",
            counted=False,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{file} is no file of traces: {type(error).__name__}: {error}") from error


def _traced_problem(entry: dict[str, Any], rows: list[Row], max_n: int, max_tokens: int) -> RecordedProblem:
    """Placeholder ids: prompts first, then ``max_tokens`` ids for each possible sample."""
    number = int(entry["problem_id"].rpartition("-")[2])
    if number >= len(rows) or rows[number]["answer"] != entry["gold"]:
        raise ConfigError(
            f"{entry['problem_id']} was recorded with the answer {entry['gold']!r}, which is not that of row "
            f"{number} of the data set; give the one that was recorded (problems=..., --dataset)"
        )
    samples = []
    for index, trace in enumerate(entry["traces"]):
        tokens, text = trace["tokens"], trace["text"]
        if not 0 <= tokens <= 4 * len(text) + 16:  # a token is a byte at least
            raise ConfigError(f"{entry['problem_id']} counts {tokens!r:.40} tokens for {len(text)} characters")
        cut = tokens >= max_tokens
        spoken = tokens if cut else tokens - 1
        thinking = len(text) - len(after_thought(text))
        first = 1 + len(rows) + (number * max_n + index) * max_tokens
        ends = tuple(len(text) * k // spoken for k in range(1, spoken + 1)) if spoken else ()
        sample = RecordedSample(
            path=(index,),
            token_ids=tuple(range(first, first + spoken)) + (() if cut else (EOS,)),
            text=text,
            ends=ends if cut else (*ends, len(text)),
            finish="length" if cut else "eos",
            scores=() if trace.get("prm_score") is None else (trace["prm_score"],),
            # a part of the closing tag may be read with the answer, never a part of the answer with the thought
            thought=tokens if text and thinking == len(text) else bisect_right(ends, thinking) if thinking else 0,
        )
        samples.append(sample)
    messages = (Message("user", rows[number]["problem"]),)
    return RecordedProblem(id=entry["problem_id"], messages=messages, prompt_ids=(1 + number,), samples=tuple(samples))


def _model(name: str, meta: dict[str, Any]) -> Model:
    billions = re.findall(r"(?i)(?<![\d.])(\d+(?:\.\d+)?)b(?![a-z])", name)
    stated = round(float(billions[-1]) * 1e9) if billions else 0
    digest = hashlib.sha256(repr(sorted(meta.items())).encode()).hexdigest()
    return Model(name=name, fingerprint=fingerprint_of_traces([name], digest[:16]), parameters=stated)
