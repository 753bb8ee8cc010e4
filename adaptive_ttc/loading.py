"""Finds engines by name through entry points, so that the core imports none; it knows no model."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policy import Policy

POLICY_GROUP = "adaptive_ttc.policies"
"""Entry points whose objects have ``from_pretrained(path_or_name, **settings) -> Policy``."""

MINI_POLICY = Path(__file__).parent / "mini" / "models" / "policy"
MINI_PRM = Path(__file__).parent / "mini" / "models" / "prm"
MINI_FINISH_TOKENS = 200
"""More tokens than nearly all solutions of the embedded policy have."""


def load_policy(path_or_name: str | Path, *, engine: str = "transformers", **settings: Any) -> Policy:
    """Load a policy with the engine of that name.

    Args:
        path_or_name: a model folder, or ``owner/name`` on the Hub.
        engine: the entry point's name in the group ``adaptive_ttc.policies``.
        **settings: passed to the engine.

    Raises:
        ConfigError: there is no such engine, it cannot be imported, or it cannot load the model.
    """
    known = {entry.name: entry for entry in entry_points(group=POLICY_GROUP)}
    if engine not in known:
        installed = ", ".join(sorted(known)) or "none: install the package (pip install adaptive-ttc)"
        raise ConfigError(f"unknown policy engine {engine!r}; installed are {installed}")
    try:
        loader = known[engine].load()
    except ImportError as error:
        raise ConfigError(f"the policy engine {engine!r} cannot be imported: {error}") from error
    policy: Policy = loader.from_pretrained(path_or_name, **settings)
    return policy
