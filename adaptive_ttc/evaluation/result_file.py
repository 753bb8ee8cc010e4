"""Writes a measurement as one JSON object: ``{"name", "command", "git", "machine", "figures"}``."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError

_LIBRARIES = ("torch", "transformers", "vllm", "numpy", "scikit-learn")
_USER = re.compile(r"(?<=://)[^/?#\s]*@")


STDOUT = "-"
"""In place of a file's name: standard output."""


def writable(path: str | Path) -> Path:
    """Check that a file can be written, before an hour of measuring rather than after; ConfigError if not."""
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder of {target}: {error.strerror or error}") from error
    if target.is_dir():
        raise ConfigError(f"{target} is a folder; name a file")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise ConfigError(f"{target} cannot be written; choose another path")
    return target


def write_record(path: str | Path, name: str, command: Sequence[str] | str, figures: Mapping[str, Any]) -> None:
    """Write one measurement (ConfigError where that fails) to a file or to :data:`STDOUT`; an older file of that name
    is replaced, whole or not at all.

    ``command`` is as typed, or the list of its words. ``figures`` holds numbers (numpy's too; null where not finite),
    lists of them, or mappings to them; else a TypeError.
    """
    record = {
        "name": name,
        "command": command if isinstance(command, str) else shown_command(command),
        "git": git_state(),
        "machine": machine(),
        "figures": _plain(figures),
    }
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if path == STDOUT:
        sys.stdout.write(text)
        return
    target = writable(path)
    partial = target.with_name(target.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(target)


def without_user(text: str) -> str:
    """The text without user and password of the URLs in it, as it may be written into a file."""
    return _USER.sub("***@", text)


def shown_command(words: Iterable[str]) -> str:
    """A command line, likewise."""
    return shlex.join(map(without_user, words))


def git_state() -> str:
    """The commit of the source tree, with ``-dirty`` when tracked files differ from it; ``unknown`` outside a clone."""
    root = Path(__file__).resolve().parent.parent.parent
    if not (root / ".git").exists():
        return "unknown"  # installed, perhaps below somebody else's repository
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def machine() -> dict[str, str | int]:
    """The machine and the versions of the libraries that figures depend on."""
    facts: dict[str, str | int] = {
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        "python": platform.python_version(),
    }
    for library in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            facts[library] = version(library)
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        value = value.tolist()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    raise TypeError(f"a figure is a number, a list or a mapping; got {type(value).__name__}")
