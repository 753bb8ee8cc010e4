"""The three forms in which a prompt can be put to a server; it knows no answer and no connection.

Token ids are best: the engine's own tokens come back to it, so that its prefix cache hits. Text comes next, and a
chat whose last turn the server goes on with is the last resort: there the server renders the prompt.
"""

from __future__ import annotations

from typing import Any, Protocol

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.types import Message, Problem

Body = dict[str, Any]


class Form(Protocol):
    """A way to put a prompt.

    Attributes:
        path: of the endpoint, below the base URL.
    """

    path: str

    def prompt(self, ids: tuple[int, ...]) -> Body:
        """What of the request's body says the prompt.

        Raises:
            ConfigError: the prompt cannot be put in this form.
        """
        ...

    def check(self, ids: tuple[int, ...], read: int) -> None:
        """Compare a prompt with the number of tokens that the server read of it.

        Raises:
            ConfigError: the server reads prompts otherwise than the policy means them.
        """
        ...


class TokenForm:
    """Completions of token ids."""

    path = "/completions"

    def prompt(self, ids: tuple[int, ...]) -> Body:
        """The ids as they are."""
        return {"prompt": list(ids), "add_special_tokens": False}

    def check(self, ids: tuple[int, ...], read: int) -> None:
        """Not one more and not one less."""
        if read != len(ids):
            raise ConfigError(
                f"the server read {read} prompt tokens where {len(ids)} were sent; it does not take token ids as such"
            )


class TextForm:
    """Completions of text, which the server cuts into tokens.

    Servers put the begin-of-sequence token before a text themselves where the tokenizer says so; then it is left
    out here.

    Args:
        tokenizer: the model's.
    """

    path = "/completions"

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        begins: list[int] = tokenizer.encode("")
        bos = tokenizer.bos_token_id
        self._bos: str = tokenizer.bos_token if bos is not None and begins[:1] == [bos] else ""

    def prompt(self, ids: tuple[int, ...]) -> Body:
        """The text of the ids.

        Raises:
            ConfigError: that text names control tokens that are plain text in the prompt.
        """
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        text = text.removeprefix(self._bos)
        special = set(self._tokenizer.all_special_ids)
        again: list[int] = self._tokenizer.encode(text)
        if [one for one in again if one in special] != [one for one in ids if one in special]:
            raise ConfigError(
                "the problem holds the text of a control token, which a server that takes prompts only as text would "
                "obey; take that text out, or serve the model with an engine that takes token ids (vLLM)"
            )
        return {"prompt": text}

    def check(self, ids: tuple[int, ...], read: int) -> None:
        """The server's cut of the solution so far may differ by a token or two, and is not compared."""


class ChatForm:
    """A chat that ends with the solution so far as a turn to go on with.

    Args:
        openings: the problems that were encoded.
        tokenizer: the model's.
    """

    path = "/chat/completions"

    def __init__(self, openings: Openings, tokenizer: Any) -> None:
        self._openings = openings
        self._tokenizer = tokenizer
        self._surplus: int | None = None

    def prompt(self, ids: tuple[int, ...]) -> Body:
        """The messages of the problem, and the text of the tokens after its opening.

        Raises:
            ConfigError: the prompt holds more turns than its problem, such as earlier attempts.
        """
        messages, rest = self._openings.find(ids)
        turns = [{"role": one.role, "content": one.content} for one in messages]
        if not rest:
            return {"messages": turns}
        if not set(self._tokenizer.all_special_ids).isdisjoint(rest):
            raise ConfigError(
                "this server is spoken to by chat, which cannot show earlier attempts as they were written; use "
                "another strategy than revision, or a server with /v1/completions"
            )
        text = self._tokenizer.decode(list(rest), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        # vLLM and SGLang want to be told to go on with the last turn; llama.cpp does so by itself
        goes_on = {"add_generation_prompt": False, "continue_final_message": True}
        return {"messages": [*turns, {"role": "assistant", "content": text}], **goes_on}

    def check(self, ids: tuple[int, ...], read: int) -> None:
        """A server that closes the last turn and opens a new one reads some five tokens more than one that goes on."""
        surplus = read - len(ids)
        if not self._openings.find(ids)[1]:
            self._surplus = surplus
        elif self._surplus is not None and surplus > self._surplus + 3:
            raise ConfigError(
                f"the server read {surplus - self._surplus} tokens more than the solution so far holds: it does not go "
                "on with an assistant's turn; use one with /v1/completions"
            )


class Openings:
    """Remembers which problem a prompt opens with.

    Args:
        system: put before problems without a system message; None for nothing.
    """

    def __init__(self, system: str | None) -> None:
        self._system = () if system is None else (Message("system", system),)
        self._problems: dict[int, dict[int, tuple[Message, ...]]] = {}

    def note(self, problem: Problem, ids: tuple[int, ...]) -> None:
        """A problem was encoded."""
        own = problem.messages[0].role == "system"
        messages = problem.messages if own else (*self._system, *problem.messages)
        self._problems.setdefault(len(ids), {})[hash(ids)] = messages

    def find(self, ids: tuple[int, ...]) -> tuple[tuple[Message, ...], tuple[int, ...]]:
        """The messages of the longest opening, and the ids after it.

        Raises:
            ConfigError: no encoded problem opens the prompt.
        """
        for length in sorted(self._problems, reverse=True):
            if length <= len(ids) and (messages := self._problems[length].get(hash(ids[:length]))):
                return messages, ids[length:]
        raise ConfigError("the prompt begins with no problem that this policy encoded; make prompts with its encode")
