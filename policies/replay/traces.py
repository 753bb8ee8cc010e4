"""Answers from traces, which hold answers and lengths and perhaps no text: a policy, a PRM and a grader without models.

- Token ids are placeholders: 0 is the EOS, then one for every prompt, then one for every sample, repeated as often as
  tokens were counted; the last token of a sample is the EOS. So nothing is held of samples that are not drawn.
- A sample's text is the recorded one where its answer can be read off it, else a sentence of which it can. The text is
  dealt to the tokens in equal parts of characters.
- How samples were drawn is not known: any temperature but 0 is taken for theirs.
- Prompt and PRM tokens are not known either and count as 0, so budgets in FLOPs or PRM tokens are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import anyio.lowlevel

from adaptive_ttc.answers import Grader
from adaptive_ttc.answers.spaces.base import AnswerSpace, answer_in
from adaptive_ttc.answers.spaces.mathematics import MATH
from adaptive_ttc.answers.thinking import after_thought, tags_in
from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.estimate.model_names import fingerprint_of_traces
from adaptive_ttc.evaluation.traces import TraceSample, TraceSet
from adaptive_ttc.policies.replay.order import RecordedOrder
from adaptive_ttc.policies.replay.turns import Turns
from adaptive_ttc.policies.requests import check_request
from adaptive_ttc.policy import Demand, Sampled, SampleRequest
from adaptive_ttc.prm.base import Scored, ScoreRequest, check_steps
from adaptive_ttc.types import Problem, split_steps

EOS = 0
_SCORED_BY = "recorded scores"


def text_of(sample: TraceSample, number: int, space: AnswerSpace = MATH) -> str:
    """A solution's text, from which its answer is read; ``number`` tells texts of equal answers apart."""
    if sample.text is not None and answer_in(space, after_thought(sample.text)) == sample.answer:
        return sample.text
    if sample.answer is None:
        silent = f"Recorded sample {number} gives no answer."
        return silent if space == MATH or answer_in(space, silent) is None else "_" * (number + 1)
    return f"Recorded sample {number}: {space.write(sample.answer)}"


def check_read(traces: TraceSet, space: AnswerSpace) -> None:
    """Refuse traces of answers that cannot be read back off a text (ConfigError)."""
    for problem in traces.problems:
        for number, sample in enumerate(problem.samples):
            if space != MATH and answer_in(space, after_thought(text_of(sample, number, space))) != sample.answer:
                raise ConfigError(
                    f"{problem.where}, sample {number + 1}: nothing is known of which answers={space.name!r} reads "
                    f"{sample.answer!r:.60}: leave the answers out and give the texts, or replay without --answers"
                )


class RecordedGrader(Grader):
    """Grades answers of traces as the traces do; any others, and those that traces leave open, as its base class."""

    def __init__(self, traces: TraceSet, space: AnswerSpace = MATH) -> None:
        super().__init__(space=space)
        self._flags: dict[tuple[str, str], list[bool]] = {}
        self._known: set[str] = set()
        for problem in traces.problems:
            if problem.extracted or not problem.graded:
                continue
            for number, sample in enumerate(problem.samples):
                if sample.answer is not None:
                    answer = answer_in(space, after_thought(text_of(sample, number, space))) or sample.answer
                    self._flags.setdefault((space.canonical(problem.gold), answer), []).append(bool(sample.correct))
                    self._known.add(answer)

    async def classes(self, answers: Sequence[str | None]) -> tuple[str | None, ...]:
        """Answers of the traces are classes as they stand."""
        known = self._as_they_stand(answers)
        return await super().classes(answers) if known is None else known

    def classes_sync(self, answers: Sequence[str | None]) -> tuple[str | None, ...]:
        """The same."""
        known = self._as_they_stand(answers)
        return super().classes_sync(answers) if known is None else known

    async def equal(self, gold: str, answer: str | None) -> bool:
        """As recorded; where samples of one answer were graded differently, as most of them."""
        known = self._as_recorded(gold, answer)
        return await super().equal(gold, answer) if known is None else known

    def equal_sync(self, gold: str, answer: str | None) -> bool:
        """The same."""
        known = self._as_recorded(gold, answer)
        return super().equal_sync(gold, answer) if known is None else known

    def _as_they_stand(self, answers: Sequence[str | None]) -> tuple[str | None, ...] | None:
        texts = tuple(self.space.canonical(answer) if answer is not None else "" for answer in answers)
        return tuple(text or None for text in texts) if self._known.issuperset(filter(None, texts)) else None

    def _as_recorded(self, gold: str, answer: str | None) -> bool | None:
        flags = self._flags.get((self.space.canonical(gold), self.space.canonical(answer or "")))
        return None if flags is None else 2 * sum(flags) >= len(flags)


class TracePolicy(Turns):
    """A :class:`~adaptive_ttc.policy.Policy` whose j-th sample of a problem is a recorded one, permuted by ``seed``.

    It has whole samples of known problems alone, and no more than were recorded: searches, revisions, greedy decoding
    and more samples are refused, and adaptive runs are offered none of them.

    Args:
        traces: the recorded samples.
        seed: of the permutations; 0 takes the samples as they were drawn.
        space: of the answers.
        turn_tokens: tokens delivered before other tasks have their turn, and an abort its chance.
    """

    def __init__(self, traces: TraceSet, *, seed: int = 0, space: AnswerSpace = MATH, turn_tokens: int = 512) -> None:
        check_read(traces, space)
        self._space = space
        names = traces.models
        self.name = (names[0] if names else "traces") + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        self.name += " (replay)"
        self.fingerprint = fingerprint_of_traces(names, traces.fingerprint)
        billions = re.findall(r"(?i)(?<![\d.])(\d+(?:\.\d+)?)b(?![a-z])", names[0]) if len(names) == 1 else []
        self.parameters = round(float(billions[-1]) * 1e9) if billions else 0
        self.revision_prompt: str | None = None
        texts = (sample.text for problem in traces.problems for sample in problem.samples if sample.text)
        self.thinking = tags_in(texts)
        self.grader = RecordedGrader(traces, space)
        self._longest = max(sample.tokens for problem in traces.problems for sample in problem.samples)
        self.max_context = 1 + self._longest
        super().__init__(turn_tokens)
        self._problems = dict(zip(traces.texts, traces.problems, strict=True))
        self._prompt = {text: 1 + number for number, text in enumerate(self._problems)}
        self._held = list(self._problems.values())
        self._first: list[int] = []  # token id of each problem's first sample
        self._owner: list[tuple[int, int]] = []  # problem and place of every sample, by token id
        for number, problem in enumerate(self._held):
            self._first.append(1 + len(self._held) + len(self._owner))
            self._owner += [(number, place) for place in range(len(problem.samples))]
        self._orders = [RecordedOrder(len(one.samples), seed, json.dumps([seed, one.id])) for one in traces.problems]

    @property
    def strategy_defaults(self) -> Mapping[str, Any]:
        """A solution may be as long as the longest recorded one."""
        return {"max_tokens": self._longest}

    def recorded_samples(self, problem: Problem) -> int:
        """How many samples of a problem there are; ConfigError for one that is not there."""
        return len(self._held[self._number(problem)].samples)

    def recorded_problem(self) -> Problem:
        """One that is there."""
        return Problem.of(next(iter(self._problems)))

    def check_demand(self, problem: Problem, demand: Demand) -> None:
        """Refuse steps, revisions, greedy decoding, more samples than recorded, unknown problems (ConfigError)."""
        held = self.recorded_samples(problem)
        if demand.revises or (demand.stepwise and demand.n is not None) or not demand.temperature:
            raise ConfigError(
                f"{demand.strategy} cannot be replayed: traces of {self.name} hold whole samples drawn at random; take "
                "majority, best_of_n or weighted_best_of_n, or a budget alone"
            )
        if demand.count != "generated":
            raise ConfigError(f"traces of {self.name} do not count prompt and PRM tokens; take count='generated'")
        if demand.n is not None and demand.n > held:
            raise ConfigError(f"traces of {self.name} hold {held} samples of {problem.id!r}; take n={held} or less")

    def encode(self, problem: Problem) -> tuple[int, ...]:
        """One placeholder; ConfigError for a problem that is not there."""
        return (1 + self._number(problem),)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a sample's first tokens; ConfigError if they are of none."""
        spoken = len(token_ids) - (bool(token_ids) and token_ids[-1] == EOS)
        if not spoken:
            return ""
        number, place = self._owned(token_ids[0])
        sample = self._held[number].samples[place]
        text = text_of(sample, place, self._space)
        return text if len(token_ids) >= sample.tokens - 1 else text[: len(text) * spoken // (sample.tokens - 1)]

    async def sample(self, request: SampleRequest) -> Sampled:
        """The requested piece of a recorded sample; ConfigError also if there is none."""
        vocabulary = 1 + len(self._held) + len(self._owner)
        check_request(self, request, vocab_size=vocabulary, in_flight=self._aborts, closed=self._closed)
        number, place = self._recorded(request)
        sample, token = self._held[number].samples[place], self._first[number] + place
        begun = len(request.prompt_ids) - 1
        if begun >= sample.tokens or set(request.prompt_ids[1:]) - {token}:
            raise ConfigError(f"request {request.id!r}: its solution so far is not that of the recorded sample")
        limit = min(request.max_tokens, sample.tokens - begun)
        tokens = await self._delivered(request.id, limit)
        if not begun + tokens:
            self._orders[number].give_back(request.path)
        whole = begun + tokens == sample.tokens
        known = sample.logprob == sample.logprob
        return Sampled(
            token_ids=(token,) * (tokens - whole) + (EOS,) * whole,
            finish="abort" if tokens < limit else "eos" if whole else "length",
            logprobs=(sample.logprob / sample.tokens,) * tokens if known else (),
            answer_logprob=sample.answer_logprob,
        )

    def _number(self, problem: Problem) -> int:
        found = self._prompt.get(problem.question) if len(problem.messages) == 1 else None
        if found is None:
            raise ConfigError(
                f"problem {problem.id!r} ({problem.question[:60]!r}...) is not among the {len(self._held)} problems in "
                f"the traces of {self.name}; solve those"
            )
        return found - 1

    def _owned(self, token: int) -> tuple[int, int]:
        index = token - 1 - len(self._held)
        if not 0 <= index < len(self._owner):
            raise ConfigError(f"no solution in the traces of {self.name} holds the token {token}")
        return self._owner[index]

    def _recorded(self, request: SampleRequest) -> tuple[int, int]:
        """Problem and place of the sample that a request asks a piece of."""
        number = request.prompt_ids[0] - 1
        if not 0 <= number < len(self._held):
            raise ConfigError(f"request {request.id!r}: this prompt was not recorded; prompts come from encode")
        if request.stop or not request.temperature:
            raise ConfigError(f"request {request.id!r}: only whole samples drawn at random were recorded")
        place = self._orders[number].sample(request.path, begins=len(request.prompt_ids) == 1)
        if place is None:
            held = len(self._held[number].samples)
            raise EngineError(f"request {request.id!r} asks for one more than the {held} samples that were recorded")
        return number, place


class TracePRM:
    """A :class:`~adaptive_ttc.prm.base.RewardModel` that knows the scores of recorded solutions.

    A solution's steps get the recorded scores of steps where these are as many, else all of them the mean. A solution
    that was not scored, such as one without an answer, gets 0. ConfigError if nothing was scored.
    """

    parameters = 0

    def __init__(self, traces: TraceSet, space: AnswerSpace = MATH) -> None:
        self.name, self.fingerprint = f"{_SCORED_BY} (replay)", fingerprint_of_traces((), traces.fingerprint)
        self._scores: dict[str, dict[tuple[str, ...], tuple[float, ...]]] = {}
        for text, problem in zip(traces.texts, traces.problems, strict=True):
            known = self._scores.setdefault(text, {})
            for number, sample in enumerate(problem.samples):
                known.setdefault(split_steps(text_of(sample, number, space)), sample.scores)
        if not any(scores for known in self._scores.values() for scores in known.values()):
            raise ConfigError("these traces hold no scores: leave the PRM out, take majority")
        self._closed = False

    @property
    def strategy_defaults(self) -> Mapping[str, Any]:
        """``agg_strategy="mean"``."""
        return {"agg_strategy": "mean"}

    def check_demand(self, problem: Problem, demand: Demand) -> None:
        """Refuse searches over steps, products of scores, budgets in PRM tokens, unknown problems (ConfigError)."""
        if demand.stepwise and demand.n is not None:
            raise ConfigError(f"{demand.strategy} needs scores of unfinished solutions: take weighted_best_of_n")
        if demand.agg_strategy == "prod":
            raise ConfigError("agg_strategy='prod' needs the scores of all steps: take agg_strategy='mean'")
        if demand.count != "generated":
            raise ConfigError("traces do not say how many PRM tokens there were; take count='generated'")
        if problem.question not in self._scores:
            raise ConfigError(f"the traces hold no scores for problem {problem.id!r}; take majority")

    def count_tokens(self, request: ScoreRequest) -> int:
        """0: nobody counted them."""
        check_steps(request)
        return 0

    async def score(self, request: ScoreRequest) -> Scored:
        """The recorded scores; ConfigError for another solution, EngineError if closed."""
        check_steps(request)
        await anyio.lowlevel.checkpoint()
        if self._closed:
            raise EngineError(f"{self.name} is closed; make a new one")
        scores = self._scores.get(request.question, {}).get(request.steps)
        if scores is None:
            raise ConfigError(f"{self.name} holds no score of this solution: replay its samples, to their ends")
        steps = len(request.steps)
        mean = sum(scores) / len(scores) if scores else 0.0
        return Scored(scores=scores if len(scores) == steps else (mean,) * steps, prm_tokens=0)

    async def aclose(self) -> None:
        """Refuse later requests."""
        self._closed = True
