"""Finds a model's files, local or on the Hub, fingerprints them, and loads tokenizer, weights and transformer.

torch and transformers are imported when something is loaded, never with this module.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptive_ttc.errors import ConfigError, see
from adaptive_ttc.prm.format import OutputHead

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")

_FILES = ["*.json", "*.jinja", "*.safetensors", "*.model"]
# Second copies of the weights in their makers' own formats.
_COPIES = ["consolidated*", "original/*"]
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")
# fmt: off
# Entries that a mere re-save changes, and the template, which stands in either of two files.
_VOLATILE = frozenset([
    "transformers_version", "_name_or_path", "name_or_path", "is_local", "local_files_only", "backend", "chat_template",
])
# fmt: on
_CHANGE_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


def is_hub_name(path_or_hub: str | Path) -> bool:
    """True for ``owner/name`` that is no local folder."""
    return not Path(path_or_hub).is_dir() and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(path_or_hub)) is not None


def locate(path_or_hub: str | Path, *, revision: str | None = None) -> Path:
    """The local folder of a model, downloaded to the Hub's cache if it is a Hub name; ConfigError if there is none."""
    if is_hub_name(path_or_hub):
        from huggingface_hub import snapshot_download

        fetch = partial(snapshot_download, revision=revision, allow_patterns=_FILES, ignore_patterns=_COPIES)
        return _from_hub(str(path_or_hub), fetch)
    folder = Path(path_or_hub)
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder} holds no config.json; give a model folder or a Hub name 'owner/name' {see('models.md')}"
        )
    return folder


def read_config(path_or_hub: str | Path, *, revision: str | None = None) -> dict[str, Any]:
    """The model's config.json, alone downloaded of a Hub model; ConfigError if it is missing or no JSON object."""
    if is_hub_name(path_or_hub):
        from huggingface_hub import hf_hub_download

        path = _from_hub(str(path_or_hub), lambda name: hf_hub_download(name, "config.json", revision=revision))
    else:
        path = locate(path_or_hub) / "config.json"
    return _read_object(path)


def fingerprint(folder: Path, *formats: str) -> str:
    """A hash, in 64 hexadecimal digits, that changes with whatever may change a score.

    It covers the weights, the configs of model and tokenizer (but for the entries that a mere re-save changes), the
    tokenizer, the chat template, and ``formats``: the reader's name and version, the number format.
    """
    digest = hashlib.sha256()
    parts = {"formats": json.dumps(formats), "chat_template": _chat_template(folder)}
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            entries = _read_object(folder / name)
            kept = {key: value for key, value in entries.items() if key not in _VOLATILE}
            parts[name] = json.dumps(kept, sort_keys=True)
    weights = sorted(folder.glob("*.safetensors"))
    for path in [*weights, *(folder / name for name in _TOKENIZERS)]:
        if path.is_file():
            parts[path.name] = _file_digest(path)
    for name, value in sorted(parts.items()):
        digest.update(f"{name}\0{len(value)}\0{value}\0".encode())
    return digest.hexdigest()


def _from_hub(name: str, fetch: Callable[[str], str]) -> Path:
    try:
        return Path(fetch(name))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{name} is no local folder, and the Hub did not give it ({type(error).__name__}: {error}); "
            f"check the name, the network and your access to it, or give a downloaded folder {see('models.md')}"
        ) from error


def _chat_template(folder: Path) -> str:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    template = _read_object(settings).get("chat_template", "") if settings.is_file() else ""
    return template if isinstance(template, str) else json.dumps(template, sort_keys=True)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON ({error}); restore it from the model's source") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold a JSON object; restore it from the model's source")
    return content


def _file_digest(path: Path) -> str:
    """Its sha256; the Hub's cache names large files by theirs, so gigabytes of weights are not read again."""
    blob = path.resolve()
    if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return blob.name
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_weights(folder: Path, names: Sequence[str], *, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Some tensors of a folder of safetensors, as they are stored; ConfigError if one is not there."""
    from safetensors import safe_open

    found: dict[str, torch.Tensor] = {}
    for path in _files(folder, names):
        with safe_open(path, framework="pt", device=device) as tensors:
            found |= {name: tensors.get_tensor(name) for name in set(names) & set(tensors.keys())}
    if missing := sorted(set(names) - set(found)):
        raise ConfigError(f"{folder} lacks the weights {missing}: it is of another family, or not whole")
    return found


def read_output_head(folder: Path, *, device: str = "cpu", dtype: str | None = None) -> OutputHead:
    """A causal LM's ``lm_head``, or its tied embedding table; ConfigError if missing, or if it changes logits."""
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


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Load without transformers' progress bars, which belong to programs and not to a library."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load_causal(folder: Path, *, device: str, dtype: str, threads: int | None) -> tuple[Any, Any]:
    """Load a causal LM, in evaluation mode, and its tokenizer from a folder of safetensors.

    ``device`` is as torch names it, ``dtype`` one of ``DTYPES``; for ``threads`` see :func:`set_threads`. ConfigError:
    an unknown dtype, unreadable files, or weights that lack a part of the model.
    """
    from transformers import AutoModelForCausalLM

    set_threads(threads)
    check_device(device)
    return _load(AutoModelForCausalLM, folder, device, dtype), load_tokenizer(folder)


def load_backbone(folder: Path, *, device: str, dtype: str) -> Any:
    """Load the transformer alone, by the stock class of the config's ``model_type``; no code of the folder is run.

    The arguments and errors are those of :func:`load_causal`; weights of heads are left out.
    """
    from transformers import CONFIG_MAPPING, AutoModel
    from transformers.utils import logging

    entries = {key: value for key, value in read_config(folder).items() if key not in ("auto_map", "architectures")}
    kind = str(entries.get("model_type"))
    if kind not in CONFIG_MAPPING:
        raise ConfigError(f"{folder}/config.json says model_type={kind!r}, which this version of transformers lacks")
    shown = logging.get_verbosity()
    logging.set_verbosity_error()  # it would report the head's weights as superfluous
    try:
        return _load(AutoModel, folder, device, dtype, config=CONFIG_MAPPING[kind].from_dict(entries))
    finally:
        logging.set_verbosity(shown)


def load_tokenizer(folder: Path) -> Any:
    """Load a folder's tokenizer; ConfigError if it has none that can be read."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} has no loadable tokenizer: {error}") from error


def set_threads(threads: int | None) -> None:
    """Set torch's threads for the process: None leaves them, below 1 is a ConfigError; 1 is best on a CPU under 20M
    parameters.
    """
    import torch

    if threads is not None:
        if threads < 1:
            raise ConfigError(f"threads={threads} must be at least 1, or None")
        torch.set_num_threads(threads)


def check_device(device: str) -> None:
    """Refuse, as ConfigError, a device that torch does not have here, before anything is read for it."""
    import torch

    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:  # torch asserts that it was built for the device
        raise ConfigError(f"device={device!r} cannot be used here ({error}); take another, such as 'cpu'") from error


def _load(loader: Any, folder: Path, device: str, dtype: str, **arguments: Any) -> Any:
    import torch

    if dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype!r} is not one of {', '.join(DTYPES)}")
    try:
        with without_progress_bars():
            model, info = loader.from_pretrained(
                folder, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True, **arguments
            )
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} is no loadable language model: {error}") from error
    if info["missing_keys"]:
        raise ConfigError(f"{folder} lacks the weights {sorted(info['missing_keys'])[:4]}; get the whole model")
    return model.eval().to(device)
