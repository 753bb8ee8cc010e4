"""A tiny random sequence classifier of one label as a folder, and the plain reference: transformers' own logit."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)

from adaptive_ttc.prm import ScoreRequest
from adaptive_ttc.prm.format import TEMPLATE_DATE
from tests.prm.tiny import tokenizer_of
from tests.prm.tiny_heads import qwen_tokenizer

KINDS: dict[str, Any] = {
    "llama": (LlamaConfig, LlamaForSequenceClassification),
    "qwen3": (Qwen3Config, Qwen3ForSequenceClassification),
}


@cache
def outcome_folder() -> Path:
    """A folder that lasts as long as the process."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return save_outcome(folder)


def save_outcome(folder: Path, kind: str = "llama", *, labels: int = 1, pad_is_end: bool = False) -> Path:
    """Write it; ``pad_is_end``: the token that ends every turn is the padding token too. Its path."""
    tokenizer = tokenizer_of("llama3") if kind == "llama" else qwen_tokenizer()
    config, model = KINDS[kind]
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 1024,
        "initializer_range": 0.2, "tie_word_embeddings": False, "num_labels": labels,
        "pad_token_id": tokenizer.convert_tokens_to_ids("<|eot_id|>") if pad_is_end else 3,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(4)
        made = model(config(**sizes)).eval()
        made.score.weight.data.normal_(std=0.2)
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rendered(tokenizer: Any, request: ScoreRequest) -> list[int]:
    """The chat as the model cards have it."""
    turns = [
        {"role": "user", "content": request.question},
        {"role": "assistant", "content": "\n\n".join(request.steps)},
    ]
    ids: list[int] = tokenizer.apply_chat_template(turns, tokenize=True, date_string=TEMPLATE_DATE, return_dict=False)
    return ids


def reference_outcome(folder: Path, tokenizer: Any, request: ScoreRequest) -> float:
    """The sigmoid of transformers' own logit."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return float(model(torch.tensor([rendered(tokenizer, request)])).logits[0, 0].sigmoid())
