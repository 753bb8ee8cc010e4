"""Recipes: a known pair of models, and how to run it, in a file that anybody may have written."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.files.bounded import RECIPE, read_whole

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
    answers: str | None = None  # the answer space, see docs/answers.md; None: the solver's own
    commands: Mapping[str, str]  # command lines for the pair, by name
    card_gib: float | None = None  # memory, in GiB, of the card that its shares are of

    def arguments(self, *, api_key_env: str | None = None, trust_remote_code: bool = False) -> dict[str, Any]:
        """Arguments of :meth:`~adaptive_ttc.solver.Solver.load`.

        Args:
            api_key_env: the environment variable whose value the recipe's servers get as their API key.
            trust_remote_code: whether vLLM may run code that comes with the models.

        Raises:
            ConfigError: that variable is not set, or no engine of the recipe takes what is given.
        """
        policy, prm = dict(self.policy_settings), dict(self.prm_settings)
        servers = [one for one, engine in ((policy, self.engine), (prm, prm.get("engine"))) if engine == "openai"]
        for one in servers:
            one["api_key_env"] = _checked_variable(api_key_env)
        if api_key_env is not None and not servers:
            raise ConfigError(f"the engine {self.engine!r} of this recipe takes no API key: leave out --api-key-env")
        if trust_remote_code:
            trusting = [one for one, engine in ((policy, self.engine), (prm, prm.get("engine"))) if engine == "vllm"]
            if not trusting:
                raise ConfigError("only vLLM runs code of models: leave out --trust-remote-code")
            for one in trusting:
                one["trust_remote_code"] = True
        models = {"policy": self.policy, "prm": self.prm, "engine": self.engine, "answers": self.answers}
        return {**models, "policy_settings": policy, "prm_settings": prm}


def _checked_variable(name: str | None) -> str | None:
    if name is not None and not os.environ.get(name):
        raise ConfigError(f"the environment variable {name} is not set; set it to the API key, or name another")
    return name


_USERS_OWN = {
    "api_key_env": "which key a server gets is yours to say: --api-key-env NAME",
    "trust_remote_code": "whether a model's own code may run is yours to say: --trust-remote-code",
    "hf_token": "it would be sent to the Hub as yours",
    "logits_processors": "it names code to run",
}
"""Settings that a recipe, which may come from anybody, cannot make, and why."""


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe: TOML with a table ``policy``, and optionally ``prm``, ``commands`` and lines ``answers`` and
    ``card_gib``; ConfigError if it is none.

    Each model's table holds ``model``, and settings beside it; ``engine`` says what runs it.
    """
    try:
        document = tomllib.loads(read_whole(path, RECIPE, ConfigError, "give a recipe").decode("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror or error}; give a recipe, such as those in recipes/"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}; recipes/README.md shows the form of a recipe") from error
    unknown = sorted(set(document) - {"policy", "prm", "commands", "answers", "card_gib"})
    if unknown:
        raise ConfigError(
            f"{path} holds {', '.join(unknown)}; a recipe has the tables policy, prm and commands, answers and card_gib"
        )
    policy, policy_settings = _model(path, "policy", document.get("policy"))
    engine = policy_settings.pop("engine", DEFAULT_ENGINE)
    prm, prm_settings = _model(path, "prm", document["prm"]) if "prm" in document else (None, {})
    commands = document.get("commands", {})
    if not isinstance(commands, dict) or not all(isinstance(line, str) for line in commands.values()):
        raise ConfigError(f"{path}: the table [commands] holds lines for a shell, each a string")
    answers = document.get("answers")
    if space_of(answers).tested:
        raise ConfigError(f"{path}: leave answers = {answers!r} out; whether programs run is yours to say: --answers")
    card = document.get("card_gib")
    if card is not None and (type(card) not in (int, float) or not 0 < card < math.inf):
        raise ConfigError(f"{path}: card_gib = {card!r} must be the memory of the card in GiB, such as 44.5")
    return Recipe(
        name=Path(path).stem,
        policy=policy,
        engine=engine,
        policy_settings=policy_settings,
        prm=prm,
        prm_settings=prm_settings,
        answers=answers,
        commands=commands,
        card_gib=card,
    )


def _model(path: str | Path, table: str, entries: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(entries, dict) or not isinstance(entries.get("model"), str):
        raise ConfigError(f'{path} names no model: give the table [{table}] an entry model = "owner/name"')
    for name in _names(entries):
        if name in _USERS_OWN or name.endswith(("_cls", "_plugin")):
            reason = _USERS_OWN.get(name, "it names code to run")
            raise ConfigError(f"{path}: leave {name} out of the table [{table}]; {reason}")
    return entries["model"], {key: value for key, value in entries.items() if key != "model"}


def _names(entries: Any) -> Iterator[str]:
    """The names of all entries, those of tables within included; hyphens are read as vLLM does."""
    inner: Iterable[Any] = entries if isinstance(entries, list) else ()
    if isinstance(entries, dict):
        yield from (name.replace("-", "_") for name in entries)
        inner = entries.values()
    for one in inner:
        yield from _names(one)
