"""What a family of PRMs makes of a request: token rows, the places that are read, and the heads that read them."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.prm.base import ScoreRequest, check_steps

if TYPE_CHECKING:
    import torch

_SHIFT = 32


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence for one forward pass.

    Attributes:
        token_ids: what the model reads.
        positions: rising indices in ``token_ids`` whose hidden states the head turns into values.
        targets: for every position the token after it, where the head asks for that; else empty.
        keys: as long as ``token_ids``; the state and the value at index k depend on ``keys[:k + 1]`` and on
            nothing else, so that rows with a common start of keys can share what was computed for it.
        ends: for every step that is scored here how many of the positions are its own or earlier ones'.
    """

    token_ids: tuple[int, ...]
    positions: tuple[int, ...]
    targets: tuple[int, ...]
    keys: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def labelled(cls, token_ids: Sequence[int], positions: Sequence[int]) -> Row:
        """A row whose values depend on the hidden state at their place alone."""
        ids = tuple(token_ids)
        return cls(ids, tuple(positions), (), ids, tuple(range(1, len(positions) + 1)))

    @classmethod
    def predicting(cls, token_ids: Sequence[int], start: int, ends: Sequence[int]) -> Row:
        """A row whose values say how well each token from ``start`` on is predicted; the last one is not read.

        Args:
            token_ids: all tokens.
            start: index of the first step's first token, at least 1.
            ends: for every step the index after its last token.
        """
        ids = tuple(token_ids)
        read, targets = ids[:-1], ids[start:]
        pairs = (token << _SHIFT | target for token, target in zip(read[start - 1 :], targets, strict=True))
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

    @property
    def longest(self) -> int:
        """Tokens of the longest row; what a context must hold."""
        return max(len(row.token_ids) for row in self.rows)


class OutputHead:
    """A language model's output head.

    Args:
        weight: shape (vocabulary, hidden size).
        bias: shape (vocabulary,), or None.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()

    @property
    def parameters(self) -> int:
        """Its weights."""
        return self.weight.numel() + (0 if self.bias is None else self.bias.numel())


class Head(Protocol):
    """Turns hidden states into values."""

    @property
    def parameters(self) -> int:
        """Weights that take part in one value."""
        ...

    def __call__(self, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        """Values of shape (n,) from hidden states of shape (n, hidden size), on any device.

        Args:
            states: after the model's last norm.
            targets: the token after each place; empty for a head that does not ask for it.
        """
        ...


class LabelHead:
    """The probability of a good label against a bad one: softmax over two rows of the output head, in float32."""

    def __init__(self, output: OutputHead, good: int, bad: int) -> None:
        self.weight: torch.Tensor = output.weight[[good, bad]].float()
        self._bias = self.weight.new_zeros(2) if output.bias is None else output.bias[[good, bad]].float()

    @property
    def parameters(self) -> int:
        """Two rows."""
        return self.weight.numel()

    def __call__(self, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        """See :class:`~adaptive_ttc.prm.format.Head`."""
        logits = states.to(self.weight).matmul(self.weight.T) + self._bias
        return logits.softmax(dim=-1)[:, 0]


class Reader(ABC):
    """Renders requests and reads scores off values; :class:`~adaptive_ttc.prm.local.BatchedPRM` runs the models.

    Attributes:
        heads: one for every model that reads the rows; most families have one model.
    """

    heads: tuple[Head, ...]

    @abstractmethod
    def render(self, request: ScoreRequest) -> tuple[Row, ...]:
        """Put a request that has steps, none of them empty, into the family's format.

        Raises:
            ConfigError: text that this format cannot hold.
        """

    def scores(self, rows: Sequence[Row], values: Sequence[Sequence[Sequence[float]]]) -> tuple[float, ...]:
        """One score a step.

        Args:
            rows: what :meth:`render` gave.
            values: of every model, for every row, the values at its positions. Unless a family says
                otherwise the one at a step's end is its score.
        """
        return tuple(some[end - 1] for row, some in zip(rows, values[0], strict=True) for end in row.ends)


@dataclass(frozen=True, slots=True)
class Parts:
    """A PRM's folder taken apart.

    Attributes:
        reader: format and heads.
        folders: where each head's model is.
    """

    reader: Reader
    folders: tuple[Path, ...]


RENDER_CACHE = 512
"""Rendered requests that are kept: the same one is counted, then scored."""


class Rendering:
    """What every PRM does before its models: refuse what cannot be scored, render the rest, once.

    Args:
        reader: the family's format.
        name: of the PRM, for errors.
        max_context: tokens that a model can read, or None.
    """

    def __init__(self, reader: Reader, name: str, max_context: int | None) -> None:
        self._name, self.max_context = name, max_context
        self._render: Callable[[ScoreRequest], Rendered] = lru_cache(maxsize=RENDER_CACHE)(
            lambda request: Rendered(reader.render(request))
        )

    def __call__(self, request: ScoreRequest) -> Rendered:
        """The request in the family's format.

        Raises:
            ConfigError: no step, an empty one, or a solution longer than the context.
        """
        check_steps(request)
        rendered = self._render(request)
        if self.max_context is not None and rendered.longest > self.max_context:
            raise ConfigError(
                f"the solution is {rendered.longest} tokens long for the PRM {self._name}, its context is "
                f"{self.max_context}: it cannot be scored; lower max_tokens, or use a PRM with a longer context"
            )
        return rendered


class RenderingPRM:
    """The part of a PRM that needs no model: what it is called, what it can read, and how many tokens that is.

    Args:
        reader: the family's format.
        name: how a person calls it.
        fingerprint: see :func:`adaptive_ttc.prm.checkpoint.fingerprint`.
        parameters: those that take part in a token's forward pass.
        max_context: tokens that it can read, or None.
    """

    def __init__(
        self, reader: Reader, *, name: str, fingerprint: str, parameters: int, max_context: int | None
    ) -> None:
        self._reader = reader
        self._name, self._fingerprint, self._parameters = name, fingerprint, parameters
        self._rendered = Rendering(reader, name, max_context)

    @property
    def name(self) -> str:
        """The folder or Hub name it was loaded from."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """Covers weights, config, tokenizer, chat template, number format and the reader's version."""
        return self._fingerprint

    @property
    def parameters(self) -> int:
        """Those that take part in a token's forward pass; an embedding table, being a look-up, does not."""
        return self._parameters

    @property
    def max_context(self) -> int | None:
        """Tokens that it can read; None if its config does not say."""
        return self._rendered.max_context

    def count_tokens(self, request: ScoreRequest) -> int:
        """Tokens that scoring this request computes with an empty cache.

        Raises:
            ConfigError: no step, an empty one, or a solution longer than the context. The last is not
                a failure of the run: that solution can have no score.
        """
        return self._rendered(request).tokens


def smallest(*limits: int | None) -> int | None:
    """The smallest limit of those that are set."""
    return min((limit for limit in limits if limit is not None), default=None)


TEMPLATE_DATE = "26 Jul 2024"
"""The date given to templates that print one: Llama 3.1's default, and the same every day."""


class ControlTokens:
    """The strings that a tokenizer reads as control tokens, such as the end of a turn.

    A policy's text is untrusted: one that writes ``<|eot_id|>`` would speak in the PRM's own turns.
    """

    def __init__(self, tokenizer: Any) -> None:
        template = template_of(tokenizer) if tokenizer.chat_template else ""
        tokens = {
            token.content
            for token in tokenizer.added_tokens_decoder.values()
            if len(token.content.strip()) > 1 and (token.special or token.content in template)
        }
        self._pattern = re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or "(?!)")

    def neutralise(self, text: str) -> str:
        """The text with a space inside every control token, so that it is read as text."""
        return self._pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)


def template_of(tokenizer: Any) -> str:
    """The tokenizer's one chat template.

    Raises:
        ConfigError: it has none, several without a default, or one that prints today's date whatever it is given.
    """
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
    return template


def checked(values: list[float], name: str) -> list[float]:
    """The values, if all are numbers.

    Raises:
        EngineError: the model put out something that is not a number.
    """
    if not all(map(math.isfinite, values)):
        raise EngineError(f"{name} put out values that are not numbers; try dtype='float32' or 'bfloat16'")
    return values
