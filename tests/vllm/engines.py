"""Engines with the embedded policy: started when a test first asks, kept for the others, ended with the session."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

from adaptive_ttc.loading import MINI_POLICY
from adaptive_ttc.policies.vllm import CPU_SETTINGS, EngineHost, VLLMPolicy

WIDE = 64
_HOSTS: dict[int, EngineHost] = {}


def host(max_batch: int) -> EngineHost:
    """An engine for so many samples at once."""
    if max_batch not in _HOSTS:
        _HOSTS[max_batch] = EngineHost(
            MINI_POLICY.name, VLLMPolicy.engine_settings(MINI_POLICY, max_num_seqs=max_batch, **CPU_SETTINGS)
        )
    return _HOSTS[max_batch]


def policy(max_batch: int = WIDE, **settings: Any) -> VLLMPolicy:
    """A policy of its own on one of two engines: the narrow one serves a sample at a time."""
    return VLLMPolicy.over(host(1 if max_batch == 1 else WIDE), MINI_POLICY, **settings)


def endless(**settings: Any) -> VLLMPolicy:
    """The same, whose samples no token ends."""
    return policy(eos_token_ids=(), **settings)


def started(make: Callable[[], VLLMPolicy]) -> tuple[VLLMPolicy, list[BaseProcess]]:
    """A policy that starts its engine, and the engine's processes."""
    before = set(multiprocessing.active_children())
    made = make()
    return made, [child for child in multiprocessing.active_children() if child not in before]


def close_all() -> None:
    """End every engine."""

    async def close() -> None:
        for one in _HOSTS.values():
            await one.aclose()

    asyncio.run(close())
    _HOSTS.clear()
