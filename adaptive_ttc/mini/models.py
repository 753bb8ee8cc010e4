"""The mini models as stock ``LlamaForCausalLM``: fresh, with a verifier on top, and twice as wide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from adaptive_ttc.mini.settings import Size

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def fresh(size: Size, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A Llama with random weights, input and output embeddings tied."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(_config(size, tokenizer))


def with_verifier(base: LlamaForCausalLM, layers: int, seed: int) -> LlamaForCausalLM:
    """The base with ``layers`` new ones above it and an output head of its own.

    The new layers write nothing at first (zero output projections). What the base has learned is
    frozen: a verifier must compare what it would have written with what stands there, which takes
    layers above those that compute the answer, and leaves no reason to disturb these.
    """
    config = LlamaConfig(**{**base.config.to_dict(), "tie_word_embeddings": False})
    config.num_hidden_layers = base.config.num_hidden_layers + layers
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    own = base.model.state_dict()
    model.model.load_state_dict({**model.model.state_dict(), **own})
    kept = base.config.num_hidden_layers
    for index, layer in enumerate(model.model.layers):
        if index >= kept:
            torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
            torch.nn.init.zeros_(layer.mlp.down_proj.weight)
        else:
            layer.requires_grad_(False)
    model.model.embed_tokens.requires_grad_(False)
    return model


def widened(base: LlamaForCausalLM, layers: int, seed: int) -> LlamaForCausalLM:
    """A Llama twice as wide that computes what the base does (Net2Net, arXiv 1511.05641), and goes on from there.

    Every hidden unit, head and intermediate unit is doubled and what reads the copies is halved; layers
    beyond the base's write nothing at first. A little noise lets the copies part.
    """
    small = base.config
    size = Size(2 * small.hidden_size, layers, 2 * small.num_attention_heads, 2 * small.intermediate_size)
    config = LlamaConfig(**{**small.to_dict(), **_shape(size)})
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    state = model.model.state_dict()
    for name, weight in base.model.state_dict().items():
        doubled = torch.cat([weight, weight]) if weight.dim() == 1 else weight.repeat(2, 2) / 2
        if name == "embed_tokens.weight":
            doubled = weight.repeat(1, 2)
        elif name == "norm.weight":
            doubled = doubled / 2  # the tied output head sums over both copies
        state[name] = doubled + 0.02 * doubled.abs().mean() * torch.randn_like(doubled) if weight.dim() > 1 else doubled
    model.model.load_state_dict(state)
    for layer in model.model.layers[small.num_hidden_layers :]:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    return model


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, **extra: str) -> None:
    """Write an ordinary Hugging Face folder; ``extra`` goes into its ``config.json``."""
    for key, value in extra.items():
        setattr(model.config, key, value)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _config(size: Size, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        **_shape(size),
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.02,
    )


def _shape(size: Size) -> dict[str, Any]:
    return {
        "hidden_size": size.hidden,
        "intermediate_size": size.intermediate,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads,
    }
