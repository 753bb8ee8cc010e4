"""The GPU's measurement on the CPU build, with tiny shapes: each part says all its figures."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="make test-vllm runs it in an environment with vLLM")

from tests.vllm import engines

ROOT = Path(__file__).parents[2]
SEARCH = ("seconds", "tokens_per_s", "scores_per_s", "prm_tokens_per_s", "tokens_per_problem")


@pytest.fixture
def parts(monkeypatch):
    """The parts, on the policy's engine that the other tests use."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    module = importlib.import_module("gpu_parts.parts")
    monkeypatch.setattr(module.VLLMPolicy, "from_pretrained", lambda *model, **settings: engines.policy())
    return module


def test_a_recipe_and_a_shape_are_measured_without_weights(tmp_path):
    out = tmp_path / "GPU.md"
    recipe = ROOT / "recipes" / "qwen2.5-1.5b_skywork-1.5b.toml"
    words = ["--device", "cpu", "--quick", "--parts", "shape_1b", "--dummy", str(recipe), "--out", str(out)]
    command = [sys.executable, str(ROOT / "bench" / "gpu.py"), *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800)
    assert ended.returncode == 0, ended.stderr[-4000:]
    sections = {one: figures(text) for one, text in re.findall(r"### (.*?), on CPU\n(.*?)<!--", out.read_text(), re.S)}
    assert set(sections) == {"shape_1b", f"recipe {recipe.stem}"}
    wanted = {"fast_ratio", "unseeded_tokens_per_s", "fastest_tokens_per_s", "parameters", "max_tokens"}
    assert wanted <= set(sections["shape_1b"])
    named = {f"{one}.{work}" for one in SEARCH for work in ("weighted", "beams")}
    named |= {f"{one}_{what}" for one in ("policy", "prm") for what in ("parameters", "tokens")}
    assert named == set(sections[f"recipe {recipe.stem}"])
    assert all(value > 0 for one in sections.values() for value in one.values())


def figures(text: str) -> dict[str, float]:
    """Those of a section."""
    return {name: float(value.replace(",", "")) for name, value in re.findall(r"\| `(.*?)` \| (.*?) \|", text)}


async def test_ways_to_read_a_prm_are_measured_beside_the_policy(parts):
    told = {}
    await parts.prm_paths(parts.Setting("cpu", quick=True), told.update)
    ways = ("vllm_states", "vllm_scores", "in_process")
    assert set(told) == {*(f"{one}.{way}" for one in (*SEARCH, "accuracy") for way in ways), "problems", "n"}
    assert all(told[f"{one}.{way}"] > 0 for one in SEARCH for way in ways)


class Lent:
    """An engine that others go on using when this one is closed."""

    def __init__(self, name, settings):
        self._host = engines.host(engines.WIDE)

    def __getattr__(self, name):
        return getattr(self._host, name)

    async def aclose(self):
        """The engine stays."""


async def test_the_solver_is_measured_against_the_bare_engine(parts, monkeypatch):
    told = {}
    monkeypatch.setattr(parts, "EngineHost", Lent)
    await parts.overhead(parts.Setting("cpu", quick=True), told.update)
    wanted = {"fast_ratio", "throughput_ratio", "seedless_requests_ratio", "seeds_ratio", "logprobs_ratio"}
    assert wanted <= {name for name, value in told.items() if value > 0}
