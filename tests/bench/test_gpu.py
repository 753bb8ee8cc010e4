"""What a GPU's measurement does without one: the recipes' arithmetic, dummies, processes that are cut, the report."""

import random
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from adaptive_ttc.configuration.recipe import read_recipe
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm import load_prm
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.prm.checkpoint import load_tokenizer
from adaptive_ttc.prm.families import qwen_math, rlhflow, skywork
from tests.bench.toys import load

ROOT = Path(__file__).parents[2]
README = (ROOT / "recipes" / "README.md").read_text()
RECIPES = {path.stem: path for path in sorted((ROOT / "recipes").glob("*.toml"))}
COMMENT = re.compile(
    r"# ([\d.]+) x ([\d.]+) = ([\d.]+) GiB; less weights ([\d.]+) and 1.5 for activations: ([\d.]+) GiB, (\d+)k tokens "
    r"of (\d+) KiB\ngpu_memory_utilization = ([\d.]+)\n"
    r"# (\d+)k / 700 tokens of a problem and its solution: (\d+) at once"
)
FAMILIES = {"rlhflow": rlhflow, "qwen-math": qwen_math, "skywork": skywork}


@pytest.fixture
def dummy(monkeypatch):
    return load(monkeypatch, "gpu_parts.dummy")


@pytest.fixture
def apart(monkeypatch):
    return load(monkeypatch, "gpu_parts.apart")


@pytest.fixture
def gpu(monkeypatch):
    module = load(monkeypatch, "gpu")
    monkeypatch.setattr(module, "libraries", lambda: "vllm 0")
    monkeypatch.setattr(module, "device_name", lambda device: "Card")
    return module


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipes_arithmetic_is_right(name, dummy):
    recipe = read_recipe(RECIPES[name])
    found = COMMENT.findall(RECIPES[name].read_text())
    models = [(recipe.policy, recipe.policy_settings), (recipe.prm, recipe.prm_settings)]
    assert len(found) == len(models)
    table = [line for line in README.splitlines() if f"`{name}` |" in line and "KiB" in line]
    for (model, settings), words in zip(models, found, strict=True):
        shape, numbers = dummy.shape_of(model), [float(word) for word in words]
        share, weights = settings["gpu_memory_utilization"], 2 * shape.parameters / 2**30
        room = share * recipe.card_gib - weights - 1.5
        tokens = room * 2**30 / shape.token_bytes / 1000
        assert numbers[:2] == [share, recipe.card_gib]
        assert numbers[7] == share
        assert numbers[2:5] == pytest.approx([share * recipe.card_gib, weights, room], abs=0.051)
        assert numbers[5] == numbers[8] == pytest.approx(tokens, abs=0.51)
        assert numbers[6] == shape.token_bytes / 1024
        assert numbers[9] == 1000 * numbers[5] // 700
        assert settings["max_num_seqs"] == min(256, numbers[9] // 8 * 8)
        assert settings["enable_prefix_caching"] is True
        assert all(f"- {words[3]} - 1.5 = {words[4]} GiB, {words[5]}k" in line for line in table)


def test_the_readme_says_a_recipe_for_each_card(gpu):
    assert {read_recipe(RECIPES[name]).card_gib for name in gpu.CARDS} == {22.5, 44.5, 79.2}
    rows = [line for line in README.splitlines() if " 1.5 = " in line and "KiB" in line]
    assert [line.split("`")[1] for line in rows] == list(gpu.CARDS)


@pytest.mark.parametrize("reader", FAMILIES)
def test_a_dummy_prm_is_read_by_its_family(reader, dummy, tmp_path):
    names = {"rlhflow": "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data", "qwen-math": "Qwen/Qwen2.5-Math-PRM-7B"}
    shape = dummy.tiny(dummy.shape_of(names.get(reader, "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B")))
    folder = dummy.write_dummy(shape, tmp_path / "prm", reader=reader)
    found = FAMILIES[reader].parts(folder, "cpu", "bfloat16").reader
    (row,) = found.render(ScoreRequest("What is 1 + 2?", (" ab c", " d e f")))
    assert len(row.positions) == 2
    assert max(row.token_ids) < shape.vocabulary
    states = torch.ones(2, shape.hidden)
    assert found.heads[0](states, row.targets).tolist() == [0.5, 0.5]
    with pytest.raises(ConfigError, match="a dummy for the PRM reader 'implicit' is not known"):
        dummy.write_dummy(shape, tmp_path / "other", reader="implicit")


def test_a_dummy_is_of_its_shape_and_says_what_it_writes(dummy, tmp_path):
    rng = random.Random(0)
    for name in ("meta-llama/Llama-3.2-1B-Instruct", "Qwen/Qwen2.5-7B-Instruct"):
        shape = dummy.shape_of(name)
        folder = dummy.write_dummy(dummy.tiny(shape), tmp_path / shape.kind)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
        assert sum(one.numel() for one in model.parameters()) == dummy.tiny(shape).parameters
        assert dummy.shape_of(str(folder)) == dummy.tiny(shape)
        tokenizer = load_tokenizer(folder)
        assert len(tokenizer) == dummy.tiny(shape).vocabulary
        drawn = [rng.randrange(261, len(tokenizer)) for _ in range(1000)]
        text = tokenizer.decode(drawn)
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
        assert 10 <= text.count("\n\n") <= 60
        assert len(tokenizer.encode(text, add_special_tokens=False)) == 1000 + text.count("\n\n")
    with pytest.raises(ConfigError, match="the shape of a/b is not known here"):
        dummy.shape_of("a/b")
    with pytest.raises(ConfigError, match="llama and qwen2 are"):
        dummy.Shape.of({"model_type": "mamba"})


async def test_a_prm_with_random_weights_tells_steps_apart(dummy, tmp_path):
    shape = dummy.tiny(dummy.shape_of("Qwen/Qwen2.5-0.5B-Instruct"))
    prm = load_prm(dummy.write_random(shape, tmp_path / "prm", device="cpu", dtype="float32"), reader="qwen-math")
    scored = await prm.score(ScoreRequest("What is 1 + 2?", ("ab c", "d e f")))
    assert len(set(scored.scores)) == 2
    assert all(0 < one < 1 for one in scored.scores)
    await prm.aclose()


SAYS = """printf 'loading\\nfigures: ["a", {"x": 1.5}]\\n'; """


@pytest.mark.parametrize(
    ("then", "limit", "note"),
    [
        ("exec tail -f /dev/null", 1.0, "Cut after 1 seconds."),
        ("exit 3", 60, "Failed, with exit status 3."),
        ("", 60, ""),
    ],
)
def test_what_was_said_is_kept_whatever_becomes_of_the_process(then, limit, note, apart, tmp_path, capfd):
    report = apart.Report(tmp_path / "GPU.md", "Card", "By hand.")
    assert apart.run_apart(["sh", "-c", SAYS + then], limit, {}, report.hear) == note
    assert report.figures == {"a": {"x": 1.5}}
    text = (tmp_path / "GPU.md").read_text()
    assert "### a, on Card\n\nBy hand.\n\n| figure | value |\n| --- | ---: |\n| `x` | 1.5 |" in text
    told = capfd.readouterr()
    assert (told.out, told.err) == ("a  x  1.5\n", "loading\n")


def test_parts_run_one_after_another_and_each_has_its_section(gpu, monkeypatch, tmp_path):
    asked = []

    def run_apart(command, limit, environment, heard):
        asked.append((command[command.index("--only") + 1 :], limit, "--eager" in command))
        part = gpu.title(asked[-1][0][0])
        heard(part, {})
        if len(asked) == 2:
            return "Cut after 90 seconds."
        heard(part, {"y": 2})
        return ""

    monkeypatch.setattr(gpu, "run_apart", run_apart)
    out = tmp_path / "GPU.md"
    assert gpu.main(["--out", str(out)]) == 1
    assert [gpu.title(parts[0]) for parts, _, _ in asked] == [*gpu.LIMITS, *(f"recipe {name}" for name in gpu.CARDS)]
    assert all(Path(parts[0].partition(":")[2]).exists() for parts, _, _ in asked[len(gpu.LIMITS) :])
    assert all(0 < limit <= gpu.TOTAL < 8 * 60 for _, limit, _ in asked)
    assert all(eager for _, _, eager in asked)
    text = out.read_text()
    assert text.count("| `y` | 2 |") == len(asked) - 1
    assert "| --- | ---: |\n\nCut after 90 seconds." in text
    asked.clear()
    own = str(ROOT / "recipes" / "qwen2.5-7b_qwen-prm-7b.toml")
    assert gpu.main(["--device", "cpu", "--parts", "beams", "--dummy", own]) == 0
    assert [(parts, eager) for parts, _, eager in asked] == [(["beams", f"recipe:{own}"], False)]
    monkeypatch.setattr(gpu, "TOTAL", 0)
    assert gpu.main(["--out", str(out), "--parts", "overhead"]) == 1
    assert "Not begun: the time was over." in out.read_text()
    assert gpu.main(["--parts", "beam"]) == 2


@pytest.mark.parametrize(
    ("name", "told"), [("qwen2.5-1.5b_judge", "does not run both"), ("qwen2.5-1.5b_thinkprm-1.5b", "shape of launch")]
)
def test_a_recipe_that_no_dummies_stand_for_is_refused_early(name, told, gpu, capsys):
    assert gpu.main(["--dummy", str(ROOT / "recipes" / "verifiers" / f"{name}.toml")]) == 2
    assert told in capsys.readouterr().err
