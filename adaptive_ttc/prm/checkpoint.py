"""Finds a model's files, local or on the Hub, and fingerprints them; it knows no PRM format and opens no weights."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError

_FILES = ["*.json", "*.jinja", "*.safetensors", "*.model"]
# Second copies of the weights in their makers' own formats.
_COPIES = ["consolidated*", "original/*"]
# Entries that a mere re-save changes, and the template, which stands in either of two files.
_VOLATILE = frozenset(
    [
        "transformers_version",
        "_name_or_path",
        "name_or_path",
        "is_local",
        "local_files_only",
        "backend",
        "chat_template",
    ]
)
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")


def is_hub_name(path_or_hub: str | Path) -> bool:
    """True for ``owner/name`` that is no local folder."""
    return not Path(path_or_hub).is_dir() and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(path_or_hub)) is not None


def locate(path_or_hub: str | Path, *, revision: str | None = None) -> Path:
    """The local folder of a model, downloaded to the Hub's cache when it is a Hub name.

    Raises:
        ConfigError: there is no such folder, or the Hub cannot give it.
    """
    if is_hub_name(path_or_hub):
        from huggingface_hub import snapshot_download

        try:
            return Path(
                snapshot_download(str(path_or_hub), revision=revision, allow_patterns=_FILES, ignore_patterns=_COPIES)
            )
        except (OSError, ValueError) as error:
            raise _unreachable(path_or_hub, error) from error
    folder = Path(path_or_hub)
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} holds no config.json; give a model folder or a Hub name 'owner/name'")
    return folder


def read_config(path_or_hub: str | Path, *, revision: str | None = None) -> dict[str, Any]:
    """The model's config.json; of a Hub model nothing else is downloaded.

    Raises:
        ConfigError: it is missing, unreachable or not a JSON object.
    """
    if is_hub_name(path_or_hub):
        from huggingface_hub import hf_hub_download

        try:
            path = Path(hf_hub_download(str(path_or_hub), "config.json", revision=revision))
        except (OSError, ValueError) as error:
            raise _unreachable(path_or_hub, error) from error
    else:
        path = locate(path_or_hub) / "config.json"
    return _read_object(path)


def fingerprint(folder: Path, *formats: str) -> str:
    """A hash that changes with whatever may change a score.

    It covers the weights, the configs of model and tokenizer (but for the entries that a mere re-save
    changes), the tokenizer, the chat template, and ``formats``: the reader's name and version, the number format.

    Returns:
        64 hexadecimal digits.
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


def _unreachable(name: str | Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"{name} is no local folder, and the Hub did not give it ({type(error).__name__}: {error}); "
        "check the name, the network and your access to it, or give a downloaded folder"
    )


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
