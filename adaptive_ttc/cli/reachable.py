"""Whether the servers that a command is to ask are there: told before anything is loaded for them."""

from __future__ import annotations

import argparse
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from adaptive_ttc.configuration.recipe import read_recipe
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policy import second_policy
from adaptive_ttc.solver import Solver

BASE_URL = "http://localhost:8000/v1"
"""Where the engine ``openai`` looks for a server unless it is told."""

KNOCKING = 1.5
"""Seconds in which a server must take a connection."""


def knock(options: argparse.Namespace) -> None:
    """ConfigError where the engine is ``openai`` and none of its servers takes a connection."""
    if options.recipe is None:
        _knock(options.engine, {"base_url": options.base_url or BASE_URL})
        return
    recipe = read_recipe(options.recipe)
    _knock(recipe.engine, recipe.policy_settings)
    if recipe.second is not None:
        _knock(recipe.second_settings["engine"], recipe.second_settings)


def _knock(engine: str, settings: Mapping[str, Any]) -> None:
    if engine != "openai" or "first_patience" in settings:  # then they may still be starting
        return
    named = settings.get("base_url", BASE_URL)
    urls = [named] if isinstance(named, str) else named
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
        return  # what is wrong with it is told when it is read
    if trouble := unreachable(urls):
        raise ConfigError(
            f"no server is there ({trouble}): start it, or name the right base URL (--base-url URL, or base_url in the "
            "recipe); to wait for one that is starting, give first_patience = SECONDS in the recipe"
        )


def unreachable(urls: Sequence[str], seconds: float = KNOCKING) -> str:
    """Why none of the servers takes a connection; empty where one does, or where that cannot be told from here."""
    end, troubles = time.monotonic() + seconds, []
    for url in urls:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            return ""  # what is wrong with it is told when it is read
        if host is None or (parts.scheme in getproxies() and not proxy_bypass(host)):
            return ""
        try:
            with socket.create_connection((host, port), timeout=max(0.1, end - time.monotonic())):
                return ""
        except OSError as error:
            troubles.append(f"{parts.scheme}://{host}:{port}{parts.path}: {error.strerror or error}")
    return "; ".join(troubles)


async def check_servers(solver: Solver) -> None:
    """Wait for the servers of the models, if they have any, a few seconds. ConfigError: none is there."""
    first = getattr(solver.policy, "first", solver.policy)  # of a cascade
    for model in (first, second_policy(solver.policy), solver.prm):
        if (ready := getattr(model, "ready", None)) is not None:
            await ready()
