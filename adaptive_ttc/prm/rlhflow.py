"""Reads RLHFlow's PRMs: the probability of ``+`` against ``-`` after every step; it knows no strategy or budget.

Models: RLHFlow/Llama3.1-8B-PRM-Deepseek-Data, RLHFlow/Llama3.1-8B-PRM-Mistral-Data, and any causal LM
trained on the same chats (:mod:`adaptive_ttc.prm.step_chat`). One forward pass gives the scores of all steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.prm.batched import BatchedPRM
from adaptive_ttc.prm.batcher import BatcherConfig
from adaptive_ttc.prm.causal import CausalBody, checked, load_causal, smallest
from adaptive_ttc.prm.checkpoint import fingerprint, locate
from adaptive_ttc.prm.step_chat import RenderedSteps, StepChat

if TYPE_CHECKING:
    import torch

FORMAT = "rlhflow-1"
"""Version of what this reader makes of a request; part of every fingerprint."""


class RLHFlowPRM(BatchedPRM[RenderedSteps]):
    """A PRM over a causal LM in memory; :meth:`from_pretrained` loads one.

    Step k's score is softmax over the logits of ``+`` and ``-`` where the label of step k is
    predicted, of ``+``. Only these two rows of the output head are computed, only at these places;
    ``parameters`` are the transformer's and these rows.

    Args:
        model: a Hugging Face causal LM in evaluation mode.
        tokenizer: its tokenizer, with a chat template.
        name: how a person calls it.
        fingerprint: see :func:`adaptive_ttc.prm.checkpoint.fingerprint`.
        batching: how requests are batched; lengths are in tokens.
        max_context: tokens it may read, where that is less than its config says.

    Raises:
        ConfigError: the model or its chat template cannot be read this way.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        fingerprint: str,
        batching: BatcherConfig | None = None,
        max_context: int | None = None,
    ) -> None:
        self._chat = StepChat(tokenizer)
        self._body = CausalBody(model)
        self._rows, self._bias = _head_rows(self._body.head, [self._chat.plus, self._chat.minus])
        super().__init__(
            name=name,
            fingerprint=fingerprint,
            parameters=self._body.parameters + self._rows.numel(),
            max_context=smallest(self._body.max_context, max_context),
            batching=batching,
        )

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub: str | Path,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        max_batch: int = 32,
        max_wait: float = 0.002,
        max_padded_tokens: int = 16384,
        max_context: int | None = None,
        revision: str | None = None,
        threads: int | None = None,
    ) -> RLHFlowPRM:
        """Load one from a folder or from the Hub.

        Args:
            path_or_hub: a Hugging Face model folder, or ``owner/name``.
            device: as torch names it.
            dtype: ``float32``, ``bfloat16`` or ``float16``. Only float32 gives scores that do not
                depend on the batch (to 1e-5).
            max_batch: solutions in a batch.
            max_wait: seconds a solution may wait for company.
            max_padded_tokens: solutions in a batch times the longest one's tokens.
            max_context: tokens it may read, where that is less than its config says.
            revision: of a Hub model.
            threads: torch's threads for the whole process; use 1 on a CPU below about 20M parameters.

        Raises:
            ConfigError: the model cannot be found, loaded or read this way.
        """
        batching = BatcherConfig(max_batch=max_batch, max_wait=max_wait, max_padded_tokens=max_padded_tokens)
        folder = locate(path_or_hub, revision=revision)
        model, tokenizer = load_causal(folder, device=device, dtype=dtype, threads=threads)
        return cls(
            model,
            tokenizer,
            name=str(path_or_hub),
            fingerprint=fingerprint(folder, FORMAT, dtype),
            batching=batching,
            max_context=max_context,
        )

    def _render(self, request: ScoreRequest) -> RenderedSteps:
        return self._chat.render(request)

    def _score_batch(self, items: Sequence[RenderedSteps]) -> list[tuple[float, ...]]:
        states = self._body.hidden([item.token_ids for item in items], [item.positions for item in items])
        logits = states.float() @ self._rows.T + self._bias
        flat = iter(checked(logits.softmax(dim=-1)[:, 0].tolist(), self._name))
        return [tuple(next(flat) for _ in item.positions) for item in items]

    def _release(self) -> None:
        self._body.release()


def _head_rows(head: Any, tokens: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights, shape (tokens, hidden), and biases, shape (tokens,), of these tokens, in float32."""
    weight: torch.Tensor = head.weight.detach()[tokens].float()
    bias: torch.Tensor = weight.new_zeros(len(tokens)) if head.bias is None else head.bias.detach()[tokens].float()
    return weight, bias
