"""Has a causal LM judge solutions by a yes or a no, for users without a PRM.

P(True) of arXiv 2207.05221 for every step: no training, and weaker than a PRM. The judge is a second copy of the
policy, or any other instruct model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.prm.checkpoint import load_tokenizer, read_output_head
from adaptive_ttc.prm.format import ChatReader, LabelHead, OutputHead, Parts, Row

FORMAT = "self-verification-1"  # version of what this reader makes of a request; part of every fingerprint

PROBLEM = "Problem:\n{question}\n\nSolution so far:\n{steps}"

QUESTION = "\n\nIs every step of this solution correct so far? Answer Yes or No."


class SelfVerificationReader(ChatReader):
    """Step k's score is softmax over the logits of ``Yes`` and ``No`` as the answer's first token, of ``Yes``.

    Every step is asked about in a chat of its own that shows the solution up to it. The chats begin alike, so with a
    prefix cache a new step costs its own tokens and the question's; without one, the whole solution.
    """

    def __init__(self, tokenizer: Any, output: OutputHead) -> None:
        super().__init__(tokenizer)
        asked = self._asked("1 + 1 = ?", ["2"])
        answered = [self._asked("1 + 1 = ?", ["2"], answer) for answer in ("Yes", "No")]
        first = [ids[len(asked) : len(asked) + 1] for ids in answered]
        if any(ids[: len(asked)] != asked for ids in answered) or first[0] == first[1]:
            raise ConfigError(
                "with this chat template 'Yes' and 'No' do not begin the assistant's turn with different tokens; "
                "use an instruct model whose template adds the assistant's header"
            )
        self.heads = (LabelHead(output, first[0][0], first[1][0]),)

    def render(self, request: ScoreRequest) -> tuple[Row, ...]:
        """A chat for every step."""
        question, steps = self._safe(request.question), self._safe_steps(request)
        chats = [self._asked(question, steps[:k]) for k in range(1, len(steps) + 1)]
        return tuple(Row.labelled(ids, [len(ids) - 1]) for ids in chats)

    def _asked(self, question: str, steps: list[str], answer: str | None = None) -> list[int]:
        content = PROBLEM.format(question=question, steps="\n\n".join(steps)) + QUESTION
        if answer is None:
            return self._chat(("user", content), answering=True)
        return self._chat(("user", content), ("assistant", answer))


def parts(folder: Path, device: str, dtype: str) -> Parts:
    """Tokenizer and answer rows of a folder."""
    output = read_output_head(folder, device=device, dtype=dtype)
    return Parts(SelfVerificationReader(load_tokenizer(folder), output), (folder,))
