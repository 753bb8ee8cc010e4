"""Verdicts that a language model writes: asks any policy, reads what it says by a rule, counts every token.

It knows prompts and rules as settings, and neither budgets nor searches.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from typing import Any

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policy import Policy, Sampled, SampleRequest
from adaptive_ttc.types import Message, Problem

_NUMBERS = count()


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRule:
    """How a verdict is read off a text: the last match of a regular expression, or for each step its last.

    Attributes:
        pattern: with a group ``verdict``, and where it judges steps one by one, a group ``step`` (from 1); case does
            not count.
        right, wrong: words for the verdict; any other is none.
        grades: least and highest, where the verdict is a number; it is brought to [0, 1], and words do not count.
    """

    pattern: str
    right: tuple[str, ...] = ("yes", "correct")
    wrong: tuple[str, ...] = ("no", "incorrect")
    grades: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        try:
            groups = re.compile(self.pattern).groupindex
        except re.error as error:
            raise ConfigError(f"verdict={self.pattern!r} is no regular expression: {error}") from error
        if "verdict" not in groups:
            raise ConfigError(f"verdict={self.pattern!r} needs a group that holds the verdict: (?P<verdict>...)")
        if self.grades is not None and not self.grades[0] < self.grades[1]:
            raise ConfigError(f"grades are the least and the highest, such as [1, 10]; got {self.grades}")

    def read(self, text: str, steps: int, sure: Callable[[int, int], float]) -> tuple[float, ...]:
        """One score for each of so many steps; empty where nothing can be read.

        A single verdict is that of every step. Of verdicts on steps, a solution is as right as the worst step so far;
        steps after the last that was judged get the last one's. ``sure``: how probable the characters from one place to
        another were to the model, where that is known, else 1.
        """
        found: dict[int, float] = {}
        for match in re.finditer(self.pattern, text, re.IGNORECASE):
            value = self._value(match["verdict"], sure(*match.span("verdict")))
            number = match.groupdict().get("step")
            if value is not None and (number is None or number.strip().isdecimal()):
                found[int(number) if number else 0] = value
        if 0 in found:
            return (found[0],) * steps
        scores: list[float] = []
        worst = 1.0
        for step in range(1, steps + 1):
            worst = min(worst, found.get(step, worst))
            scores.append(worst)
        return tuple(scores) if any(1 <= step <= steps for step in found) else ()

    def _value(self, verdict: str, sure: float) -> float | None:
        if self.grades is not None:
            try:
                grade = float(verdict)
            except ValueError:
                return None
            low, high = self.grades
            return min(max((grade - low) / (high - low), 0.0), 1.0) if math.isfinite(grade) else None
        word = verdict.strip().casefold()
        if word in (one.casefold() for one in self.right):
            return sure
        return 1.0 - sure if word in (one.casefold() for one in self.wrong) else None


@dataclass(frozen=True, slots=True)
class Written:
    """What a policy wrote."""

    text: str | None  # after its thought; None where it did not end, so that nothing is to be read
    sure: Callable[[int, int], float]  # see :meth:`VerdictRule.read`
    read: int  # tokens of the prompt that were computed
    cached: int  # and that a cache answered
    tokens: int  # that were written


class Writer:
    """Asks one policy. Its replies depend on question, settings and seed alone, as far as the policy's do.

    Args:
        policy: who writes.
        max_tokens: of one reply.
        temperature: 0 is greedy.
        seed: of the replies.
        closing: what ends the policy with this; None where somebody else does.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        max_tokens: int,
        temperature: float,
        seed: int = 0,
        closing: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        if not isinstance(max_tokens, int) or max_tokens < 1 or not temperature >= 0:
            raise ConfigError(f"max_tokens={max_tokens} is at least 1, and temperature={temperature} at least 0")
        self.policy, self.max_tokens = policy, max_tokens
        self._temperature, self._seed, self._closing = temperature, seed, closing
        self._closed = False

    def fingerprint(self, *settings: object) -> str:
        """Of the policy, how it is asked, and further settings."""
        own = (self.policy.fingerprint, self.max_tokens, self._temperature, self._seed)
        return sha256(repr((*own, *settings)).encode()).hexdigest()

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of a prompt. Raises ConfigError: it leaves no room for a reply."""
        tokens = len(self.policy.encode(_problem(messages)))
        if tokens + self.max_tokens > self.policy.max_context:
            raise ConfigError(
                f"a solution is {tokens} tokens long with the question to the verifier {self.policy.name}, whose "
                f"context is {self.policy.max_context} with {self.max_tokens} for its verdict: lower max_tokens of "
                "either, or take one with a longer context"
            )
        return tokens

    async def write(self, messages: Sequence[Message], number: int = 0) -> Written:
        """The reply to messages, the ``number``-th of independent ones; EngineError where the policy fails."""
        if self._closed:
            raise EngineError(f"the verifier over {self.policy.name} is closed; make a new one")
        problem = _problem(messages)
        name = f"{self._seed}\x1f{number}\x1f{problem.id}"
        request = SampleRequest(
            id=f"verdict-{next(_NUMBERS)}",
            prompt_ids=self.policy.encode(problem),
            max_tokens=self.max_tokens,
            seed=int.from_bytes(sha256(name.encode()).digest()[:8], "big") >> 1,
            temperature=self._temperature,
            messages=problem.messages,
        )
        return self._read(await self.policy.sample(request))

    async def aclose(self) -> None:
        """End the policy, if it is this one's to end."""
        self._closed = True
        if self._closing is not None:
            await self._closing()

    def _read(self, sampled: Sampled) -> Written:
        decode, ids = sampled.decoder(self.policy.decode), sampled.token_ids
        text = decode(ids)
        begin = self._answer_at(sampled, text, decode)
        known = sampled.logprobs if len(sampled.logprobs) == len(ids) else ()

        def sure(first: int, last: int) -> float:
            """Geometric mean of the probabilities of the tokens that hold these characters."""
            if not known or begin is None:
                return 1.0
            ends = [
                bisect_left(range(len(ids)), begin + place, key=lambda index: len(decode(ids[: index + 1])))
                for place in (first + 1, last)
            ]
            own = known[ends[0] : ends[1] + 1]
            return min(1.0, math.exp(math.fsum(own) / len(own))) if own else 1.0

        whole = None if begin is None or sampled.finish != "eos" else text[begin:]
        return Written(whole, sure, sampled.prompt_tokens, sampled.cached_tokens, len(ids))

    def _answer_at(self, sampled: Sampled, text: str, decode: Callable[[Sequence[int]], str]) -> int | None:
        """Where the reply begins behind the thought; None where the thought did not end."""
        if sampled.thought is not None:
            ended = sampled.thought < len(sampled.token_ids)
            return len(decode(sampled.token_ids[: sampled.thought])) if ended else None
        tags: Any = getattr(self.policy, "thinking", None)
        return 0 if tags is None else tags.thought(sampled.token_ids, text, decode).answer_at


def _problem(messages: Sequence[Message]) -> Problem:
    return Problem.of([{"role": one.role, "content": one.content} for one in messages])
