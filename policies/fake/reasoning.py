"""A toy model that thinks: it adds up in a thought of random length, checks itself, and then answers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from adaptive_ttc.answers.thinking import ThinkingTags
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policies.fake.writers import (
    ASSISTANT,
    CLOSE,
    EOS,
    OPEN,
    Token,
    ToyModel,
    decode_tokens,
    encode_text,
    last_number,
    rest_of,
    split_prompt,
    toy_numbers,
)
from adaptive_ttc.policy import SampleRequest
from adaptive_ttc.types import split_steps

CHECK = "Wait, let me check.\n\n"
"""With what it begins to add up anew; a client that writes ``Wait`` makes it do so."""


@dataclass(frozen=True, slots=True)
class ReasoningToy(ToyModel):
    """The toy model with a thought before its answer, between tags that decoding drops.

    What it answers is the last sum that it finished, or where a thought ends before the first, as far as it came: short
    thoughts are often wrong.

    Args:
        error_rate: see :class:`ToyModel`.
        again: probability that it checks a sum by adding up anew, after each time, at any temperature above 0; the
            higher, the longer its thoughts.
        begun: whether its prompts open the thought, so that it writes no opening tag.
    """

    again: float = 0.4
    begun: bool = False

    def __post_init__(self) -> None:
        ToyModel.__post_init__(self)
        if not 0 <= self.again < 1:
            raise ConfigError(f"again={self.again} must be in [0, 1)")

    @property
    def tags(self) -> ThinkingTags:
        """How it marks its thoughts."""
        wait = encode_text("Wait")
        return ThinkingTags(opening=(OPEN,), closing=(CLOSE,), forced=(CLOSE,), begun=self.begun, wait=wait)

    def write(self, request: SampleRequest) -> Iterator[Token]:
        """Finish the thought, then the answer."""
        question, _ = split_prompt(request.prompt_ids)
        numbers = toy_numbers(question)
        ids = request.prompt_ids
        solution = ids[len(ids) - ids[::-1].index(ASSISTANT) :]
        thought, answer = solution, ""
        if CLOSE in solution:
            end = len(solution) - solution[::-1].index(CLOSE)
            thought, answer = solution[:end], decode_tokens(solution[end:])
        text = decode_tokens(thought)
        if CLOSE not in solution:
            if OPEN not in solution:
                yield OPEN, 0.0
            new = []
            for token in self._think(request, numbers, text, len(ids) + (OPEN not in solution)):
                new.append(token[0])
                yield token
            yield CLOSE, 0.0
            text = decode_tokens((*thought, *new))
        total = _believed(text, numbers)
        for character in encode_text(rest_of(f"The answer is \\boxed{{{total}}}.", answer, total)):
            yield character, 0.0
        yield EOS, 0.0

    def _think(self, request: SampleRequest, numbers: list[int], text: str, position: int) -> Iterator[Token]:
        """The rest of a thought, whose next token stands at ``position`` in prompt and solution together."""
        done, _, begun = text.rpartition("\n\n")
        count, total = _standing(split_steps(done), numbers)
        place = position - len(encode_text(begun))
        while True:
            if begun and CHECK.startswith(begun):
                rest, begun = CHECK[len(begun) :], ""
                yield from ((token, 0.0) for token in encode_text(rest))
                place += len(CHECK)
                count, total = 0, numbers[0]
            for number in numbers[count + 1 :]:
                step, logprobs = self._step(request, place, total, number)
                rest = rest_of(step, begun, total + number)
                yield from zip(encode_text(rest), logprobs[len(logprobs) - len(rest) :], strict=True)
                place += len(encode_text(begun + rest))
                total, begun = last_number(begun + rest), ""
            draw = random.Random(f"{request.seed},{place},again").random()
            if request.temperature == 0 or draw >= self.again:
                return
            yield encode_text(CHECK)[0], 0.0
            begun, count = CHECK[0], len(numbers)


def _standing(steps: tuple[str, ...], numbers: list[int]) -> tuple[int, int]:
    """How many numbers the last sum of a thought has added so far, and their total."""
    count, total = 0, numbers[0]
    for step in steps:
        count, total = (0, numbers[0]) if CHECK.startswith(step) else (count + 1, last_number(step))
    return count, total


def _believed(text: str, numbers: list[int]) -> int:
    """The last sum that a thought finished; the total so far where it finished none."""
    sums = [split_steps(part) for part in text.rpartition("\n\n")[0].split(CHECK.strip())]
    whole = [steps for steps in sums if len(steps) >= len(numbers) - 1]
    return _standing(whole[-1] if whole else sums[-1], numbers)[1]
