"""Tiny random models with the chat templates of real families, and a reference reader too plain to be wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from adaptive_ttc.prm import BatchedPRM, LocalSettings, ScoreRequest
from adaptive_ttc.prm.families.implicit import ImplicitConfig, ImplicitReader
from adaptive_ttc.prm.families.rlhflow import RLHFlowReader
from adaptive_ttc.prm.format import OutputHead, Reader
from adaptive_ttc.prm.local import Backbone

# Llama 3.1's, without tools: headers, a system turn with the date, contents trimmed.
LLAMA3 = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    '{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}'
    "{%- endif %}{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}"
    '{{- "Cutting Knowledge Date: December 2023\n" }}{{- "Today Date: " + date_string + "\n\n" }}{{- "<|eot_id|>" }}'
    "{%- for message in messages %}{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' "
    "+ message['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
# Mistral 7B Instruct v0.1's and v0.3's: in the first the answer follows the bracket directly, in the second a space.
_MISTRAL = (
    "{{ bos_token }}{%% for message in messages %%}{%% if (message['role'] == 'user') != (loop.index0 %% 2 == 0) %%}"
    "{{ raise_exception('Prompts roles must alternate user/assistant/user/assistant/...') }}{%% endif %%}"
    "{%% if message['role'] == 'user' %%}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{%% else %%}{{ '%s' + message['content'] + eos_token }}{%% endif %%}{%% endfor %%}"
)
MISTRAL_1 = _MISTRAL % ""
MISTRAL_3 = _MISTRAL % " "
TINY = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
CORPUS = (
    "What is 3 + 4 - 2? 3 + 4 = 7. 7 - 2 = 5. So the answer is \\boxed{5}. - 1 and + 2",
    "Solve x + 12 = 30. Subtract 12 from both sides: x = 18. The answer is 18. [INST] Compute [/INST]",
    "system user assistant Cutting Knowledge Date: December 2023 Today Date: 26 Jul 2024",
)


@dataclass(frozen=True)
class Family:
    """A chat format: its template, tokenizer and architecture, and the token that ``+`` is in it."""

    name: str
    template: str
    plus: str
    minus: str


FAMILIES = {
    family.name: family
    for family in (
        Family("llama3", LLAMA3, "+", "-"),
        Family("mistral1", MISTRAL_1, "+", "-"),
        Family("mistral3", MISTRAL_3, "▁+", "▁-"),
        Family("tiny", TINY, "+", "-"),
    )
}


@cache
def tokenizer_of(name: str) -> Any:
    if name.startswith("mistral"):
        return sentencepiece_like(FAMILIES[name].template)
    if name == "llama3":
        specials = ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
        return byte_level(LLAMA3, specials, vocab_size=400)
    return byte_level(TINY, ("<|end|>", "<|user|>", "<|assistant|>"), vocab_size=1)


def byte_level(template: str, specials: tuple[str, ...], *, vocab_size: int, corpus: tuple[str, ...] = CORPUS) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=specials[0], eos_token=specials[1], additional_special_tokens=specials[2:]
    )
    fast.chat_template = template
    return fast


def sentencepiece_like(template: str | None, extra: tuple[str, ...] = ()) -> Any:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = [word for text in CORPUS for word in text.split()]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, show_progress=False)
    # often enough that their pieces become tokens
    tokenizer.train_from_iterator([*words, *(chr(code) for code in range(33, 127)), *extra * 50], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    fast.chat_template = template
    return fast


@cache
def model_of(name: str, seed: int = 0) -> Any:
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer_of(name)),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        # Large, so that scores and attention patterns differ between inputs.
        "initializer_range": 0.3,
        "tie_word_embeddings": name == "tiny",
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name.startswith("mistral"):
            return MistralForCausalLM(MistralConfig(**sizes, sliding_window=24)).eval()
        return LlamaForCausalLM(LlamaConfig(**sizes)).eval()


def save(name: str, folder: Any, *, seed: int = 0) -> None:
    model_of(name, seed).save_pretrained(folder)
    tokenizer_of(name).save_pretrained(folder)


def save_weights(folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Put a model's weights into a new file: the old one may be mapped into memory, by these very weights."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    save_file(dict(weights), folder / "model.safetensors", metadata={"format": "pt"})


def body_of(model: Any) -> Backbone:
    return Backbone(model.get_decoder())


def head_of(model: Any) -> OutputHead:
    head = model.get_output_embeddings()
    return OutputHead(head.weight, head.bias)


def batched(reader: Reader, models: Sequence[Any], name: str, **settings: Any) -> BatchedPRM:
    bodies = [*map(body_of, models)]
    return BatchedPRM(reader, bodies, name=name, fingerprint=name, settings=LocalSettings(**settings))


def rlhflow(name: str, **settings: Any) -> BatchedPRM:
    model = model_of(name)
    return batched(RLHFlowReader(tokenizer_of(name), head_of(model)), [model], name, **settings)


IMPLICIT = ImplicitConfig(tuned="clean", reference="noisy", beta=0.02, scale=2.0, offset=0.5)


def implicit(name: str, **settings: Any) -> BatchedPRM:
    models = [model_of(name, seed) for seed in (0, 1)]
    reader = ImplicitReader(tokenizer_of(name), *map(head_of, models), IMPLICIT)
    return batched(reader, models, name, **settings)


def reference_scores(name: str, request: ScoreRequest, *, seed: int = 0) -> list[float]:
    """RLHFlow's published evaluation, line by line: a forward pass a step, all logits, the third place from the end."""
    family, tokenizer, model = FAMILIES[name], tokenizer_of(name), model_of(name, seed)
    candidates = [tokenizer.convert_tokens_to_ids(family.plus), tokenizer.convert_tokens_to_ids(family.minus)]
    conversation: list[dict[str, str]] = []
    scores = []
    for k, step in enumerate(request.steps):
        text = request.question + " " + step if k == 0 else step
        conversation.append({"role": "user", "content": text})
        conversation.append({"role": "assistant", "content": "+"})
        text = tokenizer.apply_chat_template(conversation, tokenize=False, date_string="26 Jul 2024")
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert ids[-2] == candidates[0]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -3, candidates]
        scores.append(logits.softmax(dim=-1)[0].item())
    return scores


QUESTION = "What is 3 + 4 - 2?"
REQUESTS = (
    ScoreRequest(QUESTION, ("3 + 4 = 7.", "7 - 2 = 5.", "So the answer is \\boxed{5}.")),
    ScoreRequest(QUESTION, ("3 + 4 = 7.",)),
    ScoreRequest(QUESTION, ("3 + 4 = 8.", "8 - 2 = 6.\nThat is + 6, or - -6.")),
    ScoreRequest("Solve x + 12 = 30.", ("+", "-", "x = 18, größer als −1 ✓", "Check: 18 + 12 = 30." * 4)),
    ScoreRequest("Compute -1 + +2", tuple(f"{k} - {k} + 1 = 1." for k in range(9))),
)
