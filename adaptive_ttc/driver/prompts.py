"""Renders a problem, and earlier attempts at it, into prompts."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from itertools import takewhile

from adaptive_ttc.answers.spaces.base import AnswerSpace
from adaptive_ttc.answers.spaces.mathematics import MATH, MathSpace
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policy import Policy
from adaptive_ttc.types import Message, Prefix, Problem

REVISION_PROMPT = (
    "Check your solution step by step. Then solve the problem again from the beginning, without the mistakes that you "
    "found, and put your final answer within \\boxed{}."
)
"""The user turn between two attempts, for a policy that was not trained for a particular one, and mathematics."""


def revision_prompt_for(space: AnswerSpace) -> str:
    """The same for answers of any space."""
    if isinstance(space, MathSpace):
        return REVISION_PROMPT
    begin = REVISION_PROMPT.partition(", and put")[0]
    return f"{begin}. {space.asks or 'Give the final answer in the same form as before.'}"


class Prompts:
    """The prompts of one problem under the policy's chat template.

    Earlier attempts stand in a prompt as exactly the tokens that the policy wrote, so that its prefix cache serves
    them. They are rendered from text where a chat template cannot be cut open, and where the policy thought: reasoning
    models are shown what they answered, not what they thought.
    """

    def __init__(self, problem: Problem, policy: Policy, answers: AnswerSpace = MATH) -> None:
        self._problem = problem
        self._again = policy.revision_prompt or revision_prompt_for(answers)
        self._policy = policy
        self.opening = policy.encode(problem)

    def prompt(self, attempts: tuple[Prefix, ...] = ()) -> tuple[int, ...]:
        """Token ids up to where the next attempt begins. ConfigError: the chat template refuses a conversation."""
        ids = self.opening
        for attempt in attempts:
            if self._turn is None or attempt.thought:
                return self._rendered(attempts)
            ended = bool(attempt.token_ids) and attempt.token_ids[-1:] == self._turn[:1]
            ids += attempt.token_ids + self._turn[ended:]
        return ids

    def messages(self, attempts: tuple[Prefix, ...] = ()) -> tuple[Message, ...]:
        """The same as chat turns."""
        user = Message("user", self._again)
        turns = (turn for attempt in attempts for turn in (Message("assistant", attempt.answer_text), user))
        return (*self._problem.messages, *turns)

    def new_tokens(self, attempts: tuple[Prefix, ...]) -> int:
        """Tokens of that prompt that an ideal tree cache has not computed: it holds every attempt's sequence."""
        prompt = self.prompt(attempts)
        known = (self.prompt(attempt.attempts) + attempt.token_ids for attempt in attempts)
        return len(prompt) - max(_shared(prompt, one) for one in known)

    @cached_property
    def _turn(self) -> tuple[int, ...] | None:
        """What stands between an attempt's text and the next one; None if the template does not show it."""
        try:
            empty = self._rendered((Prefix(),))
        except ConfigError:
            return None
        return empty[len(self.opening) :] if empty[: len(self.opening)] == self.opening else None

    def _rendered(self, attempts: tuple[Prefix, ...]) -> tuple[int, ...]:
        return self._policy.encode(replace(self._problem, messages=self.messages(attempts)))


def _shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
