"""A known pair of models in one file: names, prompt, memory shares, commands; it loads nothing by itself."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.solver import Solver

DEFAULT_ENGINE = "transformers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a pair is run; read by :func:`read_recipe`.

    Attributes:
        name: the file's, without its ending.
        policy: model folder or Hub name.
        engine: what runs it, see :meth:`~adaptive_ttc.solver.Solver.load`.
        policy_settings: passed to the engine.
        prm: model folder or Hub name; None without one.
        prm_settings: passed to :func:`adaptive_ttc.prm.load_prm`.
        commands: what to do with the pair, by name.
    """

    name: str
    policy: str
    engine: str = DEFAULT_ENGINE
    policy_settings: Mapping[str, Any]
    prm: str | None = None
    prm_settings: Mapping[str, Any]
    commands: Mapping[str, str]

    def load(
        self,
        *,
        seed: int = 0,
        config: DriverConfig | None = None,
        calibration: str | Path | None = None,
        allow_mismatch: bool = False,
    ) -> Solver:
        """Load the models.

        Args:
            seed: of all randomness.
            config: how requests are sent.
            calibration: the directory of the pair's calibration.
            allow_mismatch: take one that was made for another pair, with a warning.

        Raises:
            ConfigError: an engine or a reader is missing, or a model cannot be loaded.
            EngineError: an engine does not start.
        """
        return Solver.load(
            self.policy,
            self.prm,
            engine=self.engine,
            policy_settings=self.policy_settings,
            prm_settings=self.prm_settings,
            seed=seed,
            config=config,
            calibration=calibration,
            allow_mismatch=allow_mismatch,
        )


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe: TOML with the tables ``policy`` and, where there is one, ``prm``, and ``commands``.

    Each model's table holds ``model``, and settings beside it; ``engine`` says what runs it.

    Raises:
        ConfigError: there is no such file, or it is no recipe.
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
    return Recipe(
        name=Path(path).stem,
        policy=policy,
        engine=engine,
        policy_settings=policy_settings,
        prm=prm,
        prm_settings=prm_settings,
        commands=_commands(path, document.get("commands", {})),
    )


def _model(path: str | Path, table: str, entries: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(entries, dict) or not isinstance(entries.get("model"), str):
        raise ConfigError(f'{path} names no model: give the table [{table}] an entry model = "owner/name"')
    return entries["model"], {key: value for key, value in entries.items() if key != "model"}


def _commands(path: str | Path, entries: Any) -> dict[str, str]:
    if not isinstance(entries, dict) or not all(isinstance(value, str) for value in entries.values()):
        raise ConfigError(f"{path}: the table [commands] holds lines for a shell, each a string")
    return dict(entries)
