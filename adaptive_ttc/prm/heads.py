"""What is read off a hidden state: a label's probability, a class, a value, the next token; it knows no format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from adaptive_ttc.errors import ConfigError

if TYPE_CHECKING:
    import torch

LOGITS_AT_ONCE = 2**24
"""The logits of a whole batch over a large vocabulary would not fit into memory."""


class OutputHead:
    """A language model's output head.

    Args:
        weight: shape (vocabulary, hidden size).
        bias: shape (vocabulary,), or None.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()

    @classmethod
    def of(cls, module: Any) -> OutputHead:
        """That of a ``torch.nn.Linear``."""
        return cls(module.weight, module.bias)

    @property
    def parameters(self) -> int:
        """Its weights."""
        return self.weight.numel() + (0 if self.bias is None else self.bias.numel())


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
        """See :class:`~adaptive_ttc.prm.reader.Head`."""
        logits = states.to(self.weight).matmul(self.weight.T) + self._bias
        return logits.softmax(dim=-1)[:, 0]


class ClassHead:
    """The probability of class 1 of two: Linear, ReLU, Linear, softmax, in float32.

    That of ``Qwen2ForProcessRewardModel`` (``modeling_qwen2_rm.py`` of Qwen/Qwen2.5-Math-PRM-7B).

    Args:
        weights: ``score.0.weight`` of shape (hidden, hidden), ``score.0.bias``, ``score.2.weight`` of
            shape (2, hidden), ``score.2.bias``.

    Raises:
        ConfigError: other shapes.
    """

    NAMES = ("score.0.weight", "score.0.bias", "score.2.weight", "score.2.bias")

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        self._first, self._first_bias, self._second, self._second_bias = (weights[name].float() for name in self.NAMES)
        if self._second.shape[0] != 2 or self._first.shape[0] != self._second.shape[1]:
            raise ConfigError(f"score.2.weight is of shape {tuple(self._second.shape)}; this family has 2 rows")

    @property
    def parameters(self) -> int:
        """Both layers."""
        return self._first.numel() + self._second.numel() + self._first_bias.numel() + self._second_bias.numel()

    def __call__(self, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        """See :class:`~adaptive_ttc.prm.reader.Head`."""
        hidden = (states.to(self._first).matmul(self._first.T) + self._first_bias).relu()
        return (hidden.matmul(self._second.T) + self._second_bias).softmax(dim=-1)[:, 1]


class ValueHead:
    """The sigmoid of one value, in float32.

    That of Skywork's PRMs (``model_utils/prm_model.py`` of SkyworkAI/skywork-o1-prm-inference: dropout, which
    does nothing in evaluation, then ``v_head.summary``).

    Args:
        weights: ``v_head.summary.weight`` of shape (1, hidden), ``v_head.summary.bias`` of shape (1,).

    Raises:
        ConfigError: other shapes.
    """

    NAMES = ("v_head.summary.weight", "v_head.summary.bias")

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        self._weight, self._bias = (weights[name].float() for name in self.NAMES)
        if self._weight.shape[0] != 1:
            raise ConfigError(f"v_head.summary.weight is of shape {tuple(self._weight.shape)}; a value head has 1 row")

    @property
    def parameters(self) -> int:
        """One row and a bias."""
        return self._weight.numel() + 1

    def __call__(self, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        """See :class:`~adaptive_ttc.prm.reader.Head`."""
        return (states.to(self._weight).matmul(self._weight[0]) + self._bias[0]).sigmoid()


class NextTokenHead:
    """The log-probability of the next token, in nats and float64."""

    def __init__(self, output: OutputHead) -> None:
        self._output = output

    @property
    def parameters(self) -> int:
        """The whole output head."""
        return self._output.parameters

    def __call__(self, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        """See :class:`~adaptive_ttc.prm.reader.Head`."""
        import torch

        weight, bias = self._output.weight, self._output.bias
        wanted = torch.tensor(targets, dtype=torch.long, device=weight.device)
        rows = max(1, LOGITS_AT_ONCE // weight.shape[0])
        parts = [states.new_zeros(0, dtype=torch.float64, device=weight.device)]
        for some_states, some in zip(torch.split(states.to(weight), rows), torch.split(wanted, rows), strict=True):
            logits = torch.nn.functional.linear(some_states, weight, bias).float()
            parts.append((logits.gather(1, some[:, None])[:, 0] - logits.logsumexp(dim=1)).double())
        return torch.cat(parts)
