"""Mutations of bytes and of JSON, as damage and forgers make them."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

Json = Any

_VALUES: tuple[Callable[[random.Random], Json], ...] = (
    lambda rng: None,
    lambda rng: rng.choice((True, False)),
    lambda rng: rng.choice((0, -1, 1, 10**12, 2**63, -(2**63), 10**400)),
    lambda rng: rng.choice((0.5, -0.5, 1e308, 5e-324, float("nan"), float("inf"), float("-inf"))),
    lambda rng: rng.choice(("", "x", "\ud800", "\x00", "é" * 3, "9" * 5000, "../../etc/passwd", "nan")),
    lambda rng: [],
    lambda rng: {},
    lambda rng: [[]] * 3,
    lambda rng: {"": None, "x": [1]},
    lambda rng: _deep(rng.choice((30, 300))),
    lambda rng: list(range(2000)),
)


def _deep(levels: int) -> Json:
    value: Json = 1
    for _ in range(levels):
        value = [value]
    return value


def mutated_json(document: Json, rng: random.Random) -> Json:
    """A copy with one value anywhere in it replaced, removed, repeated or moved."""
    document = copy.deepcopy(document)
    at = document
    while True:
        if isinstance(at, dict) and at:
            key: Any = rng.choice(list(at))
        elif isinstance(at, list) and at:
            key = rng.randrange(len(at))
        else:
            return rng.choice(_VALUES)(rng)
        inner = at[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.25:
            break
        at = inner
    match rng.randrange(5):
        case 0:
            del at[key]
        case 1 if isinstance(at, list):
            at.insert(key, copy.deepcopy(rng.choice(at)))
        case 1:
            at[f"{key}x"] = inner
        case 2:
            other = rng.choice(list(at)) if isinstance(at, dict) else rng.randrange(len(at))
            at[key], at[other] = at[other], at[key]
        case _:
            at[key] = rng.choice(_VALUES)(rng)
    return document


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """A copy with some bytes changed, cut, repeated or put in."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 4, 30))):
        at = rng.randrange(len(content) + 1)
        match rng.randrange(5):
            case 0:
                content[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del content[at : at + rng.choice((1, 10, len(content)))]
            case 2:
                content[at:at] = content[at // 2 : at // 2 + 50]
            case 3:
                content[at:at] = rng.choice((b"[" * 100_000, b"\xff\xfe", b"\x00", b"-", b'"', b"NaN", b"1e999"))
            case _:
                content[at : at + 4] = rng.randbytes(4)
        if not content:
            break
    return bytes(content)


def as_text(document: Json) -> bytes:
    """JSON as a forger writes it."""
    return json.dumps(document).encode("ascii")


def mutated_lines(data: bytes, rng: random.Random) -> bytes:
    """JSON Lines with one line mutated as JSON, or as bytes."""
    lines = data.splitlines()
    number = rng.randrange(len(lines))
    lines[number] = as_text(mutated_json(json.loads(lines[number]), rng))
    return b"\n".join(lines) + b"\n"
