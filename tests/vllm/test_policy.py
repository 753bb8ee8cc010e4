"""What the vLLM policy promises beyond the suite: its engine's life and death, priorities, seeds, settings."""

import asyncio
import json
import threading
from dataclasses import replace

import anyio
import pytest

pytest.importorskip("vllm", reason="make test-vllm runs it in an environment with vLLM")

from vllm.exceptions import QueueOverflowError, VLLMValidationError
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from adaptive_ttc.errors import ConfigError, EngineError, OutageError
from adaptive_ttc.loading import MINI_POLICY
from adaptive_ttc.policies.requests import stream_seed
from adaptive_ttc.policies.transformers import TransformersPolicy
from adaptive_ttc.policies.vllm import CPU_SETTINGS, VLLMPolicy
from adaptive_ttc.policies.vllm.engine import translated
from adaptive_ttc.policies.vllm.policy import sampling_params, straddles
from adaptive_ttc.policy import SampleRequest
from adaptive_ttc.types import Problem
from tests.vllm import engines


def ask(policy, question="What is 12 + 30 + 7?", **settings):
    fields = {"id": "one", "prompt_ids": policy.encode(Problem.of(question)), "max_tokens": 40, "seed": 1}
    return SampleRequest(**{**fields, **settings})


def endless_of_its_own():
    return VLLMPolicy.from_pretrained(MINI_POLICY, eos_token_ids=(), max_num_seqs=4, **CPU_SETTINGS)


async def test_closing_ends_what_is_pending_and_the_engine():
    threads = set(threading.enumerate())
    policy, [process] = engines.started(endless_of_its_own)
    ended = []

    async def run(index):
        ended.append(await policy.sample(ask(policy, id=str(index), max_tokens=4000)))

    async with anyio.create_task_group() as tasks:
        for index in range(3):
            tasks.start_soon(run, index)
        # when this one is back the three have tokens, and of the next three two must wait
        await policy.sample(ask(policy, id="fourth", max_tokens=5))
        for index in range(3, 6):
            tasks.start_soon(run, index)
        await anyio.lowlevel.checkpoint()
        await policy.aclose()
    assert [sampled.finish for sampled in ended] == ["abort"] * 6
    assert any(sampled.token_ids for sampled in ended)
    process.join(30)
    assert process.exitcode is not None
    left = {thread for thread in set(threading.enumerate()) - threads if not thread.name.startswith("AnyIO")}
    for thread in left:  # the engine's own monitor ends after its process
        thread.join(30)
    assert {thread.name for thread in left if thread.is_alive()} == set()
    with pytest.raises(EngineError, match="closed"):
        await policy.sample(ask(policy))


async def test_a_killed_engine_fails_every_sample_at_once_and_for_good():
    policy, [process] = engines.started(endless_of_its_own)
    requests = [ask(policy, id=str(index), max_tokens=4000) for index in range(6)]
    waiting = [asyncio.ensure_future(policy.sample(request)) for request in requests[:3]]
    await policy.sample(ask(policy, id="fourth", max_tokens=2))
    waiting += [asyncio.ensure_future(policy.sample(request)) for request in requests[3:]]
    await anyio.lowlevel.checkpoint()
    process.kill()
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(error) for error in errors} == {OutageError}
    assert not any(error.retryable for error in errors)
    with pytest.raises(EngineError, match="died") as later:
        await policy.sample(ask(policy))
    assert not later.value.retryable
    await policy.abort("0")
    await policy.aclose()


async def test_lower_priorities_are_served_first():
    policy = engines.endless(max_batch=1)
    served = []

    async def run(name, **settings):
        await policy.sample(ask(policy, id=name, **settings))
        served.append(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: run("running", max_tokens=4000))
        await anyio.lowlevel.checkpoint()
        for priority in (5, 0, 3):
            tasks.start_soon(lambda priority=priority: run(str(priority), max_tokens=3, priority=priority))
        # behind the three in the queue, so that all of them are there when the place gets free
        await anyio.lowlevel.checkpoint()
        tasks.start_soon(lambda: run("last", max_tokens=3, priority=9))
        while engines.host(1)._engine.get_num_unfinished_requests() < 5:
            await anyio.lowlevel.checkpoint()
        await policy.abort("running")
    assert served == ["running", "0", "3", "5", "last"]
    await policy.aclose()


def test_it_serves_one_event_loop_after_another_and_several_at_once():
    policy = engines.policy()
    request = ask(policy)
    first = asyncio.run(policy.sample(request))
    got = []
    threads = [
        threading.Thread(target=lambda name=name: got.append(asyncio.run(policy.sample(replace(request, id=name)))))
        for name in "abc"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sampled.token_ids for sampled in got] == [first.token_ids] * 3
    asyncio.run(policy.aclose())


async def test_more_prompt_tokens_than_one_step_computes_leave_the_engine_alive():
    policy = engines.policy()
    questions = [f"{index} + " + "1 + 2 + " * 40 + "3" for index in range(64)]
    requests = [ask(policy, one, id=one, seed=index, max_tokens=3) for index, one in enumerate(questions)]
    at_once = engines.host(engines.WIDE)._engine.vllm_config.scheduler_config.max_num_batched_tokens
    assert sum(len(request.prompt_ids) for request in requests) > at_once
    for request, sampled in zip(requests, await asyncio.gather(*map(policy.sample, requests)), strict=True):
        assert sampled.token_ids
        assert sampled.prompt_tokens + sampled.cached_tokens == len(request.prompt_ids)
    await policy.aclose()


async def test_it_is_the_same_policy_as_on_transformers():
    here, there = engines.policy(), TransformersPolicy.from_pretrained(MINI_POLICY)
    for name in ("name", "fingerprint", "parameters", "max_context", "revision_prompt"):
        assert getattr(here, name) == getattr(there, name), name
    problem = Problem.of("What is 1 + 2?")
    assert here.encode(problem) == there.encode(problem)
    prompted = engines.policy(system_prompt="Be brief.")
    assert prompted.fingerprint != here.fingerprint
    assert len(prompted.encode(problem)) > len(here.encode(problem))
    await here.aclose()
    await prompted.aclose()
    await there.aclose()


async def test_logprobs_are_those_of_the_same_model_on_transformers():
    here, there = engines.policy(), TransformersPolicy.from_pretrained(MINI_POLICY)
    ours = await here.sample(ask(here, temperature=1.3, top_p=0.9, max_tokens=30))
    # what transformers thinks of these tokens, found by asking it for each of them greedily from where they stand
    prompt = ask(here).prompt_ids
    for index in range(len(ours.token_ids)):
        one = await there.sample(ask(there, prompt_ids=prompt + ours.token_ids[:index], max_tokens=1, temperature=0.0))
        if one.token_ids == ours.token_ids[index : index + 1]:
            assert one.logprobs[0] == pytest.approx(ours.logprobs[index], abs=1e-4)
        else:
            assert one.logprobs[0] > ours.logprobs[index] - 1e-4
    await here.aclose()
    await there.aclose()


async def test_means_over_the_most_probable_tokens_are_those_on_transformers():
    here, there = engines.policy(), TransformersPolicy.from_pretrained(MINI_POLICY)
    wanted = {"temperature": 0.0, "max_tokens": 30, "top_logprobs": 7}
    ours, theirs = await here.sample(ask(here, **wanted)), await there.sample(ask(there, **wanted))
    assert ours.token_ids == theirs.token_ids
    assert len(ours.top_logprobs) == len(ours.token_ids)
    assert ours.top_logprobs == pytest.approx(theirs.top_logprobs, abs=1e-3)
    assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-3)
    all_of_them = await here.sample(ask(here, **{**wanted, "top_logprobs": 2**31}))  # as many as the engine gives: 20
    twenty = await there.sample(ask(there, **{**wanted, "top_logprobs": 20}))
    assert all_of_them.top_logprobs == pytest.approx(twenty.top_logprobs, abs=1e-3)
    await here.aclose()
    await there.aclose()


@pytest.mark.parametrize("settings", [{"no_such_thing": 1}, {"model": "elsewhere"}, {"logprobs_mode": "raw_logits"}])
def test_settings_that_it_cannot_take_are_refused_before_anything_starts(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        VLLMPolicy.from_pretrained(MINI_POLICY, **settings)


def test_settings_that_vllm_refuses_are_told():
    context = json.loads((MINI_POLICY / "config.json").read_text())["max_position_embeddings"]
    with pytest.raises(ConfigError, match="max_model_len"):
        VLLMPolicy.from_pretrained(MINI_POLICY, max_model_len=2 * context, **CPU_SETTINGS)


def test_errors_say_whether_to_try_again():
    assert isinstance(translated("mini", VLLMValidationError("too long")), ConfigError)
    assert translated("mini", QueueOverflowError()).retryable
    assert translated("mini", EngineGenerateError()).retryable
    assert not translated("mini", EngineDeadError()).retryable


def test_pieces_of_a_sample_draw_from_different_streams():
    request = SampleRequest(id="one", prompt_ids=(1, 2, 3), max_tokens=5, seed=2**63 - 1)
    longer = replace(request, prompt_ids=(1, 2, 3, 4))
    assert stream_seed(request) == stream_seed(replace(request, id="two", max_tokens=9))
    assert stream_seed(request) != stream_seed(longer)
    assert stream_seed(request) != stream_seed(replace(request, seed=0))
    assert all(0 <= stream_seed(replace(request, seed=seed)) < 2**63 for seed in range(100))


def test_seeds_and_log_probabilities_are_left_out_where_nobody_wants_them():
    request = SampleRequest(id="one", prompt_ids=(1, 2, 3), max_tokens=5, seed=7)
    asked = {"limit": 5, "eos": (0,), "kind": RequestOutputKind.FINAL_ONLY}
    bound = sampling_params(request, **asked)
    assert (bound.seed, bound.logprobs) == (stream_seed(request), 0)
    free = sampling_params(replace(request, seeded=False, logprobs=False), **asked)
    assert (free.seed, free.logprobs) == (None, None)
    assert sampling_params(replace(request, logprobs=False, top_logprobs=5), **asked, top=5).logprobs == 5


async def test_a_request_that_is_not_bound_is_answered_without_log_probabilities():
    policy = engines.policy()
    sampled = await policy.sample(ask(policy, seeded=False, logprobs=False))
    assert len(sampled.token_ids) > 0
    assert sampled.logprobs == ()


@pytest.mark.parametrize(
    ("context", "stop", "expected"),
    [("ab\n", ("\n\n",), True), ("ab", ("\n\n",), False), ("a<", ("\n\n", "<end>"), True), ("", ("\n\n",), False)],
)
def test_only_a_begun_stop_string_is_watched_for(context, stop, expected):
    assert straddles(context, stop) is expected
