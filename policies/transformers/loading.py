"""Loads a causal language model for batched sampling and checks that it can be batched; it knows no request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from adaptive_ttc.errors import ConfigError
from policies.transformers.kv_cache import CacheShape
from policies.transformers.runner import ModelRunner, RowStart

SMALL_MODEL = 20_000_000
"""Below so many parameters a second CPU thread costs more in waiting than it computes."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What batching needs to know of a model.

    Attributes:
        shape: of one token's keys and values.
        max_context: positions that it can attend to.
        vocab_size: of its logits.
        parameters: that multiply something in a token's forward pass; a look-up in an embedding table does not.
    """

    shape: CacheShape
    max_context: int
    vocab_size: int
    parameters: int


@torch.inference_mode()
def examine(model: Any) -> ModelFacts:
    """Run a model on one token and read off what its cache holds.

    Raises:
        ConfigError: it keeps a state that is not one key and value a token and layer, all alike.
    """
    output = model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=model.device), use_cache=True)
    layers = getattr(getattr(output, "past_key_values", None), "layers", [])
    kind = type(model).__name__
    if not layers or any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        raise ConfigError(f"{kind} does not keep keys and values in every layer; serve it with another policy")
    shapes = {(layer.keys.shape, layer.values.shape) for layer in layers}
    if len(shapes) > 1:
        raise ConfigError(f"the layers of {kind} keep keys of different shapes; serve it with another policy")
    (keys, values), *_ = shapes
    # within its window a sliding layer attends to everything, so that up to there no special mask is needed
    windows = [layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)]
    lookup = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    tied = head is not None and head.weight is lookup
    return ModelFacts(
        shape=CacheShape(layers=len(layers), heads=keys[1], key_dim=keys[3], value_dim=values[3]),
        max_context=min([_positions(model.config.get_text_config()), *windows]),
        vocab_size=output.logits.shape[-1],
        parameters=sum(parameter.numel() for parameter in model.parameters()) - (0 if tied else lookup.numel()),
    )


def _positions(config: Any) -> int:
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is None:
        raise ConfigError("the model's config does not say how many positions it knows; add max_position_embeddings")
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in ("dynamic", "longrope"):
        # beyond the original length these turn the whole batch's angles by its longest row
        return int(rope.get("original_max_position_embeddings") or positions)
    return positions


def check_rows(model: Any, runner: ModelRunner, vocab_size: int) -> None:
    """Compare two rows of different length with the model's own answer to each alone.

    Raises:
        ConfigError: it fails, or they differ by more than rounding: the model does not take a mask and positions for
            every row.
    """
    kind = type(model).__name__
    try:
        difference = _row_difference(model, runner, vocab_size)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{kind} cannot run unequal rows ({error}); serve it with another policy") from error
    if not difference <= (1e-3 if model.dtype == torch.float32 else 1e-1):
        raise ConfigError(
            f"{kind} answers differently in a batch of unequal rows (log-probabilities are off by {difference:.2g}); "
            "serve it with another policy"
        )


def _row_difference(model: Any, runner: ModelRunner, vocab_size: int) -> float:
    """Largest difference of a greedy token's log-probability, relative where it is large."""
    prompts = [tuple(index * 7 % vocab_size for index in range(1, length)) for length in (12, 6)]
    runner.begin(0, [RowStart(prompt, np.empty(0, np.int64), seed=0, temperature=0.0, top_p=1.0) for prompt in prompts])
    differences = []
    for _ in range(2):
        tokens, logprobs = runner.decode(len(prompts))
        for row, logprob in enumerate(logprobs):
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([prompts[row]], device=model.device), use_cache=False).logits
            expected = torch.log_softmax(logits[0, -1].float(), dim=-1).max().item()
            differences.append(abs(expected - logprob) / max(1.0, abs(expected)))
            prompts[row] = (*prompts[row], int(tokens[row]))
    return float(np.max(differences))


def eos_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end a solution: the generation config's, else the tokenizer's.

    Raises:
        ConfigError: neither names one, so that no solution would ever end.
    """
    named = getattr(model.generation_config, "eos_token_id", None)
    if named is None:
        named = tokenizer.eos_token_id
    if named is None:
        raise ConfigError(
            "neither the generation config nor the tokenizer names an end-of-sequence token; pass eos_token_ids"
        )
    return frozenset([named] if isinstance(named, int) else named)
