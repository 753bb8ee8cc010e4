"""Servers that tell a model's thinking from its answer: it is counted as thinking, and no answer is read off it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from adaptive_ttc import Solver
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policies.fake import ReasoningToy
from adaptive_ttc.policies.fake.writers import CLOSE, EOS, OPEN, decode_tokens
from adaptive_ttc.policies.openai import OpenAIPolicy
from adaptive_ttc.policies.openai.answer import Answer
from adaptive_ttc.policies.openai.protocol import Chunk, read_chunk
from adaptive_ttc.policies.requests import TokenTexts
from adaptive_ttc.policy import SampleRequest
from tests.policies.openai_server import ToyServer, folder
from tests.policies.server_profiles import CHAT_ONLY, VLLM, Profile, Turn, chunk, usage
from tests.policies.test_openai_parts import words

__all__ = ["words"]

QUESTION = "What is 17 + 25 + 31?"


@dataclass(frozen=True)
class Thinking(Profile):
    """A chat server that puts a thought into a field of its own, without its tags."""

    field: str = "reasoning_content"

    def piece(self, turn: Turn) -> list[Any]:
        within = CLOSE not in turn.tokens
        [token], _, _ = turn.fresh()
        text = decode_tokens([token])
        delta = {self.field: text, "content": None} if within else {"content": text}
        choice = {"index": 0, "finish_reason": self.word(turn), "delta": {} if token in (OPEN, CLOSE, EOS) else delta}
        return [chunk(turn, choice, usage=usage(turn, completion_tokens_details={"reasoning_tokens": 0}))]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_what_came_as_reasoning_is_thinking_and_no_answer(field):
    with ToyServer(Thinking(field=field), ReasoningToy(0.05)) as server:
        policy = OpenAIPolicy.from_pretrained(folder(), base_url=server.url, api="chat", backoff=0.0)
        async with Solver(policy) as solver:
            solution = await solver.solve(QUESTION, n=4, max_tokens=300, seed=1)
            cut = await solver.solve(QUESTION, n=2, max_tokens=20, seed=1)
        assert solution.usage.completion_tokens + cut.usage.completion_tokens == server.generated
    assert solution.answer == "73"
    for one in solution.candidates:
        assert one.prefix.answer_text.startswith("The answer is")
        assert one.prefix.text.startswith(one.prefix.text[: one.prefix.answer_at])
        assert one.prefix.thought == one.prefix.answer_at  # a token a byte
    assert solution.usage.thinking_tokens == sum(one.prefix.thought for one in solution.candidates)
    assert cut.answer is None
    assert "still thinking" in cut.abstained


async def test_template_arguments_reach_the_server_and_the_fingerprint():
    kwargs = {"enable_thinking": False}
    with ToyServer(CHAT_ONLY) as server:
        plain = OpenAIPolicy.from_pretrained(folder(), base_url=server.url, api="chat")
        policy = OpenAIPolicy.from_pretrained(folder(), base_url=server.url, api="chat", chat_template_kwargs=kwargs)
        assert plain.fingerprint != policy.fingerprint
        async with Solver(policy) as solver:
            await solver.solve(QUESTION, n=1, max_tokens=300)
        assert server.requests[0]["chat_template_kwargs"] == kwargs
        await plain.aclose()


def test_reasoning_is_read_as_servers_write_it():
    for key in ("reasoning_content", "reasoning"):
        for place in ("delta", "message"):
            read = read_chunk({"choices": [{place: {key: "hm", "content": None}}]})
            assert (read.reasoning, read.text) == ("hm", "")
    told = {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}}
    assert read_chunk({"choices": [], "usage": told}).reasoning_tokens == 4
    assert read_chunk({"choices": [], "usage": {"completion_tokens_details": None}}).reasoning_tokens is None


def sampled(model, *chunks, limit=20):
    texts = TokenTexts(lambda ids: model.chat.tokenizer.decode(list(ids), skip_special_tokens=True), 5)
    request = SampleRequest(id="x", prompt_ids=(0,), max_tokens=limit, seed=0)
    answer = Answer(request, limit, texts.stop_rule(()), model, whole=True)
    for one in chunks:
        answer.take(one)
    return answer.sampled()


def test_thinking_stands_before_the_answer_and_what_is_hidden_counts(words):
    shown, last = Chunk(reasoning="abc abc"), Chunk(text="abc", finish="stop", completion_tokens=6)
    one = sampled(words, shown, last)
    assert (one.token_ids, one.thought) == ((5, 6, 5, 9, 9, 9), 2)  # what has no text of its own is charged as EOS
    hidden = Chunk(text="abc", finish="stop", completion_tokens=6, reasoning_tokens=4)
    one = sampled(words, hidden)
    assert (one.token_ids, one.thought) == ((9, 9, 9, 9, 5, 9), 4)
    cut = Chunk(finish="length", completion_tokens=2)
    one = sampled(words, shown, cut, limit=2)
    assert (one.token_ids, one.thought, one.finish) == ((5, 6), 2, "length")
    assert sampled(words, Chunk(text="abc", finish="stop", completion_tokens=2)).thought is None


async def test_a_server_of_whole_samples_is_told_the_limit_in_its_own_field_or_refuses_it():
    with ToyServer(CHAT_ONLY) as server:
        for field, settings in (
            ("thinking_token_budget", {}),
            ("chat_template_kwargs.thinking_budget", {"chat_template_kwargs": {"enable_thinking": True}}),
        ):
            policy = OpenAIPolicy.from_pretrained(
                folder(), base_url=server.url, api="chat", thinking_field=field, **settings
            )
            async with Solver(policy) as solver:
                await solver.solve(QUESTION, n=1, max_tokens=300, think_tokens=64)
                await solver.solve(QUESTION, n=1, max_tokens=300)
        limited, free, nested, plain = server.requests
        assert limited["thinking_token_budget"] == 64
        assert "thinking_token_budget" not in free
        assert nested["chat_template_kwargs"] == {"enable_thinking": True, "thinking_budget": 64}
        assert plain["chat_template_kwargs"] == {"enable_thinking": True}
        async with Solver(OpenAIPolicy.from_pretrained(folder(), base_url=server.url, api="chat")) as solver:
            with pytest.raises(ConfigError, match=r"think_tokens.*api='chat' cannot: name the server's own field"):
                await solver.solve(QUESTION, n=1, think_tokens=64)
            with pytest.raises(ConfigError, match=r"waits .*api='chat' cannot: serve the model"):
                await solver.solve(QUESTION, n=1, waits=1)


async def test_thoughts_end_over_a_server_that_takes_token_ids():
    with ToyServer(VLLM, ReasoningToy(0.05, 0.9)) as server:
        policy = OpenAIPolicy.from_pretrained(folder(), base_url=server.url, thinking=None)
        policy.thinking = ReasoningToy().tags
        async with Solver(policy) as solver:
            solution = await solver.solve(QUESTION, n=3, think_tokens=45, max_tokens=300)
            longer = await solver.solve(QUESTION, n=2, waits=1, max_tokens=600, think_tokens=200)
    assert [one.answer is not None for one in solution.candidates] == [True] * 3
    assert all(one.prefix.thought <= 46 for one in solution.candidates)
    assert solution.spent == solution.usage.completion_tokens
    assert [one.prefix.text.count("Wait") >= 1 for one in longer.candidates] == [True] * 2
