"""Reads Skywork-o1-Open-PRM: the sigmoid of a value at the newline that ends a step.

Models: Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B and -7B. A stock Qwen2 with a value head, whose weights are read by
their names; format and head as in ``model_utils`` of SkyworkAI/skywork-o1-prm-inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.prm.checkpoint import load_tokenizer, read_weights
from adaptive_ttc.prm.format import Parts, Reader, Row

if TYPE_CHECKING:
    import torch

FORMAT = "skywork-1"  # version of what this reader makes of a request; part of every fingerprint

STEP_TOKEN = "\n"


class ValueHead:
    """The sigmoid of one value, in float32; ConfigError for other shapes than (1, hidden) and (1,).

    Dropout (``model_utils/prm_model.py`` of SkyworkAI/skywork-o1-prm-inference) does nothing in evaluation.
    """

    NAMES = ("v_head.summary.weight", "v_head.summary.bias")

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        self._weight, self._bias = (weights[name].float() for name in self.NAMES)
        if self._weight.shape[0] != 1:
            raise ConfigError(f"v_head.summary.weight is of shape {tuple(self._weight.shape)}; a value head has 1 row")
        self.parameters = self._weight.numel() + 1

    def __call__(self, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        """Sigmoids of the values."""
        return (states.to(self._weight).matmul(self._weight[0]) + self._bias[0]).sigmoid()


class SkyworkReader(Reader):
    """Step k's score is the value at the newline after it.

    The model reads its BOS token, if it names one, the question and a newline, then every line by itself, tokenised
    alone and ended with the newline's token. To the model each line is a step; a step of several lines has the last
    one's score.
    """

    def __init__(self, tokenizer: Any, head: ValueHead) -> None:
        super().__init__(tokenizer)
        self._step_id = self._ids(STEP_TOKEN)[-1]
        self.heads = (head,)

    def render(self, request: ScoreRequest) -> tuple[Row, ...]:
        """Question and lines, up to the last newline."""
        ids = self._ids((self._tokenizer.bos_token or "") + self._safe(request.question) + "\n")
        places = []
        for step in self._safe_steps(request):
            for line in step.split(STEP_TOKEN):
                ids += [*(self._ids(line) if line else ()), self._step_id]
            places.append(len(ids) - 1)
        return (Row.labelled(ids, places),)


def parts(folder: Path, device: str, dtype: str) -> Parts:
    """Tokenizer and head of a folder."""
    head = ValueHead(read_weights(folder, ValueHead.NAMES, device=device))
    return Parts(SkyworkReader(load_tokenizer(folder), head), (folder,))
