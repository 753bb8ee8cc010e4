"""Recipes of verifiers that write: loaded up to the engine, and their rules read what their models write."""

from pathlib import Path

import pytest

from adaptive_ttc import loading
from adaptive_ttc.configuration.recipe import read_recipe
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.prm import GenerativeVerifier
from adaptive_ttc.solver import Solver

FOLDER = Path(__file__).parents[2] / "recipes" / "verifiers"
RECIPES = {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}
SAID = {
    "qwen2.5-1.5b_thinkprm-1.5b": (
        "Step 1: They add. That is \\boxed{correct}.\nStep 2: 3 + 4 is 8? No, 7, so it is \\boxed{incorrect}.\n\n"
        "Is the solution correct? No",
        (1.0, 0.0, 0.0),
    ),
    "qwen2.5-1.5b_genprm-1.5b": (
        "<analyze>\nFine.\n</analyze>\n<output>\n**Judgement**: $\\boxed{Yes}$\n</output>",
        (1.0, 1.0, 1.0),
    ),
    "qwen2.5-1.5b_judge": ("I get 7 as well.\n\n**Grade: 10**", (1.0, 1.0, 1.0)),
}


@pytest.fixture
def entries(monkeypatch):
    asked = []

    class Entry:
        def from_pretrained(self, model, **settings):
            asked.append((model, settings))
            return FakePolicy.generative()

    monkeypatch.setattr(loading, "_entry", lambda group, kind, name: Entry())
    return asked


def test_every_one_is_here():
    assert set(RECIPES) == set(SAID)


@pytest.mark.parametrize("name", SAID)
async def test_a_recipe_loads_both_and_reads_what_the_verifier_writes(name, entries):
    recipe = read_recipe(RECIPES[name])
    solver = Solver.recipe(recipe, seed=3)
    (prm, prm_settings), (policy, policy_settings) = entries
    assert (policy, prm) == (recipe.policy, recipe.prm)
    assert policy_settings == recipe.policy_settings
    assert isinstance(solver.prm, GenerativeVerifier)
    own = {field for field in recipe.prm_settings if hasattr(solver.prm.settings, field)}
    assert {*prm_settings} - {"api_key_env"} == {*recipe.prm_settings} - own - {"reader", "engine"}
    said, scores = SAID[name]
    assert solver.prm.settings.rule.read(said, 3, lambda first, last: 1.0) == scores
    asked = solver.prm.settings.messages("What is 3 + 4?", ("It is 7.",))
    assert "What is 3 + 4?" in asked[-1].content
    assert "It is 7." in asked[-1].content
    await solver.aclose()


def test_a_verifiers_server_gets_no_api_key_unless_the_user_names_the_variable(entries, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    recipe = read_recipe(RECIPES["qwen2.5-1.5b_judge"])
    Solver.recipe(recipe)
    Solver.recipe(recipe, api_key_env="OPENAI_API_KEY")
    assert [settings["api_key_env"] for _, settings in entries if "api_key_env" in settings] == [None, "OPENAI_API_KEY"]
    with pytest.raises(ConfigError, match="takes no API key"):
        Solver.recipe(RECIPES["qwen2.5-1.5b_genprm-1.5b"], api_key_env="OPENAI_API_KEY")
