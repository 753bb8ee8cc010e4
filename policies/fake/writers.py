"""The fake's tokenizer (a token a byte), and what it writes: a script's replies, or the sums of a toy model."""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from adaptive_ttc.errors import ConfigError, ScriptError
from adaptive_ttc.policy import SampleRequest
from adaptive_ttc.types import Problem, split_steps

EOS, SYSTEM, USER, ASSISTANT = 256, 257, 258, 259
OPEN, CLOSE = 260, 261  # around a thought
VOCAB_SIZE = 262

REVISION_PROMPT = "Try again."
"""The user turn after which the fake writes another attempt at the same question."""

_ROLES = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}


def encode_text(text: str) -> tuple[int, ...]:
    """The text's UTF-8 bytes."""
    return tuple(text.encode())


def decode_tokens(token_ids: Sequence[int]) -> str:
    """The text of the bytes; control tokens are left out, and half characters replaced."""
    return bytes(token for token in token_ids if token < EOS).decode(errors="replace")


def encode_problem(problem: Problem) -> tuple[int, ...]:
    """Every message behind its role's token, and the assistant's token at the end."""
    ids: list[int] = []
    for message in problem.messages:
        ids += (_ROLES[message.role], *encode_text(message.content))
    return (*ids, ASSISTANT)


def split_prompt(prompt_ids: tuple[int, ...]) -> tuple[str, str]:
    """The question (the last user turn that does not ask for a revision) and the solution so far.

    ValueError if the ids do not come from :func:`encode_problem`.
    """
    solution = decode_tokens(prompt_ids[_last(ASSISTANT, prompt_ids) + 1 :])
    question, end = REVISION_PROMPT, len(prompt_ids)
    while question == REVISION_PROMPT:
        end = _last(ASSISTANT, prompt_ids[:end])
        start = _last(USER, prompt_ids[:end])
        question = decode_tokens(prompt_ids[start + 1 : end])
        end = start
    return question, solution


def _last(token: int, ids: tuple[int, ...]) -> int:
    return len(ids) - 1 - ids[::-1].index(token)


T = TypeVar("T", int, str)
Token = tuple[int, float]
"""A token id, and its log-probability under the temperature-1 model in nats."""


class Writer(Protocol):
    """Continues prompts."""

    def write(self, request: SampleRequest) -> Iterator[Token]:
        """The tokens after ``request.prompt_ids``, one by one; the last is EOS."""

    def cut(self, request: SampleRequest, tokens: Sequence[int]) -> None:
        """Called with the delivered tokens when a sample ended before its EOS."""


Key = str | tuple[str, str]
Replies = Sequence[str] | Mapping[int, str]


class Script:
    """Replies written beforehand.

    A reply is the text from the prompt to the solution's end. One that a stop string or a limit cut is continued when
    its own prefix is asked for, unless the script has another reply to that prefix.

    Args:
        replies: by the question, or by (question, solution so far); each a sequence, taken in order of arrival, or a
            mapping from the request's seed, independent of that order.
    """

    def __init__(self, replies: Mapping[Key, Replies]) -> None:
        self._by_order = {key: list(value) for key, value in replies.items() if not isinstance(value, Mapping)}
        self._by_seed = {key: dict(value) for key, value in replies.items() if isinstance(value, Mapping)}
        self._begun: dict[str, tuple[int, ...]] = {}
        self._rests: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = {}

    def write(self, request: SampleRequest) -> Iterator[Token]:
        """The next reply to this prompt; ScriptError if the script has none left."""
        reply = self._begun[request.id] = self._reply(request)
        # every token as likely as the next: a script has no distribution
        return iter([(token, -0.1) for token in (*reply, EOS)])

    def cut(self, request: SampleRequest, tokens: Sequence[int]) -> None:
        """Keep the rest for the prefix that was delivered."""
        reply = self._begun.pop(request.id, None)
        if reply is not None:
            self._rests.setdefault((*request.prompt_ids, *tokens), []).append((request.seed, reply[len(tokens) :]))

    def _reply(self, request: SampleRequest) -> tuple[int, ...]:
        question, so_far = split_prompt(request.prompt_ids)
        for key in ((question, so_far), *(() if so_far else (question,))):
            if self._by_order.get(key):
                return encode_text(self._by_order[key].pop(0))
            if request.seed in self._by_seed.get(key, {}):
                return encode_text(self._by_seed[key][request.seed])
        rests = self._rests.get(request.prompt_ids, [])
        if rests:
            own = next((index for index, (seed, _) in enumerate(rests) if seed == request.seed), 0)
            return rests.pop(own)[1]
        raise ScriptError(
            f"the script has no reply (left) to {question!r} after {so_far!r} with seed {request.seed}; "
            f"it has some for {[key for key, left in self._by_order.items() if left] + list(self._by_seed)}"
        )


_OPENINGS = {"": 0.4, "So ": 0.3, "Next, ": 0.2, "Then we add: ": 0.1}
_SLIPS = (1, -1, 2, 10)


@dataclass(frozen=True, slots=True)
class ToyModel:
    """Adds up the numbers of a question, a step a number, and errs: more often the larger the numbers.

    An error stays in the running total, as in a real chain of thought: long questions are hard, and a checker can see
    the wrong step. A step depends on the seed, its start position and the total before it alone.

    Args:
        error_rate: probability of a wrong step for each digit in it, at temperature 1.
    """

    error_rate: float = 0.03

    def __post_init__(self) -> None:
        if not 0 <= self.error_rate < 1:
            raise ConfigError(f"error_rate={self.error_rate} must be in [0, 1)")

    def write(self, request: SampleRequest) -> Iterator[Token]:
        """Finish the begun step, if any, then write the others."""
        question, so_far = split_prompt(request.prompt_ids)
        numbers = toy_numbers(question)
        done, _, begun = so_far.rpartition("\n\n")
        position = len(request.prompt_ids) - len(encode_text(begun))
        steps = split_steps(done)
        total = last_number(steps[-1]) if steps else numbers[0]
        for number in numbers[len(steps) + 1 :]:
            step, logprobs = self._step(request, position, total, number)
            rest = rest_of(step, begun, total + number)
            yield from zip(encode_text(rest), logprobs[len(logprobs) - len(rest) :], strict=True)
            position += len(encode_text(begun + rest))
            total, begun = last_number(begun + rest), ""
        for token in encode_text(rest_of(f"The answer is \\boxed{{{total}}}.", begun, total)):
            yield token, 0.0
        yield EOS, 0.0

    def cut(self, request: SampleRequest, tokens: Sequence[int]) -> None:
        """Nothing to keep: the rest is a function of the prompt and the seed."""

    def _step(self, request: SampleRequest, position: int, total: int, number: int) -> tuple[str, list[float]]:
        """A step with its blank line, and the log-probability of each of its characters."""
        rng = random.Random(f"{request.seed},{position}")
        p = min(0.95, self.error_rate * len(f"{abs(total)}{abs(number)}"))
        opening, of_opening = _choose(rng, _OPENINGS, request)
        slip, of_slip = _choose(rng, {0: 1 - p, **dict.fromkeys(_SLIPS, p / len(_SLIPS))}, request)
        step = f"{opening}{total} + {number} = {total + number + slip}\n\n"
        logprobs = [0.0] * len(step)
        logprobs[0], logprobs[-3] = of_opening, of_slip
        return step, logprobs


def toy_numbers(question: str) -> list[int]:
    """The numbers that the toy model adds: the question's, or some that its text stands for."""
    numbers = [int(number) for number in re.findall(r"-?\d{1,9}", question)]
    if len(numbers) > 1:
        return numbers
    digest = hashlib.sha256(question.encode()).digest()
    return [byte % 50 + 1 for byte in digest[1 : 4 + digest[0] % 4]]


def toy_answer(question: str) -> str:
    """The right answer to a question, as the toy model understands it."""
    return str(sum(toy_numbers(question)))


def toy_right_so_far(question: str, steps: tuple[str, ...]) -> bool:
    """Whether the last step's total is right; for :meth:`~adaptive_ttc.prm.FakePRM.truthful`."""
    return last_number(steps[-1]) == sum(toy_numbers(question)[: len(steps) + 1])


def _choose(rng: random.Random, outcomes: Mapping[T, float], request: SampleRequest) -> tuple[T, float]:
    """Draw at the request's temperature and top_p; the outcome and its log-probability at temperature 1."""
    ranked = sorted((outcome for outcome in outcomes if outcomes[outcome] > 0), key=lambda one: -outcomes[one])
    if request.temperature == 0:
        ranked = ranked[:1]
    sharpness = 1 / (request.temperature or 1.0)
    weights = [math.exp(sharpness * math.log(outcomes[one] / outcomes[ranked[0]])) for one in ranked]
    nucleus, mass = 0, 0.0
    while nucleus < len(ranked) and mass < request.top_p * sum(weights):
        mass += weights[nucleus]
        nucleus += 1
    [drawn] = rng.choices(ranked[:nucleus], weights[:nucleus])
    return drawn, math.log(outcomes[drawn])


def rest_of(step: str, begun: str, value: int) -> str:
    """What is left to write of a step; one begun otherwise under another seed is ended."""
    if step.startswith(begun):
        return step[len(begun) :]
    return "\n\n" if "=" in begun and begun[-1].isdigit() else f" = {value}\n\n"


def last_number(text: str) -> int:
    """The last number in a text; 0 where there is none."""
    numbers: list[str] = re.findall(r"-?\d+", text)
    return int(numbers[-1]) if numbers else 0
