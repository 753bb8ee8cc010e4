"""Reads files of traces as graded records: ``read_traces`` is the entrance, ``docs/traces.md`` the format.

What :mod:`adaptive_ttc.evaluation.traces` reads is graded here: answers that were written out form classes, and where a
file does not say whether a sample is right, its answer is compared with ``gold``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from adaptive_ttc.answers import Grader
from adaptive_ttc.calibration.collect.records import ProblemRecord, UnitRecord
from adaptive_ttc.estimate.features import Attempt, Unit
from adaptive_ttc.evaluation.traces import TraceProblem, TraceSample, read_trace_files
from adaptive_ttc.strategies.adaptive import SAMPLE


@dataclass(frozen=True, slots=True)
class Traces:
    """Graded records of traces, and what is known of the set.

    A record's units are of the kind ``sample``, in the order in which they were drawn; a single score is a solution of
    one scored step. Where no question was given the record's is empty.
    """

    records: tuple[ProblemRecord, ...]  # one a problem and model; ``id`` is unique, ``group`` that of the problem
    # models, datasets: names, in order of first use
    models: tuple[str, ...]
    datasets: tuple[str, ...]
    model_of: tuple[str | None, ...]  # model of every record
    fields: frozenset[str]  # of samples, those that some sample gives: ``text``, ``score``, ``logprob``, ...
    notes: tuple[str, ...]  # what was estimated, mapped, graded or left out: sentences to show
    fingerprint: str  # changes with the files' contents

    @property
    def scored(self) -> bool:
        """Whether any solution has scores."""
        return bool(self.fields & {"score", "step_scores"})

    @property
    def name(self) -> str:
        """The data sets, for people."""
        return ", ".join(self.datasets) or "traces"


def read_traces(paths: str | Path | Sequence[str | Path], *, grader: Grader | None = None) -> Traces:
    """Read, pool and grade files of traces.

    Args:
        paths: one file or several, plain or gzip.
        grader: reads answers and compares them; by default one for mathematics that is made here, and closed.

    Raises:
        ConfigError: see :func:`adaptive_ttc.evaluation.traces.read_trace_files`.
    """
    with ExitStack() as stack:
        grader = grader or stack.enter_context(Grader())
        found = read_trace_files(paths, grader.space)
        records = tuple(record_of_trace(one, grader.for_problem()) for one in found.problems)
    notes = list(found.notes)
    if graded := sum(sample.correct is None for one in found.problems for sample in one.samples):
        notes.append(f"{graded:,} samples do not say whether they are right: they were graded")
    if silent := sum(not one.question for one in found.problems):
        notes.append(f"{silent:,} of {len(records):,} problems have no question: nothing is read off their prompts")
    return Traces(
        records,
        found.models,
        found.datasets,
        tuple(one.model for one in found.problems),
        found.fields,
        tuple(notes),
        found.fingerprint,
    )


def record_of_trace(problem: TraceProblem, grader: Grader) -> ProblemRecord:
    """One graded record. Answers form classes where they were extracted or are graded here; else equal texts do."""
    answers: Sequence[str | None] = [sample.answer for sample in problem.samples]
    if problem.extracted or not problem.graded:
        answers = grader.classes_sync(answers)
    right = {
        answer: grader.equal_sync(problem.gold, answer)
        for answer, sample in zip(answers, problem.samples, strict=True)
        if sample.correct is None and answer is not None
    }
    units = tuple(
        UnitRecord(
            _unit(sample, answer),
            (answer is not None and (right[answer] if sample.correct is None else sample.correct),),
        )
        for answer, sample in zip(answers, problem.samples, strict=True)
    )
    return ProblemRecord(problem.id, problem.question, problem.gold, 1, {SAMPLE: units}, problem.group)


def _unit(sample: TraceSample, answer: str | None) -> Unit:
    attempt = Attempt(answer, sample.scores, sample.tokens, sample.logprob, answer_logprob=sample.answer_logprob)
    return Unit(SAMPLE, (attempt,), generated=sample.tokens)
