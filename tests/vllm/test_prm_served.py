"""A PRM with a head of its own behind vLLM's server: its scores over HTTP are those of the transformers engine."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

pytest.importorskip("vllm")

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policies.vllm.plugin import QWEN2_BACKBONE
from adaptive_ttc.prm import ScoreRequest, load_prm
from adaptive_ttc.prm.checkpoint import load_tokenizer
from tests.prm.tiny import REQUESTS
from tests.prm.tiny_outcome import save_outcome
from tests.vllm.openai_servers import start
from tests.vllm.prm_folders import write


async def test_scores_over_http_are_those_of_the_transformers_engine(tmp_path: Path) -> None:
    folder = write("qwen-math", tmp_path / "model")
    (server,) = start(
        tmp_path, 1, "--model", str(folder), "--served-model-name", "verifier", "--runner", "pooling",
        "--convert", "embed", "--pooler-config", json.dumps({"task": "token_embed"}),
        "--hf-overrides", json.dumps({"architectures": [QWEN2_BACKBONE]}), "--max-model-len", "512",
        "--num-gpu-blocks-override", "512",
    )  # fmt: skip
    try:
        url = server.url.removesuffix("/v1")
        prm = load_prm(folder, engine="served", url=url, model="verifier", dtype="float32", max_context=512)
        local = load_prm(folder)
        assert (prm.fingerprint, prm.parameters) == (local.fingerprint, local.parameters)
        for _ in range(2):
            got = await asyncio.gather(*map(prm.score, REQUESTS))
            for request, scored in zip(REQUESTS, got, strict=True):
                expected = await local.score(request)
                assert scored.scores == pytest.approx(expected.scores, abs=1e-4)
        assert all(scored.prm_tokens == 0 for scored in got), "the second time all is known"
        other = load_prm(folder, engine="served", url=url, model="another", dtype="float32")
        with pytest.raises(ConfigError, match=r"another at .* refuses a request with 404"):
            await other.score(ScoreRequest("1 + 1", ("2",)))
        for one in (prm, local, other):
            await one.aclose()
    finally:
        server.kill()


async def test_outcome_models_over_classify_and_score(tmp_path: Path) -> None:
    folder = save_outcome(tmp_path / "model")
    (server,) = start(
        tmp_path, 1, "--model", str(folder), "--served-model-name", "judge", "--runner", "pooling",
        "--model-impl", "vllm", "--max-model-len", "512", "--num-gpu-blocks-override", "512",
    )  # fmt: skip
    try:
        told = {"engine": "served", "url": server.url.removesuffix("/v1"), "model": "judge", "dtype": "float32"}
        local, prm, logits = load_prm(folder), load_prm(folder, **told), load_prm(folder, logits=True, **told)
        for request in REQUESTS:
            expected = await local.score(request)
            for one in (prm, logits):
                scored = await one.score(request)
                assert scored.scores == pytest.approx(expected.scores, abs=1e-4)
                assert scored.prm_tokens == one.count_tokens(request) == local.count_tokens(request)
        pair = load_prm(folder, pooling="score", **told)
        scored = await pair.score(REQUESTS[0])
        assert 0 <= scored.scores[0] <= 1
        assert scored.prm_tokens > 0
        for one in (local, prm, logits, pair):
            await one.aclose()
    finally:
        server.kill()


async def test_step_pooling_over_http(tmp_path: Path) -> None:
    folder = write("qwen-math", tmp_path / "model")
    step = load_tokenizer(folder).convert_tokens_to_ids("<extra_0>")
    (server,) = start(
        tmp_path, 1, "--model", str(folder), "--served-model-name", "verifier", "--runner", "pooling",
        "--pooler-config", json.dumps({"task": "token_classify", "tok_pooling_type": "STEP", "step_tag_id": step}),
        "--max-model-len", "512", "--num-gpu-blocks-override", "512",
    )  # fmt: skip
    try:
        url = server.url.removesuffix("/v1")
        prm = load_prm(folder, engine="served", url=url, model="verifier", dtype="float32", pooling="steps")
        local = load_prm(folder)
        for request in REQUESTS:
            expected = await local.score(request)
            assert (await prm.score(request)).scores == pytest.approx(expected.scores, abs=1e-4)
        for one in (local, prm):
            await one.aclose()
    finally:
        server.kill()
