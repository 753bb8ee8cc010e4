"""Loads a pair of models; nothing of it is left open where loading the rest fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from adaptive_ttc.loading import load_policy
from adaptive_ttc.policy import Policy
from adaptive_ttc.prm.base import RewardModel

Models = tuple[Policy, RewardModel | None]

_CASCADE = "adaptive_ttc.policies.cascade"
"""Built on the core; imported when there is a second policy."""


@contextmanager
def loaded_pair(
    policy: str | Path,
    prm: str | Path | None,
    engine: str,
    policy_settings: Mapping[str, Any],
    prm_settings: Mapping[str, Any],
    *,
    second: str | Path | None = None,
    second_settings: Mapping[str, Any] | None = None,
    second_weight: float | None = None,
) -> Iterator[Models]:
    """Load policy and PRM, see :meth:`~adaptive_ttc.solver.Solver.load`; they are closed if the block fails.

    ConfigError: one cannot be loaded.
    """
    from adaptive_ttc.prm import load_prm

    loaded: list[Policy | RewardModel] = []
    try:
        reward_model = None if prm is None else load_prm(prm, **prm_settings)
        loaded += [] if reward_model is None else [reward_model]
        model = load_policy(policy, engine=engine, **policy_settings)
        loaded.append(model)
        if second is not None:
            other = load_policy(second, **{"engine": engine, **(second_settings or {})})
            loaded.append(other)
            model = import_module(_CASCADE).Cascade(model, other, second_weight)
        yield model, reward_model
    except BaseException:
        with suppress(Exception):  # what went wrong first is what the caller must know
            _close_all(loaded)
        raise


def _close_all(models: Sequence[Policy | RewardModel]) -> None:
    """Close models in a thread, as an event loop may run in this one."""

    async def close() -> None:
        async with AsyncExitStack() as stack:
            for model in models:
                stack.push_async_callback(model.aclose)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, close()).result()
