"""Fits the implicit PRM of a mini pair: a log-probability ratio, mapped to a probability; see arXiv 2412.01981."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import LlamaForCausalLM

from adaptive_ttc.mini.tokenizer import ASSISTANT, BOS, EOS, USER

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def implicit_ratios(
    clean: LlamaForCausalLM,
    noisy: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    samples: list[dict[str, Any]],
    *,
    rows: int = 64,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each solution under the clean policy less that under the noisy one, and its label.

    Args:
        samples: ``question``, ``solution`` and ``right``, the number of right characters.
        rows: solutions in one forward pass.

    Returns:
        Ratios in nats and labels (1 where the whole solution is right), both ``[len(samples)]``.
    """
    ratios, labels = torch.zeros(len(samples)), torch.zeros(len(samples))
    order = sorted(range(len(samples)), key=lambda i: len(samples[i]["solution"]))
    begin = tokenizer.get_vocab()[ASSISTANT]
    for at in range(0, len(order), rows):
        some = order[at : at + rows]
        texts = [f"{BOS}{USER}{samples[i]['question']}{EOS}{ASSISTANT}{samples[i]['solution']}" for i in some]
        encoded = tokenizer(texts, padding=True, padding_side="right", add_special_tokens=False, return_tensors="pt")
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        written = ((ids == begin).cumsum(1) > 0)[:, :-1] & (mask[:, 1:] > 0)
        with torch.inference_mode():
            ratio = (_log_probabilities(clean, ids) - _log_probabilities(noisy, ids)) * written
        for row, i in enumerate(some):
            ratios[i] = ratio[row].sum()
            labels[i] = float(samples[i]["right"] >= len(samples[i]["solution"]))
    return ratios, labels


def _log_probabilities(model: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    chosen: torch.Tensor = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    return chosen
