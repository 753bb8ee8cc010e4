"""Qwen2 for vLLM that ignores the weights of a reward head."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM

HEADS = ("score.", "v_head.")


class Qwen2Backbone(Qwen2ForCausalLM):  # type: ignore[misc]
    """The transformer of Qwen2.5-Math-PRM and of Skywork's PRMs; their heads are read apart."""

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load what belongs to the transformer."""
        loaded: set[str] = super().load_weights(
            (name, weight) for name, weight in weights if not name.startswith(HEADS)
        )
        return loaded
