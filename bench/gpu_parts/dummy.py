"""Folders of models that have a shape but no weights, which need no Hub: for vLLM's ``load_format="dummy"``.

vLLM fills such a model with random numbers, so it writes random tokens, but at the pace and with the memory of the real
one. Its tokenizer is made up to fit: printable characters, and words of which one in ``STEP`` ends a step, so that a
search over steps works. No solution ends by itself; ``max_tokens`` ends all alike.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count, islice, product
from math import prod
from pathlib import Path
from typing import Any

from adaptive_ttc.configuration.recipe import Recipe, read_recipe
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.checkpoint import read_config

STEP = 40
"""One token in so many ends a step."""

BYTES = 2  # a number in bfloat16

_SPECIAL = ("<|endoftext|>", "<s>", "</s>", "<extra_0>")
_PATTERN = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
_TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}: {{ message['content'] }}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides a decoder's memory and pace. ``kind``: ``llama`` or ``qwen2``, which has biases of attention."""

    kind: str
    hidden: int
    layers: int
    heads: int
    key_heads: int
    head_width: int
    inner: int
    vocabulary: int
    tied: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """The shape in a ``config.json``; ConfigError if it is of another kind."""
        if config.get("model_type") not in ("llama", "qwen2"):
            raise ConfigError(f"a dummy of model_type={config.get('model_type')!r} is not known; llama and qwen2 are")
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        return cls(
            kind=config["model_type"],
            hidden=hidden,
            layers=config["num_hidden_layers"],
            heads=heads,
            key_heads=config.get("num_key_value_heads", heads),
            head_width=config.get("head_dim") or hidden // heads,
            inner=config["intermediate_size"],
            vocabulary=config["vocab_size"],
            tied=config.get("tie_word_embeddings", False),
        )

    @property
    def parameters(self) -> int:
        """Numbers that have to be held: with the embedding table, and with the output head unless it is the table."""
        queries, keys = self.heads * self.head_width, self.key_heads * self.head_width
        layer = 2 * self.hidden * (queries + keys) + 3 * self.hidden * self.inner + 2 * self.hidden
        layer += queries + 2 * keys if self.kind == "qwen2" else 0
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + self.layers * layer + self.hidden

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's keys and values in bfloat16."""
        return 2 * self.layers * self.key_heads * self.head_width * BYTES

    def config(self) -> dict[str, Any]:
        """Entries of ``config.json``, of a causal language model."""
        return {
            "architectures": [{"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[self.kind]],
            "model_type": self.kind,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads,
            "head_dim": self.head_width,
            "intermediate_size": self.inner,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": self.tied,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-6,
            "hidden_act": "silu",
            "bos_token_id": 1,
            "eos_token_id": 2,
            "dtype": "bfloat16",
            # without it transformers warns of a tokenizer that old releases had wrong
            "transformers_version": version("transformers"),
        }


_QWEN_7B = Shape("qwen2", 3584, 28, 28, 4, 128, 18944, 152064, False)
_QWEN_1B = Shape("qwen2", 1536, 28, 12, 2, 128, 8960, 151936, True)

SHAPES: Mapping[str, Shape] = {
    "meta-llama/Llama-3.2-1B-Instruct": Shape("llama", 2048, 16, 32, 8, 64, 8192, 128256, True),
    "meta-llama/Llama-3.2-3B-Instruct": Shape("llama", 3072, 28, 24, 8, 128, 8192, 128256, True),
    "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data": Shape("llama", 4096, 32, 32, 8, 128, 14336, 128256, False),
    "Qwen/Qwen2.5-0.5B-Instruct": Shape("qwen2", 896, 24, 14, 2, 64, 4864, 151936, True),
    "Qwen/Qwen2.5-1.5B-Instruct": _QWEN_1B,
    "Qwen/Qwen2.5-7B-Instruct": _QWEN_7B,
    "Qwen/Qwen2.5-14B-Instruct": Shape("qwen2", 5120, 48, 40, 8, 128, 13824, 152064, False),
    "Qwen/Qwen2.5-Math-PRM-7B": _QWEN_7B,
    "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B": _QWEN_1B,
}
"""By their names on the Hub, as their ``config.json`` says."""


def shape_of(model: str) -> Shape:
    """The shape of a model folder, or of a known Hub name; ConfigError for others."""
    if Path(model).is_dir():
        return Shape.of(read_config(model))
    if model not in SHAPES:
        raise ConfigError(
            f"the shape of {model} is not known here: name a folder that holds its config.json in the recipe, or add "
            "it to bench/gpu_parts/dummy.py"
        )
    return SHAPES[model]


def recipe_for_dummies(path: Path) -> Recipe:
    """Read a recipe; ConfigError unless both its models run in vLLM and are of known shapes and families."""
    recipe = read_recipe(path)
    if recipe.engine != "vllm" or recipe.prm is None or recipe.prm_settings.get("engine") != "vllm":
        raise ConfigError(f"{path} does not run both models in vLLM; dummies stand for such models alone")
    shape_of(recipe.policy)
    _head(shape_of(recipe.prm), str(recipe.prm_settings.get("reader")), [])
    return recipe


def tiny(shape: Shape) -> Shape:
    """One of its kind that a CPU runs in no time, with heads that vLLM's attention on a CPU can do."""
    return Shape(shape.kind, 64, 2, 2, 1, 32, 96, 640, shape.tied)


def write_dummy(shape: Shape, folder: Path, *, reader: str | None = None) -> Path:
    """Write a model folder without weights: config and tokenizer, and for a PRM the head that ``reader`` reads.

    The head is of zeros, so that every score is a half; the file takes no room on the disk. ConfigError: no dummy of
    that PRM family is known.
    """
    folder.mkdir(parents=True)
    config = shape.config()
    if reader is not None:
        names, config["architectures"] = _head(shape, reader, config["architectures"])
        _write_zeros(folder / "model.safetensors", names)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_tokenizer(shape.vocabulary, folder)
    return folder


def write_random(shape: Shape, folder: Path, *, device: str, dtype: str) -> Path:
    """Write the folder of a Qwen2.5-Math-PRM of that shape with random weights, which any engine loads."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(Qwen2Config(**shape.config())).to(getattr(torch, dtype))
    model.save_pretrained(folder)
    names, architectures = _head(shape, "qwen-math", [])
    weights = load_file(folder / "model.safetensors")
    weights |= {name: (torch.randn(size) / size[-1] ** 0.5).to(getattr(torch, dtype)) for name, size in names.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {**shape.config(), "architectures": architectures, "dtype": dtype}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_tokenizer(shape.vocabulary, folder)
    return folder


def write_tokenizer(vocabulary: int, folder: Path) -> None:
    """Write a tokenizer of so many tokens: bytes, and words that are one token each after a space.

    It is byte-level BPE, as transformers takes any tokenizer beside a Qwen2 for, and splits it by Qwen's pattern.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    base = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "ĊĊ"]
    ends = (vocabulary - len(base)) // STEP
    words = list(islice(_words(), vocabulary - len(base) - ends))
    tokens = {token: index for index, token in enumerate([*base, *words, *(f"{one}ĊĊ" for one in words[:ends])])}
    tokenizer = Tokenizer(models.BPE(tokens, [("Ċ", "Ċ"), *((one[:-1], one[-1]) for one in words)]))
    split = pre_tokenizers.Split(Regex(_PATTERN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **dict(zip(("pad_token", "bos_token", "eos_token"), _SPECIAL, strict=False)),
        unk_token=_SPECIAL[0],
        additional_special_tokens=[_SPECIAL[-1]],
        chat_template=_TEMPLATE,
    )
    made.save_pretrained(folder)


def _words() -> Iterator[str]:
    """Words of one, two, ... letters behind a space, as byte-level BPE writes it; each begins with an earlier one."""
    for length in count(1):
        yield from ("Ġ" + "".join(letters) for letters in product(string.ascii_lowercase, repeat=length))


def _head(shape: Shape, reader: str, stated: list[str]) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Names and shapes of the weights that a reader reads, and the architecture that config.json says."""
    hidden = shape.hidden
    if reader == "qwen-math":
        first = {"score.0.weight": (hidden, hidden), "score.0.bias": (hidden,)}
        return {**first, "score.2.weight": (2, hidden), "score.2.bias": (2,)}, ["Qwen2ForProcessRewardModel"]
    if reader == "skywork":
        return {"v_head.summary.weight": (1, hidden), "v_head.summary.bias": (1,)}, ["Qwen2ForPrmModel"]
    if reader == "rlhflow":
        return {"model.embed_tokens.weight" if shape.tied else "lm_head.weight": (shape.vocabulary, hidden)}, stated
    raise ConfigError(f"a dummy for the PRM reader {reader!r} is not known; qwen-math, rlhflow and skywork are")


def _write_zeros(path: Path, names: Mapping[str, tuple[int, ...]]) -> None:
    """A file of safetensors in bfloat16: the length of its header, the header, the numbers."""
    header, end = {}, 0
    for name, size in names.items():
        begin, end = end, end + BYTES * prod(size)
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
