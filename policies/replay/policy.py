"""Answers with recorded samples in place of a model."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.traces import holds_traces, read_trace_files
from adaptive_ttc.policies.replay.order import RecordedOrder
from adaptive_ttc.policies.replay.record import Record, RecordedProblem, RecordedSample, load_record
from adaptive_ttc.policies.replay.traces import TracePolicy
from adaptive_ttc.policies.replay.turns import Turns
from adaptive_ttc.policies.requests import check_request
from adaptive_ttc.policy import Demand, Policy, Sampled, SampleRequest
from adaptive_ttc.types import Problem

V = TypeVar("V")


class ReplayPolicy(Turns):
    """A :class:`~adaptive_ttc.policy.Policy` whose j-th whole solution of a problem is a recorded one.

    Each problem's samples are permuted by ``seed``: replays with several seeds are several draws without replacement
    from one pool, and no two samples of a replay are the same recorded one. The seeds of requests have no effect.
    Requests that cut a sample into pieces get the pieces of the recorded one, whose prompt counts as cached but for one
    token.

    Steps, revisions, other sampling settings and more samples than recorded are refused, by :meth:`check_demand` before
    a solver samples.

    Args:
        record: the recorded samples.
        seed: of the permutations; 0 takes the samples in the order of the record.
        turn_tokens: tokens delivered before other tasks have their turn, and an abort its chance.
    """

    def __init__(self, record: Record, *, seed: int = 0, turn_tokens: int = 64) -> None:
        if turn_tokens < 1:
            raise ConfigError(f"turn_tokens={turn_tokens} must be at least 1")
        self.record, self.max_context = record, record.max_context
        self.name = f"{record.policy.name} (replay)"
        self.fingerprint, self.parameters = record.policy.fingerprint, record.policy.parameters
        self.revision_prompt: str | None = None
        super().__init__(turn_tokens)
        self._seed = seed
        samples = [sample for problem in record.problems for sample in problem.samples]
        self._problems = {problem.messages: problem for problem in record.problems}
        self._prompts = PrefixIndex({problem.prompt_ids: problem for problem in record.problems})
        self._texts = PrefixIndex({sample.token_ids: sample for sample in samples})
        self._ends = frozenset(sample.token_ids[-1] for sample in samples if sample.finish == "eos")
        self._orders: dict[tuple[int, ...], RecordedOrder] = {}
        prompts = (problem.prompt_ids for problem in record.problems)
        self._vocab_size = 1 + max(max(ids) for ids in (*prompts, *(sample.token_ids for sample in samples)))

    @classmethod
    def load(cls, path: str | Path, *, seed: int = 0, problems: str | Path | None = None) -> Self:
        """Replay a file; ConfigError if it is no record.

        Args:
            path: saved by a :class:`~adaptive_ttc.policies.replay.Recorder`, or traces; see ``record.py``.
            seed: of the permutations; 0 takes the samples in the order of the record.
            problems: see :func:`~adaptive_ttc.policies.replay.load_record`.
        """
        return cls(load_record(path, problems=problems), seed=seed)

    @classmethod
    def from_pretrained(cls, path_or_name: str | Path, **settings: Any) -> Policy:
        """The same as :meth:`load`, or of traces; ConfigError also for settings of engines that run a model."""
        space = space_of(settings.pop("answers", None))
        if foreign := sorted(set(settings) - {"seed", "problems"}):
            raise ConfigError(
                f"a replay runs no model and takes seed and problems alone; leave out {', '.join(foreign)}"
            )
        if holds_traces(path_or_name):
            return TracePolicy(read_trace_files(path_or_name, space), seed=settings.get("seed", 0), space=space)
        return cls.load(path_or_name, **settings)

    @property
    def strategy_defaults(self) -> Mapping[str, Any]:
        """The settings of the record."""
        return asdict(self.record.settings)

    def check_demand(self, problem: Problem, demand: Demand) -> None:
        """Refuse steps, revisions, other settings, more samples than recorded, unknown problems (ConfigError)."""
        what = f"the record of {self.record.policy.name}"
        if demand.revises or (demand.stepwise and demand.n is not None):
            kind = "revisions" if demand.revises else "steps that could be gone on from in several ways"
            raise ConfigError(
                f"{demand.strategy} cannot be replayed: {what} holds whole solutions, no {kind}; "
                "take majority, best_of_n or weighted_best_of_n"
            )
        for option, recorded in self.strategy_defaults.items():
            asked = getattr(demand, option)
            if asked > recorded if option == "max_tokens" else asked != recorded:
                remedy = "take majority" if demand.strategy == "greedy" else f"leave {option} out"
                raise ConfigError(
                    f"{what} was drawn with {option}={recorded:g}, so {demand.strategy} with {option}={asked:g} cannot "
                    f"be replayed; {remedy}, or record it so"
                )
        if demand.count == "flops" and not self.record.counted:
            raise ConfigError(f"{what} does not say how many prompt tokens there were; take count='generated'")
        held = self.recorded_samples(problem)
        if demand.n is not None and demand.n > held:
            raise ConfigError(f"{what} holds {held} samples of this problem, not n={demand.n}; take n={held} or less")

    def recorded_samples(self, problem: Problem) -> int:
        """How many samples of a problem were recorded; ConfigError for one that was not."""
        return len(self._problem(problem).samples)

    def recorded_problem(self) -> Problem:
        """One that was recorded."""
        first = self.record.problems[0]
        return Problem(first.messages, first.id)

    def encode(self, problem: Problem) -> tuple[int, ...]:
        """The prompt as recorded; ConfigError for a problem that was not."""
        return self._problem(problem).prompt_ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a recorded solution's first tokens, without EOS; ConfigError if none begins with these."""
        spoken = tuple(token_ids)
        while spoken and spoken[-1] in self._ends:
            spoken = spoken[:-1]
        if not spoken:
            return ""
        sample = self._texts.starting_with(spoken)
        if sample is None:
            raise ConfigError(f"no solution in the record of {self.record.policy.name} begins with these tokens")
        return sample.text[: sample.ends[len(spoken) - 1]]

    async def sample(self, request: SampleRequest) -> Sampled:
        """The requested piece of a recorded sample; ConfigError also if it was not recorded."""
        check_request(self, request, vocab_size=self._vocab_size, in_flight=self._aborts, closed=self._closed)
        sample, begun = self._recorded(request)
        limit = min(request.max_tokens, len(sample.token_ids) - begun)
        tokens = await self._delivered(request.id, limit)
        return _piece(sample, begun, tokens, request, cut=tokens < limit)

    def _problem(self, problem: Problem) -> RecordedProblem:
        recorded = self._problems.get(problem.messages)
        if recorded is None:
            raise ConfigError(
                f"problem {problem.id!r} ({problem.question[:60]!r}...) is not among the {len(self._problems)} "
                f"problems in the record of {self.record.policy.name}; solve those, or record this one"
            )
        return recorded

    def _recorded(self, request: SampleRequest) -> tuple[RecordedSample, int]:
        """The sample that a request asks a piece of, and how many of its tokens are in the prompt."""
        problem = self._prompts.beginning(request.prompt_ids)
        if problem is None:
            raise ConfigError(f"request {request.id!r}: this prompt was not recorded; prompts come from encode")
        if request.stop:
            raise ConfigError(f"request {request.id!r} has stop strings, and whole solutions were recorded")
        settings = self.record.settings
        asked = replace(settings, temperature=request.temperature, top_p=request.top_p)
        if asked != settings:
            raise ConfigError(f"request {request.id!r} asks for {asked}, and recorded are {settings}")
        sample = problem.samples[self._place(request, problem)]
        so_far = request.prompt_ids[len(problem.prompt_ids) :]
        if sample.token_ids[: len(so_far)] != so_far:
            raise ConfigError(f"request {request.id!r}: its solution so far is not that of the recorded sample")
        left = len(sample.token_ids) - len(so_far)
        room = self.record.max_context - len(request.prompt_ids)
        if not left or (sample.finish == "length" and left < min(request.max_tokens, room)):
            raise ConfigError(
                f"request {request.id!r} asks for {request.max_tokens} more tokens, and the recorded sample ends by "
                f"{sample.finish} after {left}; take max_tokens={settings.max_tokens} or less"
            )
        return sample, len(so_far)

    def _place(self, request: SampleRequest, problem: RecordedProblem) -> int:
        if problem.prompt_ids not in self._orders:
            name = json.dumps([self._seed, [[turn.role, turn.content] for turn in problem.messages]])
            self._orders[problem.prompt_ids] = RecordedOrder(len(problem.samples), self._seed, name)
        begins = len(request.prompt_ids) == len(problem.prompt_ids)
        place = self._orders[problem.prompt_ids].sample(request.path, begins=begins)
        if place is None:
            raise ConfigError(
                f"request {request.id!r}: path {request.path} was not recorded; there are "
                f"{len(problem.samples)} whole solutions of {problem.id!r}"
            )
        return place


def _piece(sample: RecordedSample, begun: int, tokens: int, request: SampleRequest, *, cut: bool) -> Sampled:
    piece = slice(begun, begun + tokens)
    whole = begun + tokens == len(sample.token_ids)
    prompt = sample.prompt_tokens + sample.cached_tokens
    computed = (1 if prompt else 0) if begun else sample.prompt_tokens
    return Sampled(
        token_ids=sample.token_ids[piece],
        finish="abort" if cut else sample.finish if whole else "length",
        logprobs=sample.logprobs[piece],
        prompt_tokens=computed,
        cached_tokens=(len(request.prompt_ids) if begun else prompt) - computed if prompt else 0,
        thought=min(max(0, sample.thought - begun), tokens) if sample.thought else None,
    )


class PrefixIndex(Generic[V]):
    """Values under sequences, found by prefix: sorted, equal beginnings stand together, and bisection finds them."""

    def __init__(self, values: Mapping[tuple[Any, ...], V]) -> None:
        self._keys = sorted(values)
        self._values = [values[key] for key in self._keys]

    def starting_with(self, prefix: tuple[Any, ...]) -> V | None:
        """The value of the first stored sequence, in order, that begins with ``prefix``, or None."""
        index = bisect_left(self._keys, prefix)
        if index < len(self._keys) and self._keys[index][: len(prefix)] == prefix:
            return self._values[index]
        return None

    def beginning(self, sequence: tuple[Any, ...]) -> V | None:
        """The value of the longest stored sequence with which ``sequence`` begins, or None."""
        while True:
            index = bisect_right(self._keys, sequence) - 1
            if index < 0:
                return None
            pairs = zip(self._keys[index], sequence, strict=False)
            common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            if common == len(self._keys[index]):
                return self._values[index]
            # whatever begins the sequence begins this neighbour in the order as well
            sequence = sequence[:common]
