"""The values that every part shares: problems, solution prefixes, candidates, usage."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

from adaptive_ttc.errors import ConfigError

if TYPE_CHECKING:
    from adaptive_ttc.answers.spaces.base import AnswerSpace

Finish = Literal["eos", "stop", "length", "budget", "abort"]
"""Why a sample ended.

``eos`` the model ended its solution; ``stop`` a stop string was met (the solution may go on); ``length`` the sample's
own token limit; ``budget`` the ledger could not cover (more of) it; ``abort`` it was cancelled. Only ``eos`` makes a
finished solution.
"""

Aggregation = Literal["last", "min", "prod", "mean"]  # how the scores of a solution's steps become one number
BIN_NAMES = ("easiest", "easy", "middle", "hard", "hardest")  # the names of five difficulty bins


def bin_names(number: int) -> tuple[str, ...]:
    """The names of ``number`` difficulty bins, the easiest first; ``bin 0`` and so on unless there are five."""
    return BIN_NAMES if number == len(BIN_NAMES) else tuple(f"bin {index}" for index in range(number))


@dataclass(frozen=True, slots=True)
class Message:
    """One chat turn."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem as the solver sees it: chat messages and an id, never a gold answer.

    Attributes:
        messages: its chat turns, the last one the user's.
        id: its name in seeds and traces.
        answers: its answer space (:mod:`adaptive_ttc.answers.spaces`) or the space's name; None: the solver's.
        tests: Python code that raises where an answer is wrong, for the answer space ``code``; it may be used while
            solving.
    """

    messages: tuple[Message, ...]
    id: str
    answers: str | AnswerSpace | None = None
    tests: str = ""

    @classmethod
    def of(
        cls,
        problem: str | Sequence[Mapping[str, str]] | Problem,
        id: str | None = None,
        *,
        answers: str | AnswerSpace | None = None,
        tests: str = "",
    ) -> Problem:
        """Make a problem from a string, from chat messages (the last one the user's), or from itself; the rest are its
        attributes.

        Raises:
            ConfigError: the problem is empty, or its messages are not chat turns ending with the user's.
        """
        if isinstance(problem, Problem):
            asked: dict[str, Any] = {"id": id, "answers": answers, "tests": tests}
            asked = {name: value for name, value in asked.items() if value not in (None, "")}
            return replace(problem, **asked) if asked else problem
        if isinstance(problem, str):
            messages: tuple[Message, ...] = (Message("user", problem),)
        else:
            given: Any = problem
            if not isinstance(given, Sequence) or not all(isinstance(turn, Mapping) for turn in given):
                raise ConfigError(f"a problem is a string, or a list of chat messages; got {problem!r}")
            turns = []
            for turn in given:
                if set(turn) != {"role", "content"} or turn["role"] not in ("system", "user", "assistant"):
                    raise ConfigError(
                        "a chat message is {'role': 'system' | 'user' | 'assistant', 'content': str}; "
                        f"got keys {sorted(turn)} with role {turn.get('role')!r}"
                    )
                turns.append(Message(turn["role"], turn["content"]))
            messages = tuple(turns)
        if not messages or messages[-1].role != "user" or not messages[-1].content.strip():
            raise ConfigError("the problem is empty: give a string, or chat messages that end with a user turn")
        if any(one.content.encode(errors="ignore").decode() != one.content for one in messages):
            raise ConfigError("the problem holds half a character (a lone surrogate), which no tokenizer takes")
        if id is None:
            canonical = json.dumps([[m.role, m.content] for m in messages], ensure_ascii=False)
            id = hashlib.sha256(canonical.encode()).hexdigest()[:16]
        return cls(messages, id, answers, tests)

    @property
    def question(self) -> str:
        """The text that a PRM is shown: the last user turn."""
        return self.messages[-1].content


@dataclass(frozen=True, slots=True)
class Prefix:
    """A solution so far: the engine's own token ids, its text, and the scores of its steps.

    Attributes:
        token_ids: generated ids, EOS included when it was generated.
        text: the decoded text, without EOS.
        scores: the PRM's score of every non-empty step, each in [0, 1]; empty if it was not scored.
        logprob: sum of the log-probabilities of ``token_ids`` under the sampling policy, in nats.
        logprobs: the log-probability of each of ``token_ids``; empty where the engine does not tell them, and where the
            solution was read from a trace.
        top_logprobs: mean log-probability of the most probable tokens at each one's place; empty as ``logprobs``, and
            where nothing reads it.
        answer_logprob: mean log-probability of the tokens of its final answer, in nats; nan where there is none, or the
            engine does not tell.
        finish: why the last sample ended; None at the root.
        path: child indices from the root; the seed of every sample is derived from it.
        attempts: earlier finished solutions that the policy is shown before this one, oldest first.
        answer_at: characters of ``text`` before the answer, which a reasoning model thinks in; None while the thought
            has not ended.
        thought: how many of ``token_ids`` are thinking.
        waits: how often its thought was made to go on.
    """

    token_ids: tuple[int, ...] = ()
    text: str = ""
    scores: tuple[float, ...] = ()
    logprob: float = 0.0
    finish: Finish | None = None
    path: tuple[int, ...] = ()
    attempts: tuple[Prefix, ...] = ()
    logprobs: tuple[float, ...] = field(default=(), compare=False, repr=False)
    top_logprobs: tuple[float, ...] = field(default=(), compare=False, repr=False)
    answer_logprob: float = field(default=math.nan, compare=False, repr=False)
    answer_at: int | None = 0
    thought: int = 0
    waits: int = 0

    @property
    def answer_text(self) -> str:
        """What the answer is read off: the text after the thinking, empty while there is none."""
        return "" if self.answer_at is None else self.text[self.answer_at :]

    @property
    def finished(self) -> bool:
        """True when the model itself ended the solution."""
        return self.finish == "eos"

    @property
    def steps(self) -> tuple[str, ...]:
        """The non-empty steps of the text, without the blank lines between them."""
        return split_steps(self.text)


ROOT = Prefix()


def revision_of(*attempts: Prefix) -> Prefix:
    """The empty prefix of a new attempt for which the policy is shown these; its path continues the last one's."""
    return Prefix(path=attempts[-1].path, attempts=attempts)


STEP_END = "\n\n"  # what ends a step


def whole(name: str, value: Any) -> int:
    """A number that has to be whole, floats such as 2e15 included. ConfigError: it is none."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise ConfigError(f"{name} is a whole number; got {value!r:.80}")


def split_steps(text: str) -> tuple[str, ...]:
    """Split a solution at blank lines, empty pieces dropped: a PRM would score the one after the last separator."""
    return tuple(piece.strip() for piece in text.split(STEP_END) if piece.strip())


def join_steps(steps: Sequence[str]) -> str:
    """The text of these steps, which :func:`split_steps` takes apart."""
    return STEP_END.join(step.strip() for step in steps)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A solution that a strategy hands in.

    Attributes:
        prefix: its tokens, text and step scores.
        answer: the extracted final answer in canonical form, or None when it holds none.
        answer_class: the canonical text of its equivalence class among the candidates, or None.
        score: its step scores reduced to one number in [0, 1], or None if it was not scored.
        verdict: whether a caller's check found its answer to be right; None where it did not say.
    """

    prefix: Prefix
    answer: str | None = None
    answer_class: str | None = None
    score: float | None = None
    verdict: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What was computed. Tokens are counted once each; ``a + b`` adds field by field.

    Attributes:
        prompt_tokens: prompt and prefix tokens that the policy computed (cache misses).
        cached_prompt_tokens: prompt and prefix tokens that its cache answered.
        completion_tokens: tokens that the policy delivered; what ``budget_tokens`` bounds.
        thinking_tokens: those of them that are a reasoning model's thinking.
        discarded_tokens: tokens that the policy computed past a stop string or an abort.
        lost_tokens: upper bound of the tokens of calls that failed without telling their number; the budget is charged
            with them beside ``completion_tokens``.
        prm_tokens: tokens that the PRM computed; ``prm_cached_tokens`` came from its cache.
        prm_written_tokens: those of ``prm_tokens`` that it wrote as verdicts, which ``budget_tokens`` bounds as well.
        second_tokens: tokens that the second policy of a cascade computed; they are among those above, its prompts in
            ``prompt_tokens``.
        num_calls: requests to the policy.
        num_prm_calls: requests to the PRM.
        flops: floating-point operations of both models (see ``adaptive_ttc.cost``).
        wall_time: seconds.
    """

    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0
    thinking_tokens: int = 0
    discarded_tokens: int = 0
    lost_tokens: int = 0
    prm_tokens: int = 0
    prm_cached_tokens: int = 0
    prm_written_tokens: int = 0
    second_tokens: int = 0
    num_calls: int = 0
    num_prm_calls: int = 0
    flops: float = 0.0
    wall_time: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in Usage.__dataclass_fields__})


@dataclass(frozen=True, slots=True)
class AnswerClass:
    """Candidates whose answers are equivalent.

    Attributes:
        answer: the canonical text that stands for the class.
        votes: how many candidates are in it.
        weight: its share under the vote that was used, normalised over the classes when positive.
    """

    answer: str
    votes: int
    weight: float = field(default=0.0)


class Stopped(StrEnum):
    """Why a problem got no more work."""

    SETTLED = "settled"  # a strategy has done what it was asked for, or no further work is expected to gain anything
    BUDGET = "budget"  # the budget, or the problem's own maximum, does not pay for another slice
    NO_OPTION_FITS = "no option fits"  # units are left, and nothing that would gain can be done with them
    NOT_WORTH_IT = "not worth it"  # more would gain something, and less than its price
    DEADLINE = "deadline"  # the deadline came first
    STOPPED = "stopped"  # the caller ended it
    FAILED = "failed"  # an engine failed, or the problem is impossible


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a problem got no more work, and the same in words."""

    stopped: Stopped
    why: str
