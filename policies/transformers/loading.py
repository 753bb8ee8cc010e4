"""Loads a causal language model for batched sampling and checks that it can be batched; it knows no request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policies.folder import forward_parameters
from adaptive_ttc.policies.transformers.runner import ModelRunner
from adaptive_ttc.policy import SampleRequest
from adaptive_ttc.prm.prefix_cache import CacheShape, cache_argument

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
        revision_prompt: what its config says it was trained to write a better attempt after, or None.
    """

    shape: CacheShape
    max_context: int
    vocab_size: int
    parameters: int
    revision_prompt: str | None


@torch.inference_mode()
def examine(model: Any) -> ModelFacts:
    """Run a model on one token and read off what its cache holds.

    Raises:
        ConfigError: it keeps a state that is not one key and value a token and layer, all alike.
    """
    output = model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=model.device), use_cache=True)
    layers = getattr(getattr(output, cache_argument(model), None), "layers", [])
    kind = type(model).__name__
    if not layers or any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        raise ConfigError(f"{kind} does not keep keys and values in every layer; serve it with another policy")
    shapes = {(layer.keys.shape, layer.values.shape) for layer in layers}
    if len(shapes) > 1:
        raise ConfigError(f"the layers of {kind} keep keys of different shapes; serve it with another policy")
    (keys, values), *_ = shapes
    # within its window a sliding layer attends to everything, so that up to there no special mask is needed
    windows = [layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)]
    return ModelFacts(
        shape=CacheShape(layers=len(layers), heads=keys[1], key_dim=keys[3], value_dim=values[3]),
        max_context=min([_positions(model.config.get_text_config()), *windows]),
        vocab_size=output.logits.shape[-1],
        parameters=forward_parameters(model),
        revision_prompt=getattr(model.config, "revision_prompt", None),
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


@dataclass(frozen=True, slots=True)
class Greedy:
    """A prompt, the tokens that a model greedily goes on with, and their log-probabilities in nats."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


@torch.inference_mode()
def greedy_alone(model: Any, vocab_size: int) -> list[Greedy]:
    """What a model answers to two prompts of different length, each alone and without a cache."""
    answers = []
    for length in (12, 6):
        prompt = tokens = tuple(index * 7 % vocab_size for index in range(1, length))
        logprobs: list[float] = []
        for _ in range(2):
            logits = model(input_ids=torch.tensor([tokens], device=model.device), use_cache=False).logits[0, -1]
            logprob, token = torch.log_softmax(logits.float(), dim=-1).max(dim=-1)
            tokens, logprobs = (*tokens, int(token)), [*logprobs, logprob.item()]
        answers.append(Greedy(prompt, tokens[len(prompt) :], tuple(logprobs)))
    return answers


def check_rows(runner: ModelRunner, expected: Sequence[Greedy], tolerance: float) -> None:
    """Compare what the rows of a batch give with the model's own answers.

    Raises:
        ConfigError: it fails, or they differ by more than rounding: there is more to the model's attention than keys,
            values and a causal mask.
    """
    remedy = "serve this model with another policy"
    try:
        for row, one in enumerate(expected):
            runner.begin(row, SampleRequest(id="", prompt_ids=one.prompt, max_tokens=2, seed=0, temperature=0.0))
        first, second = (runner.step(len(expected)) for _ in range(2))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"it cannot run unequal rows: {error}; {remedy}") from error
    differences = []
    for row, one in enumerate(expected):
        differences.append(abs(first.logprobs[row] - one.logprobs[0]))
        # rounding may turn a narrow choice, and then the second tokens have nothing to do with each other
        if first.tokens[row] == one.tokens[0]:
            differences.append(abs(second.logprobs[row] - one.logprobs[1]))
    worst = float(np.max(differences))
    # turned round, so that a NaN is refused
    if not worst <= tolerance:
        raise ConfigError(f"its log-probabilities are off by {worst:.2g} in a batch of unequal rows; {remedy}")
