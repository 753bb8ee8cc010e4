"""What a family of PRMs adds to a transformer: a format and heads; it knows no engine and no weights of a body."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.prm.row import Row

if TYPE_CHECKING:
    import torch


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


class Reader(ABC):
    """Renders requests and reads scores off values; :class:`~adaptive_ttc.prm.batched.BatchedPRM` runs the models.

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
