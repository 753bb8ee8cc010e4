"""A PRM family's format: requests become rows of tokens, heads turn hidden states into values, values give scores."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.prm.base import PLAIN, ScoreRequest, Traits, check_steps

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence for one forward pass."""

    token_ids: tuple[int, ...]  # what the model reads
    positions: tuple[int, ...]  # rising indices in ``token_ids`` whose hidden states the head turns into values
    targets: tuple[int, ...]  # for every position the token after it, where the head asks for that; else empty
    # as long as ``token_ids``; the state and the value at index k depend on ``keys[:k + 1]`` and on nothing else, so
    # that rows with a common start of keys can share what was computed for it
    keys: tuple[int, ...]
    ends: tuple[int, ...]  # for every step that is scored here how many of the positions are its own or earlier ones'

    @classmethod
    def labelled(cls, token_ids: Sequence[int], positions: Sequence[int]) -> Row:
        """A row whose values depend on the hidden state at their place alone."""
        ids = tuple(token_ids)
        return cls(ids, tuple(positions), (), ids, tuple(range(1, len(positions) + 1)))

    @classmethod
    def predicting(cls, token_ids: Sequence[int], start: int, ends: Sequence[int]) -> Row:
        """A row whose values say how well tokens from ``start`` (at least 1) on are predicted; the last one is not
        read.

        ``ends`` holds, for every step, the index after its last token.
        """
        ids = tuple(token_ids)
        read, targets = ids[:-1], ids[start:]
        # token and target in one number: the value at a place depends on both
        pairs = (token << 32 | target for token, target in zip(read[start - 1 :], targets, strict=True))
        keys = (*read[: start - 1], *pairs)
        return cls(read, tuple(range(start - 1, len(read))), targets, keys, tuple(end - start for end in ends))


@dataclass(frozen=True, slots=True)
class Rendered:
    """A request in a PRM's own format."""

    rows: tuple[Row, ...]

    @property
    def tokens(self) -> int:
        """Tokens that are read with an empty cache."""
        return sum(len(row.token_ids) for row in self.rows)


class Head(Protocol):
    """Turns hidden states into values."""

    @property
    def parameters(self) -> int:
        """Weights that take part in one value."""

    def __call__(self, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        """Values of shape (n,) from hidden states (n, hidden size), on any device, taken after the model's last norm.

        ``targets`` is the token after each place; empty for a head that does not ask for it.
        """


class OutputHead:
    """A language model's output head: weight of shape (vocabulary, hidden size), and bias of (vocabulary,) or None."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        self.parameters = self.weight.numel() + (0 if self.bias is None else self.bias.numel())


class LabelHead:
    """The probability of a good label against a bad one: softmax over two rows of the output head, in float32."""

    def __init__(self, output: OutputHead, good: int, bad: int) -> None:
        self.weight: torch.Tensor = output.weight[[good, bad]].float()
        self._bias = self.weight.new_zeros(2) if output.bias is None else output.bias[[good, bad]].float()
        self.parameters = self.weight.numel()

    def __call__(self, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        """Probabilities of the good label."""
        return (states.to(self.weight).matmul(self.weight.T) + self._bias).softmax(dim=-1)[:, 0]


@dataclass(frozen=True, slots=True)
class StepPooling:
    """How the values of a family's steps are found by an engine's own head."""

    token: int  # after every step, at which its value stands
    # of the good and the bad label, whose rows of the output head are the head; None: the model has one of two classes
    labels: tuple[int, int] | None = None


class ControlTokens:
    """A tokenizer's special tokens, and those that its chat template writes."""

    def __init__(self, tokenizer: Any) -> None:
        named = tokenizer.chat_template or ""
        template = "".join(named.values()) if isinstance(named, dict) else named
        tokens = {
            token.content
            for token in tokenizer.added_tokens_decoder.values()
            if len(token.content.strip()) > 1 and (token.special or token.content in template)
        }
        self._any = re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or "(?!)")

    def broken_up(self, text: str) -> str:
        """The text with a space inside every control token, so that it is read as text."""
        return self._any.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)


class Reader(ABC):
    """Renders requests as rows and reads scores off the values at their positions; it needs the models' tokenizer."""

    traits: ClassVar[Traits] = PLAIN
    step_pooling: StepPooling | None = None  # how an engine's own head finds the values of steps, where one can
    heads: tuple[Head, ...]  # one for every model that reads the rows; most families have one model

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._safe = ControlTokens(tokenizer).broken_up  # a policy must not write the PRM's own turns

    @abstractmethod
    def render(self, request: ScoreRequest) -> tuple[Row, ...]:
        """Put a request with non-empty steps into the format; ConfigError for text that it cannot hold."""

    def scores(self, rows: Sequence[Row], values: Sequence[Sequence[Sequence[float]]]) -> tuple[float, ...]:
        """One score a step from every model's values at the rows' positions; by default the first one's at its end."""
        return tuple(some[end - 1] for row, some in zip(rows, values[0], strict=True) for end in row.ends)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _safe_steps(self, request: ScoreRequest) -> list[str]:
        return [self._safe(step.strip()) for step in request.steps]


class ChatReader(Reader):
    """A reader whose format is a chat in the tokenizer's template; ConfigError where none serves."""

    def __init__(self, tokenizer: Any) -> None:
        _check_template(tokenizer)
        super().__init__(tokenizer)

    def _chat(self, *turns: tuple[str, str], answering: bool = False) -> list[int]:
        """Ids of turns, each a role and a content; where ``answering``, the assistant's next turn is begun."""
        messages = [{"role": role, "content": content} for role, content in turns]
        ids: list[int] = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=answering, date_string=TEMPLATE_DATE, return_dict=False
        )
        return ids


TEMPLATE_DATE = "26 Jul 2024"  # the date given to templates that print one: Llama 3.1's default, and the same every day


def _check_template(tokenizer: Any) -> None:
    """Whether the tokenizer has one chat template; errors as :class:`ChatReader` says."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if not isinstance(template, str):
        raise ConfigError("the tokenizer has no chat template; add the model's chat_template.jinja to its folder")
    if "strftime_now" in template and "date_string" not in template:
        raise ConfigError(
            "the chat template prints today's date, so scores would change daily; "
            "edit it to use the variable date_string where that is defined"
        )


@dataclass(frozen=True, slots=True)
class Parts:
    """A PRM's folder taken apart: format and heads, and where each head's model is."""

    reader: Reader
    folders: tuple[Path, ...]


RENDER_CACHE = 512  # rendered requests that are kept: the same one is counted, then scored


class RenderingPRM:
    """The part of a PRM that needs no model: name, limits, and how many tokens a request takes.

    Attributes:
        name: the folder or Hub name it was loaded from.
        fingerprint: covers weights, config, tokenizer, chat template, number format and the reader's version.
        parameters: those that take part in a token's forward pass; an embedding table, being a look-up, does not.
        max_context: tokens that it can read; None if its config does not say.
        traits: the reader's.
    """

    def __init__(
        self, reader: Reader, *, name: str, fingerprint: str, parameters: int, max_context: int | None
    ) -> None:
        self.name, self.fingerprint, self.parameters, self.max_context = name, fingerprint, parameters, max_context
        self.traits = reader.traits
        self._reader = reader
        self._render = lru_cache(maxsize=RENDER_CACHE)(lambda request: Rendered(reader.render(request)))

    def count_tokens(self, request: ScoreRequest) -> int:
        """Tokens that scoring this request computes with an empty cache; ConfigError if it can have no score."""
        return self._rendered(request).tokens

    def _rendered(self, request: ScoreRequest) -> Rendered:
        """The request in the family's format; ConfigError: no step, an empty one, or longer than the context."""
        check_steps(request)
        rendered = self._render(request)
        longest = max(len(row.token_ids) for row in rendered.rows)
        if self.max_context is not None and longest > self.max_context:
            raise ConfigError(
                f"the solution is {longest} tokens long for the PRM {self.name}, its context is "
                f"{self.max_context}: it cannot be scored; lower max_tokens, or use a PRM with a longer context"
            )
        return rendered


def smallest(*limits: int | None) -> int | None:
    """The smallest of the limits that are set."""
    return min((limit for limit in limits if limit is not None), default=None)


def finite(values: list[float], name: str) -> list[float]:
    """The values, if all are numbers; else EngineError."""
    if not all(map(math.isfinite, values)):
        raise EngineError(f"{name} put out values that are not numbers; try dtype='float32' or 'bfloat16'")
    return values


def sigmoid(value: float) -> float:
    """The logistic function, without overflow."""
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    return math.exp(value) / (1 + math.exp(value))
