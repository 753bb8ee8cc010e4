"""Finds the recorded problem, sample or text that a request is about; it answers none and knows no event loop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policies.replay.index import PrefixIndex
from adaptive_ttc.policies.replay.record import Record, RecordedProblem, RecordedSample
from adaptive_ttc.policy import SampleRequest
from adaptive_ttc.types import Problem


class Shelf:
    """A record in the order of one replay.

    Args:
        record: what was recorded.
        seed: of the permutation of each problem's samples; 0 leaves them in the order of the record.
    """

    def __init__(self, record: Record, seed: int) -> None:
        self._record = record
        self._seed = seed
        samples = [sample for problem in record.problems for sample in problem.samples]
        self._problems = {problem.messages: problem for problem in record.problems}
        self._prompts = PrefixIndex({problem.prompt_ids: problem for problem in record.problems})
        self._texts = PrefixIndex({sample.token_ids: sample for sample in samples})
        self._ends = frozenset(sample.token_ids[-1] for sample in samples if sample.finish == "eos")
        self._orders: dict[tuple[int, ...], tuple[int, ...]] = {}
        prompts = (problem.prompt_ids for problem in record.problems)
        self.vocab_size = 1 + max(max(ids) for ids in (*prompts, *(sample.token_ids for sample in samples)))

    def problem(self, problem: Problem) -> RecordedProblem:
        """The problem with the same messages.

        Raises:
            ConfigError: it was not recorded.
        """
        recorded = self._problems.get(problem.messages)
        if recorded is None:
            raise ConfigError(
                f"problem {problem.id!r} ({problem.question[:60]!r}...) is not among the {len(self._problems)} "
                f"problems in the record of {self._record.policy.name}; solve those, or record this one"
            )
        return recorded

    def text(self, token_ids: Sequence[int]) -> str:
        """What a recorded solution's first tokens say, without EOS.

        Raises:
            ConfigError: no recorded solution begins with these tokens.
        """
        spoken = tuple(token_ids)
        while spoken and spoken[-1] in self._ends:
            spoken = spoken[:-1]
        if not spoken:
            return ""
        sample = self._texts.starting_with(spoken)
        if sample is None:
            raise ConfigError(f"no solution in the record of {self._record.policy.name} begins with these tokens")
        return sample.text[: sample.ends[len(spoken) - 1]]

    def find(self, request: SampleRequest) -> tuple[RecordedSample, int]:
        """The sample that a request is for a piece of, and how many of its tokens stand in the prompt already.

        Raises:
            ConfigError: the prompt, place or settings were not recorded, or more tokens are asked for than were.
        """
        problem = self._prompts.beginning(request.prompt_ids)
        if problem is None:
            raise ConfigError(f"request {request.id!r}: this prompt was not recorded; prompts come from encode")
        self._check_settings(request)
        sample = problem.samples[self._place(request, problem)]
        so_far = request.prompt_ids[len(problem.prompt_ids) :]
        if sample.token_ids[: len(so_far)] != so_far:
            raise ConfigError(f"request {request.id!r}: its solution so far is not that of the recorded sample")
        left = len(sample.token_ids) - len(so_far)
        room = self._record.max_context - len(request.prompt_ids)
        if not left or (sample.finish == "length" and left < min(request.max_tokens, room)):
            raise ConfigError(
                f"request {request.id!r} asks for {request.max_tokens} more tokens, and the recorded sample ends by "
                f"{sample.finish} after {left}; take max_tokens={self._record.settings.max_tokens} or less"
            )
        return sample, len(so_far)

    def _check_settings(self, request: SampleRequest) -> None:
        if request.stop:
            raise ConfigError(f"request {request.id!r} has stop strings, and whole solutions were recorded")
        settings = self._record.settings
        asked = replace(settings, temperature=request.temperature, top_p=request.top_p)
        if asked != settings:
            raise ConfigError(f"request {request.id!r} asks for {asked}, and recorded are {settings}")

    def _place(self, request: SampleRequest, problem: RecordedProblem) -> int:
        # a cut solution that a later search goes on with is its own first child
        place, *further = request.path or (0,)
        if any(further) or place >= len(problem.samples):
            raise ConfigError(
                f"request {request.id!r}: path {request.path} was not recorded; there are "
                f"{len(problem.samples)} whole solutions of {problem.id!r}"
            )
        order = self._orders.get(problem.prompt_ids)
        if order is None:
            places = range(len(problem.samples))
            order = tuple(sorted(places, key=self._rank(problem)) if self._seed else places)
            self._orders[problem.prompt_ids] = order
        return order[place]

    def _rank(self, problem: RecordedProblem) -> Callable[[int], bytes]:
        # sorting by a hash is a permutation that no version of a random generator changes
        name = json.dumps([self._seed, [[turn.role, turn.content] for turn in problem.messages]])
        return lambda index: hashlib.sha256(f"{name}{index}".encode()).digest()
