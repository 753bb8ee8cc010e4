"""Reads outcome reward models: sequence classifiers with one label, which score a whole solution and no step.

Models: Skywork/Skywork-Reward-V2-* (arXiv 2507.01352), Skywork-Reward-Llama-3.1-8B and every other
``AutoModelForSequenceClassification`` of one label whose head is the one row ``score.weight``, as transformers gives
decoders. The chat holds the question and the solution; the head reads the last token that is not padding, as
transformers does, and the score is the sigmoid of its logit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.base import ScoreRequest, Traits
from adaptive_ttc.prm.checkpoint import load_tokenizer, read_config, read_weights, weight_sizes
from adaptive_ttc.prm.format import ChatReader, Parts, Row
from adaptive_ttc.types import STEP_END

if TYPE_CHECKING:
    import torch

FORMAT = "outcome-1"  # version of what this reader makes of a request; part of every fingerprint


class RewardHead:
    """The sigmoid of one row without a bias, in float32; ConfigError for other shapes than (1, hidden)."""

    NAME = "score.weight"

    def __init__(self, weight: torch.Tensor) -> None:
        if weight.shape[0] != 1:
            raise ConfigError(f"{self.NAME} has {weight.shape[0]} labels; an outcome reward model has one")
        self._weight = weight[0].float()
        self.parameters = self._weight.numel()

    def __call__(self, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        """Sigmoids of the logits."""
        return states.to(self._weight).matmul(self._weight).sigmoid()


class OutcomeReader(ChatReader):
    """All steps get the one score of the solution. ``pad`` is the padding token that the model's config names."""

    traits = Traits(finished_only=True)

    def __init__(self, tokenizer: Any, head: RewardHead | None, pad: int | None) -> None:
        super().__init__(tokenizer)
        self.heads = () if head is None else (head,)  # an engine may have its own
        self._pad = pad

    def render(self, request: ScoreRequest) -> tuple[Row, ...]:
        """One chat, up to its last token that is not padding."""
        solution = STEP_END.join(self._safe_steps(request))
        ids = self._chat(("user", self._safe(request.question)), ("assistant", solution))
        while ids and ids[-1] == self._pad:
            ids.pop()
        if not ids:
            raise ConfigError("the chat template writes padding alone; use the model's own tokenizer")
        keys = tuple(ids)
        return (Row(keys, (len(ids) - 1,), (), keys, (1,) * len(request.steps)),)


def parts(folder: Path, device: str, dtype: str) -> Parts:
    """Tokenizer and head of a folder."""
    if RewardHead.NAME not in weight_sizes(folder):
        raise ConfigError(
            f"{folder} has no {RewardHead.NAME}, so it is no decoder with a reward head; serve it, and read it with "
            "engine='served', pooling='classify'"
        )
    head = RewardHead(read_weights(folder, [RewardHead.NAME], device=device)[RewardHead.NAME])
    return Parts(OutcomeReader(load_tokenizer(folder), head, read_config(folder).get("pad_token_id")), (folder,))
