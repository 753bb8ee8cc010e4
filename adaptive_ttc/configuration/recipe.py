"""Recipes: a known pair of models, and how to run it, in a file that anybody may have written."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.configuration.defaults import check_defaults
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.files.bounded import RECIPE, read_whole
from adaptive_ttc.files.names import unknown

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
    second: str | None = None  # a larger policy, see :class:`adaptive_ttc.policies.cascade.Cascade`
    second_settings: Mapping[str, Any] = field(default_factory=dict)  # with its ``engine``
    second_weight: float | None = None  # tokens of the policy that one of its tokens counts
    answers: str | None = None  # the answer space, see docs/answers.md; None: the solver's own
    calibration: Path | None = None  # the pair's, a folder
    solve: Mapping[str, Any]  # arguments of ``Solver.solve`` for calls that do not give them
    serve: Mapping[str, Any]  # what a server allows, see :data:`SERVED`
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
        policy, prm, second = dict(self.policy_settings), dict(self.prm_settings), dict(self.second_settings)
        run = ((policy, self.engine), (second, second.get("engine")), (prm, prm.get("engine")))
        servers = [one for one, engine in run if engine == "openai"]
        for one in servers:
            one["api_key_env"] = _checked_variable(api_key_env)
        if api_key_env is not None and not servers:
            raise ConfigError(f"the engine {self.engine!r} of this recipe takes no API key: leave out --api-key-env")
        if trust_remote_code:
            trusting = [one for one, engine in run if engine == "vllm"]
            if not trusting:
                raise ConfigError("only vLLM runs code of models: leave out --trust-remote-code")
            for one in trusting:
                one["trust_remote_code"] = True
        models = {"policy": self.policy, "prm": self.prm, "engine": self.engine, "answers": self.answers}
        others: dict[str, Any] = {"calibration": self.calibration, "defaults": self.solve}
        if self.second is not None:
            others |= {"second": self.second, "second_settings": second, "second_weight": self.second_weight}
        return {**models, **others, "policy_settings": policy, "prm_settings": prm}

    def alone(self, *, second: bool) -> Recipe:
        """The recipe of one of its two policies, with the PRM and without the calibration of both."""
        bare = replace(self, second=None, second_settings={}, second_weight=None, calibration=None)
        if not second or self.second is None:
            return bare
        settings = {name: value for name, value in self.second_settings.items() if name != "engine"}
        return replace(bare, policy=self.second, engine=self.second_settings["engine"], policy_settings=settings)


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


SHIPPED = Path(__file__).parent.parent / "recipes"
"""The recipes that come with the package."""

SERVED = (
    "name",
    "default_budget",
    "most_budget",
    "total_budget",
    "count",
    "max_concurrency",
    "max_waiting",
    "max_body",
    "keep_alive",
    "write_timeout",
    "port",
)
"""What a recipe can say of a server: options of ``adaptive-ttc serve``. Whom it serves is not among them."""

_SERVED_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("name", "count"), ((str,), "a text")),
    **dict.fromkeys(("keep_alive", "write_timeout"), ((int, float), "a number of seconds")),
}
"""The kinds of what is no whole number."""

_SERVERS_OWN = ("host", "open", "keys", "cors_origin", "cors_origins")
_TABLES = ("policy", "second", "prm", "solve", "serve", "commands")
_LINES = ("answers", "calibration", "card_gib")


def recipe_names() -> tuple[str, ...]:
    """The names of the recipes that come with the package."""
    return tuple(sorted(path.stem for path in SHIPPED.rglob("*.toml")))


def recipe_file(recipe: str | Path) -> Path:
    """The file of a recipe, given its name or itself. ConfigError: there is neither."""
    file = Path(recipe)
    if file.is_file():
        return file
    for shipped in SHIPPED.rglob("*.toml"):
        if str(recipe) == shipped.stem:
            return shipped
    near = get_close_matches(file.name.removesuffix(".toml"), recipe_names(), n=1)
    meant = f"; did you mean {near[0]}?" if near else "."
    raise ConfigError(
        f"{recipe} is no file, and no recipe of the package{meant} There are {', '.join(recipe_names())}, and files of "
        "your own in the form that recipes/README.md shows"
    )


def read_recipe(recipe: str | Path) -> Recipe:
    """Read a recipe, given the name of one that comes with the package, or a file; ConfigError if it is none.

    It is TOML with a table ``policy``, and optionally ``second``, ``prm``, ``solve``, ``serve``, ``commands`` and lines
    ``answers``, ``calibration``, ``card_gib``. Each model's table holds ``model``, and settings beside it; ``engine``
    says what runs it, and ``weight`` what a token of the second policy counts.
    """
    path = recipe_file(recipe)
    try:
        document = tomllib.loads(read_whole(path, RECIPE, ConfigError, "give a recipe").decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}; give a recipe's file or name") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}; recipes/README.md shows the form of a recipe") from error
    if foreign := unknown(document, (*_TABLES, *_LINES)):
        raise ConfigError(
            f"{path} holds {foreign}; a recipe has the tables {', '.join(_TABLES)}, and {', '.join(_LINES)}"
        )
    policy, policy_settings = _model(path, "policy", document.get("policy"))
    engine = policy_settings.pop("engine", DEFAULT_ENGINE)
    second, second_settings = _model(path, "second", document["second"]) if "second" in document else (None, {})
    weight = _weight(path, second_settings.pop("weight", None))
    if second is not None:
        second_settings.setdefault("engine", engine)
    prm, prm_settings = _model(path, "prm", document["prm"]) if "prm" in document else (None, {})
    commands = document.get("commands", {})
    if not isinstance(commands, dict) or not all(isinstance(line, str) for line in commands.values()):
        raise ConfigError(f"{path}: the table [commands] holds lines for a shell, each a string")
    return Recipe(
        name=path.stem,
        policy=policy,
        engine=engine,
        policy_settings=policy_settings,
        prm=prm,
        prm_settings=prm_settings,
        second=second,
        second_settings=second_settings,
        second_weight=weight,
        answers=_answers(path, document.get("answers")),
        calibration=_calibration(path, document.get("calibration")),
        solve=_solve(path, document.get("solve", {}), prm=prm is not None),
        serve=_serve(path, document.get("serve", {})),
        commands=commands,
        card_gib=_card(path, document.get("card_gib")),
    )


def _answers(path: Path, answers: Any) -> str | None:
    if space_of(answers).tested:
        raise ConfigError(f"{path}: leave answers = {answers!r} out; whether programs run is yours to say: --answers")
    return answers  # type: ignore[no-any-return]


def _calibration(path: Path, folder: Any) -> Path | None:
    """A calibration's folder, as seen from the recipe's."""
    if folder is not None and not isinstance(folder, str):
        raise ConfigError(f"{path}: calibration = {folder!r} must be a folder, seen from the recipe's")
    return None if folder is None else path.parent / folder


def _weight(path: Path, weight: Any) -> float | None:
    if weight is not None and (type(weight) not in (int, float) or not 1 <= weight < math.inf):
        raise ConfigError(f"{path}: in the table [second], weight = {weight!r} must be a number of at least 1")
    return weight  # type: ignore[no-any-return]


def _card(path: Path, card: Any) -> float | None:
    if card is not None and (type(card) not in (int, float) or not 0 < card < math.inf):
        raise ConfigError(f"{path}: card_gib = {card!r} must be the memory of the card in GiB, such as 44.5")
    return card  # type: ignore[no-any-return]


def _solve(path: Path, table: Any, *, prm: bool) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: solve is a table of arguments of Solver.solve, such as [solve] n = 16")
    try:
        check_defaults(table, prm=prm)
    except ConfigError as error:
        raise ConfigError(f"{path}: in the table [solve], {error}") from error
    return _whole(table, ("budget_tokens",))


def _whole(table: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The table, with budgets such as 2e15, which TOML reads as floats, as whole numbers."""
    found = {name: table[name] for name in names if name in table}
    return {**table, **{n: int(one) for n, one in found.items() if isinstance(one, float) and one.is_integer()}}


def _serve(path: Path, table: Any) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: serve is a table of options of adaptive-ttc serve")
    for name in table:
        if name in _SERVERS_OWN:
            raise ConfigError(f"{path}: leave {name} out of the table [serve]; whom to serve is yours to say: --{name}")
    if foreign := unknown(table, SERVED):
        raise ConfigError(f"{path}: the table [serve] holds {foreign}; it has {', '.join(SERVED)}")
    found = _whole(table, ("default_budget", "most_budget", "total_budget"))
    for name, value in found.items():
        kinds, told = _SERVED_KINDS.get(name, ((int,), "a whole number"))
        if type(value) not in kinds:
            raise ConfigError(f"{path}: in the table [serve], {name} = {value!r} must be {told}")
    return found


def _model(path: Path, table: str, entries: Any) -> tuple[str, dict[str, Any]]:
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
