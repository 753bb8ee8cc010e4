"""Records what a policy and a PRM do while others use them, changing no sample and no score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

from adaptive_ttc.answers.thinking import Thought, thinking_of
from adaptive_ttc.errors import ConfigError, warn
from adaptive_ttc.policies.replay.record import (
    Model,
    Record,
    RecordedProblem,
    RecordedSample,
    SampleSettings,
    save_record,
)
from adaptive_ttc.policy import Demand, Policy, Sampled, SampleRequest
from adaptive_ttc.prm.base import RewardModel, Scored, ScoreRequest
from adaptive_ttc.types import Problem, split_steps
from adaptive_ttc.wrappers import WrappedPolicy, WrappedPRM

Tokens = tuple[int, ...]


class LeftOutWarning(UserWarning):
    """A record is made without samples that were begun and never ended."""


@dataclass(slots=True)
class Growing:
    """A sample of which at least one request has come back."""

    opening: Tokens
    path: tuple[int, ...]
    first: Sampled
    token_ids: Tokens = ()
    logprobs: tuple[float, ...] = ()
    finish: str = "length"
    thought: int | None = None  # tokens of thinking, where the engine tells
    text: str | None = None  # where the tokens do not decode to it, and
    ends: tuple[int, ...] = ()  # characters of it that the first 1, 2, ... tokens stand for


class Recorder:
    """Records whole solutions and their scores, for ``ReplayPolicy`` and ``ReplayPRM``.

    Give :attr:`policy` and :attr:`prm` to a solver in place of the models, draw samples with one or several sampling
    strategies, then :meth:`save`::

        recorder = Recorder(policy, prm)
        pools = await draw_pools(Solver(recorder.policy, recorder.prm), rows, 64, print)
        recorder.save("pools.jsonl")

    A sample is identified by its seed, so drawing it again records it once. A solver refuses strategies that sample
    step by step or revise, and other sampling settings; such requests to the policy itself are served and not recorded.
    Neither is a sample that a budget or an abort cut: ``left_out`` counts those. Draw without a budget for an unbiased
    pool.

    Args:
        policy: writes the solutions.
        prm: scores them; None records no scores.
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
        self.policy = RecordingPolicy(policy, self)
        self.prm = None if prm is None else RecordingPRM(prm, self)
        self._problems: dict[Tokens, Problem] = {}
        self._growing: dict[tuple[Tokens, int], Growing] = {}
        self._ended: dict[tuple[Tokens, int], Growing] = {}
        self._scores: dict[tuple[str, tuple[str, ...]], tuple[Scored, tuple[int, ...]]] = {}

    def record(self) -> Record:
        """What was recorded so far; ConfigError if no sample has ended yet."""
        by_problem: dict[Tokens, list[Growing]] = {}
        for _, one in sorted(self._ended.items(), key=lambda item: (item[1].path, item[0][1])):
            by_problem.setdefault(one.opening, []).append(one)
        if not by_problem:
            raise ConfigError(
                f"nothing was recorded: draw whole solutions with {self.settings} through the recorder's policy"
            )
        left_out = {(one.opening, seed) for (_, seed), one in self._growing.items()} - set(self._ended)
        if left_out:
            warn(
                f"{len(left_out)} samples were begun and did not end, {len(self._ended)} did; without them the "
                "record favours short ones: draw without budget, deadline or errors",
                LeftOutWarning,
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
        """Write and return the record; ConfigError if no sample has ended yet, or the file cannot be written."""
        record = self.record()
        save_record(record, path)
        return record

    def met(self, problem: Problem, opening: Tokens) -> None:
        """Called when a problem was encoded."""
        self._problems.setdefault(opening, problem)

    def sampled(self, request: SampleRequest, sampled: Sampled) -> None:
        """Called when a request for a piece of a whole solution, with the recorder's settings, was answered."""
        growing = self._growing.pop((request.prompt_ids, request.seed), None)
        if growing is None:
            if request.prompt_ids not in self._problems:
                return
            growing = Growing(request.prompt_ids, request.path, sampled)
        growing.token_ids += sampled.token_ids
        growing.logprobs += sampled.logprobs
        growing.finish = sampled.finish
        growing.text, growing.ends = sampled.text, sampled.ends  # of an engine that writes whole samples
        if sampled.thought is not None:
            growing.thought = (growing.thought or 0) + sampled.thought
        if self._over(growing):
            self._ended[growing.opening, request.seed] = growing
        elif (growing.opening, request.seed) not in self._ended:
            self._growing[growing.opening + growing.token_ids, request.seed] = growing

    def _over(self, growing: Growing) -> bool:
        """Whether a sample has ended, not just one of its leases."""
        room = self._live.max_context - len(growing.opening)
        return growing.finish == "eos" or (
            growing.finish == "length" and len(growing.token_ids) >= min(self.settings.max_tokens, room)
        )

    def scored(self, request: ScoreRequest, scored: Scored) -> None:
        """Called when a request for scores was answered."""
        assert self._judge is not None
        parts = (ScoreRequest(request.question, request.steps[:k]) for k in range(1, len(request.steps) + 1))
        counts = tuple(self._judge.count_tokens(part) for part in parts)
        self._scores.setdefault((request.question, request.steps), (scored, counts))

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
        text = self._live.decode(one.token_ids) if one.text is None else one.text
        scored, counts = self._scores.get((question, split_steps(text)), (Scored(scores=(), prm_tokens=0), ()))
        ends = text_ends(self._live.decode, one.token_ids, text) if one.text is None else one.ends
        return RecordedSample(
            path=one.path,
            token_ids=one.token_ids,
            text=text,
            ends=ends,
            finish="eos" if one.finish == "eos" else "length",
            logprobs=one.logprobs if len(one.logprobs) == len(one.token_ids) else (),
            scores=scored.scores,
            prm_counts=counts,
            prm_tokens=scored.prm_tokens,
            prompt_tokens=one.first.prompt_tokens,
            cached_tokens=one.first.cached_tokens,
            thought=self._thought(one, text),
        )

    def _thought(self, one: Growing, text: str) -> int:
        """Tokens before the answer."""
        if one.thought is not None:
            return one.thought
        tags = thinking_of(self._live)
        found = Thought() if tags is None else tags.thought(one.token_ids, text, self._live.decode)
        return found.tokens


def _model(model: Policy | RewardModel) -> Model:
    return Model(name=model.name, fingerprint=model.fingerprint, parameters=model.parameters)


class RecordingPolicy(WrappedPolicy):
    """Passes everything on to another policy, and tells a recorder of prompts and of samples with its settings."""

    def __init__(self, policy: Policy, recorder: Recorder) -> None:
        super().__init__(policy)
        self._recorder, self._settings = recorder, recorder.settings

    @property
    def strategy_defaults(self) -> Mapping[str, Any]:
        """The settings of the record."""
        return {**super().strategy_defaults, **asdict(self._settings)}

    def check_demand(self, problem: Problem, demand: Demand) -> None:
        """Refuse steps, revisions, other sampling settings (ConfigError), and what the policy refuses."""
        if demand.stepwise or demand.revises:
            raise ConfigError(
                f"{demand.strategy} cannot be recorded: a record holds whole solutions; record a sampling strategy, "
                f"such as majority, or use {self.name} without the recorder"
            )
        for option, recorded in asdict(self._settings).items():
            asked = getattr(demand, option)
            if asked != recorded:
                raise ConfigError(
                    f"{option}={asked:g} is not that of the record, {recorded:g}; leave it out, or give the recorder "
                    f"SampleSettings({option}={asked:g})"
                )
        super().check_demand(problem, demand)

    def encode(self, problem: Problem) -> tuple[int, ...]:
        """The policy's."""
        opening = super().encode(problem)
        self._recorder.met(problem, opening)
        return opening

    async def sample(self, request: SampleRequest) -> Sampled:
        """The policy's, with its log-probabilities."""
        sampled = await super().sample(replace(request, logprobs=True))
        settings = (request.temperature, request.top_p)
        if not request.stop and settings == (self._settings.temperature, self._settings.top_p):
            self._recorder.sampled(request, sampled)
        return sampled


class RecordingPRM(WrappedPRM):
    """Passes everything on to another PRM, and tells a recorder of every score."""

    def __init__(self, prm: RewardModel, recorder: Recorder) -> None:
        super().__init__(prm)
        self._recorder = recorder

    async def score(self, request: ScoreRequest) -> Scored:
        """The PRM's."""
        scored = await super().score(request)
        self._recorder.scored(request, scored)
        return scored


WINDOW = 32
"""Tokens that are decoded together: decoding every prefix whole would take the square of the length."""

_REPLACEMENT = "\ufffd"  # what a decoder writes for half a character


def text_ends(decode: Callable[[Tokens], str], token_ids: Tokens, text: str) -> tuple[int, ...]:
    """Characters of ``text`` (all tokens decoded) that the first 1, 2, ... tokens stand for.

    Shape [tokens], not falling, the last ``len(text)``; half a character counts with its last token.
    """
    try:
        ends = _by_windows(decode, token_ids, text)
    except ConfigError:  # a replay decodes nothing from the middle of a solution
        ends = None
    if ends is None:
        ends = [_common(decode(token_ids[:k]), text) for k in range(1, len(token_ids) + 1)]
    rising = list(accumulate(ends, max))
    return (*rising[:-1], len(text)) if rising else ()


def _common(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _by_windows(decode: Callable[[Tokens], str], token_ids: Tokens, text: str) -> list[int] | None:
    """The same from short pieces; None if the decoder does not decode piece by piece."""
    ends: list[int] = []
    start, done = 0, 0
    while len(ends) < len(token_ids):
        before = decode(token_ids[start : len(ends)]).rstrip(_REPLACEMENT)
        piece = before
        for stop in range(len(ends) + 1, min(len(ends) + WINDOW, len(token_ids)) + 1):
            piece = decode(token_ids[start:stop]).rstrip(_REPLACEMENT)
            added = piece[len(before) :]
            if not piece.startswith(before) or not text.startswith(added, done):
                return None
            ends.append(done + len(added))
        done += len(piece) - len(before)
        # the last token stays in sight, as some decoders strip a blank from what comes first, and whole characters
        start = len(ends) - 1
        while start > 0 and not _plain(decode(token_ids[start : len(ends)])):
            start -= 1
    return ends if done == len(text.rstrip(_REPLACEMENT)) else None


def _plain(text: str) -> bool:
    spoken = text.rstrip(_REPLACEMENT)
    return bool(spoken) and _REPLACEMENT not in spoken
