"""Reads RLHFlow's PRMs: the probability of ``+`` against ``-`` after every step.

Models: RLHFlow/Llama3.1-8B-PRM-Deepseek-Data, RLHFlow/Llama3.1-8B-PRM-Mistral-Data, and any causal LM trained on the
same chats. Format: RLHFlow's ``math-rm/prm_evaluate.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.prm.checkpoint import load_tokenizer, read_output_head
from adaptive_ttc.prm.format import ChatReader, LabelHead, OutputHead, Parts, Row

FORMAT = "rlhflow-2"  # version of what this reader makes of a request; part of every fingerprint


class RLHFlowReader(ChatReader):
    """Step k's score is softmax over the logits of ``+`` and ``-`` where the label of step k is predicted, of ``+``.

    Every step is a user turn, the first one after the question and a space; the assistant answers each with ``+``
    (right so far) or ``-``. One forward pass gives the scores of all steps, and only the two labels' rows of the output
    head are computed. The labels are found by rendering the chat twice, all ``+`` and all ``-``: the two differ in the
    label tokens and nowhere else, whatever the template writes and whatever signs the steps hold.

    ``plus`` and ``minus`` are the ids where the template puts them (``+`` and ``▁+`` may be different tokens).
    ConfigError: they are not single tokens, or later turns change how earlier ones are rendered.
    """

    def __init__(self, tokenizer: Any, output: OutputHead) -> None:
        super().__init__(tokenizer)
        self.plus, self.minus = self._find_labels()
        self.heads = (LabelHead(output, self.plus, self.minus),)

    def render(self, request: ScoreRequest) -> tuple[Row, ...]:
        """One chat, up to the token before the last label, with the places at which the labels are predicted."""
        row, labels = self._encode(request)
        if labels != {(self.plus, self.minus)}:
            raise ConfigError(_NOT_SINGLE)
        return (row,)

    def _encode(self, request: ScoreRequest) -> tuple[Row, set[tuple[int, int]]]:
        """The rendered solution, and the pairs of label tokens that were met in it."""
        steps = self._safe_steps(request)
        steps[0] = f"{self._safe(request.question)} {steps[0]}"
        plus, minus = (
            self._chat(*(turn for step in steps for turn in (("user", step), ("assistant", label)))) for label in "+-"
        )
        places = [place for place, (a, b) in enumerate(zip(plus, minus, strict=False)) if a != b]
        if len(plus) != len(minus) or len(places) != len(steps) or places[0] == 0:
            raise ConfigError(_NOT_SINGLE)
        labels = {(plus[place], minus[place]) for place in places}
        return Row.labelled(plus[: places[-1]], [place - 1 for place in places]), labels

    def _find_labels(self) -> tuple[int, int]:
        """Learn the label tokens from a trial chat, and check that later turns leave earlier ones as they are."""
        steps = ("1 + 2 = 3.", "3 - 3 = 0.", "So is it + or -?")
        trial, labels = self._encode(ScoreRequest("What is 1 + 2 - 3?", steps))
        for k in (1, 2):
            shorter, _ = self._encode(ScoreRequest("What is 1 + 2 - 3?", steps[:k]))
            end = len(shorter.token_ids)
            if (shorter.token_ids, shorter.positions) != (trial.token_ids[:end], trial.positions[:k]):
                raise ConfigError(
                    "the chat template renders a turn differently once others follow it, so the score of a step "
                    "would depend on later steps; give the PRM a template that renders each turn by itself"
                )
        texts = {tuple(self._tokenizer.decode([label]).strip() for label in pair) for pair in labels}
        if len(labels) != 1 or texts != {("+", "-")}:
            raise ConfigError(_NOT_SINGLE)
        return labels.pop()


_NOT_SINGLE = (
    "'+' and '-' are not single tokens of their own where the chat template puts them, so this model cannot be read "
    "as an RLHFlow PRM; use the tokenizer and the template that it was trained with"
)


def parts(folder: Path, device: str, dtype: str) -> Parts:
    """Tokenizer and label rows of a folder."""
    return Parts(RLHFlowReader(load_tokenizer(folder), read_output_head(folder, device=device, dtype=dtype)), (folder,))
