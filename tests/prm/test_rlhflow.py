"""The RLHFlow reader against the published evaluation, batched and alone, and on models that it must refuse."""

from __future__ import annotations

import asyncio
import copy
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.prm import BatchedPRM, ScoreRequest, load_prm
from adaptive_ttc.prm.families.rlhflow import RLHFlowReader
from adaptive_ttc.prm.format import LabelHead
from adaptive_ttc.prm.local import Backbone
from adaptive_ttc.types import Prefix, split_steps
from tests.prm.tiny import (
    FAMILIES,
    QUESTION,
    REQUESTS,
    batched,
    head_of,
    model_of,
    reference_scores,
    save,
    save_weights,
    tokenizer_of,
)
from tests.prm.tiny import rlhflow as reader


def load(folder: Path, **settings: Any) -> BatchedPRM:
    prm = load_prm(folder, reader="rlhflow", **settings)
    assert isinstance(prm, BatchedPRM)
    return prm


async def ask(prm: BatchedPRM, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
    return [scored.scores for scored in await asyncio.gather(*map(prm.score, requests))]


@pytest.mark.parametrize("family", FAMILIES)
async def test_scores_are_the_published_evaluations(family: str) -> None:
    prm = reader(family)
    expected = [reference_scores(family, request) for request in REQUESTS]
    spread = torch.tensor([score for scores in expected for score in scores]).std()
    assert spread > 0.05, "the test needs scores that differ"
    assert [list(scores) for scores in await ask(prm, REQUESTS)] == [pytest.approx(e, abs=1e-5) for e in expected]
    for request, scores in zip(REQUESTS, expected, strict=True):
        assert list((await prm.score(request)).scores) == pytest.approx(scores, abs=1e-5)
    await prm.aclose()


@pytest.mark.parametrize("max_batch", [1, 2, 32])
async def test_the_order_and_size_of_batches_are_irrelevant(max_batch: int) -> None:
    prm = reader("mistral3", max_batch=max_batch, max_wait=0.0)
    expected = {request: reference_scores("mistral3", request) for request in REQUESTS}
    for seed in range(3):
        order = random.Random(seed).sample(REQUESTS, len(REQUESTS))
        got = await ask(prm, order)
        assert [list(scores) for scores in got] == [pytest.approx(expected[request], abs=1e-5) for request in order]
    assert prm.statistics().batches == {1: 15, 2: 9, 32: 3}[max_batch]
    await prm.aclose()


@pytest.mark.parametrize("family", FAMILIES)
async def test_the_last_non_empty_step_is_scored(family: str) -> None:
    prm = reader(family)
    text = "3 + 4 = 7.\n\n7 - 2 = 5.\n\n"
    assert text.split("\n\n")[-1] == "", "the naive split has an empty last step"
    scored = await prm.score(ScoreRequest(QUESTION, Prefix(text=text).steps))
    expected = reference_scores(family, ScoreRequest(QUESTION, ("3 + 4 = 7.", "7 - 2 = 5.")))
    assert list(scored.scores) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ConfigError, match="empty"):
        await prm.score(ScoreRequest(QUESTION, tuple(text.split("\n\n"))))
    # Blank lines with spaces in them, and more than one, separate steps just the same.
    assert split_steps("3 + 4 = 7.\n\n \n\n\n7 - 2 = 5.\n\n\n\n") == ("3 + 4 = 7.", "7 - 2 = 5.")
    await prm.aclose()


async def test_only_what_is_needed_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the head two rows, at as many places as there are steps, after one forward pass over the chat."""
    prm = reader("llama3")
    passes: list[tuple[int, ...]] = []
    original = Backbone.run

    def run(body: Backbone, ids: torch.Tensor, **arguments: Any) -> torch.Tensor:
        passes.append(tuple(ids.shape))
        return original(body, ids, **arguments)

    monkeypatch.setattr(Backbone, "run", run)
    head = prm._reader.heads[0]
    assert isinstance(head, LabelHead)
    assert head.weight.shape == (2, 32)
    places = []
    monkeypatch.setattr(LabelHead, "__call__", lambda head, states, targets: places.append(len(states)) or states[:, 0])
    scored = await prm.score(REQUESTS[0])
    assert (passes, places) == ([(1, scored.prm_tokens)], [3])
    assert scored.prm_tokens == prm.count_tokens(REQUESTS[0])
    await prm.aclose()


async def test_a_bias_of_the_head_counts() -> None:
    model = copy.deepcopy(model_of("llama3"))
    model.lm_head.bias = torch.nn.Parameter(torch.linspace(-3, 3, model.lm_head.out_features))
    prm = batched(RLHFlowReader(tokenizer_of("llama3"), head_of(model)), [model], "bias")
    scores = (await prm.score(REQUESTS[0])).scores
    plus, minus = tokenizer_of("llama3").convert_tokens_to_ids(["+", "-"])
    shift = (model.lm_head.bias[plus] - model.lm_head.bias[minus]).item()
    expected = torch.sigmoid(torch.logit(torch.tensor(reference_scores("llama3", REQUESTS[0]))) + shift)
    assert list(scores) == pytest.approx(expected.tolist(), abs=1e-5)
    await prm.aclose()


def test_a_head_that_does_more_than_multiply_is_refused(tmp_path: Path) -> None:
    config = Gemma2Config(
        vocab_size=len(tokenizer_of("llama3")), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, final_logit_softcapping=30.0,
    )  # fmt: skip
    capped = Gemma2ForCausalLM(config).eval()
    capped.save_pretrained(tmp_path)
    tokenizer_of("llama3").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="final_logit_softcapping"):
        load(tmp_path)


async def test_a_solution_longer_than_the_context_has_no_score_and_disturbs_no_other() -> None:
    prm = reader("tiny", max_context=120)
    long = ScoreRequest(QUESTION, ("3 + 4 = 7. " * 20,))
    with pytest.raises(ConfigError, match=r"2\d\d tokens long .* context is 120.*max_tokens"):
        prm.count_tokens(long)
    results = await asyncio.gather(prm.score(long), prm.score(REQUESTS[1]), return_exceptions=True)
    assert isinstance(results[0], ConfigError)
    assert not isinstance(results[1], BaseException)
    assert prm.count_tokens(REQUESTS[1]) < 120
    assert reader("tiny").max_context == 1024
    await prm.aclose()


async def test_a_failing_model_is_an_engine_error_and_not_a_number_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    prm = reader("tiny")

    def fail(message: str) -> Any:
        def run(body: Backbone, ids: torch.Tensor, **arguments: Any) -> torch.Tensor:
            raise RuntimeError(message)

        return run

    monkeypatch.setattr(Backbone, "run", fail("device lost"))
    with pytest.raises(EngineError, match="device lost") as caught:
        await prm.score(REQUESTS[0])
    assert not caught.value.retryable
    monkeypatch.setattr(Backbone, "run", lambda body, ids, **_: torch.full((*ids.shape, 32), torch.nan))
    with pytest.raises(EngineError, match="not numbers"):
        await prm.score(REQUESTS[1])
    monkeypatch.setattr(Backbone, "run", fail("CUDA out of memory"))
    with pytest.raises(EngineError, match="memory") as caught:
        await prm.score(REQUESTS[1])
    assert caught.value.retryable
    monkeypatch.undo()
    assert list((await prm.score(REQUESTS[0])).scores) == pytest.approx(reference_scores("tiny", REQUESTS[0]), abs=1e-5)
    await prm.aclose()


def test_parameters_leave_out_the_look_up_and_the_rest_of_the_head() -> None:
    layers = sum(p.numel() for p in model_of("llama3").model.layers.parameters())
    assert reader("llama3").parameters == layers + 32 + 2 * 32
    tied = sum(p.numel() for p in model_of("tiny").model.layers.parameters())
    assert reader("tiny").parameters == tied + 32 + 2 * 32


@pytest.mark.parametrize("family", ["llama3", "tiny"])
async def test_from_pretrained_scores_as_in_memory(family: str, tmp_path: Path) -> None:
    save(family, tmp_path)
    threads = torch.get_num_threads()
    try:
        prm = load(tmp_path, threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    assert prm.name == str(tmp_path)
    assert list((await prm.score(REQUESTS[0])).scores) == pytest.approx(reference_scores(family, REQUESTS[0]), abs=1e-5)
    await prm.aclose()
    half = load(tmp_path, dtype="bfloat16")
    assert list((await half.score(REQUESTS[0])).scores) == pytest.approx(reference_scores(family, REQUESTS[0]), abs=0.1)
    assert half.fingerprint != prm.fingerprint
    await half.aclose()


def test_fingerprints_follow_what_may_change_a_score(tmp_path: Path) -> None:
    save("tiny", tmp_path / "a")
    first = load(tmp_path / "a").fingerprint
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert load(tmp_path / "b").fingerprint == first, "the place of the files is no part of it"

    def edited(entry: str, value: object) -> str:
        config = json.loads((tmp_path / "a" / "config.json").read_text()) | {entry: value}
        (tmp_path / "b" / "config.json").write_text(json.dumps(config))
        return load(tmp_path / "b").fingerprint

    assert edited("transformers_version", "4.0.0") == first, "a mere re-save is no change"
    assert edited("rms_norm_eps", 1e-3) != first
    shutil.copy(tmp_path / "a" / "config.json", tmp_path / "b" / "config.json")

    settings = tmp_path / "b" / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace('"<|end|>"', '"<|user|>"'))
    assert load(tmp_path / "b").fingerprint != first, "templates print eos_token"
    AutoTokenizer.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    assert load(tmp_path / "b").fingerprint == first, "a mere re-save is no change"

    template = tmp_path / "b" / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|end|>", "\n<|end|>"))
    assert load(tmp_path / "b").fingerprint != first
    shutil.copy(tmp_path / "a" / "chat_template.jinja", template)

    save("tiny", tmp_path / "c", seed=1)
    shutil.copy(tmp_path / "c" / "model.safetensors", tmp_path / "b" / "model.safetensors")
    assert load(tmp_path / "b").fingerprint != first


def test_unusable_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json"):
        load(tmp_path / "nowhere")
    save("llama3", tmp_path / "model")
    with pytest.raises(ConfigError, match="dtype"):
        load(tmp_path / "model", dtype="int8")
    with pytest.raises(ConfigError, match="threads"):
        load(tmp_path / "model", threads=0)
    with pytest.raises(ConfigError, match="max_batch"):
        load(tmp_path / "model", max_batch=0)
    with pytest.raises(ConfigError, match=r"unknown settings max_bach \(max_batch\?\)"):
        load(tmp_path / "model", max_bach=1)
    with pytest.raises(ConfigError, match="prefix_cache_bytes"):
        load(tmp_path / "model", prefix_cache_bytes=-1)

    from safetensors.torch import load_file

    weights = load_file(tmp_path / "model" / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_weights(tmp_path / "model", weights)
    with pytest.raises(ConfigError, match="up_proj"):
        load(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="no loadable"):
        load(tmp_path / "model")
