"""A solver's ways to be made from the names of its models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from adaptive_ttc.answers.spaces.base import AnswerSpace
from adaptive_ttc.answers.spaces.mathematics import MATH
from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.configuration.models import loaded_pair
from adaptive_ttc.configuration.placing import Placing
from adaptive_ttc.configuration.recipe import DEFAULT_ENGINE, Recipe, read_recipe
from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.errors import ConfigError, see
from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.estimate.pair_calibration import selected_rule
from adaptive_ttc.loading import AUTO, MINI_FINISH_TOKENS, MINI_POLICY, MINI_PRM, mini_calibration
from adaptive_ttc.policy import Policy
from adaptive_ttc.prm.base import RewardModel
from adaptive_ttc.run.verify import Verify
from adaptive_ttc.stopping.base import StoppingRule


class LoadsModels(ABC):
    """What :class:`~adaptive_ttc.solver.Solver` inherits: it is made with models, or loads them by name."""

    @abstractmethod
    def __init__(self, policy: Policy, prm: RewardModel | None = None, **settings: Any) -> None:
        """With models that are loaded."""

    @classmethod
    def load(
        cls,
        policy: str | Path,
        prm: str | Path | None = None,
        *,
        engine: str = DEFAULT_ENGINE,
        device: str = AUTO,
        dtype: str | None = None,
        system_prompt: str | None = None,
        max_model_len: int | None = None,
        policy_settings: Mapping[str, Any] | None = None,
        prm_settings: Mapping[str, Any] | None = None,
        second: str | Path | None = None,
        second_settings: Mapping[str, Any] | None = None,
        second_weight: float | None = None,
        seed: int | None = None,
        config: DriverConfig | None = None,
        calibration: Calibrated | str | Path | None = None,
        allow_mismatch: bool = False,
        rule: StoppingRule | str | None = None,
        verify: Verify | None = None,
        answers: str | AnswerSpace | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> Self:
        """Load a pair of models by folder or Hub name; further arguments as for the constructor.

        Args:
            policy, prm: their folders or names.
            engine: what runs the policy, an entry point of the group ``adaptive_ttc.policies``.
            device: of the models that run in this process's torch, such as ``cuda:1``; ``auto`` takes the GPU if there
                is one.
            dtype: of both models' arithmetic; by default ``float32`` on a CPU, ``bfloat16`` on a GPU, or the engine's.
            system_prompt: put before problems without a system message. By default a general instruct model is asked
                for steps and the answer in a box, with a PromptWarning, where answers are ``math``, see
                :func:`adaptive_ttc.policies.chat_model.needs_prompt`; the empty string asks for nothing.
            max_model_len: tokens of a problem and its solution together, of the policy and of a PRM in vLLM.
            policy_settings: passed to the engine: ``max_batch``, ``thinking``, ...
            prm_settings: passed to :func:`adaptive_ttc.prm.load_prm`. What either settings say of one model wins over
                what ``device``, ``dtype`` and ``max_model_len`` say of both.
            second, second_weight: a larger policy for adaptive runs, and the tokens of the policy that one of its own
                counts, see :class:`adaptive_ttc.policies.cascade.Cascade`.
            second_settings: of its engine, or of another ``engine`` that they name; by default ``policy_settings``.

        Raises:
            ConfigError: no such engine, rule or space, a model cannot be loaded, or an argument fits none of them.
            CalibrationError: it is no calibration, or one of another pair.
        """
        rule = selected_rule(rule, calibration)
        space = None if answers is None else space_of(answers)
        placing = Placing(device=device, dtype=dtype, system_prompt=system_prompt, max_model_len=max_model_len)
        given: dict[str, Any] = {"policy_settings": policy_settings or {}, "prm_settings": prm_settings or {}}
        settings = placing.settings(policy, prm, engine, **given, answers=space)
        if second is None and (second_settings or second_weight is not None):
            raise ConfigError("second_settings and second_weight are of a second policy: name it with second=")
        own = policy_settings if second_settings is None else second_settings
        cascade = _of_second(second, engine, placing, own or {}, second_weight, space)
        with loaded_pair(policy, prm, engine, *settings, **cascade) as (model, reward_model):
            chosen: dict[str, Any] = {"calibration": calibration, "allow_mismatch": allow_mismatch, "rule": rule}
            chosen |= {"seed": seed, "config": config, "verify": verify, "answers": space, "defaults": defaults}
            return cls(model, reward_model, **chosen)

    @classmethod
    def recipe(
        cls,
        recipe: str | Path | Recipe,
        *,
        api_key_env: str | None = None,
        trust_remote_code: bool = False,
        answers: str | AnswerSpace | None = None,
        **settings: Any,
    ) -> Self:
        """Load the pair of a recipe, its calibration, and what its table ``solve`` says for calls that do not.

        Args:
            recipe: the name of one that comes with the package, such as ``llama-3.2-1b_rlhflow-8b``, or a file of this
                form (recipes/README.md).
            api_key_env: the environment variable whose value the recipe's servers get as their API key.
            trust_remote_code: whether vLLM may run code that comes with the models.
            answers: what answers are, in place of what the recipe says.
            **settings: further arguments of :meth:`load`, such as ``seed``, or in place of the recipe's
                (``calibration``, ``defaults``).

        Raises:
            ConfigError: it is no recipe, takes no such key or trust, or as :meth:`load`.
            CalibrationError: as :meth:`load`.
        """
        read = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
        given = read.arguments(api_key_env=api_key_env, trust_remote_code=trust_remote_code)
        if settings.get("rule") is not None:
            given.pop("calibration")
        return cls.load(**given | settings | ({} if answers is None else {"answers": answers}))

    @classmethod
    def mini(
        cls,
        *,
        seed: int | None = None,
        calibration: Calibrated | str | Path | None = None,
        rule: StoppingRule | str | None = None,
        verify: Verify | None = None,
        answers: str | AnswerSpace | None = None,
    ) -> Self:
        """The embedded policy and PRM; their calibration unless another or a rule is given. Errors as :meth:`load`."""
        # Nearly all of its solutions are shorter, so a tight budget need not keep the worst case for the last one.
        config = DriverConfig(finish_tokens=MINI_FINISH_TOKENS)
        own = rule is None and space_of(answers) == MATH  # what its calibration was made with
        calibration = calibration or (mini_calibration() if own else None)
        chosen: dict[str, Any] = {"calibration": calibration, "rule": rule, "verify": verify, "answers": answers}
        return cls.load(MINI_POLICY, MINI_PRM, seed=seed, config=config, **chosen)


_ENGINES = {
    "policy": ("name", "fingerprint", "parameters", "encode", "decode", "sample", "abort", "aclose"),
    "PRM": ("name", "fingerprint", "parameters", "count_tokens", "score", "aclose"),
}


def check_models(policy: object, prm: object) -> None:
    """ConfigError: one of them is a name, which has to be loaded, or no model at all."""
    if isinstance(policy, str | Path) or isinstance(prm, str | Path):
        named = ", ".join(repr(str(one)) if isinstance(one, str | Path) else "..." for one in (policy, prm) if one)
        raise ConfigError(f"Solver takes models that are loaded; these are loaded by name with Solver.load({named})")
    for (kind, needs), one in zip(_ENGINES.items(), (policy, prm), strict=True):
        lacks = [name for name in needs if not hasattr(one, name)]
        if one is not None and (lacks or isinstance(one, type)):
            said = "is a class: give an object of it" if isinstance(one, type) else f"has no {', '.join(lacks)}"
            raise ConfigError(f"{one!r:.80} is no {kind}: it {said} {see('extending.md')}")


def _of_second(
    second: str | Path | None,
    engine: str,
    placing: Placing,
    settings: Mapping[str, Any],
    weight: float | None,
    answers: AnswerSpace | None,
) -> dict[str, Any]:
    """What loads the second policy, with its own engine and settings; nothing where there is none."""
    if second is None:
        return {}
    engine = settings.get("engine", engine)
    own = {name: value for name, value in settings.items() if name != "engine"}
    placed, _ = placing.settings(second, None, engine, policy_settings=own, prm_settings={}, answers=answers)
    return {"second": second, "second_settings": {"engine": engine, **placed}, "second_weight": weight}
