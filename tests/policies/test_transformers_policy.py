import asyncio
import gc
import json
import os
import shutil
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import anyio
import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM, MambaConfig, MambaForCausalLM, MistralConfig, MistralForCausalLM

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.chat_model import forward_parameters
from adaptive_ttc.policies.transformers import TransformersPolicy, attention
from adaptive_ttc.policies.transformers.attention import RowCache, row_attention
from adaptive_ttc.policies.transformers.batched_model import ModelRunner
from adaptive_ttc.policies.transformers.batching import Engine
from adaptive_ttc.policies.transformers.policy import examine
from adaptive_ttc.policy import SampleRequest
from adaptive_ttc.prm.prefix_cache import CacheShape
from adaptive_ttc.types import Problem
from tests.policies import tiny

QUESTIONS = ("What is 3 + 4?", "Compute 12 + 30 + 7 - 5, and then double it.", "x")


def load(**settings):
    return TransformersPolicy.from_pretrained(tiny.folder(), **settings)


def ask(policy, question=QUESTIONS[0], **settings):
    fields = {"id": "one", "prompt_ids": policy.encode(Problem.of(question)), "max_tokens": 30, "seed": 1}
    return SampleRequest(**{**fields, **settings})


async def sample_all(policy, requests):
    return await asyncio.gather(*map(policy.sample, requests))


@pytest.fixture
async def policy():
    policy = load(eos_token_ids=())
    yield policy
    await policy.aclose()


async def test_greedy_tokens_are_those_of_generate(policy):
    model = AutoModelForCausalLM.from_pretrained(tiny.folder())
    requests = [ask(policy, one, id=one, temperature=0.0, max_tokens=60) for one in QUESTIONS]
    for request, sampled in zip(requests, await sample_all(policy, requests), strict=True):
        prompt = torch.tensor([request.prompt_ids])
        reference = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=60, eos_token_id=None
        )
        assert list(sampled.token_ids) == reference[0, prompt.shape[1] :].tolist()


async def test_logprobs_are_the_models_own(policy):
    model = AutoModelForCausalLM.from_pretrained(tiny.folder())
    request = ask(policy, temperature=1.3, top_p=0.9)
    first = await policy.sample(request)
    prompt = request.prompt_ids + first.token_ids
    second = await policy.sample(replace(request, prompt_ids=prompt))
    tokens = torch.tensor([prompt + second.token_ids])
    with torch.inference_mode():
        logprobs = torch.log_softmax(model(tokens).logits[0, :-1], -1).gather(-1, tokens[0, 1:, None])[:, 0]
    assert first.logprobs + second.logprobs == pytest.approx(logprobs[len(request.prompt_ids) - 1 :].numpy(), abs=1e-4)


async def test_means_over_the_most_probable_tokens_are_the_models_own(policy):
    model = AutoModelForCausalLM.from_pretrained(tiny.folder())
    vocabulary = model.config.vocab_size
    counts = (0, 1, 5, vocabulary, 2**31)
    asked = [ask(policy, temperature=1.3, top_logprobs=count, id=f"top-{count}") for count in counts]
    got = await asyncio.gather(*map(policy.sample, asked))
    assert got[0].top_logprobs == ()
    for request, sampled in zip(asked[1:], got[1:], strict=True):
        tokens = torch.tensor([request.prompt_ids + sampled.token_ids])
        with torch.inference_mode():
            logits = model(tokens).logits[0, len(request.prompt_ids) - 1 : -1]
        top = torch.log_softmax(logits, -1).topk(min(request.top_logprobs, vocabulary)).values.mean(-1)
        assert sampled.top_logprobs == pytest.approx(top.numpy(), abs=1e-4)
    assert got[3].top_logprobs == got[4].top_logprobs


async def test_sampled_tokens_follow_the_models_softmax(policy):
    model = AutoModelForCausalLM.from_pretrained(tiny.folder())
    prompt = policy.encode(Problem.of(QUESTIONS[0]))
    requests = [ask(policy, id=str(seed), seed=seed, max_tokens=1, temperature=0.8) for seed in range(3000)]
    counts = Counter(sampled.token_ids[0] for sampled in await sample_all(policy, requests))
    with torch.inference_mode():
        expected = torch.softmax(model(torch.tensor([prompt])).logits[0, -1].double() / 0.8, -1).numpy() * 3000
    # tokens that are expected fewer than 5 times stand together, as the test's approximation demands
    common = expected >= 5
    observed = np.array([counts[token] for token in np.flatnonzero(common)] + [0])
    observed[-1] = 3000 - observed.sum()
    assert chisquare(observed, np.append(expected[common], expected[~common].sum())).pvalue > 0.01


@pytest.mark.parametrize("settings", [{"max_batch": 1}, {"max_batch": 3}, {"prefill_tokens": 16}])
async def test_a_sample_is_the_same_in_any_company(policy, settings):
    requests = [
        ask(policy, QUESTIONS[index % 3], id=str(index), seed=index, max_tokens=10 + index % 40) for index in range(64)
    ]
    together = await sample_all(policy, requests)
    other = load(eos_token_ids=(), prefix_cache_bytes=0, **settings)
    for index in (0, 5, 17, 41, 63):
        alone = await other.sample(requests[index])
        assert alone.token_ids == together[index].token_ids
        assert alone.logprobs == pytest.approx(together[index].logprobs, abs=1e-5)
    await other.aclose()


async def test_one_prompt_is_prefilled_once(policy):
    requests = [ask(policy, QUESTIONS[1], id=str(index), seed=index) for index in range(16)]
    length = len(requests[0].prompt_ids)
    first = await sample_all(policy, requests)
    computed = sorted(sampled.prompt_tokens for sampled in first)
    assert computed == [1] * 15 + [length]
    later = await policy.sample(ask(policy, QUESTIONS[1], seed=99))
    assert (later.prompt_tokens, later.cached_tokens) == (1, length - 1)


async def test_continuations_compute_their_last_token_only(policy):
    request = ask(policy, max_tokens=20)
    first = await policy.sample(request)
    children = [
        replace(request, id=str(index), seed=index, prompt_ids=request.prompt_ids + first.token_ids)
        for index in range(4)
    ]
    for child in await sample_all(policy, children):
        assert child.prompt_tokens == 1


async def test_without_a_prefix_cache_nothing_is_kept():
    policy = load(eos_token_ids=(), prefix_cache_bytes=0)
    request = ask(policy)
    for _ in range(2):
        assert (await policy.sample(request)).cached_tokens == 0
    await policy.aclose()


async def test_a_full_prefix_cache_changes_no_token(policy):
    # room for some 60 tokens of a layer pair: prefixes go and come all the time
    small = load(eos_token_ids=(), prefix_cache_bytes=60 * 2 * 2 * 16 * 4, max_batch=4)
    requests = [ask(policy, QUESTIONS[index % 3], id=str(index), seed=index, max_tokens=25) for index in range(12)]
    for expected, got in zip(await sample_all(policy, requests), await sample_all(small, requests), strict=True):
        assert got.token_ids == expected.token_ids
    await small.aclose()


async def test_long_prompts_are_prefilled_in_chunks(policy):
    chunked = load(eos_token_ids=(), prefill_tokens=16)
    question = "1 + 2 + " * 40 + "3"
    requests = [ask(policy, one, id=one) for one in (question, *QUESTIONS)]
    for expected, got in zip(await sample_all(policy, requests), await sample_all(chunked, requests), strict=True):
        assert got.token_ids == expected.token_ids
    await chunked.aclose()


async def test_the_event_loop_goes_on_while_the_model_runs(policy):
    turns = 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(policy.sample, ask(policy, id="long", max_tokens=4000))
        while turns < 1000:
            await anyio.lowlevel.checkpoint()
            turns += 1
        await policy.abort("long")
    assert turns == 1000


def test_it_serves_one_event_loop_after_another():
    policy = load()
    request = ask(policy)
    first = asyncio.run(policy.sample(request))
    assert asyncio.run(policy.sample(request)).token_ids == first.token_ids
    asyncio.run(policy.aclose())


async def test_closing_ends_the_thread():
    before = set(threading.enumerate())
    policy = load()
    threads = [thread for thread in threading.enumerate() if thread not in before and "policy" in thread.name]
    assert len(threads) == 1
    await policy.sample(ask(policy, max_tokens=2))
    await asyncio.gather(policy.aclose(), policy.aclose())
    assert not threads[0].is_alive()


def test_a_forgotten_policy_ends_its_thread():
    before = set(threading.enumerate())
    policy = load()
    [thread] = [one for one in threading.enumerate() if one not in before and one.name == f"policy {policy.name}"]
    del policy
    gc.collect()
    assert not thread.is_alive()


async def test_a_failing_model_fails_its_requests_and_recovers(policy, monkeypatch):
    step = ModelRunner.step
    calls = 0

    def broken(self, rows):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("no more memory")
        return step(self, rows)

    expected = await policy.sample(ask(policy))
    monkeypatch.setattr(ModelRunner, "step", broken)
    results = await asyncio.gather(
        *(policy.sample(ask(policy, id=str(index), seed=index)) for index in range(3)), return_exceptions=True
    )
    assert all(isinstance(result, EngineError) and "no more memory" in str(result) for result in results)
    assert (await policy.sample(ask(policy))).token_ids == expected.token_ids


async def test_a_failing_start_fails_those_about_to_start(policy, monkeypatch):
    def broken(self, start):
        monkeypatch.undo()
        raise RuntimeError("prefill failed")

    monkeypatch.setattr(Engine, "_begin", broken)
    with pytest.raises(EngineError, match="prefill failed"):
        await policy.sample(ask(policy))
    assert len((await policy.sample(ask(policy))).token_ids) == 30


async def test_a_failing_command_does_not_kill_the_thread(policy, monkeypatch):
    def broken(self, request_id):
        monkeypatch.undo()
        raise RuntimeError("no such thing")

    monkeypatch.setattr(Engine, "abort", broken)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(policy.abort, "one")
        with pytest.raises(EngineError, match="no such thing"):
            await policy.sample(ask(policy, max_tokens=4000))
    assert len((await policy.sample(ask(policy))).token_ids) == 30


async def test_what_decides_the_distribution_is_in_the_fingerprint(tmp_path):
    variants = {"same": {}, "system": {"system_prompt": "Be brief."}, "eos": {"eos_token_ids": (0,)}}
    prints = {}
    for name, settings in variants.items():
        policy = load(**settings)
        prints[name] = policy.fingerprint
        await policy.aclose()
    for name, file, old, new in (
        ("template", "chat_template.jinja", "<assistant>", "<user><assistant>"),
        ("tokenizer", "tokenizer.json", '"ByteLevel"', ' "ByteLevel"'),
        ("config", "config.json", '"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'),
    ):
        folder = tmp_path / name / tiny.folder().name
        shutil.copytree(tiny.folder(), folder)
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))
        policy = TransformersPolicy.from_pretrained(folder)
        prints[name] = policy.fingerprint
        await policy.aclose()
    tiny.llama(seed=1).save_pretrained(folder := tmp_path / "weights")
    tiny.byte_tokenizer().save_pretrained(folder)
    policy = TransformersPolicy.from_pretrained(folder)
    prints["weights"] = policy.fingerprint
    await policy.aclose()
    assert len(set(prints.values())) == len(prints)
    policy = load(max_batch=2, max_context=100)
    assert policy.fingerprint == prints["same"]
    await policy.aclose()


async def test_name_parameters_and_context():
    policy = load(max_context=300)
    model = tiny.llama()
    assert policy.name == tiny.folder().name
    assert policy.parameters == model.num_parameters() - model.get_input_embeddings().weight.numel()
    assert policy.max_context == 300
    await policy.aclose()
    policy = load(max_context=10**6)
    assert policy.max_context == 4096
    await policy.aclose()


def test_a_tied_embedding_table_takes_part_as_the_head():
    model = tiny.llama(tie_word_embeddings=True)
    assert forward_parameters(model) == model.num_parameters()


@pytest.mark.parametrize(
    "settings",
    [
        {"max_batch": 0},
        {"max_context": 1},
        {"prefix_cache_bytes": -1},
        {"prefill_tokens": 0},
        {"num_threads": 0},
        {"dtype": "int8"},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings)).replace("num_", "")):
        load(**settings)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json"):
        TransformersPolicy.from_pretrained(tmp_path)


def test_a_model_without_end_tokens_is_refused(tmp_path):
    shutil.copytree(tiny.folder(), tmp_path / "m")
    for name in ("generation_config.json", "config.json", "tokenizer_config.json"):
        settings = json.loads((tmp_path / "m" / name).read_text())
        settings.pop("eos_token_id", None)
        settings.pop("eos_token", None)
        if name == "config.json":
            settings["eos_token_id"] = None
        (tmp_path / "m" / name).write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="eos_token_ids"):
        TransformersPolicy.from_pretrained(tmp_path / "m")


def test_a_model_without_keys_and_values_is_refused(tmp_path):
    config = MambaConfig(vocab_size=266, hidden_size=16, num_hidden_layers=1, state_size=4)
    with pytest.raises(ConfigError, match="keys and values"):
        examine(MambaForCausalLM(config).eval())


async def test_a_sliding_window_limits_the_context(tmp_path):
    config = MistralConfig(
        vocab_size=266,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=64,
        eos_token_id=0,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MistralForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    tiny.byte_tokenizer().save_pretrained(tmp_path)
    policy = TransformersPolicy.from_pretrained(tmp_path, eos_token_ids=())
    assert policy.max_context == 64
    request = ask(policy, temperature=0.0, max_tokens=100)
    sampled = await policy.sample(request)
    await policy.aclose()
    assert len(request.prompt_ids) + len(sampled.token_ids) == 64
    assert sampled.finish == "length"
    prompt = torch.tensor([request.prompt_ids])
    reference = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_length=64, eos_token_id=None
    )
    assert reference[0, prompt.shape[1] :].tolist() == list(sampled.token_ids)


def test_a_model_that_mixes_up_rows_is_refused(monkeypatch):
    aim = RowCache.aim
    monkeypatch.setattr(RowCache, "aim", lambda self, rows, positions: aim(self, rows * 0, positions))
    with pytest.raises(ConfigError, match="unequal rows"):
        load()


def rows_of(shape, rows=65, positions=4096):
    return RowCache(shape, rows, positions, torch.device("cpu"), torch.float32)


def test_rows_that_grow_keep_their_positions():
    cache = rows_of(CacheShape(layers=2, heads=3, key_dim=4, value_dim=5))
    cache.reserve(2, 16, np.array([], int))
    written = []
    for row, length in enumerate((7, 12)):
        written.append((torch.randn(length, 2, 3, 4), torch.randn(length, 2, 3, 5)))
        cache.write(row, *written[row])
    cache.reserve(3, 17, np.array([7, 10]))
    for row, length in enumerate((7, 10)):
        for got, expected in zip(cache.read(row, 0, length), written[row], strict=True):
            assert torch.equal(got, expected[:length])
    for row, length in enumerate((7, 10, 0)):
        assert not any(part.any() for part in cache.read(row, length, 32)), "masked positions are numbers"


def test_rows_that_could_not_grow_stay_as_they_were(monkeypatch):
    cache = rows_of(CacheShape(layers=2, heads=1, key_dim=4, value_dim=4))
    cache.reserve(2, 16, np.array([], int))
    written = torch.randn(9, 2, 1, 4), torch.randn(9, 2, 1, 4)
    cache.write(1, *written)
    zeros, asked = attention._zeros, []

    def short(shape, like):
        asked.append(shape)
        if len(asked) == 2:
            raise MemoryError("the values found no room")
        return zeros(shape, like)

    def check():
        for got, expected in zip(cache.read(1, 0, 9), written, strict=True):
            assert torch.equal(got, expected)
        assert {layer.keys.shape for layer in cache._rows} == {cache._keys.shape[1:]}

    monkeypatch.setattr(attention, "_zeros", short)
    with pytest.raises(MemoryError):
        cache.reserve(2, 40, np.array([0, 9]))
    check()
    cache.reserve(2, 40, np.array([0, 9]))
    check()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read off /proc")
def test_long_rows_take_memory_only_while_they_last():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    cache, lengths = rows_of(CacheShape(layers=4, heads=4, key_dim=32, value_dim=32)), np.full(65, 100)
    long, number = torch.ones(4000, 4, 4, 32), torch.ones(100, 4, 4, 32)
    before = resident()
    cache.reserve(65, 100, lengths * 0)
    for row in range(65):
        cache.write(row, number * row, number)
    for row in range(65):  # one after the other is long for a while
        cache.reserve(65, 4000, lengths)
        cache.write(row, long * row, long)
        lengths[row] = 4000
        cache.reserve(65, 4000, lengths)
        lengths[row] = 100
    cache.reserve(65, 4000, lengths)
    for row in range(65):
        assert torch.equal(cache.read(row, 0, 100)[0], number * row)
    assert resident() - before < 65 * 4096 * 4096 / 4, "a quarter of what all rows would take"


def test_attention_with_more_to_it_is_refused(monkeypatch):
    attention = row_attention

    def capped(*arguments, **settings):
        return attention(*arguments, **settings, softcap=50.0)

    monkeypatch.setattr("adaptive_ttc.policies.transformers.attention.row_attention", capped)
    with pytest.raises(ConfigError, match="softcap"):
        load()


def test_a_model_whose_attention_cannot_be_exchanged_is_refused(monkeypatch):
    def refuse(self, name):
        raise ValueError("it has its own")

    monkeypatch.setattr("transformers.PreTrainedModel.set_attn_implementation", refuse)
    with pytest.raises(ConfigError, match="cannot be exchanged"):
        load()


async def test_rows_with_as_many_key_heads_as_heads_serve_too(tmp_path):
    tiny.llama(num_key_value_heads=4).save_pretrained(tmp_path)
    tiny.byte_tokenizer().save_pretrained(tmp_path)
    policy = TransformersPolicy.from_pretrained(tmp_path, eos_token_ids=())
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    requests = [ask(policy, one, id=one, temperature=0.0) for one in QUESTIONS]
    for request, sampled in zip(requests, await sample_all(policy, requests), strict=True):
        prompt = torch.tensor([request.prompt_ids])
        reference = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=30, eos_token_id=None
        )
        assert list(sampled.token_ids) == reference[0, prompt.shape[1] :].tolist()
    await policy.aclose()


async def test_samples_that_come_later_copy_a_running_prompt(policy):
    request = ask(policy, QUESTIONS[1], id="first", max_tokens=3000)
    shared = []

    async def late():
        await policy.sample(ask(policy, QUESTIONS[0], id="other", max_tokens=5))
        shared.append(await policy.sample(ask(policy, QUESTIONS[1], id="late", seed=7)))
        await policy.abort("first")

    await asyncio.gather(policy.sample(request), late())
    assert shared[0].cached_tokens == len(request.prompt_ids) - 1
    alone = load(eos_token_ids=(), prefix_cache_bytes=0)
    assert (await alone.sample(ask(alone, QUESTIONS[1], seed=7))).token_ids == shared[0].token_ids
    await alone.aclose()


async def test_half_precision_serves_too():
    policy = load(dtype="bfloat16", eos_token_ids=())
    requests = [ask(policy, one, id=one) for one in QUESTIONS]
    for sampled in await sample_all(policy, requests):
        assert len(sampled.token_ids) == 30
    await policy.aclose()
