"""Answers with recorded scores in place of a PRM."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import anyio.lowlevel

from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.evaluation.traces import holds_traces, read_trace_files
from adaptive_ttc.policies.replay.policy import PrefixIndex
from adaptive_ttc.policies.replay.record import Record, RecordedSample, load_record
from adaptive_ttc.policies.replay.traces import TracePRM
from adaptive_ttc.policy import Demand
from adaptive_ttc.prm.base import RewardModel, Scored, ScoreRequest, check_steps
from adaptive_ttc.types import Problem


class ReplayPRM:
    """A :class:`~adaptive_ttc.prm.base.RewardModel` that knows the scores of recorded solutions.

    Those of a solution's first steps are known too, since they do not depend on what follows; a solution cut within a
    step stays unscored. If a record holds only the mean of a solution's scores, every step gets that mean, and
    :meth:`check_demand` refuses strategies that use anything else. ConfigError if nothing was scored.
    """

    def __init__(self, record: Record) -> None:
        if record.prm is None or not any(sample.scores for problem in record.problems for sample in problem.samples):
            raise ConfigError(f"the record of {record.policy.name} holds no scores: leave the PRM out, take majority")
        self.record = record
        self._recorded = f"the record of {record.prm.name}"
        self.name = f"{record.prm.name} (replay)"
        self.fingerprint, self.parameters = record.prm.fingerprint, record.prm.parameters
        self._solutions: dict[str, dict[tuple[str, ...], RecordedSample]] = {}
        self._least: dict[str, int] = {}
        for problem in record.problems:
            known = self._solutions.setdefault(problem.question, {})
            for sample in problem.samples:
                if sample.scores:
                    known.setdefault(sample.steps, sample)
            if problem.prm_least is not None:
                self._least[problem.question] = problem.prm_least
        self._begun = {question: PrefixIndex(known) for question, known in self._solutions.items()}
        self._closed = False

    @classmethod
    def load(cls, path: str | Path, *, problems: str | Path | None = None) -> Self:
        """Replay a file, as :meth:`ReplayPolicy.load`; ConfigError if it is no record, or holds no scores."""
        return cls(load_record(path, problems=problems))

    @classmethod
    def from_pretrained(cls, path_or_name: str | Path, **settings: Any) -> RewardModel:
        """The same as :meth:`load`, or of traces; ConfigError also for settings of PRMs that run a model."""
        space = space_of(settings.pop("answers", None))
        if foreign := sorted(set(settings) - {"problems"}):
            raise ConfigError(f"a replay runs no model and takes problems alone; leave out {', '.join(foreign)}")
        if holds_traces(path_or_name):
            return TracePRM(read_trace_files(path_or_name, space), space)
        return cls.load(path_or_name, **settings)

    @property
    def strategy_defaults(self) -> Mapping[str, Any]:
        """``agg_strategy="mean"`` if only means were recorded."""
        return {"agg_strategy": "mean"} if self.record.detail == "mean" else {}

    def check_demand(self, problem: Problem, demand: Demand) -> None:
        """Refuse what the record cannot answer.

        ConfigError: scores of steps, or another reduction, where the mean alone was recorded; a budget in PRM tokens
        where they were not counted; a problem without scores.
        """
        what = self._recorded
        if self.record.detail == "mean" and demand.stepwise and demand.n is not None:
            raise ConfigError(
                f"{demand.strategy} needs the scores of steps, and {what} holds the mean of each solution alone; "
                "take best_of_n or weighted_best_of_n with agg_strategy='mean'"
            )
        if self.record.detail == "mean" and demand.agg_strategy != "mean":
            raise ConfigError(
                f"agg_strategy={demand.agg_strategy!r} needs the scores of steps, and {what} holds the mean of each "
                "solution alone; take agg_strategy='mean'"
            )
        if demand.count != "generated" and not self.record.counted:
            raise ConfigError(f"{what} does not say how many PRM tokens there were; take count='generated'")
        if not self._solutions.get(problem.question):
            raise ConfigError(f"{what} holds no scores for problem {problem.id!r}; record it, or take majority")

    def count_tokens(self, request: ScoreRequest) -> int:
        """As recorded, 0 without counts; ConfigError if the solution was not scored, or a step is empty."""
        check_steps(request)
        if not self.record.counted:
            return 0
        if len(request.steps) == 1 and len(request.steps[0]) == 1 and request.question in self._least:
            return self._least[request.question]
        return self._known(request).prm_counts[len(request.steps) - 1]

    async def score(self, request: ScoreRequest) -> Scored:
        """The recorded scores; ConfigError as :meth:`count_tokens`, EngineError if closed."""
        check_steps(request)
        await anyio.lowlevel.checkpoint()
        if self._closed:
            raise EngineError(f"{self.name} is closed; make a new one")
        known, steps = self._known(request), len(request.steps)
        if self.record.detail == "mean":
            return Scored(scores=known.scores * steps, prm_tokens=0)
        counts = known.prm_counts[steps - 1] if self.record.counted else 0
        computed = min(counts, known.prm_tokens) if steps == len(known.steps) else counts
        return Scored(scores=known.scores[:steps], prm_tokens=computed, cached_tokens=counts - computed)

    async def aclose(self) -> None:
        """Refuse later requests."""
        self._closed = True

    def _known(self, request: ScoreRequest) -> RecordedSample:
        whole = self._solutions.get(request.question, {}).get(request.steps)
        if whole is None and self.record.detail == "steps" and request.question in self._begun:
            whole = self._begun[request.question].starting_with(request.steps)
        if whole is None:
            raise ConfigError(f"{self.name} holds no score of this solution: replay its samples, to their ends")
        return whole
