"""Tiny random models of the families with heads or formats of their own: file layout, in memory, plain references.

Each reference is the recipe of the model card, a request at a time, with all logits.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from adaptive_ttc.prm import BatchedPRM, ScoreRequest
from adaptive_ttc.prm.families.math_shepherd import MathShepherdReader
from adaptive_ttc.prm.families.qwen_math import ClassHead, QwenMathReader
from adaptive_ttc.prm.families.self_verification import SelfVerificationReader
from adaptive_ttc.prm.families.skywork import SkyworkReader, ValueHead
from tests.prm.tiny import batched, byte_level, head_of, model_of, save_weights, tokenizer_of

# Qwen2.5-Math's, without tools.
CHATML = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nPlease reason step by step, and put your final answer within "
    "\\\\boxed{}.<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}{%- if message.role != 'system' or not loop.first %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
HIDDEN = 32


@cache
def qwen_tokenizer() -> Any:
    # Of the class that a folder of this model type is loaded with: it brings its own way of cutting words.
    model = json.loads(byte_level(CHATML, ("<|im_start|>", "<|im_end|>"), vocab_size=400).backend_tokenizer.to_str())
    tokenizer = Qwen2Tokenizer(
        vocab=model["model"]["vocab"], merges=[tuple(pair) for pair in model["model"]["merges"]],
        bos_token="<|im_start|>", eos_token="<|im_end|>", extra_special_tokens=["<extra_0>", "<extra_1>"],
    )  # fmt: skip
    tokenizer.chat_template = CHATML
    return tokenizer


@cache
def qwen_model(seed: int = 0) -> Any:
    config = Qwen2Config(
        vocab_size=len(qwen_tokenizer()), hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024, initializer_range=0.3,
        tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config).eval()


@cache
def class_weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"score.0.weight": (HIDDEN, HIDDEN), "score.0.bias": (HIDDEN,), "score.2.weight": (2, HIDDEN)}
    weights = {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}
    return weights | {"score.2.bias": torch.tensor([0.2, -0.3])}


@cache
def value_weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn((1, HIDDEN), generator=generator) * 0.3
    return {"v_head.summary.weight": weight, "v_head.summary.bias": torch.tensor([0.4])}


def save_with_head(folder: Path, head: dict[str, torch.Tensor], **entries: Any) -> None:
    """The folder of a model class of its own: a stock Qwen2's weights and the head's."""
    qwen_model().save_pretrained(folder)
    qwen_tokenizer().save_pretrained(folder)
    weights = load_file(folder / "model.safetensors") | head
    save_weights(folder, weights)
    config = json.loads((folder / "config.json").read_text()) | entries
    (folder / "config.json").write_text(json.dumps(config))


def save_qwen_math(folder: Path) -> None:
    auto_map = {"AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel", "AutoConfig": "modeling_qwen2_rm.Qwen2RM"}
    save_with_head(folder, class_weights(), architectures=["Qwen2ForProcessRewardModel"], auto_map=auto_map)
    (folder / "modeling_qwen2_rm.py").write_text("raise SystemExit('code of the folder was run')\n")


def save_skywork(folder: Path) -> None:
    save_with_head(folder, value_weights(), architectures=["Qwen2ForPrmModel"])


def qwen_math(**settings: Any) -> BatchedPRM:
    reader = QwenMathReader(qwen_tokenizer(), ClassHead(class_weights()))
    return batched(reader, [qwen_model()], "qwen", **settings)


def skywork(**settings: Any) -> BatchedPRM:
    reader = SkyworkReader(qwen_tokenizer(), ValueHead(value_weights()))
    return batched(reader, [qwen_model()], "skywork", **settings)


@cache
def shepherd_tokenizer() -> Any:
    from tests.prm.tiny import sentencepiece_like

    return sentencepiece_like(None, extra=("ки", "+", "-"))


@cache
def shepherd_model() -> Any:
    import copy

    model = copy.deepcopy(model_of("mistral1"))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model.resize_token_embeddings(len(shepherd_tokenizer()))
        for weight in (model.model.embed_tokens.weight, model.lm_head.weight):
            torch.nn.init.normal_(weight, std=0.3)
    return model.eval()


def math_shepherd(**settings: Any) -> BatchedPRM:
    reader = MathShepherdReader(shepherd_tokenizer(), head_of(shepherd_model()))
    return batched(reader, [shepherd_model()], "shepherd", **settings)


def self_verification(**settings: Any) -> BatchedPRM:
    model = model_of("llama3")
    reader = SelfVerificationReader(tokenizer_of("llama3"), head_of(model))
    return batched(reader, [model], "self", **settings)


@torch.no_grad()
def reference_qwen_math(request: ScoreRequest) -> list[float]:
    """The model card's ``make_step_rewards``."""
    tokenizer, w = qwen_tokenizer(), class_weights()
    messages = [
        {"role": "system", "content": "Please reason step by step, and put your final answer within \\boxed{}."},
        {"role": "user", "content": request.question},
        {"role": "assistant", "content": "<extra_0>".join(request.steps) + "<extra_0>"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
    ids = torch.tensor([tokenizer.encode(text)])
    hidden = qwen_model().model(ids).last_hidden_state
    first = torch.relu(torch.nn.functional.linear(hidden, w["score.0.weight"], w["score.0.bias"]))
    logits = torch.nn.functional.linear(first, w["score.2.weight"], w["score.2.bias"])
    mask = ids == tokenizer.encode("<extra_0>")[0]
    probabilities = (logits.softmax(dim=-1) * mask.unsqueeze(-1))[0]
    scores: list[float] = probabilities[probabilities != 0].view(-1, 2)[:, 1].tolist()
    return scores


@torch.no_grad()
def reference_skywork(request: ScoreRequest) -> list[float]:
    """``prepare_input`` and ``PRM_MODEL.forward`` of the published inference code, step token a newline."""
    tokenizer, w = qwen_tokenizer(), value_weights()
    ids = tokenizer.encode(tokenizer.bos_token + request.question + "\n")
    flags = [0] * len(ids)
    step_token = tokenizer.encode("\n")[-1]
    for step in "\n".join(request.steps).split("\n"):
        step_ids = [*(tokenizer.encode(step) if step != "" else []), step_token]
        ids += step_ids
        flags += [0] * (len(step_ids) - 1) + [1]
    hidden = qwen_model()(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
    value = torch.nn.functional.linear(hidden, w["v_head.summary.weight"], w["v_head.summary.bias"]).squeeze(-1)
    rewards = torch.sigmoid(value)[0][torch.tensor(flags) == 1].tolist()
    lines = iter(rewards)
    # one reward a line; ours is that of a step's last line
    return [[next(lines) for _ in step.split("\n")][-1] for step in request.steps]


@torch.no_grad()
def reference_math_shepherd(request: ScoreRequest) -> list[float]:
    """The model card's example."""
    tokenizer = shepherd_tokenizer()
    candidates = tokenizer.encode("+ -")[-2:]
    tag = tokenizer.encode("ки")[-1]
    output = "\n".join(f"Step {k}: {step} ки" for k, step in enumerate(request.steps, start=1))
    ids = torch.tensor([tokenizer.encode(f"{request.question} {output}")])
    scores = shepherd_model()(ids).logits[:, :, candidates].softmax(dim=-1)[:, :, 0]
    found: list[float] = scores[ids == tag].tolist()
    return found


@torch.no_grad()
def reference_self_verification(request: ScoreRequest) -> list[float]:
    """A prompt a step, the two answers' first tokens."""
    tokenizer, scores = tokenizer_of("llama3"), []
    yes, no = (tokenizer.encode(word, add_special_tokens=False)[0] for word in ("Yes", "No"))
    for k in range(1, len(request.steps) + 1):
        solution = "\n\n".join(request.steps[:k])
        content = (
            f"Problem:\n{request.question}\n\nSolution so far:\n{solution}\n\n"
            "Is every step of this solution correct so far? Answer Yes or No."
        )
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=False,
            add_generation_prompt=True,
            date_string="26 Jul 2024",
        )
        ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
        logits = model_of("llama3")(ids).logits[0, -1, [yes, no]]
        scores.append(logits.softmax(dim=-1)[0].item())
    return scores
