"""Reads single tensors of a model folder by their names; it knows no model and runs no code of the folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.checkpoint import read_config
from adaptive_ttc.prm.heads import OutputHead

if TYPE_CHECKING:
    import torch


def read_weights(folder: Path, names: Sequence[str], *, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Some tensors of a folder of safetensors, in the number format they are stored in.

    Raises:
        ConfigError: one of them is not there.
    """
    from safetensors import safe_open

    found: dict[str, torch.Tensor] = {}
    for path in _files(folder, names):
        with safe_open(path, framework="pt", device=device) as tensors:
            found |= {name: tensors.get_tensor(name) for name in set(names) & set(tensors.keys())}
    if missing := sorted(set(names) - set(found)):
        raise ConfigError(f"{folder} lacks the weights {missing}: it is of another family, or not whole")
    return found


def read_output_head(folder: Path, *, device: str = "cpu", dtype: str | None = None) -> OutputHead:
    """The output head of a causal LM: ``lm_head``, or the embedding table where the two are tied.

    Raises:
        ConfigError: the folder holds no such weights, or its logits are capped or scaled behind the head.
    """
    import torch

    config = read_config(folder)
    odd = [key for key in _CHANGE_LOGITS if config.get(key)]
    if odd:
        raise ConfigError(f"the logits of {folder} are changed behind the head ({', '.join(odd)}); use another reader")
    tied = config.get("tie_word_embeddings", False)
    name, bias = "model.embed_tokens.weight" if tied else "lm_head.weight", "lm_head.bias"
    found = read_weights(folder, [name, *([bias] if bias in weight_sizes(folder) else [])], device=device)
    found = {key: value if dtype is None else value.to(getattr(torch, dtype)) for key, value in found.items()}
    return OutputHead(found[name], found.get(bias))


_CHANGE_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


def weight_sizes(folder: Path) -> dict[str, int]:
    """Names and numbers of elements of all tensors in a folder of safetensors; only headers are read."""
    from safetensors import safe_open

    sizes: dict[str, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            sizes |= {name: prod(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    return sizes


def backbone_parameters(folder: Path) -> int:
    """Parameters of a folder's transformer, without the embedding table and without heads."""
    sizes = weight_sizes(folder).items()
    return sum(size for name, size in sizes if name.startswith("model.") and "embed_tokens" not in name)


def _files(folder: Path, names: Sequence[str]) -> list[Path]:
    """The files that hold these names by the folder's index, or all of them."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        places = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {})
        return sorted({folder / places[name] for name in names if name in places})
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"{folder} is no loadable model: it holds no *.safetensors; convert or get them")
    return files
