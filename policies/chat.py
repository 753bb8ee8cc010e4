"""Renders problems through a model's chat template and decodes what it wrote; it knows no engine and no weights."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from datetime import date
from functools import partial
from typing import Any

from jinja2 import TemplateError

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policies.stopping import TokenTexts
from adaptive_ttc.types import Message, Problem

# Templates that print today's date would change the prompt, and so every result, daily.
_TODAY = date(2024, 7, 26)
_DATE_PARTS = ("d", "m", "b", "B", "y", "Y", "a", "A", "j", "H", "M", "S")
_FIXED_CLOCK = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f" | replace('%{part}', '{_TODAY.strftime('%' + part)}')" for part in _DATE_PARTS)
    + " }}{% endmacro %}{{ '' }}"
)


class ChatFormat:
    """A tokenizer's chat template with a fixed date and system prompt.

    Args:
        tokenizer: a Hugging Face tokenizer.
        system_prompt: put before problems that bring no system message; None adds nothing.
        source: where the tokenizer comes from, for messages.

    Raises:
        ConfigError: the tokenizer has no chat template, or the template refuses the system prompt.
    """

    def __init__(self, tokenizer: Any, system_prompt: str | None, source: str) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ConfigError(
                f"{source} has no chat template, so nothing says how a problem is put to it; take its instruct "
                "version, or save a template with it (tokenizer.chat_template = ...; tokenizer.save_pretrained)"
            )
        self._tokenizer = tokenizer
        template: str = tokenizer.get_chat_template()
        # a macro hides transformers' function of the same name, which reads the clock
        self._template = _FIXED_CLOCK + template if "strftime_now" in template else template
        # rendering sets options on the tokenizer, which must not happen in two threads at once
        self._lock = threading.Lock()
        self._system = () if system_prompt is None else (Message("system", system_prompt),)
        try:
            self.encode(Problem.of("1 + 1"))
        except ConfigError as error:
            remedy = "; if it takes no system prompt, pass system_prompt=None" if self._system else ""
            raise ConfigError(f"the chat template of {source} cannot be used: {error}{remedy}") from error

    @property
    def format(self) -> tuple[str, ...]:
        """What besides the tokenizer's own files decides how a problem is rendered."""
        return (_TODAY.isoformat(), *(message.content for message in self._system))

    def encode(self, problem: Problem) -> tuple[int, ...]:
        """Token ids of the rendered problem, up to where the solution begins.

        Control tokens in the problem's own text are ordinary text there.

        Raises:
            ConfigError: the template refuses these messages.
        """
        messages = problem.messages
        if messages[0].role != "system":
            messages = (*self._system, *messages)
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            with self._lock:
                ids: Sequence[int] = self._tokenizer.apply_chat_template(
                    turns,
                    add_generation_prompt=True,
                    tokenize=True,
                    return_dict=False,
                    sanitize_control_tokens=True,
                    date_string=_TODAY.strftime("%d %b %Y"),
                    chat_template=self._template,
                )
        except (TemplateError, ValueError, TypeError) as error:
            raise ConfigError(f"the chat template refuses these messages: {error}") from error
        return tuple(ids)

    def encode_within(self, problem: Problem, max_context: int) -> tuple[int, ...]:
        """:meth:`encode`, for an engine that holds so many tokens.

        Raises:
            ConfigError: the template refuses the messages, or the prompt leaves no room for a token.
        """
        ids = self.encode(problem)
        if len(ids) >= max_context:
            raise ConfigError(
                f"problem {problem.id!r} is {len(ids)} tokens long and the context holds {max_context}, the "
                "solution included; shorten it or take a policy with a longer context"
            )
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of generated tokens, special tokens left out."""
        with self._lock:
            return _decode(self._tokenizer, token_ids)

    def token_texts(self) -> TokenTexts:
        """A decoder of its own, for another thread.

        Raises:
            ConfigError: the tokenizer cannot write the letter ``a``, before which it decodes single tokens.
        """
        tokenizer = copy.deepcopy(self._tokenizer)
        ids: Sequence[int] = tokenizer.encode("a", add_special_tokens=False)
        if not ids or not _decode(tokenizer, ids[-1:]):
            raise ConfigError("the tokenizer cannot write the letter 'a'; use one with byte fallback")
        return TokenTexts(partial(_decode, tokenizer), ids[-1])


def _decode(tokenizer: Any, token_ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text
