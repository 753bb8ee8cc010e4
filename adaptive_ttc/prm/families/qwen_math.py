"""Reads Qwen2.5-Math-PRM: two classes at the token ``<extra_0>`` after every step.

Models: Qwen/Qwen2.5-Math-PRM-7B, -72B, Qwen/Qwen2.5-Math-7B-PRM800K, and what was fine-tuned from them. Their folders
bring code for a model class of their own (``Qwen2ForProcessRewardModel``), which is not run: it is a stock Qwen2 with a
head of two linear layers and a ReLU between them, whose weights are read by their names (model card and
``modeling_qwen2_rm.py`` of Qwen/Qwen2.5-Math-PRM-7B; vLLM's ``qwen2_rm.py`` is the same).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.prm.checkpoint import load_tokenizer, read_weights
from adaptive_ttc.prm.format import ChatReader, Parts, Row, StepPooling

if TYPE_CHECKING:
    import torch

FORMAT = "qwen-math-1"  # version of what this reader makes of a request; part of every fingerprint
SYSTEM_PROMPT = "Please reason step by step, and put your final answer within \\boxed{}."  # the model card's

STEP_TOKEN = "<extra_0>"


class ClassHead:
    """The probability of class 1 of two: Linear, ReLU, Linear, softmax, in float32; ConfigError for other shapes.

    ``weights``: ``score.0.weight`` of shape (hidden, hidden), ``score.0.bias``, ``score.2.weight`` (2, hidden),
    ``score.2.bias``.
    """

    NAMES = ("score.0.weight", "score.0.bias", "score.2.weight", "score.2.bias")

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        self._first, self._first_bias, self._second, self._second_bias = (weights[name].float() for name in self.NAMES)
        if self._second.shape[0] != 2 or self._first.shape[0] != self._second.shape[1]:
            raise ConfigError(f"score.2.weight is of shape {tuple(self._second.shape)}; this family has 2 rows")
        self.parameters = sum(weights[name].numel() for name in self.NAMES)

    def __call__(self, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        """Probabilities of class 1."""
        hidden = (states.to(self._first).matmul(self._first.T) + self._first_bias).relu()
        return (hidden.matmul(self._second.T) + self._second_bias).softmax(dim=-1)[:, 1]


class QwenMathReader(ChatReader):
    """Step k's score is the probability of class 1 of two at the k-th ``<extra_0>``.

    The chat has the system prompt, the question, and the assistant's steps, each followed by the one token
    ``<extra_0>``.
    """

    def __init__(self, tokenizer: Any, head: ClassHead) -> None:
        super().__init__(tokenizer)
        ids = self._ids(STEP_TOKEN)
        if len(ids) != 1:
            raise ConfigError(f"{STEP_TOKEN} is {len(ids)} tokens here; use the tokenizer that the model came with")
        self._step_id = ids[0]
        self.step_pooling = StepPooling(ids[0])
        self.heads = (head,)

    def render(self, request: ScoreRequest) -> tuple[Row, ...]:
        """One chat with all steps, up to the last ``<extra_0>``."""
        steps = self._safe_steps(request)
        solution = "".join(step + STEP_TOKEN for step in steps)
        ids = self._chat(("system", SYSTEM_PROMPT), ("user", self._safe(request.question)), ("assistant", solution))
        places = [place for place, token in enumerate(ids) if token == self._step_id]
        if len(places) != len(steps):
            raise ConfigError(
                f"{len(places)} tokens {STEP_TOKEN} came of {len(steps)} steps; use the model's own chat template"
            )
        return (Row.labelled(ids[: places[-1] + 1], places),)


def parts(folder: Path, device: str, dtype: str) -> Parts:
    """Tokenizer and head of a folder."""
    head = ClassHead(read_weights(folder, ClassHead.NAMES, device=device))
    return Parts(QwenMathReader(load_tokenizer(folder), head), (folder,))
