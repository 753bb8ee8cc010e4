"""Makes graded records of samples that were recorded earlier, so that sampling arms are fitted without a model.

It knows the record, not its file's layout (:mod:`adaptive_ttc.policies.replay`); it draws nothing.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import anyio

from adaptive_ttc.answers import Grader, extract_answer
from adaptive_ttc.calibration.collect import verdicts_on
from adaptive_ttc.calibration.gathering import Gathered, counts_of_work, dataset_fingerprint, weights_of
from adaptive_ttc.calibration.key import row_digest
from adaptive_ttc.calibration.kinds import SAMPLE
from adaptive_ttc.calibration.loading import record_of
from adaptive_ttc.calibration.records import ProblemRecord
from adaptive_ttc.calibration.store import Holding
from adaptive_ttc.calibration.units import Drawn, Work
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.estimate.features import NAN, Attempt, FirstStep, Unit
from adaptive_ttc.evaluation.datasets import Row, load_problems
from adaptive_ttc.policies.replay import Record, RecordedSample, load_record
from adaptive_ttc.strategies.base import AGGREGATIONS

DATASET = "minimath-calibration"
"""What a fit is made on where none is named; a file of traces names its own."""


def from_traces(options: argparse.Namespace) -> Gathered:
    """Grade recorded samples.

    Args:
        options: of the command ``fit``; ``replay`` is the file, ``dataset`` holds the right answers. Where none is
            named, a file of traces is taken at its word, if its data set lies beside it.

    Raises:
        ConfigError: the file is no record, the data set does not hold its problems, or the record does not say what
            a budget is to be counted in.
    """
    beside = _dataset_of(options.replay) if options.dataset == DATASET else None
    dataset = beside or options.dataset
    record = load_record(options.replay, problems=None if beside is None else beside)
    if not record.counted and options.count not in (None, "generated"):
        raise ConfigError(f"{options.replay} does not say how many PRM tokens there were: take --count generated")
    rows = _matched(record, load_problems(dataset), str(dataset))[: options.limit]
    records = anyio.run(graded, record, rows)
    ratio = record.prm.parameters / max(record.policy.parameters, 1) if record.prm is not None else 0.0
    return Gathered(
        records,
        {"policy": record.policy.name, "prm": None if record.prm is None else record.prm.name},
        {
            "policy": record.policy.fingerprint,
            "prm": "" if record.prm is None else record.prm.fingerprint,
            "prompt": "as recorded",
        },
        {"name": str(dataset), "fingerprint": dataset_fingerprint(rows), "problems": len(rows)},
        weights_of(options.count if record.counted else "generated", ratio),
        counts_of_work(records),
        ("mean",) if record.detail == "mean" else AGGREGATIONS,
    )


async def graded(record: Record, rows: Sequence[Row]) -> list[ProblemRecord]:
    """The recorded samples of these problems, each once, with verdicts on their answers."""
    recorded = {problem.question: problem for problem in record.problems}
    found = []
    async with Grader() as grader:
        for row in rows:
            problem = recorded[row["problem"]]
            drawn = {index: _drawn(index, sample, record) for index, sample in enumerate(problem.samples)}
            held = Holding(row["unique_id"], row_digest(row), len(problem.prompt_ids), {SAMPLE: drawn}, {})
            verdicts = await verdicts_on(held, row["answer"], grader)
            one = record_of(row, replace(held, verdicts=verdicts), None)
            assert one is not None
            found.append(one)
    return found


def _drawn(index: int, sample: RecordedSample, record: Record) -> Drawn:
    """A recorded sample as a unit; its first step is known where the scores of steps are."""
    tokens, logprob = len(sample.token_ids), math.fsum(sample.logprobs) if sample.logprobs else NAN
    attempt = Attempt(extract_answer(sample.text), sample.scores, tokens, logprob, sample.finish)
    prm = sample.prm_counts[-1] if sample.prm_counts else 0
    steps = (_first_step(sample),) if sample.scores and record.detail == "steps" else ()
    unit = Unit(SAMPLE, (attempt,), steps, tokens, prm)
    return Drawn(index, unit, Work(tokens, prm, sample.prompt_tokens))


def _first_step(sample: RecordedSample) -> FirstStep:
    end = sample.text.find(sample.steps[0]) + len(sample.steps[0])
    tokens = 1 + sum(reached < end for reached in sample.ends[:-1])
    return FirstStep(sample.scores[0], tokens, math.fsum(sample.logprobs[:tokens]) if sample.logprobs else NAN)


def _matched(record: Record, rows: Sequence[Row], dataset: str) -> list[Row]:
    """The rows of the recorded problems, in the order of the data set."""
    questions = {problem.question for problem in record.problems}
    found = [row for row in rows if row["problem"] in questions]
    if len(found) < len(questions):
        raise ConfigError(
            f"{dataset} holds {len(found)} of the {len(questions)} recorded problems: name the data set that was "
            "recorded with --dataset"
        )
    return found


def _dataset_of(file: Path) -> Path | None:
    """The JSON Lines file that a file of traces was recorded on, where it lies beside it."""
    try:
        name = json.loads(file.read_text(encoding="utf-8"))["meta"]["dataset"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # whatever is wrong with it, reading the record says
    beside = file.with_name(f"{name}.jsonl")
    return beside if beside.is_file() else None
