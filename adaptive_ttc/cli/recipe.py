"""Recipes: a known pair of models in one TOML file, with its settings and commands."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.solver import Solver

DEFAULT_ENGINE = "transformers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A pair of models (folders or Hub names) and how to run it, as for :meth:`~adaptive_ttc.solver.Solver.load`."""

    name: str  # the file's, without its ending
    policy: str
    engine: str = DEFAULT_ENGINE
    policy_settings: Mapping[str, Any]
    prm: str | None = None
    prm_settings: Mapping[str, Any]
    commands: Mapping[str, str]  # command lines for the pair, by name

    def load(self, **settings: Any) -> Solver:
        """Load the models with further ``settings`` of ``Solver.load``, such as ``seed``; its errors."""
        settings |= {"policy_settings": self.policy_settings, "prm_settings": self.prm_settings}
        return Solver.load(self.policy, self.prm, engine=self.engine, **settings)


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe: TOML with a table ``policy``, and optionally ``prm`` and ``commands``; ConfigError if it is none.

    Each model's table holds ``model``, and settings beside it; ``engine`` says what runs it.
    """
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror or error}; give a recipe, such as those in recipes/"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}; recipes/README.md shows the form of a recipe") from error
    unknown = sorted(set(document) - {"policy", "prm", "commands"})
    if unknown:
        raise ConfigError(f"{path} holds {', '.join(unknown)}; a recipe has the tables policy, prm and commands alone")
    policy, policy_settings = _model(path, "policy", document.get("policy"))
    engine = policy_settings.pop("engine", DEFAULT_ENGINE)
    prm, prm_settings = _model(path, "prm", document["prm"]) if "prm" in document else (None, {})
    commands = document.get("commands", {})
    if not isinstance(commands, dict) or not all(isinstance(line, str) for line in commands.values()):
        raise ConfigError(f"{path}: the table [commands] holds lines for a shell, each a string")
    return Recipe(
        name=Path(path).stem,
        policy=policy,
        engine=engine,
        policy_settings=policy_settings,
        prm=prm,
        prm_settings=prm_settings,
        commands=commands,
    )


def _model(path: str | Path, table: str, entries: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(entries, dict) or not isinstance(entries.get("model"), str):
        raise ConfigError(f'{path} names no model: give the table [{table}] an entry model = "owner/name"')
    return entries["model"], {key: value for key, value in entries.items() if key != "model"}
