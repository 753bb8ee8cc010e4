"""What every PRM does before its models: check a request, render it, tell its length; it knows no model."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.prm.reader import Reader
from adaptive_ttc.prm.row import Rendered

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


def check_steps(request: ScoreRequest) -> None:
    """Refuse a request without steps, or with an empty one, which a PRM would score as if it said something.

    Raises:
        ConfigError: see above.
    """
    if not request.steps or not all(step.strip() for step in request.steps):
        raise ConfigError(
            f"a PRM scores at least one step, none of them empty; got {len(request.steps)} steps "
            "(adaptive_ttc.types.split_steps leaves the empty ones out)"
        )


def smallest(*limits: int | None) -> int | None:
    """The smallest limit of those that are set."""
    return min((limit for limit in limits if limit is not None), default=None)
