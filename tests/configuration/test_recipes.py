"""Recipes that come with the package, by name, and what a recipe says of requests, servers and calibrations."""

import dataclasses
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import adaptive_ttc
from adaptive_ttc import loading
from adaptive_ttc.cli import main, serve
from adaptive_ttc.cli.options import load_solver
from adaptive_ttc.configuration.defaults import check_defaults, of_pools, with_defaults
from adaptive_ttc.configuration.recipe import SERVED, SHIPPED, read_recipe, recipe_names
from adaptive_ttc.errors import CalibrationError, ConfigError
from adaptive_ttc.estimate.pair_calibration import SelectedCalibration
from adaptive_ttc.loading import MINI_CALIBRATION, MINI_POLICY, MINI_PRM
from adaptive_ttc.policies.cascade import Cascade
from adaptive_ttc.policies.fake import FakePolicy, toy_right_so_far
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.serve.config import ServeConfig
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies import make_strategy

ROOT = Path(adaptive_ttc.__file__).parent.parent
QUESTION = "Evaluate $6 \\cdot 3 - 8$."


def written(path, *lines, models=True):
    pair = [f"[policy]\nmodel = {str(MINI_POLICY)!r}", f"[prm]\nmodel = {str(MINI_PRM)!r}"] if models else []
    file = path / "own.toml"
    file.write_text("\n".join([*lines, *pair]))
    return file


def test_every_recipe_of_the_clone_comes_with_the_package():
    assert set(recipe_names()) == {path.stem for path in (ROOT / "recipes").rglob("*.toml")}
    assert len(recipe_names()) == len(list(SHIPPED.rglob("*.toml"))) > 6
    for name in recipe_names():
        assert read_recipe(name).name == name


def test_a_recipe_is_loaded_by_its_name(monkeypatch):
    asked = []

    class Engine:
        def from_pretrained(self, model, **settings):
            asked.append(model)
            return FakePolicy.generative()

        def from_family(self, family, model, **settings):
            asked.append(model)
            return FakePRM.truthful(toy_right_so_far)

    monkeypatch.setattr(loading, "_entry", lambda group, kind, name: Engine())
    Solver.recipe("llama-3.2-1b_rlhflow-8b").close()
    assert asked == ["RLHFlow/Llama3.1-8B-PRM-Deepseek-Data", "meta-llama/Llama-3.2-1B-Instruct"]
    assert main(["solve", "Add 1 + 2.", "--n", "1", "--recipe", "qwen2.5-1.5b_judge"]) == 0
    assert len(asked) == 4


def test_an_unknown_name_is_answered_with_those_that_there_are():
    with pytest.raises(ConfigError) as told:
        Solver.recipe("llama-3.2-1b_rlhflow8b")
    assert "did you mean llama-3.2-1b_rlhflow-8b?" in str(told.value)
    assert all(name in str(told.value) for name in recipe_names())


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("[solve]\nstrateg = 'majority'", r"in the table \[solve\], nothing is called strateg \(strategy\?\)"),
        ("[solve]\nstrategy = 'majorit'", "unknown strategy 'majorit'"),
        ("[solve]\nstrategy = 'beam_search'\nn = 5\nbeam_width = 4", "n=5 is not a multiple"),
        ("[solve]\nstrategy = 'majority'", "majority needs n"),
        ("[solve]\nn = 4\nmin_gain = 0.1", "min_gain says where a budget alone ends"),
        ("[solve]\nbudget_tokens = '4'", "budget_tokens is a whole number"),
        ("[solve]\ntemperature = 'hot'", "wrong type"),
        ("[solve]\ndeadline = -1", "deadline is a number of seconds"),
        ("[solve]\ncount = 'words'", "unknown count 'words'"),
        ("[solve]\nseed = 'x'", "seed is a whole number"),
        ("solve = 3", "solve is a table"),
        ("[serve]\ndefault_bugdet = 4", r"holds default_bugdet \(default_budget\?\)"),
        ("[serve]\nhost = '0.0.0.0'", r"leave host out of the table \[serve\]; whom to serve is yours to say"),
        ("serve = 3", "serve is a table"),
        ("[serve]\nport = '8000'", r"in the table \[serve\], port = '8000' must be a whole number"),
        ("[serve]\nmax_body = true", "max_body = True must be a whole number"),
        ("[serve]\nkeep_alive = 'x'", "keep_alive = 'x' must be a number of seconds"),
        ("[serve]\nname = 5", "name = 5 must be a text"),
        ("[solve]\nbudget_tokens = 0", r"in the table \[solve\], budget_tokens=0 does not pay for one token"),
        ("calibration = 3", "must be a folder"),
    ],
)
def test_what_a_recipe_says_is_checked_when_it_is_read(lines, told, tmp_path):
    file = tmp_path / "own.toml"
    head, _, rest = lines.partition("[")
    file.write_text(f"{head}\n[policy]\nmodel = 'a/b'\n" + (f"[{rest}" if rest else ""))
    with pytest.raises(ConfigError, match=told):
        read_recipe(file)


def test_a_strategy_that_needs_a_prm_needs_one_in_the_recipe(tmp_path):
    lines = "[solve]\nstrategy = 'weighted_best_of_n'\nn = 4"
    assert read_recipe(written(tmp_path, lines)).solve == {"strategy": "weighted_best_of_n", "n": 4}
    file = tmp_path / "alone.toml"
    file.write_text(f"[policy]\nmodel = 'a/b'\n{lines}")
    with pytest.raises(ConfigError, match=r"\[solve\].*needs a PRM"):
        read_recipe(file)


SAID = {"strategy": "beam_search", "n": 8, "beam_width": 4, "temperature": 0.5, "vote": "best", "budget_tokens": 900}


def test_a_call_takes_what_it_does_not_say_and_nothing_of_another_strategy():
    assert with_defaults(SAID, {"n": None}) == SAID
    assert with_defaults(SAID, {"budget_tokens": 300}) == {**SAID, "budget_tokens": 300}
    assert with_defaults(SAID, {"n": 16}) == {**SAID, "n": 16}
    assert with_defaults(SAID, {"strategy": "greedy"}) == {
        "strategy": "greedy", "temperature": 0.5, "budget_tokens": 900,
    }  # fmt: skip
    configured = make_strategy("majority", n=3)
    assert with_defaults(SAID, {"strategy": configured}) == {"strategy": configured, "budget_tokens": 900}
    free = {"budget_tokens": 900, "min_gain": 0.1, "max_rounds": 3, "temperature": 0.5}
    assert with_defaults(free, {"n": 4}) == {"budget_tokens": 900, "temperature": 0.5, "n": 4}
    assert of_pools(SAID) == {"temperature": 0.5, "vote": "best"}
    assert of_pools(free) == {"min_gain": 0.1, "max_rounds": 3, "temperature": 0.5}
    check_defaults(SAID, prm=True)


def test_a_solver_takes_its_recipes_defaults_and_calibration(tmp_path):
    (tmp_path / "fitted").symlink_to(MINI_CALIBRATION)
    solve = "[solve]\nstrategy = 'majority'\nn = 3\nmax_tokens = 60\ncount = 'generated+prm'"
    with Solver.recipe(written(tmp_path, "calibration = 'fitted'", solve), seed=1) as solver:
        solution = solver.solve_sync(QUESTION)
        assert (solution.strategy.name, solution.strategy.n, solution.count) == ("majority", 3, "generated+prm")
        assert solver.solve_sync(QUESTION, n=2).strategy.n == 2
        assert solver.solve_sync(QUESTION, strategy="greedy", count="generated").spent <= 60
    with Solver.recipe(written(tmp_path, "calibration = 'fitted'")) as solver:
        assert solver.solve_sync(QUESTION, budget_tokens=300).spent <= 300  # without a warning: it has a calibration
    with pytest.raises(CalibrationError, match="nowhere"):
        Solver.recipe(written(tmp_path, "calibration = 'nowhere'"))
    Solver.recipe(written(tmp_path, "calibration = 'nowhere'"), rule="adaptive_consistency").close()
    Solver.recipe(written(tmp_path, "calibration = 'nowhere'"), calibration=None).close()


async def test_many_problems_take_how_samples_are_drawn(tmp_path):
    lines = "[solve]\nstrategy = 'majority'\nn = 3\nmax_tokens = 60\nbudget_tokens = 50"
    async with Solver.recipe(written(tmp_path, lines), seed=1, rule="adaptive_consistency") as solver:
        (solution,) = await solver.solve_many([QUESTION], budget_tokens=400)
        assert solution.strategy.name == "adaptive"
        assert 0 < max(len(one.prefix.token_ids) for one in solution.candidates) <= 60


def test_the_command_line_takes_them_and_its_options_win(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    file = written(tmp_path, "[solve]\nstrategy = 'majority'\nn = 3\nmax_tokens = 60")
    for beside, n in (([], 3), (["--n", "2"], 2)):
        assert main(["solve", QUESTION, "--recipe", str(file), "--json", "-", *beside]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["strategy"], told["n"]) == ("majority", n)


def test_a_server_takes_what_the_recipe_says_and_options_win(tmp_path, monkeypatch):
    served = []

    def stop(options, *rest, **settings):
        served.append(settings)
        raise ConfigError("far enough")

    config = []
    monkeypatch.setattr(serve, "load_solver", stop)
    monkeypatch.setattr("adaptive_ttc.serve.ServeConfig", lambda **said: config.append(said) or ServeConfig(**said))
    file = written(
        tmp_path,
        "[serve]\nname = 'ours'\nmost_budget = 9000\nport = 0",
        "[solve]\nbudget_tokens = 700\nmax_tokens = 90",
    )
    assert main(["serve", "--recipe", str(file), "--most-budget", "800", "--max-waiting", "3"]) == 2
    (said,) = config
    assert (said["model"], said["default_budget"], said["most_budget"], said["max_waiting"]) == ("ours", 700, 800, 3)
    assert served == [{"defaults": True}]


def test_a_recipe_can_say_all_of_a_server_but_whom_it_serves():
    fields = {field.name for field in dataclasses.fields(ServeConfig)}
    assert {*SERVED, "model", "keys", "cors_origins"} - {"name", "port"} == fields


def test_calibrations_and_measurements_take_none_of_it(tmp_path):
    from adaptive_ttc.calibration.fit.__main__ import parser

    file = written(tmp_path, "calibration = 'nowhere'", "[solve]\nn = 3")
    options = parser().parse_args(["--recipe", str(file), "--out", str(tmp_path / "out")])
    with load_solver(options, 1) as solver:
        assert solver.defaults == {}


@pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import hatchling"], capture_output=True, check=False).returncode != 0,
    reason="hatchling, which builds the wheel, is not installed",
)
def test_the_wheel_holds_them(tmp_path):
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", build, tmp_path], cwd=ROOT, check=True, capture_output=True, text=True)
    names = zipfile.ZipFile(tmp_path / done.stdout.split()[-1]).namelist()
    held = {Path(name).stem for name in names if name.startswith("adaptive_ttc/recipes/") and name.endswith(".toml")}
    assert held == set(recipe_names())
    # what the documentation calls, in folders of the package's own
    assert {"adaptive_ttc/calibration/show.py", "adaptive_ttc/calibration/fit/__main__.py"} <= set(names)
    assert {"adaptive_ttc/policies/openai/policy.py", "adaptive_ttc/recipes/README.md"} <= set(names)


def test_budgets_may_be_written_with_an_exponent(tmp_path):
    lines = ["[solve]\ncount = 'flops'\nbudget_tokens = 2e15", "[serve]\nmost_budget = 1e18\ntotal_budget = 1_000e18"]
    recipe = read_recipe(written(tmp_path, *lines))
    assert (str(recipe.solve["budget_tokens"]), str(recipe.serve["most_budget"])) == ("2" + 15 * "0", "1" + 18 * "0")
    for line in ("[solve]\nbudget_tokens = 2.5", "[serve]\nmost_budget = 2.5"):
        with pytest.raises(ConfigError, match=r"2\.5"):
            read_recipe(written(tmp_path, line))


def test_the_documented_recipe_is_one(tmp_path):
    page = (ROOT / "docs" / "configuration.md").read_text()
    file = tmp_path / "own.toml"
    file.write_text(page.partition("```toml\n")[2].partition("```")[0])
    recipe = read_recipe(file)
    assert recipe.calibration == tmp_path / "calibrated/own"
    assert recipe.solve == {"budget_tokens": 8000, "max_tokens": 1024}
    assert recipe.serve == {"name": "qwen-small", "most_budget": 50000}


# ---- a second policy --------------------------------------------------------------------------------------------


@pytest.fixture
def pairs(monkeypatch):
    """What was loaded: names, and settings of the engines."""
    asked = []

    class Engine:
        def __init__(self, name):
            self.name = name

        def from_pretrained(self, model, **settings):
            asked.append((self.name, model, settings))
            size = {"small": 10, "large": 50}[model]
            return FakePolicy.generative(name=model, parameters=size)

        def from_family(self, family, model, **settings):
            return FakePRM.truthful(toy_right_so_far)

    monkeypatch.setattr(loading, "_entry", lambda group, kind, name: Engine(name))
    monkeypatch.setattr(SelectedCalibration, "__init__", lambda self, *given, **rest: None)
    return asked


SECOND = "[policy]\nmodel = 'small'\nengine = 'fake'\nmax_batch = 4"


def test_a_recipe_names_a_second_policy_with_its_engine_settings_and_weight(tmp_path, pairs):
    table = "[second]\nmodel = 'large'\nengine = 'other'\nmax_batch = 2\nweight = 3"
    with Solver.recipe(written(tmp_path, SECOND, table, models=False)) as solver:
        assert isinstance(solver.policy, Cascade)
        assert (solver.policy.name, solver.policy.second_weight) == ("small then large", 3)
    assert [(engine, model, settings["max_batch"]) for engine, model, settings in pairs] == [
        ("fake", "small", 4), ("other", "large", 2),
    ]  # fmt: skip
    with Solver.recipe(written(tmp_path, SECOND, "[second]\nmodel = 'large'", models=False)) as solver:
        assert solver.policy.second_weight == 5
    assert pairs[-1][:2] == ("fake", "large")
    assert "max_batch" not in pairs[-1][2], "settings of one policy are not those of the other"


def test_either_policy_of_a_recipe_is_drawn_alone(tmp_path, pairs):
    from adaptive_ttc.calibration.collect.__main__ import parser, policies_of

    file = written(tmp_path, SECOND, "[second]\nmodel = 'large'\nmax_batch = 2", models=False)
    options = parser().parse_args(["--recipe", str(file), "--store", "none"])
    names = []
    for part in policies_of(options):
        with load_solver(part, 1) as solver:
            names.append(solver.policy.name)
    assert names == ["small", "large"]
    assert [settings["max_batch"] for *_, settings in pairs] == [4, 2]
    assert main(["solve", "1 + 1?", "--n", "1", "--second", "large", "--recipe", str(file)]) == 2


def test_a_key_and_trust_are_for_the_second_too(tmp_path, monkeypatch):
    monkeypatch.setenv("KEY", "k")
    served = "[second]\nmodel = 'large'\nengine = 'openai'"
    read = read_recipe(written(tmp_path, SECOND, served, models=False))
    assert read.arguments(api_key_env="KEY")["second_settings"]["api_key_env"] == "KEY"
    read = read_recipe(written(tmp_path, SECOND, served.replace("openai", "vllm"), models=False))
    assert read.arguments(trust_remote_code=True)["second_settings"]["trust_remote_code"] is True


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("[second]\nweight = 3", r"give the table \[second\] an entry model"),
        ("[second]\nmodel = 'large'\nweight = 0.5", r"weight = 0.5 must be a number of at least 1"),
        ("[second]\nmodel = 'large'\nweight = '3'", "must be a number"),
        ("[second]\nmodel = 'large'\nweight = nan", "must be a number"),
        ("[second]\nmodel = 'large'\napi_key_env = 'KEY'", r"leave api_key_env out of the table \[second\]"),
    ],
)
def test_a_second_policy_that_cannot_be_is_told(tmp_path, table, told):
    with pytest.raises(ConfigError, match=told):
        read_recipe(written(tmp_path, SECOND, table, models=False))


def test_the_command_line_refuses_what_is_of_no_second_policy(capsys):
    asked = ["solve", "1 + 1?", "--n", "1"]
    for words, told in (
        (["--second-weight", "2"], "--second-weight is of a second policy"),
        (["--recipe", "qwen2.5-7b_qwen-prm-7b", "--second", "x"], "leave out --second"),
        (["--recipe", "qwen2.5-7b_qwen-prm-7b", "--second-weight", "2"], "leave out --second-weight"),
    ):
        assert main([*asked, *words]) == 2
        assert told in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        main(["solve", "--help"])
    assert "--second MODEL" in capsys.readouterr().out
