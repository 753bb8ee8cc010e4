"""The prefix cache of PRMs: the same scores as from scratch, fewer tokens, within its bytes, whatever fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm import BatchedPRM, Scored, ScoreRequest
from adaptive_ttc.prm.format import Row
from adaptive_ttc.prm.local import Backbone, LocalModel, _alike
from adaptive_ttc.prm.prefix_cache import BOOKKEEPING, CacheShape, PrefixPool
from tests.prm.tiny import QUESTION, implicit, model_of, rlhflow, tokenizer_of
from tests.prm.tiny_heads import math_shepherd, qwen_math, self_verification, skywork

# two layers, two key heads of dimension 8, keys and values, float32
TOKEN_BYTES = 2 * 2 * 8 * 2 * 4 + BOOKKEEPING

MAKERS: dict[str, Callable[..., BatchedPRM]] = {
    "rlhflow": lambda **settings: rlhflow("llama3", **settings),
    "sliding-window": lambda **settings: rlhflow("mistral3", **settings),
    "implicit": lambda **settings: implicit("tiny", **settings),
    "qwen-math": qwen_math,
    "skywork": skywork,
    "math-shepherd": math_shepherd,
    "self-verification": self_verification,
}


def beams(rng: random.Random, rounds: int) -> list[list[ScoreRequest]]:
    """What a beam search of 6 beams, 2 kept, asks for, with two problems mixed."""
    questions = (QUESTION, "Compute -1 + +2. Then add what you have to 30, and say why.")
    states: list[tuple[str, tuple[str, ...]]] = [(question, ()) for question in questions for _ in range(6)]
    asked = []
    for _ in range(rounds):
        kept = [state for question in questions for state in rng.sample([s for s in states if s[0] == question], 2)]
        new = [f"{rng.randint(0, 99)} + {rng.randint(0, 9)} = {rng.randint(0, 99)}." for _ in range(12)]
        states = [(q, (*steps, new[3 * i + k])) for i, (q, steps) in enumerate(kept) for k in range(3)]
        asked.append([ScoreRequest(question, steps) for question, steps in states])
    return asked


async def ask(prm: BatchedPRM, requests: Sequence[ScoreRequest]) -> list[Scored]:
    return list(await asyncio.gather(*map(prm.score, requests)))


@pytest.mark.parametrize("name", MAKERS)
async def test_scores_are_those_from_scratch_whatever_the_order_and_the_size_of_the_cache(name: str) -> None:
    scratch = MAKERS[name](prefix_cache_bytes=0)
    searches = beams(random.Random(name), 5)
    expected = {one: scored for asked in searches for one, scored in zip(asked, await ask(scratch, asked), strict=True)}
    shares = []
    for capacity, max_batch in ((10**5, 32), (300, 32), (40, 3)):
        prm = MAKERS[name](prefix_cache_bytes=capacity * TOKEN_BYTES, max_batch=max_batch, max_wait=0.0)
        computed = total = 0
        for asked in searches:
            order = random.Random(capacity).sample(asked, len(asked))
            for request, scored in zip(order, await ask(prm, order), strict=True):
                assert scored.scores == pytest.approx(expected[request].scores, abs=1e-5)
                assert scored.prm_tokens + scored.cached_tokens == expected[request].prm_tokens
                computed, total = computed + scored.prm_tokens, total + expected[request].prm_tokens
        shares.append(computed / total)
        await prm.aclose()
    assert shares[0] < 0.45
    assert shares[0] < shares[1] <= shares[2] <= 1
    assert all(scored.cached_tokens == 0 for scored in expected.values())
    await scratch.aclose()


@pytest.mark.parametrize("name", ["rlhflow", "implicit", "qwen-math", "skywork", "math-shepherd"])
async def test_a_step_that_is_appended_costs_its_own_tokens(name: str) -> None:
    prm = MAKERS[name]()
    steps = ("3 + 4 = 7.", "7 - 2 = 5.", "So the answer is \\boxed{5}.")
    counts = [0]
    for k in (1, 2, 3):
        request = ScoreRequest(QUESTION, steps[:k])
        counts.append(prm.count_tokens(request))
        scored = await prm.score(request)
        assert (scored.prm_tokens, scored.cached_tokens) == (counts[k] - counts[k - 1], counts[k - 1])
    again = await prm.score(ScoreRequest(QUESTION, steps))
    assert (again.prm_tokens, again.cached_tokens) == (0, counts[3])
    assert again.scores == pytest.approx(scored.scores, abs=1e-6)
    await prm.aclose()


async def test_solutions_of_one_batch_compute_their_common_beginning_once() -> None:
    prm = implicit("tiny")
    question = "A long question about 3 + 4 - 2, longer than what is worth waiting for."
    requests = [ScoreRequest(question, (f"{k} + 4 = 7.",)) for k in range(5)]
    scored = await ask(prm, requests)
    counts = [prm.count_tokens(request) for request in requests]
    prompt = counts[0] - len(requests[0].steps[0]) + 1
    # the prompt's last token predicts the first of the step, which differs
    assert sorted(one.cached_tokens for one in scored) == [0, *[prompt - 1] * 4]
    assert [one.prm_tokens + one.cached_tokens for one in scored] == counts
    await prm.aclose()


async def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = PrefixPool.allocate

    def allocate(pool: PrefixPool) -> tuple[torch.Tensor, torch.Tensor]:
        stored = original(pool)
        sizes.append(sum(part.numel() * part.element_size() for part in stored))
        return stored

    prm = rlhflow("llama3", prefix_cache_bytes=100 * TOKEN_BYTES)
    monkeypatch.setattr(PrefixPool, "allocate", allocate)
    for asked in beams(random.Random(0), 3):
        await ask(prm, asked)
    assert sizes
    assert all(size <= 100 * TOKEN_BYTES for size in sizes)
    cache = prm._models[0]._cache
    assert cache is not None
    assert 0 < cache.known.tree.stored_tokens <= 100
    await prm.aclose()
    assert prm._models == []


@pytest.mark.parametrize(
    ("shape", "dtype", "tokens"),
    [
        (CacheShape(layers=4, heads=4, key_dim=32, value_dim=32), torch.float32, 32_768),  # the embedded policy
        (CacheShape(layers=32, heads=8, key_dim=128, value_dim=128), torch.bfloat16, 4_096),  # of 8B, 512 MiB
    ],
)
def test_by_default_no_more_tokens_are_stored_than_problems_at_work_hold(
    shape: CacheShape, dtype: torch.dtype, tokens: int
) -> None:
    assert shape.cache_bytes(None, dtype) == tokens * shape.bytes_per_token(dtype)
    assert (shape.cache_bytes(2**31, dtype), shape.cache_bytes(0, dtype)) == (2**31, 0)


async def test_what_a_failed_store_promised_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    prm, scratch = rlhflow("llama3"), rlhflow("llama3", prefix_cache_bytes=0)
    requests = [ScoreRequest(QUESTION, ("3 + 4 = 7.",)), ScoreRequest(QUESTION, ("3 + 4 = 8.",))]
    original = PrefixPool.store
    calls: list[int] = []

    def store(pool: PrefixPool, places: Any, keys: torch.Tensor, values: torch.Tensor) -> None:
        calls.append(len(places))
        if len(calls) == 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        original(pool, places, keys, values)

    monkeypatch.setattr(PrefixPool, "store", store)
    for _ in range(2):
        got, expected = await ask(prm, requests), await ask(scratch, requests)
        assert [one.scores for one in got] == [pytest.approx(one.scores, abs=1e-5) for one in expected]
    assert prm.statistics().splits == 1, "the batch that ran out of memory was halved"
    assert sum(one.cached_tokens for one in got) == sum(one.prm_tokens for one in expected)
    await prm.aclose()
    await scratch.aclose()


@pytest.mark.parametrize("name", MAKERS)
async def test_a_batch_that_runs_out_of_memory_is_halved_for_every_family(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prm, scratch = MAKERS[name](), MAKERS[name](prefix_cache_bytes=0)
    requests = beams(random.Random(1), 1)[0]
    expected = await ask(scratch, requests)
    original = Backbone.run

    def run(body: Backbone, ids: torch.Tensor, **arguments: Any) -> torch.Tensor:
        if len(ids) > 3:
            raise MemoryError
        return original(body, ids, **arguments)

    monkeypatch.setattr(Backbone, "run", run)
    for _ in range(2):
        got = await ask(prm, requests)
        assert [one.scores for one in got] == [pytest.approx(one.scores, abs=1e-5) for one in expected]
    assert prm.statistics().splits > 0
    await prm.aclose()
    await scratch.aclose()


class CountingHead:
    """The sum of a state; counts the states that it is asked for."""

    parameters = 0

    def __init__(self) -> None:
        self.states = 0

    def __call__(self, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        self.states += len(states)
        return states.double().sum(dim=-1)


def test_a_stored_token_whose_value_was_never_asked_for_is_computed_again() -> None:
    head = CountingHead()
    reader = LocalModel(Backbone(model_of("llama3").model), head, prefix_cache_bytes=2**20)
    plain = LocalModel(Backbone(model_of("llama3").model), CountingHead(), prefix_cache_bytes=0)
    ids = list(range(5, 35))
    reader.read([Row.labelled(ids, [29])], "")
    row = Row.labelled(ids, [9, 19, 29])
    (got,), (expected,) = reader.read([row], ""), plain.read([row], "")
    assert got.cached == 9
    assert got.values == pytest.approx(expected.values, abs=1e-5)
    (again,) = reader.read([row], "")
    assert (again.cached, again.values) == (30, got.values)
    assert head.states == 1 + 3


def test_rows_are_padded_to_at_most_twice_their_length_and_a_little() -> None:
    lengths = {0: 500, 1: 12, 2: 13, 3: 40, 4: 41, 5: 260, 6: 1}
    groups = list(_alike(lengths))
    assert sorted(index for group in groups for index in group) == list(lengths)
    assert all(lengths[group[-1]] <= 2 * lengths[group[0]] + 16 for group in groups)
    assert len(groups) == 3


def test_models_whose_keys_cannot_be_stored_are_refused_with_the_remedy() -> None:
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer_of("llama3")), "hidden_size": 16, "intermediate_size": 16,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64,
    }  # fmt: skip
    mixed = Gemma2ForCausalLM(Gemma2Config(num_hidden_layers=2, **sizes)).eval()
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    turning = LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, rope_parameters=rope, **sizes)).eval()
    for model in (mixed, turning):
        body = Backbone(model.model)
        with pytest.raises(ConfigError, match="prefix_cache_bytes=0"):
            LocalModel(body, CountingHead(), prefix_cache_bytes=2**20)
        assert len(LocalModel(body, CountingHead(), prefix_cache_bytes=0).read([Row.labelled([1, 2], [1])], "")) == 1


def test_a_model_that_attends_in_another_way_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Backbone.run

    def run(body: Backbone, ids: torch.Tensor, **arguments: Any) -> torch.Tensor:
        arguments.pop("position_ids", None)  # as if it counted positions from the start of each call
        return original(body, ids, **arguments)

    monkeypatch.setattr(Backbone, "run", run)
    with pytest.raises(ConfigError, match="hidden states differ"):
        LocalModel(Backbone(model_of("llama3").model), CountingHead(), prefix_cache_bytes=2**20)
