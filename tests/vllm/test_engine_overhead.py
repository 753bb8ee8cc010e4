"""The bench of the solver's cost on the engine: what it writes is complete and hangs together."""

import importlib
import re
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="make test-vllm runs it in an environment with vLLM")

from adaptive_ttc.loading import MINI_POLICY
from tests.vllm import engines


async def test_a_small_run_gives_every_figure(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
    overhead = importlib.import_module("engine_overhead")
    figures = await overhead.measure(engines.host(engines.WIDE), MINI_POLICY, limit=6, n=4, rounds=1, seed=0)
    named = set(re.findall(r"``([a-z_]+)``", overhead.__doc__)) - {"n"}
    assert named <= set(figures)
    assert all(value > 0 for name, value in figures.items() if name != "prefix_cache_hit_share")
    assert 0 <= figures["prefix_cache_hit_share"] < 1
    ratio = figures["solver_tokens_per_s"] / figures["bare_tokens_per_s"]
    assert figures["throughput_ratio"] == pytest.approx(ratio)
