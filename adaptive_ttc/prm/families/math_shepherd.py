"""Reads Math-Shepherd: the probability of ``+`` against ``-`` at the tag ``ки`` after every step.

Model: peiyi9979/math-shepherd-mistral-7b-prm (arXiv 2312.08935), a stock Mistral; format as in its model card.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.prm.checkpoint import load_tokenizer, read_output_head
from adaptive_ttc.prm.format import LabelHead, OutputHead, Parts, Reader, Row, StepPooling

FORMAT = "math-shepherd-1"  # version of what this reader makes of a request; part of every fingerprint

TAG = "ки"


class MathShepherdReader(Reader):
    """Step k's score is softmax over the logits of ``+`` and ``-`` at the k-th tag, of ``+``.

    The model reads the question and the steps as plain text: ``Q Step 1: ... ки``, the others on lines of their own.
    ``Step k:`` is added where a step lacks it, as in all that it was trained on. ConfigError: the tokenizer is not a
    fast one, or tag and signs are not single tokens.
    """

    def __init__(self, tokenizer: Any, output: OutputHead) -> None:
        if not tokenizer.is_fast:
            raise ConfigError("the tokenizer cannot tell where a token stands in the text; install tokenizers")
        super().__init__(tokenizer)
        self._tag_id: int = tokenizer.encode(TAG)[-1]
        # As they follow a space, which may be part of the token.
        good, bad = (tokenizer.encode(f"x {sign}", add_special_tokens=False)[-1] for sign in "+-")
        texts = [tokenizer.decode([token]).strip() for token in (good, bad, self._tag_id)]
        if texts != ["+", "-", TAG]:
            raise ConfigError(f"'+', '-' and {TAG!r} are not single tokens here; use the tokenizer of the model")
        self.heads = (LabelHead(output, good, bad),)
        self.step_pooling = StepPooling(self._tag_id, (good, bad))

    def render(self, request: ScoreRequest) -> tuple[Row, ...]:
        """Question and steps, up to the last tag."""
        text, ends = f"{self._safe(request.question)} ", []
        for number, line in enumerate(self._safe_steps(request), start=1):
            named = line if re.match(r"Step \d+:", line) else f"Step {number}: {line}"
            text += f"{'' if number == 1 else chr(10)}{named} {TAG}"
            ends.append(len(text))
        encoded = self._tokenizer(text, return_offsets_mapping=True)
        ids: list[int] = encoded["input_ids"]
        # By their place in the text, since a step may hold the tag's letters itself.
        tags = {end: k for k, (_, end) in enumerate(encoded["offset_mapping"]) if ids[k] == self._tag_id}
        if not all(end in tags for end in ends):
            raise ConfigError(f"the tag {TAG!r} is no token of its own after some step, so it cannot be scored")
        places = [tags[end] for end in ends]
        return (Row.labelled(ids[: places[-1] + 1], places),)


def parts(folder: Path, device: str, dtype: str) -> Parts:
    """Tokenizer and label rows of a folder."""
    output = read_output_head(folder, device=device, dtype=dtype)
    return Parts(MathShepherdReader(load_tokenizer(folder), output), (folder,))
