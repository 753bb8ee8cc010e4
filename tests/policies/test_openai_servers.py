"""Servers as they are: their words, their counts, their errors, their templates, their fields."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.fake import FakePolicy, ToyModel
from adaptive_ttc.policies.openai import OpenAIPolicy
from adaptive_ttc.policies.openai.protocol import read_chunk
from adaptive_ttc.policies.openai.words import count, ending
from adaptive_ttc.policy import Sampled
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Problem
from tests.conformance.policy_suite import ask
from tests.policies.openai_server import ToyServer, folder
from tests.policies.server_profiles import (
    CHAT_ONLY,
    HOSTED,
    LLAMA_CPP,
    LM_STUDIO,
    MODEL,
    OLLAMA,
    PLAIN,
    PROFILES,
    SGLANG,
    TGI,
    UNSTREAMED,
    VLLM,
    Profile,
)

LONG = "Add 1, 22, 333, 44, 555, 66, 777, 8 and 9."
APIS = {"ids": "tokens", "chat": "chat"}


def policy_over(server: ToyServer, **settings: Any) -> OpenAIPolicy:
    own = {"model": MODEL, "backoff": 0.0, "patience": 20.0}
    return OpenAIPolicy.from_pretrained(folder(), base_url=server.url, **{**own, **settings})


async def expected() -> Sampled:
    fake = FakePolicy.generative()
    return await fake.sample(ask(fake, LONG, max_tokens=400, temperature=0.0))


async def answer(server: ToyServer, times: int = 1, **settings: Any) -> Sampled:
    """The last of so many greedy answers to the long question."""
    policy = policy_over(server, **settings)
    try:
        for index in range(times):
            sampled = await policy.sample(ask(policy, LONG, id=str(index), max_tokens=400, temperature=0.0))
        return sampled
    finally:
        await policy.aclose()


def each_event(change: Callable[[dict[str, Any]], Any]) -> Callable[[list[Any]], list[Any]]:
    """Events changed in place, those with a list of choices."""

    def bend(events: list[Any]) -> list[Any]:
        for event in events:
            if isinstance(event, dict) and "choices" in event:
                change(event)
        return events

    return bend


def counting(prompt: int | None, completion: Any) -> Callable[[list[Any]], list[Any]]:
    """Whatever is counted, these are the counts; None leaves the right one."""

    def change(event: dict[str, Any]) -> None:
        if told := event.get("usage"):
            told["prompt_tokens"] = told["prompt_tokens"] if prompt is None else prompt
            told["completion_tokens"] = told["completion_tokens"] if completion is None else completion
        if told := event.get("timings"):
            told["predicted_n"] = told["predicted_n"] if completion is None else completion

    return each_event(change)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        *dict.fromkeys([("stop", "end"), ("eos", "end"), ("eos_token", "end"), ("end_turn", "end"), ("STOP", "end")]),
        *dict.fromkeys([("eosFound", "end"), ("COMPLETE", "end"), ("stop_token", "end"), ("<|endoftext|>", "end")]),
        *dict.fromkeys([("stop_sequence", "stop"), ("stopStringFound", "stop"), ("stop_string", "stop")]),
        *dict.fromkeys([("length", "length"), ("max_tokens", "length"), ("MAX_TOKENS", "length")]),
        *dict.fromkeys([("model_length", "length"), ("maxPredictedTokensReached", "length")]),
        *dict.fromkeys([("abort", None), ("content_filter", None), ("error", None), ("tool_calls", None), ("", None)]),
    ],
)
def test_words_for_the_end(said, meant):
    assert ending(said) == meant


def test_counts_are_counts_or_nothing():
    assert [count(value) for value in (42, 42.0, "42", 0)] == [42, 42, 42, 0]
    nothing = (None, True, -1, 1.5, "many", [], {}, float("nan"), float("inf"), 1e300)
    assert [count(value) for value in nothing] == [None] * len(nothing)


def test_events_are_read_in_all_their_forms():
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}, "odd"]
    assert read_chunk({"choices": [{"delta": {"content": parts}}]}).text == "ab"
    assert read_chunk({"choices": [{"delta": {"role": "assistant", "content": None}}]}).text == ""
    assert read_chunk({"choices": [{"delta": None, "message": {"content": "x"}}], "usage": None}).text == "x"
    assert read_chunk({"choices": [{"text": None, "logprobs": {"content": None}}]}).token_ids is None
    assert read_chunk({"choices": None, "usage": {"prompt_tokens": 0, "completion_tokens": "7"}}).completion_tokens == 7
    assert read_chunk({"choices": [{"text": "", "stop_reason": "end_turn"}]}).finish == "end_turn"
    assert read_chunk({"choices": [{"text": "", "finish_reason": None, "stop_reason": "x"}]}).finish is None
    assert read_chunk({"type": "ping"}).text == ""
    odd = read_chunk({"choices": [{"text": "a", "logprobs": {"tokens": ["a"], "token_logprobs": [float("nan")]}}]})
    assert odd.logprobs == ()
    told = {"tokens": ["a"], "top_logprobs": [{"a": -1.0, "b": float("nan"), "c": None}]}
    assert read_chunk({"choices": [{"text": "a", "logprobs": told}]}).top_logprobs == ((-1.0,),)
    for malformed in ({"choices": ["text"]}, {"choices": [{"text": "a", "logprobs": "none"}]}, {"usage": [1]}):
        with pytest.raises(EngineError, match="cannot be read") as caught:
            read_chunk(malformed)
        assert caught.value.retryable


LIES = (5000, 390, 0, "a lot", -5, "")


@pytest.mark.parametrize("form", APIS)
@pytest.mark.parametrize("profile", PROFILES, ids=lambda one: one.name)
async def test_a_wrong_count_is_told_once_and_not_believed(profile: Profile, form: str, caplog: Any):
    if form not in profile.prompts:
        pytest.skip("takes no token ids")
    whole = await expected()
    with ToyServer(profile) as server, caplog.at_level(logging.WARNING, "adaptive_ttc.policies.openai"):
        policy = policy_over(server, api=APIS[form])
        for lie in LIES:
            server.trouble.bend = counting(None, lie)
            sampled = await policy.sample(ask(policy, LONG, max_tokens=400, temperature=0.0))
            assert (sampled.token_ids, sampled.finish) == (whole.token_ids, "eos"), lie
            assert sampled.discarded_tokens == 0, lie
        await policy.aclose()
    told = [record.message for record in caplog.records if "is not believed" in record.message]
    assert len(told) == 1
    assert ("does not count" if profile == LM_STUDIO else "counts 5,000 tokens in an answer of") in told[0]


@pytest.mark.parametrize("lie", [None, "a lot"])
@pytest.mark.parametrize("profile", [VLLM, SGLANG, LLAMA_CPP], ids=lambda one: one.name)
async def test_names_are_enough(profile: Profile, lie: Any, caplog: Any):
    whole = await expected()
    with ToyServer(profile) as server, caplog.at_level(logging.WARNING, "adaptive_ttc.policies.openai"):
        server.trouble.bend = counting(None, lie)
        sampled = await answer(server)
    assert (sampled.token_ids, sampled.finish) == (whole.token_ids, "eos")
    assert len(sampled.logprobs) == len(sampled.token_ids)
    assert "is not believed" not in caplog.text


@pytest.mark.parametrize("profile", PROFILES, ids=lambda one: one.name)
async def test_no_budget_is_overspent_and_what_came_is_charged_whatever_is_counted(profile: Profile):
    with ToyServer(profile, ToyModel(0.1)) as server:
        async with Solver(policy_over(server, api="chat")) as solver:
            for lie in (5000, 1, None):
                server.trouble.bend, before = counting(None, lie), server.generated
                solution = await solver.solve(LONG, strategy="majority", n=6, max_tokens=300, budget_tokens=900)
                assert solution.answer is not None
                assert server.generated - before == solution.spent <= 900


async def test_an_answer_cut_by_its_limit_has_all_of_its_tokens_though_some_have_no_text():
    with ToyServer(PLAIN, ToyModel()) as server:
        server.trouble.bend = each_event(lambda event: [one["delta"].update(content="") for one in event["choices"]])
        policy = policy_over(server, api="chat")
        sampled = await policy.sample(ask(policy, LONG, max_tokens=60))
        await policy.aclose()
    assert (len(sampled.token_ids), sampled.finish) == (60, "length")


@pytest.mark.parametrize("form", APIS)
@pytest.mark.parametrize("profile", PROFILES, ids=lambda one: one.name)
async def test_an_error_inside_a_stream_is_told(profile: Profile, form: str):
    if form not in profile.prompts:
        pytest.skip("takes no token ids")
    with ToyServer(profile) as server:
        policy = policy_over(server, api=APIS[form])
        for fail_after in (0, 5):
            server.trouble.fail_after, server.trouble.failures = fail_after, 2
            with pytest.raises(EngineError, match="out of memory") as caught:
                await policy.sample(ask(policy, LONG, max_tokens=400))
            assert caught.value.retryable
            server.trouble.failures = 0
            assert (await policy.sample(ask(policy, LONG, max_tokens=400))).finish == "eos"
        await policy.aclose()


@pytest.mark.parametrize("event", ["event: error\ndata: it broke", 'data: {"object": "error", "message": "it broke"}'])
async def test_error_events_of_any_form_are_told(event: str):
    with ToyServer(CHAT_ONLY) as server:
        server.trouble.bend = lambda events: [*events, event]
        with pytest.raises(EngineError, match="it broke") as caught:
            await answer(server, api="chat")
        assert caught.value.retryable


@pytest.mark.parametrize("error", [{"code": 400, "message": "too long"}, {"code": "422", "message": "too long"}])
async def test_a_refusal_that_comes_as_the_first_event_is_a_refusal(error: dict[str, Any]):
    with ToyServer(PLAIN) as server:
        server.trouble.bend = lambda events: [{"error": error}]
        with pytest.raises(ConfigError, match="too long"):
            await answer(server, api="chat")


async def test_a_single_500_costs_nothing():
    with ToyServer(VLLM, ToyModel()) as server:
        server.trouble.refusals = [500]
        async with Solver(policy_over(server)) as solver:
            # the budget is that of one sample: a loss that is charged leaves nothing
            solution = await solver.solve(LONG, strategy="greedy", max_tokens=300, budget_tokens=300)
        assert solution.answer is not None
        assert (solution.usage.lost_tokens, solution.spent) == (0, server.generated)


async def test_a_text_that_gets_a_second_template_is_refused():
    with ToyServer(OLLAMA) as server, pytest.raises(ConfigError, match=r"template around prompts .* use api='chat'"):
        await answer(server, api="text")


@pytest.mark.parametrize(("read", "remedy"), [(95, "another chat template"), (9, "num_ctx"), (10**9, "another")])
async def test_another_prompt_than_was_sent_is_told_once(read: int, remedy: str, caplog: Any):
    with ToyServer(CHAT_ONLY) as server, caplog.at_level(logging.WARNING, "adaptive_ttc.policies.openai"):
        server.trouble.bend = counting(read, None)
        sampled = await answer(server, 3, api="chat")
    sent = len(FakePolicy.generative().encode(Problem.of(LONG)))
    told = [record.message for record in caplog.records if f"read {read} prompt tokens" in record.message]
    assert len(told) == 1
    assert remedy in told[0]
    # more is what it read, if it can be; fewer than were sent are not believed
    assert sampled.prompt_tokens + sampled.cached_tokens == (95 if read == 95 else sent)


@pytest.mark.parametrize(
    ("profile", "api"), [(TGI, "chat"), (TGI, "text"), (HOSTED, "chat")], ids=["chat", "text", "hosted"]
)
async def test_fields_that_a_server_refuses_are_left_out(profile: Profile, api: str, caplog: Any):
    whole = await expected()
    with ToyServer(profile) as server:
        policy = policy_over(server, api=api)
        for index in range(2):
            sampled = await policy.sample(ask(policy, LONG, id=str(index), max_tokens=400, temperature=0.0))
            assert sampled.token_ids == whole.token_ids
        refused = server.paths.total() - 4
        await policy.sample(ask(policy, LONG, max_tokens=5, top_p=0.9))
        await policy.aclose()
        assert server.requests[-1]["top_p"] == 0.9  # which cuts something off
    assert refused == len([one for one in caplog.records if "gets no" in one.message]) > 0


async def test_fields_that_the_caller_set_are_not_left_out():
    with ToyServer(HOSTED) as server, pytest.raises(ConfigError, match="top_k"):
        await answer(server, api="chat", standard_fields=True, extra={"top_k": 5})


@pytest.mark.parametrize("text", ["<end>", "<end><user>And then?<assistant>5<end>"])
async def test_an_answer_ends_where_the_end_token_is_written(text: str):
    def leak(event: dict[str, Any]) -> None:
        for choice in event["choices"]:
            if choice["finish_reason"]:
                choice["finish_reason"] = "length" if "user" in text else "stop"
                choice["delta"]["content"] += text

    whole = await expected()
    with ToyServer(PLAIN) as server:
        server.trouble.bend = each_event(leak)
        sampled = await answer(server, api="chat")
    assert (sampled.token_ids, sampled.finish) == (whole.token_ids, "eos")


@pytest.mark.parametrize("limit", [400, 20])
async def test_an_answer_without_a_reason_for_its_end_has_ended(limit: int, caplog: Any):
    whole = await expected()
    with ToyServer(LLAMA_CPP) as server:
        server.trouble.bend = each_event(lambda event: [one.pop("finish_reason", None) for one in event["choices"]])
        policy = policy_over(server, api="chat")
        sampled = await policy.sample(ask(policy, LONG, max_tokens=limit, temperature=0.0))
        await policy.aclose()
    assert sampled.token_ids == whole.token_ids[:limit]
    assert sampled.finish == ("eos" if limit == 400 else "length")
    assert "does not say why" in caplog.text


async def test_an_answer_in_one_piece_is_read():
    whole = await expected()
    with ToyServer(UNSTREAMED) as server:
        sampled = await answer(server, api="chat")
    assert (sampled.token_ids, sampled.finish) == (whole.token_ids, "eos")


async def test_what_keeps_a_connection_alive_is_passed_over():
    whole = await expected()
    with ToyServer(CHAT_ONLY) as server:
        server.trouble.bend = lambda events: [": alive", "data: ", 'event: ping\ndata: {"type": "ping"}', *events]
        sampled = await answer(server, api="chat")
    assert (sampled.token_ids, sampled.finish) == (whole.token_ids, "eos")
