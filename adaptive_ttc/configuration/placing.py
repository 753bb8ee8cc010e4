"""What is said of a pair as a whole, as settings of each model: device, number format, system prompt, context."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptive_ttc.answers.spaces.base import AnswerSpace
from adaptive_ttc.answers.spaces.mathematics import MATH
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.loading import AUTO, MINI_POLICY, REPLAY
from adaptive_ttc.prm.registry import chosen_reader, reader_named, recognised

_POLICY_TAKES: Mapping[str, Mapping[str, str]] = {
    "transformers": {
        "device": "device",
        "dtype": "dtype",
        "system_prompt": "system_prompt",
        "max_model_len": "max_context",
    },
    "vllm": {"dtype": "dtype", "system_prompt": "system_prompt", "max_model_len": "max_model_len"},
    "openai": {"system_prompt": "system_prompt", "max_model_len": "max_context"},
    REPLAY: {},
}
"""Engine -> what it takes of a pair's settings, by its own name for it; others take all by ours."""

_PRM_TAKES: Mapping[str, Mapping[str, str]] = {
    "transformers": {"device": "device", "dtype": "dtype"},
    "vllm": {"dtype": "dtype", "max_model_len": "max_model_len"},
    "served": {"dtype": "dtype"},
}
_WHY = {
    "device": "vLLM takes the GPU that CUDA_VISIBLE_DEVICES shows it, servers have their own, a record needs none",
    "dtype": "servers have their own, a record has none",
    "system_prompt": "a record holds what was asked",
    "max_model_len": "a record is as long as it is",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """Arguments of :meth:`~adaptive_ttc.solver.Solver.load` about both models."""

    device: str = AUTO
    dtype: str | None = None
    system_prompt: str | None = None
    max_model_len: int | None = None

    def settings(
        self,
        policy: str | Path,
        prm: str | Path | None,
        engine: str,
        *,
        policy_settings: Mapping[str, Any],
        prm_settings: Mapping[str, Any],
        answers: AnswerSpace | None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings of policy and PRM, with what is said of both; a model's own settings win.

        ConfigError: the policy is a PRM, no engine takes an argument, or two system prompts are given.
        """
        _refuse_prm(policy, prm, engine)
        told = {} if answers is None else {"answers": answers}
        given: dict[str, Any] = {"device": None if self.device == AUTO else self.device, "dtype": self.dtype}
        given |= {"system_prompt": self.system_prompt, "max_model_len": self.max_model_len}
        said = {name: value for name, value in given.items() if value not in (None, "")}
        own = policy_settings.get("system_prompt")
        if own is not None and self.system_prompt not in (None, own):
            raise ConfigError("two system prompts are given: leave out system_prompt, or that in policy_settings")
        takes = [_POLICY_TAKES.get(engine, {name: name for name in said}), _prm_takes(prm, prm_settings)]
        for name in said:
            if not any(name in one for one in takes):
                raise ConfigError(f"nothing here takes {name}: {_WHY[name]}. Leave it out")
        found = []
        for model, one, settings in zip((policy, prm), takes, (policy_settings, prm_settings), strict=True):
            common = {one[name]: value for name, value in said.items() if name in one}
            found.append({**self._where(model, one, {**common, **settings}), **common, **settings, **told})
        takes_prompt = "system_prompt" in _POLICY_TAKES.get(engine, {})  # it reads chat templates
        if takes_prompt and self.system_prompt is None and asks_by_default(answers):
            found[0].setdefault("system_prompt", AUTO)
        return found[0], found[1]

    def _where(self, model: str | Path | None, takes: Mapping[str, str], settings: Mapping[str, Any]) -> dict[str, Any]:
        """The device and number format that nothing says, where a GPU decides them."""
        if model is None or "device" not in takes:
            return {}
        device = settings.get("device") or best_device(model)
        return {} if device == "cpu" else {"device": device, **({} if _embedded(model) else {"dtype": "bfloat16"})}


def asks_by_default(answers: AnswerSpace | None) -> bool:
    """Whether a model that needs it is asked for steps and a box where no system prompt is given: unless an answer
    space is named that reads what the model writes. None: none is named.
    """
    return answers in (None, MATH)


def best_device(model: str | Path) -> str:
    """``cuda`` where torch sees a GPU, else ``cpu``; the embedded models stay on the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() and not _embedded(model) else "cpu"


def _embedded(model: str | Path) -> bool:
    """Whether it is a model of the package, whose calibration was made on a CPU in float32."""
    return Path(model).resolve().is_relative_to(MINI_POLICY.parent)


def _prm_takes(prm: str | Path | None, settings: Mapping[str, Any]) -> Mapping[str, str]:
    if prm is None:
        return {}
    name, _ = chosen_reader(prm, settings.get("reader"))
    reader = reader_named(name)
    if name == REPLAY or (reader is not None and not reader.runs_model):
        return {}
    return _PRM_TAKES.get(settings.get("engine", "transformers"), {})


def _refuse_prm(policy: str | Path, prm: str | Path | None, engine: str) -> None:
    """ConfigError: what is to write solutions scores them."""
    reader = None if engine == REPLAY else recognised(policy)
    if reader is None:
        return
    writer = "MODEL" if prm is None or recognised(prm) else str(prm)
    raise ConfigError(
        f"{policy} is a reward model ({reader}): it scores solutions, and writes none. Name the model that writes them "
        f"first: Solver.load({writer!r}, {str(policy)!r}), or --policy {shlex.quote(writer)} --prm "
        f"{shlex.quote(str(policy))}"
    )
