"""Checks what a file gave: that values have the types of their fields, and that no damage raises a foreign error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from adaptive_ttc.errors import AdaptiveTTCError

T = TypeVar("T")


@contextmanager
def damage_told(
    path: str | Path,
    error: type[AdaptiveTTCError],
    remedy: str,
    what: str = "damaged, or was not written by this library",
) -> Iterator[None]:
    """Turn whatever a damaged or forged file makes its reader raise into one error that names the file."""
    try:
        yield
    except AdaptiveTTCError as told:
        if isinstance(told, error) and str(path) in str(told):
            raise
        raise error(f"{path} is damaged: {told}") from told
    except Exception as failure:
        raise error(f"{path} is {what} ({type(failure).__name__}: {str(failure)[:120]}): {remedy}") from failure


def checked(one: T) -> T:
    """A dataclass, if all its fields have values of their types; ValueError names the first that has not."""
    kind: type = type(one)
    for name, hint in _hints(kind).items():
        if not _fits(getattr(one, name), hint):
            raise ValueError(f"{kind.__name__}.{name} is no {hint}: {getattr(one, name)!r:.80}")
    return one


@lru_cache(maxsize=256)
def _hints(kind: type) -> Mapping[str, Any]:
    known = get_type_hints(kind)
    return {field.name: known[field.name] for field in fields(kind)}


def _fits(value: object, hint: Any) -> bool:
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return isinstance(value, str | int) and value in parts
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if parts and parts[-1] is Ellipsis:
            return all(_fits(item, parts[0]) for item in value)
        return len(value) == len(parts) and all(map(_fits, value, parts))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            _fits(key, parts[0]) and _fits(item, parts[1]) for key, item in value.items()
        )
    if hint in (int, float):  # whole numbers may be written either way
        small = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1000  # fits a float
        return isinstance(value, float) or small
    if hint is NoneType or hint is None:
        return value is None
    if is_dataclass(hint):
        return isinstance(value, hint) and all(  # type: ignore[arg-type]
            _fits(getattr(value, name), inner)
            for name, inner in _hints(hint).items()  # type: ignore[arg-type]
        )
    return isinstance(value, hint) if isinstance(hint, type) else True
