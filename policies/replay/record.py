"""What was recorded: models, sampling settings, and for every problem its whole solutions; it knows no file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.types import Message, split_steps

Detail = Literal["steps", "mean"]
"""What is known of a solution's scores: one a step, or their mean alone."""

DETAILS: tuple[str, ...] = get_args(Detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that was recorded; 0 parameters where their number is not known."""

    name: str
    fingerprint: str
    parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSettings:
    """How all samples of a record were drawn.

    Attributes:
        temperature: 0 is greedy.
        top_p: nucleus mass.
        max_tokens: most tokens of one solution.
    """

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
        text: what they say, without EOS.
        ends: shape [tokens]: characters of ``text`` that the first 1, 2, ... tokens stand for.
        finish: ``eos``, or ``length`` where ``max_tokens`` or the context cut it.
        logprobs: shape [tokens], in nats; empty where they were not recorded.
        scores: shape [steps], or [1] under the detail ``mean``; empty where it was not scored.
        prm_counts: shape [steps]: tokens that scoring the first 1, 2, ... steps takes without a cache; empty
            where they were not recorded.
        prm_tokens: of them all, tokens that the PRM did compute; the rest its cache answered.
        prompt_tokens: prompt tokens computed before its first token; ``cached_tokens`` were answered by a
            prefix cache.
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

    def __post_init__(self) -> None:
        length = len(self.token_ids)
        if not length or self.finish not in ("eos", "length"):
            raise ConfigError(f"a recorded sample holds tokens and ended by eos or length; got {self.finish!r}")
        if len(self.ends) != length or list(self.ends) != sorted(self.ends) or self.ends[-1] != len(self.text):
            raise ConfigError(f"ends has one number a token, not falling, the last {len(self.text)}, the text's length")
        if len(self.logprobs) not in (0, length):
            raise ConfigError(f"{len(self.logprobs)} log-probabilities for {length} tokens")
        if not all(0 <= score <= 1 for score in self.scores):
            raise ConfigError("scores lie in [0, 1]")

    @cached_property
    def steps(self) -> tuple[str, ...]:
        """The non-empty steps of its text."""
        return split_steps(self.text)


@dataclass(frozen=True, kw_only=True)
class RecordedProblem:
    """A problem and its samples.

    Attributes:
        id: as it was named.
        messages: its chat turns; by them it is found again.
        prompt_ids: what the policy made of them.
        samples: in order of their paths.
        prm_least: PRM tokens of the question with a solution of one character; None where not recorded.
    """

    id: str
    messages: tuple[Message, ...]
    prompt_ids: tuple[int, ...]
    samples: tuple[RecordedSample, ...]
    prm_least: int | None = None

    def __post_init__(self) -> None:
        if not self.messages or not self.prompt_ids or not self.samples:
            raise ConfigError(f"problem {self.id!r} is recorded without messages, prompt or samples")

    @property
    def question(self) -> str:
        """The text that a PRM is shown."""
        return self.messages[-1].content


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a policy, and perhaps a PRM, did.

    Attributes:
        policy: who wrote the samples.
        prm: who scored them; None where nobody did.
        settings: how the samples were drawn.
        max_context: of the policy.
        problems: in the order in which they were met.
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
        if self.detail not in DETAILS:
            raise ConfigError(f"unknown detail {self.detail!r}; one of {', '.join(DETAILS)}")
        if not self.problems:
            raise ConfigError("a record without problems can answer nothing")
        for of in ("messages", "prompt_ids"):
            if len({getattr(problem, of) for problem in self.problems}) < len(self.problems):
                raise ConfigError(f"two problems of a record have the same {of}; put their samples together")
        for problem in self.problems:
            for sample in problem.samples:
                self._check(problem, sample)

    def _check(self, problem: RecordedProblem, sample: RecordedSample) -> None:
        if len(sample.scores) not in (0, 1 if self.detail == "mean" else len(sample.steps)):
            raise ConfigError(f"problem {problem.id!r}: {len(sample.scores)} scores for {len(sample.steps)} steps")
        if self.counted and sample.scores and len(sample.prm_counts) != len(sample.steps):
            raise ConfigError(f"problem {problem.id!r}: {len(sample.prm_counts)} counts for {len(sample.steps)} steps")
        if len(sample.token_ids) > self.settings.max_tokens:
            raise ConfigError(
                f"problem {problem.id!r}: {len(sample.token_ids)} tokens, {self.settings.max_tokens} allowed"
            )
