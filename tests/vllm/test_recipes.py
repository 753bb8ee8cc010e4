"""Recipes up to the call of the real engine: vLLM itself checks the arguments, tiny models stand for the named ones."""

from pathlib import Path

import pytest

pytest.importorskip("vllm")

from vllm import AsyncEngineArgs

from adaptive_ttc.configuration.recipe import read_recipe
from adaptive_ttc.loading import MINI_POLICY
from adaptive_ttc.policies import chat_model
from adaptive_ttc.policies.vllm import VLLMPolicy
from adaptive_ttc.policies.vllm import policy as policy_module
from adaptive_ttc.policies.vllm import prm as prm_module
from adaptive_ttc.prm import load_prm
from tests.vllm.prm_folders import write

RECIPES = {path.stem: path for path in sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))}
TINY = {"rlhflow": "llama", "qwen-math": "qwen-math", "skywork": "skywork"}


class StartError(Exception):
    """The engine would start now."""


@pytest.fixture
def starts(monkeypatch):
    """Arguments of the engines that would start."""
    found = []

    def start(name, settings):
        found.append(AsyncEngineArgs(**settings))
        raise StartError

    for module in (policy_module, prm_module):
        monkeypatch.setattr(module, "EngineHost", start)
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_the_policys_engine_is_called_with_the_recipe(name, starts, monkeypatch):
    recipe = read_recipe(RECIPES[name])
    monkeypatch.setattr(chat_model, "locate", lambda model, revision=None: MINI_POLICY)
    with pytest.raises(StartError):
        VLLMPolicy.from_pretrained(recipe.policy, **recipe.policy_settings)
    (arguments,) = starts
    wanted = {key: of for key, of in recipe.policy_settings.items() if key != "system_prompt"}
    assert {key: getattr(arguments, key) for key in wanted} == wanted
    assert arguments.scheduling_policy == "priority"


@pytest.mark.parametrize("name", RECIPES)
def test_the_prms_engine_is_called_with_the_recipe(name, starts, monkeypatch, tmp_path):
    recipe = read_recipe(RECIPES[name])
    folder = write(TINY[recipe.prm_settings["reader"]], tmp_path / "prm")
    monkeypatch.setattr(prm_module, "locate", lambda model, revision=None: folder)
    with pytest.raises(StartError):
        load_prm(recipe.prm, **recipe.prm_settings)
    (arguments,) = starts
    wanted = {key: of for key, of in recipe.prm_settings.items() if key not in ("reader", "engine")}
    assert {key: getattr(arguments, key) for key in wanted} == wanted
    assert arguments.runner == "pooling"
