"""One token a byte, and four control tokens: the fake's tokenizer; it knows no policy."""

from __future__ import annotations

from collections.abc import Sequence

from adaptive_ttc.types import Problem

EOS, SYSTEM, USER, ASSISTANT = 256, 257, 258, 259
VOCAB_SIZE = 260

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

    Raises:
        ValueError: the ids do not come from :func:`encode_problem`.
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
