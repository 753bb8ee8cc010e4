"""Graded records of samples that were recorded earlier: traces of any model, or what a Recorder saved."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from adaptive_ttc.answers import Grader
from adaptive_ttc.answers.confidence import answer_logprob
from adaptive_ttc.answers.spaces.base import AnswerSpace, answer_in
from adaptive_ttc.answers.spaces.mathematics import MATH
from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.calibration.collect.arms import Arm, sampling_arms
from adaptive_ttc.calibration.collect.collector import grades_of
from adaptive_ttc.calibration.collect.records import ProblemRecord, Weights, record_of
from adaptive_ttc.calibration.collect.store import StoredProblem
from adaptive_ttc.calibration.collect.traces import Traces, read_traces
from adaptive_ttc.calibration.collect.units import Drawn, Work, row_digest
from adaptive_ttc.calibration.fit.accuracy import answerable
from adaptive_ttc.calibration.fit.inputs import FitData, counts_of_work, dataset_fingerprint, told_answers, weights_of
from adaptive_ttc.cli import interruption
from adaptive_ttc.cli.options import answers_of
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.estimate.features import NAN, Attempt, FirstStep, Unit
from adaptive_ttc.estimate.model_names import fingerprint_of_traces
from adaptive_ttc.evaluation.dataset_rows import space_named
from adaptive_ttc.evaluation.datasets import MINIMATH, Row, load_problems
from adaptive_ttc.evaluation.traces import holds_traces
from adaptive_ttc.files.bounded import SAMPLES, read_whole
from adaptive_ttc.policies.replay import Record, RecordedSample, load_record
from adaptive_ttc.strategies.adaptive import SAMPLE
from adaptive_ttc.strategies.base import AGGREGATIONS


def from_recorded(options: argparse.Namespace) -> FitData:
    """Graded records of the files ``options.replay``.

    Traces hold their right answers. Those of a Recorder's file come from ``options.dataset``.

    Raises:
        ConfigError: a file cannot be read, or the data set is not the one that was recorded.
    """
    files = options.replay
    dataset = _dataset_of(options) if len(files) == 1 and not holds_traces(files[0]) else None
    if dataset is None:
        space = space_of(answers_of(options))
        with Grader(space=space) as grader:
            found = read_traces(files, grader=grader)
        return _fit_data(found, options.limit, options.count, ", ".join(map(str, files)), space)
    return _of_record(files[0], dataset, options)


def name_of(files: Sequence[str | Path]) -> str:
    """What results of these files are called: ``traces``, ``traces-and-2-more``."""
    first, *others = map(Path, files)
    return first.name.partition(".json")[0] + (f"-and-{len(others)}-more" if others else "")


def recorded_arms(records: Sequence[ProblemRecord], most: int | None = None) -> list[Arm]:
    """Arms that recorded samples answer: votes at powers of 2, and at all samples that every problem has.

    None has more than ``most`` samples, or votes by scores that are not there.
    """
    held = min(len(record.units[SAMPLE]) for record in records)
    return answerable(records, sampling_arms(held if most is None else min(held, most)))[0]


def _fit_data(found: Traces, limit: int | None, count: str | None, files: str, space: AnswerSpace = MATH) -> FitData:
    if found.scored and count not in (None, "generated"):
        raise ConfigError(f"{files} does not say how many PRM tokens there were: take --count generated")
    records, notes = of_equal_size(found.records[:limit])
    rows = [Row(problem=one.text, answer=one.answer or one.id, unique_id=one.id) for one in records]
    names = ", ".join(found.models) or "a model without a name"
    return FitData(
        records,
        {"policy": names, "prm": "recorded scores" if found.scored else None},
        {
            "policy": fingerprint_of_traces(found.models, found.fingerprint),
            "prm": fingerprint_of_traces((), found.fingerprint) if found.scored else "",
            "prompt": "as recorded",
            **told_answers(space.name),
        },
        {"name": found.name, "fingerprint": dataset_fingerprint(rows), "problems": len(found.records[:limit])},
        Weights(),
        counts_of_work(records),
        AGGREGATIONS if "step_scores" in found.fields else ("mean",),
        notes=(*found.notes, *notes),
    )


def of_equal_size(records: Sequence[ProblemRecord]) -> tuple[list[ProblemRecord], list[str]]:
    """Records with enough samples to be compared, and what must be said of the others.

    Enough is the number that leaves most samples to learn from: so many of every problem that has them.
    """
    sizes = Counter(len(record.units[SAMPLE]) for record in records)
    having = {size: sum(count for other, count in sizes.items() if other >= size) for size in sizes}
    enough = max(sizes, key=lambda size: (size * having[size], -size))
    kept = [record for record in records if len(record.units[SAMPLE]) >= enough]
    if len(kept) == len(records):
        return kept, []
    return kept, [f"{len(records) - len(kept)} of {len(records)} problems have fewer than {enough} samples: left out"]


def _of_record(file: Path, dataset: str | Path, options: argparse.Namespace) -> FitData:
    record = load_record(file, problems=dataset if Path(dataset).is_file() else None)
    if not record.counted and record.prm is not None and options.count not in (None, "generated"):
        raise ConfigError(f"{file} does not say how many PRM tokens there were: take --count generated")
    rows = _matched(record, load_problems(dataset, answers=answers_of(options)), str(dataset))[: options.limit]
    records = interruption.run(graded, record, rows)
    ratio = record.prm.parameters / max(record.policy.parameters, 1) if record.prm is not None else 0.0
    return FitData(
        records,
        {"policy": record.policy.name, "prm": None if record.prm is None else record.prm.name},
        {
            "policy": record.policy.fingerprint,
            "prm": "" if record.prm is None else record.prm.fingerprint,
            "prompt": "as recorded",
            **told_answers(space_named(rows, MATH)),
        },
        {"name": str(dataset), "fingerprint": dataset_fingerprint(rows), "problems": len(rows)},
        weights_of(options.count if record.counted else "generated", ratio),
        counts_of_work(records),
        ("mean",) if record.detail == "mean" else AGGREGATIONS,
    )


async def graded(record: Record, rows: Sequence[Row]) -> list[ProblemRecord]:
    """Graded records of the recorded samples of these problems."""
    recorded = {problem.question: problem for problem in record.problems}
    found = []
    async with Grader() as grader:
        for row in rows:
            problem = recorded[row["problem"]]
            space = space_of(row.get("answers"))
            drawn = {index: _drawn(index, sample, record, space) for index, sample in enumerate(problem.samples)}
            held = StoredProblem(row["unique_id"], row_digest(row), len(problem.prompt_ids), {SAMPLE: drawn}, {})
            grades = await grades_of(held, row["answer"], grader.for_problem(space))
            one = record_of(row, replace(held, grades=grades), None)
            assert one is not None
            found.append(one)
    return found


def _drawn(index: int, sample: RecordedSample, record: Record, space: AnswerSpace) -> Drawn:
    """A recorded sample as a unit; its first step is known where the scores of steps are."""
    tokens, logprob = len(sample.token_ids), math.fsum(sample.logprobs) if sample.logprobs else NAN
    sure = answer_logprob(
        sample.text, sample.logprobs, lambda n: sample.ends[n - 1] if n else 0, space, sample.answer_at
    )
    attempt = Attempt(
        answer_in(space, sample.answer_text, sample.finish), sample.scores, tokens, logprob, sample.finish, sure
    )
    prm = sample.prm_counts[-1] if sample.prm_counts else 0
    steps = (_first_step(sample),) if sample.scores and record.detail == "steps" else ()
    unit = Unit(SAMPLE, (attempt,), steps, tokens, prm)
    return Drawn(index, unit, Work(tokens, prm, sample.prompt_tokens))


def _first_step(sample: RecordedSample) -> FirstStep:
    end = sample.text.find(sample.steps[0]) + len(sample.steps[0])
    tokens = 1 + sum(reached < end for reached in sample.ends[:-1])
    return FirstStep(sample.scores[0], tokens, math.fsum(sample.logprobs[:tokens]) if sample.logprobs else NAN)


def _matched(record: Record, rows: Sequence[Row], dataset: str) -> list[Row]:
    """Rows of the recorded problems, in the order of the data set."""
    questions = {problem.question for problem in record.problems}
    found = [row for row in rows if row["problem"] in questions]
    if len(found) < len(questions):
        raise ConfigError(
            f"{dataset} holds {len(found)} of the {len(questions)} recorded problems: name the data set that was "
            "recorded with --dataset"
        )
    return found


def _dataset_of(options: argparse.Namespace) -> Path | str | None:
    """The data set that a file was recorded on: the one that is named, or the one that traces name and that lies beside
    them; None for traces without one, which then have answers alone.
    """
    (file,) = options.replay
    named = None if options.dataset in MINIMATH else str(options.dataset)
    try:
        meta = json.loads(read_whole(file, SAMPLES, ConfigError, "give fewer samples"))["meta"]
    except (OSError, ValueError, KeyError, TypeError):
        return str(options.dataset)  # a Recorder's file; whatever is wrong with it, reading it says
    beside = file.with_name(f"{meta.get('dataset')}.jsonl")
    return named or (beside if beside.is_file() else None)
