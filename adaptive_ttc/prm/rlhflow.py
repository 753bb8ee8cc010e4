"""Reads RLHFlow's PRMs: the probability of ``+`` against ``-`` after every step; it knows no engine.

Models: RLHFlow/Llama3.1-8B-PRM-Deepseek-Data, RLHFlow/Llama3.1-8B-PRM-Mistral-Data, and any causal LM
trained on the same chats (:mod:`adaptive_ttc.prm.step_chat`). One forward pass gives the scores of all steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.prm.heads import LabelHead, OutputHead
from adaptive_ttc.prm.reader import Parts, Reader
from adaptive_ttc.prm.row import Row
from adaptive_ttc.prm.step_chat import StepChat

FORMAT = "rlhflow-2"
"""Version of what this reader makes of a request; part of every fingerprint."""


class RLHFlowReader(Reader):
    """Step k's score is softmax over the logits of ``+`` and ``-`` where the label of step k is predicted, of ``+``.

    Only these two rows of the output head are computed, only at these places.

    Args:
        tokenizer: the model's, with a chat template.
        output: its output head.

    Raises:
        ConfigError: the chat template cannot be read this way.
    """

    def __init__(self, tokenizer: Any, output: OutputHead) -> None:
        self._chat = StepChat(tokenizer)
        self.heads = (LabelHead(output, self._chat.plus, self._chat.minus),)

    def render(self, request: ScoreRequest) -> tuple[Row, ...]:
        """One chat with all steps."""
        return (self._chat.render(request),)


def parts(folder: Path, device: str, dtype: str) -> Parts:
    """Tokenizer and label rows of a folder."""
    from adaptive_ttc.prm.causal import load_tokenizer
    from adaptive_ttc.prm.weights import read_output_head

    return Parts(RLHFlowReader(load_tokenizer(folder), read_output_head(folder, device=device, dtype=dtype)), (folder,))
