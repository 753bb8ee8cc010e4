"""Finds engines by name through entry points, so that the core imports none."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptive_ttc.errors import ConfigError, install_command, see
from adaptive_ttc.files.names import unknown
from adaptive_ttc.policy import Policy

if TYPE_CHECKING:
    from adaptive_ttc.answers.spaces.base import AnswerSpace
    from adaptive_ttc.prm.base import RewardModel

POLICY_GROUP = "adaptive_ttc.policies"
"""Entry points whose objects have ``from_pretrained(path_or_name, **settings) -> Policy``."""

PRM_GROUP = "adaptive_ttc.prms"
"""Entry points whose objects have ``from_pretrained(path_or_name, **settings) -> RewardModel``."""

AUTO = "auto"  # a setting that is found by looking at the machine or the model

_EXTRAS = {"openai": "openai", "served": "openai"}  # engine -> the extra of this package that it needs

REPLAY = "replay"  # the engine, and the PRM reader, that answer from a recorded file

MINI_POLICY = Path(__file__).parent / "mini" / "models" / "policy"
MINI_PRM = Path(__file__).parent / "mini" / "models" / "prm"
MINI_CALIBRATION = Path(__file__).parent / "mini" / "models" / "calibration"
MINI_FINISH_TOKENS = 200  # more tokens than nearly all solutions of the embedded policy have


def mini_calibration() -> Path | None:
    """The calibration of the embedded pair; None where it was not shipped."""
    return MINI_CALIBRATION if (MINI_CALIBRATION / "meta.json").exists() else None


def load_policy(
    path_or_name: str | Path, *, engine: str = "transformers", answers: AnswerSpace | None = None, **settings: Any
) -> Policy:
    """Load a policy with an engine (the entry point's name in the group ``adaptive_ttc.policies``), given further
    settings. A replay is told what ``answers`` are, as traces may hold them alone.

    ``path_or_name`` is a model folder, or ``owner/name`` on the Hub. ConfigError: there is no such engine, it cannot be
    imported, or it cannot load the model.
    """
    if engine == REPLAY and answers is not None:
        settings["answers"] = answers
    load = _entry(POLICY_GROUP, "policy engine", engine).from_pretrained
    _check_names(engine, load, settings)
    policy: Policy = load(path_or_name, **settings)
    return policy


def _check_names(engine: str, load: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """ConfigError: an engine that takes certain settings alone has none of a name that is given."""
    known = [one for one in signature(load).parameters.values() if one.kind is not one.POSITIONAL_OR_KEYWORD]
    if any(one.kind is one.VAR_KEYWORD for one in known) or not known:
        return  # it checks them itself
    names = [one.name for one in known]
    if foreign := unknown(settings, names):
        raise ConfigError(f"the engine {engine!r} takes no {foreign}; it takes {', '.join(names)}")


def load_recorded_prm(path: str | Path, **settings: Any) -> RewardModel:
    """Load a PRM that answers from a recorded file. ConfigError: no reader is installed, or no such record."""
    prm: RewardModel = _entry(PRM_GROUP, "PRM reader", REPLAY).from_pretrained(path, **settings)
    return prm


def prm_engine(name: str) -> Any:
    """An engine for PRMs outside this process's torch; it has ``from_family(family, path_or_name, **settings)``."""
    engine = _entry(PRM_GROUP, "PRM engine", name)
    if not hasattr(engine, "from_family"):
        raise ConfigError(f"{name!r} runs no models; engines for PRMs are 'transformers', 'vllm' and 'served'")
    return engine


def _entry(group: str, kind: str, name: str) -> Any:
    known = {entry.name: entry for entry in entry_points(group=group)}
    if name not in known:
        clone = Path(__file__).parent.parent
        installed = ", ".join(sorted(known)) or f"none: install the package (pip install {shlex.quote(str(clone))})"
        raise ConfigError(f"unknown {kind} {name!r}; installed are {installed} {see('engines.md')}")
    try:
        return known[name].load()
    except ImportError as error:
        remedy = f": {install_command(_EXTRAS[name])}" if name in _EXTRAS and "pip install" not in str(error) else ""
        raise ConfigError(f"the {kind} {name!r} cannot be imported: {error}{remedy}") from error
