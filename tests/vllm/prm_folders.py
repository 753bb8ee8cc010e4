"""Folders of tiny random PRMs of every family, with heads of the size that vLLM's attention on a CPU can do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

from tests.prm.tiny import tokenizer_of
from tests.prm.tiny_heads import qwen_tokenizer, shepherd_tokenizer

HIDDEN = 64
SIZES: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
}


def write(family: str, folder: Path) -> Path:
    """Write the folder of one of ``FOLDERS``; its path."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer, model, head = _parts(family)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if head:
        weights = load_file(folder / "model.safetensors") | head
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((folder / "config.json").read_text())
        config["architectures"] = ["Qwen2ForProcessRewardModel" if "score.0.weight" in head else "Qwen2ForPrmModel"]
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def _parts(family: str) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    if family == "llama":
        tokenizer = tokenizer_of("llama3")
        return tokenizer, LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SIZES)), {}
    if family in ("mistral", "math-shepherd"):
        tokenizer = shepherd_tokenizer() if family == "math-shepherd" else tokenizer_of("mistral3")
        config = MistralConfig(vocab_size=len(tokenizer), sliding_window=None, head_dim=32, **SIZES)
        return tokenizer, MistralForCausalLM(config), {}
    tokenizer = qwen_tokenizer()
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), **SIZES))
    if family == "skywork":
        return (
            tokenizer,
            model,
            {"v_head.summary.weight": torch.randn(1, HIDDEN), "v_head.summary.bias": torch.randn(1)},
        )
    shapes = {"score.0.weight": (HIDDEN, HIDDEN), "score.0.bias": (HIDDEN,), "score.2.weight": (2, HIDDEN)}
    head = {name: torch.randn(shape) * 0.3 for name, shape in shapes.items()}
    return tokenizer, model, head | {"score.2.bias": torch.randn(2)}
