"""Recipes: read, refused with a remedy, and carried out up to the call of the engines."""

import json
import shlex
from pathlib import Path

import pytest

from adaptive_ttc import loading
from adaptive_ttc.calibration.fit import __main__ as fit
from adaptive_ttc.calibration.pareto import __main__ as pareto
from adaptive_ttc.cli import main
from adaptive_ttc.configuration.recipe import read_recipe
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policies.fake import FakePolicy, toy_answer, toy_right_so_far
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.prm.registry import _named_reader
from adaptive_ttc.solver import Solver

ROOT = Path(__file__).parents[2]
RECIPES = {path.stem: path for path in sorted((ROOT / "recipes").glob("*.toml"))}
PAIRS = {
    ("meta-llama/Llama-3.2-1B-Instruct", "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data"),
    ("meta-llama/Llama-3.2-3B-Instruct", "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data"),
    ("Qwen/Qwen2.5-1.5B-Instruct", "Qwen/Qwen2.5-Math-PRM-7B"),
    ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-Math-PRM-7B"),
    ("Qwen/Qwen2.5-14B-Instruct", "Qwen/Qwen2.5-Math-PRM-7B"),
    ("Qwen/Qwen2.5-1.5B-Instruct", "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B"),
}


class Engines:
    """Stands for the entry points of engines: keeps what they are called with."""

    def __init__(self):
        self.policies, self.prms = [], []

    def __call__(self, group, kind, name):
        self.found = (group, name)
        return self

    def from_pretrained(self, model, **settings):
        self.policies.append((self.found, model, settings))
        return FakePolicy.generative()

    def from_family(self, family, model, **settings):
        self.prms.append((self.found, model, settings))
        return FakePRM.truthful(toy_right_so_far)


@pytest.fixture
def engines(monkeypatch):
    recorder = Engines()
    monkeypatch.setattr(loading, "_entry", recorder)
    return recorder


@pytest.fixture
def served(tmp_path):
    """A recipe from somebody else, that names a server."""
    path = tmp_path / "theirs.toml"
    path.write_text('[policy]\nmodel = "m"\nengine = "openai"\nbase_url = "http://elsewhere.example/v1"\n')
    return path


def test_a_recipe_gets_no_api_key_unless_the_user_names_the_variable(engines, served, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    monkeypatch.delenv("THEIR_KEY", raising=False)
    monkeypatch.setattr("adaptive_ttc.cli.options.knock", lambda options: None)  # there is no such server
    Solver.recipe(served)
    Solver.recipe(served, api_key_env="OPENAI_API_KEY")
    assert [settings["api_key_env"] for _, _, settings in engines.policies] == [None, "OPENAI_API_KEY"]
    assert main(["solve", "x", "--recipe", str(served), "--api-key-env", "THEIR_KEY", "--n", "1"]) == 2
    assert "THEIR_KEY is not set" in capsys.readouterr().err
    assert main(["solve", "x", "--api-key-env", "OPENAI_API_KEY", "--n", "1"]) == 2
    assert "are for what a --recipe names" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "trust_remote_code = true",
        "trust-remote-code = true",
        'api_key_env = "OPENAI_API_KEY"',
        "speculative_config = {trust_remote_code = true}",
        "parts = [[{trust_remote_code = true}]]",
        'worker_cls = "os.system"',
        'reasoning_parser_plugin = "here.py"',
    ],
)
@pytest.mark.parametrize("table", ["policy", "prm"])
def test_what_is_the_users_own_to_say_no_recipe_says(tmp_path, table, line):
    path = tmp_path / "theirs.toml"
    other = {"policy": "prm", "prm": "policy"}[table]
    path.write_text(f'[{other}]\nmodel = "m"\n[{table}]\nmodel = "m"\nengine = "vllm"\n{line}\n')
    with pytest.raises(ConfigError, match=rf"leave \w+ out of the table \[{table}\]"):
        read_recipe(path)


def test_code_of_models_is_run_at_the_users_word_alone(engines):
    recipe = read_recipe(next(iter(RECIPES.values())))
    Solver.recipe(recipe)
    Solver.recipe(recipe, trust_remote_code=True)
    for calls in (engines.policies, engines.prms):
        assert [settings.get("trust_remote_code", False) for _, _, settings in calls] == [False, True]


def test_every_known_pair_has_one():
    assert {(one.policy, one.prm) for one in map(read_recipe, RECIPES.values())} == PAIRS
    assert len(RECIPES) == len(PAIRS)


@pytest.mark.parametrize("name", RECIPES)
async def test_a_recipe_reaches_the_engines_with_what_it_says(name, engines):
    recipe = read_recipe(RECIPES[name])
    await Solver.recipe(recipe, seed=3).aclose()
    ((policy_entry, policy, policy_settings),) = engines.policies
    ((prm_entry, prm, prm_settings),) = engines.prms
    assert (policy_entry, prm_entry) == ((loading.POLICY_GROUP, "vllm"), (loading.PRM_GROUP, "vllm"))
    assert (policy, prm) == (recipe.policy, recipe.prm)
    assert policy_settings == recipe.policy_settings
    assert prm_settings == {key: of for key, of in recipe.prm_settings.items() if key not in ("reader", "engine")}
    assert "\\boxed{" in policy_settings["system_prompt"]
    assert _named_reader(recipe.prm) == recipe.prm_settings["reader"]


@pytest.mark.parametrize("name", RECIPES)
def test_the_shares_of_one_card_leave_room(name):
    recipe = read_recipe(RECIPES[name])
    shares = [of["gpu_memory_utilization"] for of in (recipe.policy_settings, recipe.prm_settings)]
    assert min(shares) > 0
    assert sum(shares) <= 0.951


@pytest.mark.parametrize("name", RECIPES)
def test_its_evaluation_runs_as_it_stands(name, monkeypatch, tmp_path, engines):
    row = {"problem": "Add 4 + 5 + 6.", "answer": toy_answer("Add 4 + 5 + 6."), "unique_id": "a"}
    asked = []
    monkeypatch.setattr("adaptive_ttc.cli.batch.load_problems", lambda *words, **gold: asked.append(words) or [row])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    python, module, package, *words = shlex.split(read_recipe(RECIPES[name]).commands["evaluate"])
    assert (python, module, package) == ("python", "-m", "adaptive_ttc")
    assert main(words) == 0
    assert asked == [("HuggingFaceH4/MATH-500", None, None, None)]
    assert len(engines.policies) == len(engines.prms) == 1
    assert json.loads((tmp_path / f"{name}.json").read_text())["figures"]["problems"] == 1


@pytest.mark.parametrize("name", RECIPES)
def test_its_commands_are_about_itself(name):
    commands = {key: shlex.split(line) for key, line in read_recipe(RECIPES[name]).commands.items()}
    assert set(commands) == {"evaluate", "calibrate", "pareto"}
    for words in commands.values():
        assert words[words.index("--recipe") + 1] == f"recipes/{name}.toml"
        assert words[words.index("--dataset") + 1] == "HuggingFaceH4/MATH-500"


@pytest.mark.parametrize("name", RECIPES)
def test_calibration_and_pareto_know_their_options_and_share_what_is_drawn(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    commands = {key: shlex.split(line) for key, line in read_recipe(RECIPES[name]).commands.items()}
    assert commands["calibrate"][:3] == ["python", "-m", "calibration.fit"]
    assert commands["pareto"][:2] == ["python", "bench/pareto.py"]
    calibrate, judge = (
        fit.parser().parse_args(commands["calibrate"][3:]),
        pareto.parser().parse_args(commands["pareto"][2:]),
    )
    assert judge.store == calibrate.out / fit.UNITS
    assert judge.crossfit  # both are about the same problems
    assert judge.workers == calibrate.workers == 1  # every worker has engines of its own, and there is one card


NO_RECIPES = {
    "no TOML": ("[policy", "is not TOML"),
    "no policy": ("[prm]\nmodel = 'a/b'", r"names no model: give the table \[policy\]"),
    "no model": ("[policy]\ndtype = 'float32'", "names no model"),
    "a foreign table": (
        "[policy]\nmodel = 'a/b'\n[polcy]\nx = 1",
        r"holds polcy \(policy\?\); a recipe has",
    ),
    "no card": ("card_gib = '48 GB'\n[policy]\nmodel = 'a/b'", "must be the memory of the card in GiB"),
    "an endless card": ("card_gib = inf\n[policy]\nmodel = 'a/b'", "must be the memory of the card in GiB"),
    "commands that are none": ("[policy]\nmodel = 'a/b'\n[commands]\nx = 1", "each a string"),
}


@pytest.mark.parametrize("case", NO_RECIPES)
def test_what_is_no_recipe_is_refused_with_the_remedy(case, tmp_path):
    text, words = NO_RECIPES[case]
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_recipe(path)


def test_a_missing_recipe_is_named():
    with pytest.raises(ConfigError, match=r"none\.toml is no file, and no recipe of the package.*recipes/"):
        read_recipe("none.toml")


async def test_a_recipe_without_a_prm_has_none(tmp_path, engines):
    path = tmp_path / "own.toml"
    path.write_text("[policy]\nmodel = 'a/b'\nmax_batch = 8")
    async with Solver.recipe(path) as solver:
        assert solver.prm is None
    assert engines.policies == [
        ((loading.POLICY_GROUP, "transformers"), "a/b", {"max_batch": 8, "system_prompt": "auto"})
    ]


@pytest.mark.parametrize(
    ("beside", "named"),
    [(["--policy", "own", "--dtype", "float32"], "--policy, --dtype"), (["--engine", "openai"], "--engine")],
)
def test_a_recipe_and_models_of_ones_own_are_refused(beside, named, monkeypatch, capsys):
    monkeypatch.setattr(Solver, "load", None)
    assert main(["solve", "q", "--n", "1", "--recipe", str(next(iter(RECIPES.values()))), *beside]) == 2
    assert f"leave out {named}, or the recipe" in capsys.readouterr().err


def test_a_recipe_may_say_what_answers_are(tmp_path, engines, monkeypatch):
    path = tmp_path / "numbers.toml"
    path.write_text('answers = "number"\n[policy]\nmodel = "any"\n')
    with Solver.recipe(path) as solver:
        assert solver.grader.space.name == "number"
    with Solver.recipe(path, answers="choice") as solver:
        assert solver.grader.space.name == "choice"
    asked = []
    row = {"problem": "Add 4 + 5 + 6.", "answer": toy_answer("Add 4 + 5 + 6."), "unique_id": "a"}
    monkeypatch.setattr("adaptive_ttc.cli.batch.load_problems", lambda *words, **gold: asked.append(words) or [row])
    assert main(["eval", "--recipe", str(path), "--dataset", "sums", "--n", "1", "--strategy", "majority"]) == 0
    assert asked == [("sums", None, None, "number")]
    for text, told in (
        ('answers = "numbers"', "is no answer space"),
        ("answers = 7", "or an AnswerSpace"),
        ('answers = "code"', "yours to say"),
    ):
        path.write_text(f'{text}\n[policy]\nmodel = "any"\n')
        with pytest.raises(ConfigError, match=told):
            read_recipe(path)


def test_each_policy_of_a_recipe_is_asked_by_its_own_prompt(tmp_path, monkeypatch):
    recipe, file, given = tmp_path / "own.toml", tmp_path / "problems.jsonl", []
    recipe.write_text(
        "[policy]\nmodel = 'small'\nsystem_prompt = 'Think.'\n[second]\nmodel = 'large'\n[prm]\nmodel = 'prm'\n"
    )
    file.write_text(json.dumps({"question": "Which?", "choices": ["1", "2"], "answer": 1}))

    def load(*models, policy_settings, second_settings, **settings):
        given.append((policy_settings["system_prompt"], second_settings["system_prompt"]))
        raise ConfigError("far enough")

    monkeypatch.setattr(Solver, "load", load)
    assert main(["solve", "--n", "1", "--dataset", str(file), "--recipe", str(recipe)]) == 2
    assert given == [("Think.", "")]
