"""Which names mean the same model: samples that were recorded somewhere tell a model's name, and no fingerprint."""

from __future__ import annotations

import re
from collections.abc import Sequence

_TRACES = "traces:"
_AFTER = re.compile(r"[\s(\[]")
_BETWEEN = re.compile(r"[^a-z0-9.]+")


def fingerprint_of_traces(models: Sequence[str], digest: str) -> str:
    """What stands for a fingerprint where samples were recorded by models of these names; ``digest`` is the files'."""
    return f"{_TRACES}{'|'.join(models)}:{digest}"


def models_of_traces(fingerprint: str) -> tuple[str, ...] | None:
    """The names in :func:`fingerprint_of_traces`; None for a fingerprint of a model itself."""
    if not fingerprint.startswith(_TRACES):
        return None
    names = fingerprint.removeprefix(_TRACES).rpartition(":")[0]
    return tuple(filter(None, names.split("|")))


def same_model(one: str, other: str) -> bool:
    """Whether two names mean one model: ``Qwen/Qwen2.5-0.5B-Instruct``, ``qwen2.5:0.5b-instruct T=0.7``.

    Owner or folder, case and separators do not count, nor does what follows a blank or a bracket.
    """
    return bool(plain_name(one)) and plain_name(one) == plain_name(other)


def plain_name(name: str) -> str:
    """A model's name as it is compared."""
    last = name.rstrip("/").rpartition("/")[2]
    return _BETWEEN.sub("-", _AFTER.split(last.strip())[0].lower()).strip("-")
