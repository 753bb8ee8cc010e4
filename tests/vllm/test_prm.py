"""PRMs of every family on the real engine: the scores of the transformers engine, and only new steps computed."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.loading import MINI_PRM
from adaptive_ttc.policies.vllm import CPU_SETTINGS, EngineHost
from adaptive_ttc.policies.vllm.prm import EngineStates, engine_settings
from adaptive_ttc.prm import RewardModel, Scored, ScoreRequest, load_prm
from adaptive_ttc.prm.checkpoint import load_tokenizer, read_config, read_output_head
from adaptive_ttc.prm.families.implicit import ImplicitConfig, ImplicitReader
from adaptive_ttc.prm.remote import RemoteModel, RemotePRM
from tests.conformance.prm_suite import CHECKS, PRMCase
from tests.prm.tiny import REQUESTS
from tests.prm.tiny_outcome import save_outcome
from tests.vllm.prm_folders import write

# few cache blocks: an engine for tiny models would make a hundred thousand of a GiB
SETTINGS: dict[str, Any] = {**CPU_SETTINGS, "max_num_seqs": 32, "max_model_len": 512, "num_gpu_blocks_override": 512}
LONG = ScoreRequest(
    "What is 3 + 4 - 2? Say how you know, and check what you have got by adding it all up again.",
    tuple(f"We add {k} to {k + 1} and get {2 * k + 1}, which we keep for the next step." for k in range(5)),
)


async def compare(
    folder: Path, reader: str, requests: tuple[ScoreRequest, ...], **settings: Any
) -> tuple[RewardModel, list[Scored]]:
    """Score with both engines; the one on vLLM and its answers."""
    local = load_prm(folder, reader=reader)
    prm = load_prm(folder, reader=reader, engine="vllm", **SETTINGS, **settings)
    expected = await asyncio.gather(*map(local.score, requests))
    got = list(await asyncio.gather(*map(prm.score, requests)))
    for request, a, b in zip(requests, got, expected, strict=True):
        assert a.scores == pytest.approx(b.scores, abs=1e-4)
        assert a.prm_tokens + a.cached_tokens == prm.count_tokens(request) == local.count_tokens(request)
    assert (prm.parameters, prm.fingerprint, prm.name) == (local.parameters, local.fingerprint, local.name)
    await local.aclose()
    return prm, got


FAMILIES = {
    "rlhflow-llama": ("llama", "rlhflow"),
    "rlhflow-mistral": ("mistral", "rlhflow"),
    "qwen-math": ("qwen-math", "qwen-math"),
    "skywork": ("skywork", "skywork"),
    "math-shepherd": ("math-shepherd", "math-shepherd"),
    "self-verification": ("llama", "self-verification"),
}


@pytest.mark.parametrize("name", FAMILIES)
async def test_scores_are_those_of_the_transformers_engine(name: str, tmp_path: Path) -> None:
    kind, reader = FAMILIES[name]
    short = tuple(ScoreRequest(one.question, one.steps[:4]) for one in REQUESTS)
    prm, _ = await compare(write(kind, tmp_path), reader, short)
    counts, spent = [0], []
    for k in range(1, len(LONG.steps) + 1):
        request = ScoreRequest(LONG.question, LONG.steps[:k])
        scored = await prm.score(request)
        counts.append(prm.count_tokens(request))
        spent.append(scored.prm_tokens)
    again = await prm.score(LONG)
    assert (again.prm_tokens, again.scores) == (0, scored.scores)
    new = [b - a for a, b in itertools.pairwise(counts)]
    if name == "self-verification":
        assert sum(spent) < 0.6 * counts[-1]
    else:
        # whole blocks are cached, and the last one is computed again
        assert all(tokens <= step + 2 * CPU_SETTINGS["block_size"] for tokens, step in zip(spent, new, strict=True))
        assert sum(spent) < 0.6 * sum(counts)
    await prm.aclose()


class Lent(EngineStates):
    """States from an engine that others go on using when this one is closed."""

    closed = False

    async def states(self, token_ids: tuple[int, ...], *, whole: bool) -> Any:
        if self.closed:
            raise EngineError("this PRM is closed")
        return await super().states(token_ids, whole=whole)

    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def hosts() -> Any:
    """Engines with the two models of the embedded PRM."""
    folders = [MINI_PRM / name for name in ("clean", "noisy")]
    made = [EngineHost(folder.name, engine_settings(folder, SETTINGS)) for folder in folders]
    yield made

    async def close() -> None:
        for host in made:
            await host.aclose()

    asyncio.run(close())


def mini(hosts: list[EngineHost], *, scale: float | None = None) -> RemotePRM:
    """The embedded PRM; ``scale`` takes the place of the one that its scores were fitted with."""
    config = ImplicitConfig.of(read_config(MINI_PRM))
    heads = [read_output_head(MINI_PRM / name) for name in (config.tuned, config.reference)]
    config = dataclasses.replace(config, scale=scale or config.scale)
    reader = ImplicitReader(load_tokenizer(MINI_PRM / config.tuned), heads[0], heads[1], config)
    models = [RemoteModel(Lent(host), head) for host, head in zip(hosts, reader.heads, strict=True)]
    return RemotePRM(reader, models, name="mini", fingerprint="mini", parameters=1)


@pytest.mark.parametrize("check", CHECKS)
async def test_conformance(check: str, hosts: list[EngineHost]) -> None:
    for host in hosts:
        # what another PRM had them read is nothing that this one remembers
        await host.call(lambda engine: engine.reset_prefix_cache())
    # so small a scale that no score is 0 or 1, whatever the suite's texts are to this model
    await CHECKS[check](PRMCase("vllm-mini", lambda: mini(hosts, scale=0.01), tolerance=1e-4, long=5000))


async def test_the_embedded_prm_scores_as_in_this_process(hosts: list[EngineHost]) -> None:
    prm, local = mini(hosts), load_prm(MINI_PRM)
    for request in (*REQUESTS[:3], LONG):
        got, expected = await prm.score(request), await local.score(request)
        assert got.scores == pytest.approx(expected.scores, abs=1e-4)
    await local.aclose()


async def test_what_the_engine_has_but_nobody_remembers_is_computed_whole(hosts: list[EngineHost]) -> None:
    first, forgetful = mini(hosts), mini(hosts)
    expected = await first.score(LONG)
    got = await forgetful.score(LONG)
    assert got.scores == pytest.approx(expected.scores, abs=1e-5)
    assert got.prm_tokens >= forgetful.count_tokens(LONG)


def test_settings_that_the_prm_decides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="convert cannot be set"):
        load_prm(MINI_PRM, engine="vllm", convert="classify")
    with pytest.raises(ConfigError, match="int8"):
        load_prm(write("llama", tmp_path), reader="rlhflow", engine="vllm", dtype="int8")


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
async def test_outcome_models_are_read_by_the_engines_own_head(kind: str, tmp_path: Path) -> None:
    folder = save_outcome(tmp_path, kind)
    short = tuple(ScoreRequest(one.question, one.steps[:4]) for one in REQUESTS)
    prm, _ = await compare(folder, "outcome", short)
    again = await prm.score(short[0])
    assert again.prm_tokens < prm.count_tokens(short[0]) or prm.count_tokens(short[0]) < 2 * CPU_SETTINGS["block_size"]
    await prm.aclose()
    with pytest.raises(ConfigError, match="does not serve an outcome model in vLLM"):
        load_prm(folder, engine="vllm", pooling="steps", **SETTINGS)


@pytest.mark.parametrize("name", ["qwen-math", "math-shepherd"])
async def test_step_pooling_gives_the_scores_of_our_own_heads(name: str, tmp_path: Path) -> None:
    short = tuple(ScoreRequest(one.question, one.steps[:4]) for one in REQUESTS)
    folder = write(name, tmp_path)
    prm, got = await compare(folder, name, short, pooling="steps")
    assert all(one.cached_tokens == 0 for one in got), "its pooling reads every row whole"
    await prm.aclose()
