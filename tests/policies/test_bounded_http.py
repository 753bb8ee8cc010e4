"""Servers that send without end, or more than they were asked for: they are cut off, and what came in time counts."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import anyio
import httpx2
import pytest

from adaptive_ttc.errors import EngineError, OutageError
from adaptive_ttc.policies.fake import EOS
from adaptive_ttc.policies.openai import OpenAIPolicy, http
from adaptive_ttc.policies.served_prm import ServedStates
from tests.conformance.policy_suite import ask
from tests.policies.openai_server import folder
from tests.policies.server_profiles import MODEL

TOO_MUCH = 2**25  # bytes, after which the server itself says that nobody cuts it off
A, B = ord("a"), ord("b")


class Body(httpx2.AsyncByteStream):
    """What a server sends; ``sent`` bytes were taken, and afterwards it says no more, but keeps the connection."""

    def __init__(self, parts: Iterable[bytes], *, ends: bool = True) -> None:
        self.parts, self.ends = parts, ends
        self.sent, self.closed = 0, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            self.sent += len(part)
            assert self.sent < TOO_MUCH, "the server was not cut off"
            yield part
        if not self.ends:
            await anyio.sleep_forever()

    async def aclose(self) -> None:
        self.closed = True


def event(content: Any) -> bytes:
    return f"data: {content if isinstance(content, str) else json.dumps(content)}\n\n".encode()


def chunk(token: int, count: int | None = None, *, named: bool = True, finish: str | None = None) -> bytes:
    text = "" if token == EOS else chr(token)
    choice: dict[str, Any] = {"text": text, "delta": {"content": text}, "finish_reason": finish}
    usage = {} if count is None else {"usage": {"prompt_tokens": None, "completion_tokens": count}}
    return event({"choices": [choice | ({"token_ids": [token]} if named else {})], **usage})


def policy_over(body: Body, *, status: int = 200, headers: dict[str, str] | None = None, **settings: Any) -> Any:
    """A policy whose one server answers every sample with ``body``."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/models":
            return httpx2.Response(200, json={"data": [{"id": MODEL}]})
        if request.method == "GET":
            return httpx2.Response(200)
        sent = {"content-type": "text/event-stream", **(headers or {})}
        return httpx2.Response(status, stream=body, headers=sent)

    return over(answer, **settings)


def over(answer: Callable[[httpx2.Request], httpx2.Response], **settings: Any) -> Any:
    policy = OpenAIPolicy.from_pretrained(folder(), **{"backoff": 0.0, "patience": 0.0, **settings})
    policy._connections.enter()
    policy._connections._client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    return policy


@pytest.mark.parametrize("counts", [True, False])
async def test_tokens_beyond_max_tokens_are_dropped_and_no_more_are_waited_for(counts: bool) -> None:
    body = Body(chunk(A, number if counts else None) for number in itertools.count(1))
    policy = policy_over(body)
    sampled = await policy.sample(ask(policy, max_tokens=5))
    assert (sampled.token_ids, sampled.finish, sampled.discarded_tokens) == ((A,) * 5, "length", 1)
    assert body.closed
    await policy.aclose()


async def test_an_end_beyond_max_tokens_is_none() -> None:
    for parts, stop in (
        ([chunk(A), chunk(A), chunk(EOS, finish="stop")], ()),
        ([chunk(A), chunk(A), chunk(B)], ("b",)),
    ):
        policy = policy_over(Body(parts))
        sampled = await policy.sample(ask(policy, max_tokens=2, stop=stop))
        assert (sampled.token_ids, sampled.finish, sampled.discarded_tokens) == ((A, A), "length", 1)
        await policy.aclose()


async def test_thinking_ends_at_max_tokens() -> None:
    thought = event({"choices": [{"index": 0, "delta": {"content": None, "reasoning_content": "a"}}]})
    policy = policy_over(Body(itertools.repeat(thought)), api="chat")
    sampled = await policy.sample(ask(policy, max_tokens=5))
    assert (sampled.token_ids, sampled.finish, sampled.thought) == ((A,) * 5, "length", 5)
    await policy.aclose()


@pytest.mark.parametrize("counts", [True, False])
async def test_text_ends_at_max_tokens(counts: bool) -> None:
    parts = (chunk(A, number if counts else None, named=False) for number in itertools.count(1))
    policy = policy_over(Body(parts), api="chat")
    sampled = await policy.sample(ask(policy, max_tokens=5))
    assert (sampled.token_ids, sampled.finish, sampled.discarded_tokens) == ((A,) * 5, "length", 1)
    await policy.aclose()


ENDLESS: dict[str, Callable[[], Iterable[bytes]]] = {
    "comments": lambda: itertools.repeat(b": still here\n\n" * 1000),
    "events that say nothing": lambda: itertools.repeat(event({"choices": []}) * 1000),
    "one event": lambda: itertools.chain([b"data: "], itertools.repeat(b"a" * 10_000)),
    "one line": lambda: itertools.repeat(b"[" * 10_000),
}


@pytest.mark.parametrize("kind", ENDLESS)
async def test_an_answer_without_an_end_is_cut_off(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_MOST_BYTES", 2**18)
    body = Body(ENDLESS[kind]())
    policy = policy_over(body, api="chat")
    with pytest.raises(EngineError, match="broke off") as caught:
        await policy.sample(ask(policy, max_tokens=5))
    assert caught.value.retryable
    assert caught.value.generated
    assert body.closed
    await policy.aclose()


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_a_long_answer_comes_whole_whatever_its_limit_is_called(field: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(http, "_MOST_BYTES", 2**14)
    asked = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            return httpx2.Response(200, json={"data": [{"id": MODEL}]})
        asked.append(json.loads(request.content))
        if field not in asked[-1]:
            return httpx2.Response(400, text="Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.")
        padded = event({"choices": [{"delta": {"content": "a"}}], "obfuscation": "x" * 1000})
        last = event({"choices": [{"delta": {}, "finish_reason": "length"}]})
        return httpx2.Response(200, stream=Body([padded] * 100 + [last]), headers={"content-type": "text/event-stream"})

    policy = over(answer, api="chat")
    sampled = await policy.sample(ask(policy, max_tokens=100))
    assert sampled.token_ids == (A,) * 100
    assert asked[-1][field] == 100
    await policy.aclose()


@pytest.mark.parametrize("ends", [True, False])
async def test_whatever_comes_after_the_last_event_holds_nobody_up(ends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_LAST_BYTES_TIMEOUT", 0.0 if not ends else 60.0)
    parts = [chunk(A, 1, finish="length"), event("[DONE]")]
    body = Body(itertools.chain(parts, itertools.repeat(b": still here\n\n" * 1000)) if ends else parts, ends=ends)
    policy = policy_over(body)
    assert (await policy.sample(ask(policy, max_tokens=1))).token_ids == (A,)
    assert body.closed
    await policy.aclose()


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize(("status", "kind"), [(500, EngineError), (503, OutageError)])
async def test_an_error_s_body_is_read_only_as_far_as_it_is_shown(
    status: int, kind: type[EngineError], ends: bool
) -> None:
    body = Body(itertools.repeat(b"sorry ") if ends else [b"sorry " * 1000], ends=ends)
    policy = policy_over(body, status=status)
    with pytest.raises(kind, match=f"{status}: sorry"):
        await policy.sample(ask(policy))
    assert body.sent < 10_000
    assert body.closed
    await policy.aclose()


async def test_compressed_answers_are_refused_as_nobody_knows_their_length() -> None:
    policy = policy_over(Body([b"\x1f\x8b"]), headers={"content-encoding": "gzip"})
    with pytest.raises(EngineError, match="'gzip'"):
        await policy.sample(ask(policy))
    await policy.aclose()


@pytest.mark.parametrize("ends", [True, False])
async def test_a_list_of_models_without_an_end_is_that_of_a_server_that_is_not_well(ends: bool) -> None:
    body = Body(itertools.repeat(b" " * 10_000) if ends else [b"{"], ends=ends)
    policy = over(lambda request: httpx2.Response(200, stream=body), connect_timeout=30.0 if ends else 0.01)
    with pytest.raises(OutageError, match="out of reach"):
        await policy.sample(ask(policy))
    await policy.aclose()


@pytest.mark.parametrize("ends", [True, False])
async def test_states_without_an_end_are_cut_off(ends: bool) -> None:
    body = Body(itertools.repeat(b"AAAA" * 1000) if ends else [b"{"], ends=ends)
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, stream=body))
    source = ServedStates("http://prm", "m", transport=transport, timeout=30.0 if ends else 0.01)
    with pytest.raises(EngineError, match="UnboundedError" if ends else "TimeoutError") as caught:
        await source.states((1, 2), whole=True)
    assert caught.value.retryable
    assert body.closed
    await source.aclose()
