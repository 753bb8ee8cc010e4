"""Reads Qwen2.5-Math-PRM: two classes at the token ``<extra_0>`` after every step; it knows no engine.

Models: Qwen/Qwen2.5-Math-PRM-7B, -72B, Qwen/Qwen2.5-Math-7B-PRM800K, and what was fine-tuned from them. Their
folders bring code for a model class of their own (``Qwen2ForProcessRewardModel``), which is not run: it is a
stock Qwen2 with a head of two linear layers and a ReLU between them, whose weights are read by their names
(model card and ``modeling_qwen2_rm.py`` of Qwen/Qwen2.5-Math-PRM-7B; vLLM's ``qwen2_rm.py`` is the same).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.prm.heads import ClassHead
from adaptive_ttc.prm.reader import Parts, Reader
from adaptive_ttc.prm.row import Row
from adaptive_ttc.prm.step_chat import TEMPLATE_DATE, ControlTokens, template_of

FORMAT = "qwen-math-1"
"""Version of what this reader makes of a request; part of every fingerprint."""

SYSTEM_PROMPT = "Please reason step by step, and put your final answer within \\boxed{}."
"""The model card's."""

STEP_TOKEN = "<extra_0>"


class QwenMathReader(Reader):
    """Step k's score is the probability of class 1 of two at the k-th ``<extra_0>``.

    The chat has the system prompt, the question, and the assistant's steps, each followed by ``<extra_0>``.

    Args:
        tokenizer: the model's, with its chat template and ``<extra_0>`` as one token.
        head: the two layers.

    Raises:
        ConfigError: the tokenizer is not that of such a model.
    """

    def __init__(self, tokenizer: Any, head: ClassHead) -> None:
        template_of(tokenizer)
        self._tokenizer, self._control = tokenizer, ControlTokens(tokenizer)
        ids = tokenizer.encode(STEP_TOKEN, add_special_tokens=False)
        if len(ids) != 1:
            raise ConfigError(f"{STEP_TOKEN} is {len(ids)} tokens here; use the tokenizer that the model came with")
        self._step_id: int = ids[0]
        self.heads = (head,)

    def render(self, request: ScoreRequest) -> tuple[Row, ...]:
        """One chat with all steps, up to the last ``<extra_0>``."""
        steps = [self._control.neutralise(step.strip()) for step in request.steps]
        turns = [
            {"role": "system", "content": SYSTEM_PROMPT},
            {"role": "user", "content": self._control.neutralise(request.question)},
            {"role": "assistant", "content": "".join(step + STEP_TOKEN for step in steps)},
        ]
        ids = self._tokenizer.apply_chat_template(turns, date_string=TEMPLATE_DATE, return_dict=False)
        places = [place for place, token in enumerate(ids) if token == self._step_id]
        if len(places) != len(steps):
            raise ConfigError(
                f"{len(places)} tokens {STEP_TOKEN} came of {len(steps)} steps; use the model's own chat template"
            )
        return (Row.labelled(ids[: places[-1] + 1], places),)


def parts(folder: Path, device: str, dtype: str) -> Parts:
    """Tokenizer and head of a folder."""
    from adaptive_ttc.prm.causal import load_tokenizer
    from adaptive_ttc.prm.weights import read_weights

    head = ClassHead(read_weights(folder, ClassHead.NAMES, device=device))
    return Parts(QwenMathReader(load_tokenizer(folder), head), (folder,))
