"""Writes down what a policy and a PRM do while others use them; it changes no sample and no score."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policies.replay.record import Model, Record, RecordedProblem, RecordedSample, SampleSettings
from adaptive_ttc.policies.replay.recording import RecordingPolicy, RecordingPRM
from adaptive_ttc.policies.replay.store import save_record
from adaptive_ttc.policies.replay.texts import text_ends
from adaptive_ttc.policy import Policy, Sampled, SampleRequest
from adaptive_ttc.prm.base import RewardModel, Scored, ScoreRequest
from adaptive_ttc.types import Problem, split_steps

Tokens = tuple[int, ...]


class LeftOutWarning(UserWarning):
    """A record is made without samples that were begun and never ended."""


@dataclass(slots=True)
class Growing:
    """A sample of which one or several requests have come back."""

    opening: Tokens
    path: tuple[int, ...]
    first: Sampled
    token_ids: Tokens = ()
    logprobs: tuple[float, ...] = ()
    finish: str = "length"


@dataclass(slots=True)
class Scores:
    """What a PRM said of a solution; see :class:`~adaptive_ttc.policies.replay.RecordedSample`."""

    scored: Scored
    counts: tuple[int, ...] = field(default=())


class Recorder:
    """Records whole solutions and their scores, for ``ReplayPolicy`` and ``ReplayPRM``.

    Give :attr:`policy` and :attr:`prm` to a solver in place of the models, draw samples with one or several sampling
    strategies, then :meth:`save`::

        recorder = Recorder(policy, prm)
        pools = await draw_pools(Solver(recorder.policy, recorder.prm), rows, 64, print)
        recorder.save("pools.jsonl")

    Samples are told apart by their seeds, so that one that is drawn again is recorded once. Strategies that sample
    step by step or revise, and other sampling settings, are refused by a solver and, in requests that reach the
    policy nevertheless, served and not recorded. So is what a budget or an abort cut: the record's
    ``left_out`` counts it. Draw without a budget to have an unbiased pool.

    Args:
        policy: writes the solutions.
        prm: scores them; None records none.
        settings: with which all samples are drawn.

    Attributes:
        policy: the recorded one, which is the given one otherwise.
        prm: the same of the PRM, or None.
    """

    def __init__(
        self, policy: Policy, prm: RewardModel | None = None, *, settings: SampleSettings | None = None
    ) -> None:
        self.settings = settings or SampleSettings()
        self._live, self._judge = policy, prm
        self.policy = RecordingPolicy(policy, self.settings, self._met, self._sampled)
        self.prm = None if prm is None else RecordingPRM(prm, self._scored)
        self._problems: dict[Tokens, Problem] = {}
        self._growing: dict[tuple[Tokens, int], Growing] = {}
        self._ended: dict[tuple[Tokens, int], Growing] = {}
        self._scores: dict[tuple[str, tuple[str, ...]], Scores] = {}

    def record(self) -> Record:
        """What was recorded so far.

        Raises:
            ConfigError: no sample has ended yet.
        """
        by_problem: dict[Tokens, list[Growing]] = {}
        for _, one in sorted(self._ended.items(), key=lambda item: (item[1].path, item[0][1])):
            by_problem.setdefault(one.opening, []).append(one)
        if not by_problem:
            raise ConfigError(
                f"nothing was recorded: draw whole solutions with {self.settings} through the recorder's policy"
            )
        left_out = {(one.opening, seed) for (_, seed), one in self._growing.items()} - set(self._ended)
        if left_out:
            warnings.warn(
                f"{len(left_out)} samples were begun and did not end, {len(self._ended)} did; without them the "
                "record favours short ones: draw without budget, deadline or errors",
                LeftOutWarning,
                stacklevel=2,
            )
        openings = [opening for opening in self._problems if opening in by_problem]
        return Record(
            policy=_model(self._live),
            prm=_model(self._judge) if self._judge else None,
            settings=self.settings,
            max_context=self._live.max_context,
            problems=tuple(self._problem(opening, by_problem[opening]) for opening in openings),
            left_out=len(left_out),
        )

    def save(self, path: str | Path) -> Record:
        """Write the record; returns it.

        Raises:
            ConfigError: no sample has ended yet, or the file cannot be written.
        """
        record = self.record()
        save_record(record, path)
        return record

    def _met(self, problem: Problem, opening: Tokens) -> None:
        self._problems.setdefault(opening, problem)

    def _sampled(self, request: SampleRequest, sampled: Sampled) -> None:
        growing = self._growing.pop((request.prompt_ids, request.seed), None)
        if growing is None:
            if request.prompt_ids not in self._problems:
                return
            growing = Growing(request.prompt_ids, request.path, sampled)
        growing.token_ids += sampled.token_ids
        growing.logprobs += sampled.logprobs
        growing.finish = sampled.finish
        if self._over(growing):
            self._ended[growing.opening, request.seed] = growing
        elif (growing.opening, request.seed) not in self._ended:
            self._growing[growing.opening + growing.token_ids, request.seed] = growing

    def _over(self, growing: Growing) -> bool:
        """Whether a sample has ended, and not just a lease of it."""
        room = self._live.max_context - len(growing.opening)
        return growing.finish == "eos" or (
            growing.finish == "length" and len(growing.token_ids) >= min(self.settings.max_tokens, room)
        )

    def _scored(self, request: ScoreRequest, scored: Scored) -> None:
        assert self._judge is not None
        parts = (ScoreRequest(request.question, request.steps[:k]) for k in range(1, len(request.steps) + 1))
        counts = tuple(self._judge.count_tokens(part) for part in parts)
        self._scores.setdefault((request.question, request.steps), Scores(scored, counts))

    def _problem(self, opening: Tokens, samples: list[Growing]) -> RecordedProblem:
        problem = self._problems[opening]
        least = self._judge.count_tokens(ScoreRequest(problem.question, ("?",))) if self._judge else None
        return RecordedProblem(
            id=problem.id,
            messages=problem.messages,
            prompt_ids=opening,
            samples=tuple(self._sample(problem.question, one) for one in samples),
            prm_least=least,
        )

    def _sample(self, question: str, one: Growing) -> RecordedSample:
        text = self._live.decode(one.token_ids)
        scores = self._scores.get((question, split_steps(text)))
        return RecordedSample(
            path=one.path,
            token_ids=one.token_ids,
            text=text,
            ends=text_ends(self._live.decode, one.token_ids, text),
            finish="eos" if one.finish == "eos" else "length",
            logprobs=one.logprobs if len(one.logprobs) == len(one.token_ids) else (),
            scores=scores.scored.scores if scores else (),
            prm_counts=scores.counts if scores else (),
            prm_tokens=scores.scored.prm_tokens if scores else 0,
            prompt_tokens=one.first.prompt_tokens,
            cached_tokens=one.first.cached_tokens,
        )


def _model(model: Policy | RewardModel) -> Model:
    return Model(name=model.name, fingerprint=model.fingerprint, parameters=model.parameters)
