"""A tiny random Llama with a byte-level tokenizer and a chat template, saved as an ordinary Hugging Face folder."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ENDS = ("<end>", "<end1>", "<end2>", "<end3>", "<end4>", "<end5>")
SPECIALS = (*ENDS, "<pad>", "<system>", "<user>", "<assistant>")
TEMPLATE = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def byte_tokenizer(template: str | None = TEMPLATE) -> Any:
    vocabulary = {token: index for index, token in enumerate([*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=ENDS[0], pad_token="<pad>", additional_special_tokens=SPECIALS[1:]
    )
    tokenizer.chat_template = template
    return tokenizer


def llama(*, seed: int = 0, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "vocab_size": len(SPECIALS) + 256,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "eos_token_id": list(range(len(ENDS))),
        "bos_token_id": None,
        "pad_token_id": SPECIALS.index("<pad>"),
        # large, so that what a token attends to decides what comes next
        "initializer_range": 0.3,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()


@cache
def folder() -> Path:
    """Where the model is saved, once a test run."""
    path = Path(tempfile.mkdtemp(prefix="tiny-policy-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    llama().save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path
