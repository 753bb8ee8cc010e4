"""PRMs over HTTP against a server in this process: the same scores, and every way in which a server may fail."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import torch

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.served_prm import ServedPRM, ServedStates
from adaptive_ttc.prm import RewardModel
from adaptive_ttc.prm.families.implicit import ImplicitReader
from adaptive_ttc.prm.families.rlhflow import FORMAT, RLHFlowReader, parts
from adaptive_ttc.prm.registry import Family
from adaptive_ttc.prm.remote import RemoteModel, RemotePRM
from tests.conformance.prm_suite import CHECKS, PRMCase
from tests.prm.tiny import IMPLICIT, REQUESTS, head_of, model_of, reference_scores, save, tokenizer_of

Handler = Callable[[httpx2.Request], httpx2.Response]


def serving(family: str, seed: int = 0) -> Handler:
    """Answers as vLLM's pooling endpoint does."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked = json.loads(request.content)
        assert (request.url.path, asked["task"], asked["use_activation"]) == ("/pooling", "token_embed", False)
        assert (asked["encoding_format"], asked["embed_dtype"], asked["endianness"]) == ("base64", "float32", "little")
        with torch.no_grad():
            states = model_of(family, seed).model(torch.tensor([asked["input"]])).last_hidden_state[0]
        data = base64.b64encode(states.numpy().astype("<f4").tobytes()).decode()
        return httpx2.Response(200, json={"data": [{"index": 0, "object": "pooling", "data": data}]})

    return answer


def source(handler: Handler, **settings: Any) -> ServedStates:
    return ServedStates("http://prm", "m", transport=httpx2.MockTransport(handler), max_context=1024, **settings)


def rlhflow(handler: Handler) -> RemotePRM:
    reader = RLHFlowReader(tokenizer_of("llama3"), head_of(model_of("llama3")))
    models = [RemoteModel(source(handler), reader.heads[0])]
    return RemotePRM(reader, models, name="served", fingerprint="f", parameters=1)


def implicit() -> RewardModel:
    heads = [head_of(model_of("tiny", seed)) for seed in (0, 1)]
    reader = ImplicitReader(tokenizer_of("tiny"), heads[0], heads[1], IMPLICIT)
    sources = [source(serving("tiny", seed)) for seed in (0, 1)]
    models = [RemoteModel(one, head) for one, head in zip(sources, reader.heads, strict=True)]
    return RemotePRM(reader, models, name="served", fingerprint="f", parameters=1)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("make", [lambda: rlhflow(serving("llama3")), implicit], ids=["rlhflow", "implicit"])
async def test_conformance(make: Callable[[], RewardModel], check: str) -> None:
    await CHECKS[check](PRMCase("served", make, long=5000))


async def test_scores_are_the_published_evaluations_and_are_asked_for_once() -> None:
    asked: list[int] = []
    answer = serving("llama3")

    def counting(request: httpx2.Request) -> httpx2.Response:
        asked.append(len(json.loads(request.content)["input"]))
        return answer(request)

    prm = rlhflow(counting)
    for _ in range(2):
        for request in REQUESTS:
            scored = await prm.score(request)
            assert list(scored.scores) == pytest.approx(reference_scores("llama3", request), abs=1e-5)
    assert (scored.prm_tokens, scored.cached_tokens) == (0, prm.count_tokens(REQUESTS[-1]))
    assert len(asked) <= len(REQUESTS)
    await prm.aclose()


def status(code: int) -> Handler:
    return lambda request: httpx2.Response(code, text="said the server")


def saying(body: Any) -> Handler:
    return lambda request: httpx2.Response(200, json=body)


def unreachable(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("refused")


HALF = base64.b64encode(np.zeros(7, "<f4").tobytes()).decode()
FAILURES: dict[str, tuple[Handler, type[Exception], bool]] = {
    "unreachable": (unreachable, EngineError, True),
    "overloaded": (status(429), EngineError, True),
    "broken": (status(503), EngineError, True),
    "another server": (status(404), ConfigError, False),
    "broken, and 200": (saying({"error": {"message": "out of memory", "code": 500}}), EngineError, True),
    "no states": (saying({"choices": []}), EngineError, False),
    "too few": (saying({"data": [{"data": HALF}]}), EngineError, False),
    "not base64": (saying({"data": [{"data": [[0.1]]}]}), EngineError, False),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_failures_say_what_to_do_and_whether_to_try_again(case: str) -> None:
    handler, kind, retryable = FAILURES[case]
    prm = rlhflow(handler)
    with pytest.raises(kind, match="m at http://prm") as caught:
        await prm.score(REQUESTS[0])
    assert getattr(caught.value, "retryable", False) is retryable
    await prm.aclose()


def test_made_from_a_folder_for_the_servers_of_its_models(tmp_path: Path) -> None:
    save("llama3", tmp_path)
    family = Family(format=FORMAT, parts=parts)
    local = family.local(tmp_path, dtype="float32")
    prm = ServedPRM.from_family(family, tmp_path, url="http://prm:8000/", dtype="float32", timeout=5.0)
    assert (prm.name, prm.fingerprint, prm.parameters) == (local.name, local.fingerprint, local.parameters)
    assert prm.max_context == local.max_context == 1024
    for settings, message in (
        ({"url": ("http://a", "http://b")}, "1 models"),
        ({"url": "prm:8000"}, "http://"),
        ({"url": "http://a", "concurrency": 0}, "concurrency"),
        ({"url": "http://a", "retries": 3}, "timeout and concurrency"),
    ):
        with pytest.raises(ConfigError, match=message):
            ServedPRM.from_family(family, tmp_path, **settings)  # type: ignore[arg-type]
