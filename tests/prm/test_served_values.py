"""Reward models that a server reads by its own head: what it is sent, what it answers, and what is not believed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.prm import RewardModel, ScoreRequest, Traits, load_prm
from adaptive_ttc.prm.base import traits_of
from adaptive_ttc.prm.checkpoint import load_tokenizer
from tests.prm.tiny import REQUESTS
from tests.prm.tiny_heads import (
    reference_qwen_math,
    save_qwen_math,
    shepherd_model,
    shepherd_tokenizer,
)
from tests.prm.tiny_outcome import reference_outcome, rendered, save_outcome

Answer = Callable[[str, dict[str, Any]], Any]
ONE = ScoreRequest("What is 1 + 1?", ("It is two.", "So \\boxed{2}."))


def loaded(folder: Path, answer: Answer, **settings: Any) -> RewardModel:
    def reply(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=answer(request.url.path, json.loads(request.content)))

    return load_prm(folder, engine="served", url="http://prm", transport=httpx2.MockTransport(reply), **settings)


def probs(value: float, tokens: int | None = None) -> dict[str, Any]:
    usage = {} if tokens is None else {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    return {"data": [{"index": 0, "label": "LABEL_0", "probs": [value], "num_classes": 1}], **usage}


async def test_classify_is_sent_the_chat_as_tokens(tmp_path: Path) -> None:
    folder = save_outcome(tmp_path)
    tokenizer = load_tokenizer(folder)
    asked = []

    def answer(path: str, body: dict[str, Any]) -> Any:
        asked.append((path, body["model"], body["input"]))
        return probs(reference_outcome(folder, tokenizer, REQUESTS[len(asked) - 1]), len(body["input"]))

    prm = loaded(folder, answer, model="judge")
    assert traits_of(prm) == Traits(finished_only=True)
    local = load_prm(folder)
    assert prm.parameters == local.parameters
    for request in REQUESTS:
        got, expected = await prm.score(request), await local.score(request)
        assert got.scores == pytest.approx(expected.scores, abs=1e-5)
        assert got.prm_tokens == prm.count_tokens(request) == local.count_tokens(request)
    assert asked == [("/classify", "judge", rendered(tokenizer, request)) for request in REQUESTS]
    await prm.aclose()
    with pytest.raises(EngineError, match="closed"):
        await prm.score(ONE)


async def test_score_is_sent_question_and_solution(tmp_path: Path) -> None:
    asked = []

    def answer(path: str, body: dict[str, Any]) -> Any:
        asked.append((path, body["text_1"], body["text_2"]))
        return {"data": [{"index": 0, "object": "score", "score": 0.25}], "usage": {"prompt_tokens": 30}}

    prm = loaded(save_outcome(tmp_path), answer, pooling="score", template_tokens=20)
    scored = await prm.score(ONE)
    assert scored.scores == (0.25, 0.25)
    assert scored.prm_tokens == 30
    assert scored.prm_tokens + scored.cached_tokens == prm.count_tokens(ONE)
    assert asked == [("/score", ONE.question, "It is two.\n\nSo \\boxed{2}.")]


async def test_logits_are_asked_for_as_such(tmp_path: Path) -> None:
    asked = []

    def answer(path: str, body: dict[str, Any]) -> Any:
        asked.append(body["use_activation"])
        return probs(-800.0 if len(asked) > 1 else 1.5)

    prm = loaded(save_outcome(tmp_path), answer, logits=True)
    assert (await prm.score(ONE)).scores[0] == pytest.approx(1 / (1 + math.exp(-1.5)))
    assert (await prm.score(REQUESTS[0])).scores[0] == 0.0
    assert asked == [False, False]


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (probs(3.5), EngineError, "own pooling and activation"),
        ({"data": [{"probs": [0.1, 0.9]}]}, EngineError, "2 labels"),
        ({"data": []}, EngineError, "something else than scores"),
        ({"data": [{"probs": ["x"]}]}, EngineError, "something else than scores"),
        ([], EngineError, "something else than scores"),
        (probs(float("nan")), EngineError, "something else than scores"),
        ({**probs(0.5), "usage": {"prompt_tokens": "5"}}, EngineError, "something else than scores"),
        (probs(0.5, 10_000), ConfigError, "no budget could hold: pass template_tokens="),
    ],
)
async def test_what_cannot_be_is_not_believed(answer: Any, error: type[Exception], said: str, tmp_path: Path) -> None:
    def reply(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=json.dumps(answer).encode())

    folder = save_outcome(tmp_path)
    prm = load_prm(folder, engine="served", url="http://prm", transport=httpx2.MockTransport(reply))
    with pytest.raises(error, match=said):
        await prm.score(ONE)


async def test_a_server_of_another_kind_is_told_apart_and_a_failing_one_asked_again(tmp_path: Path) -> None:
    folder = save_outcome(tmp_path)
    for status, error, said in ((404, ConfigError, "sequence classifier"), (503, EngineError, "failed with 503")):
        transport = httpx2.MockTransport(lambda request, status=status: httpx2.Response(status, text="no"))
        prm = load_prm(folder, engine="served", url="http://prm", transport=transport)
        with pytest.raises(error, match=said) as raised:
            await prm.score(ONE)
        assert getattr(raised.value, "retryable", False) is (status == 503)


async def test_step_pooling_of_qwens_classes(tmp_path: Path) -> None:
    save_qwen_math(tmp_path)
    step = load_tokenizer(tmp_path).convert_tokens_to_ids("<extra_0>")
    numbers = iter(REQUESTS)

    def answer(path: str, body: dict[str, Any]) -> Any:
        assert (path, body["task"], body["encoding_format"]) == ("/pooling", "token_classify", "float")
        good = reference_qwen_math(next(numbers))
        assert body["input"].count(step) == len(good)
        return {"data": [{"data": [[1 - one, one] for one in good]}], "usage": {"prompt_tokens": len(body["input"])}}

    prm, local = loaded(tmp_path, answer, pooling="steps", dtype="float32"), load_prm(tmp_path)
    assert (prm.fingerprint, prm.parameters) == (local.fingerprint, local.parameters)
    for request in REQUESTS:
        assert list((await prm.score(request)).scores) == pytest.approx(reference_qwen_math(request), abs=1e-6)


async def test_step_pooling_of_math_shepherd_leaves_out_tags_that_a_step_wrote_itself(tmp_path: Path) -> None:
    shepherd_model().save_pretrained(tmp_path)
    shepherd_tokenizer().save_pretrained(tmp_path)
    request = ScoreRequest("1 + 1?", ("Two, says ки to me.", "So it is two."))
    seen = []

    def answer(path: str, body: dict[str, Any]) -> Any:
        tag = shepherd_tokenizer().encode("ки")[-1]
        seen.append(body["input"].count(tag))
        return {"data": [{"data": [[0.1 * place] for place in range(1, seen[-1] + 1)]}]}

    prm = loaded(tmp_path, answer, reader="math-shepherd", pooling="steps")
    scores = (await prm.score(request)).scores
    assert seen == [3]
    assert scores == pytest.approx((0.2, 0.3))
    few = loaded(tmp_path, lambda path, body: {"data": [{"data": [[0.5]]}]}, reader="math-shepherd", pooling="steps")
    with pytest.raises(EngineError, match="1 values came for 3 step tokens"):
        await few.score(request)


def test_what_a_model_cannot_be_read_by_is_refused(tmp_path: Path) -> None:
    save_qwen_math(tmp_path / "prm")
    refused = {"pooling": "classify"}
    with pytest.raises(ConfigError, match="can be read by 'states' or 'steps'"):
        loaded(tmp_path / "prm", lambda path, body: None, **refused)
    folder = save_outcome(tmp_path / "orm")
    with pytest.raises(ConfigError, match="take 'classify' or 'score'"):
        loaded(folder, lambda path, body: None, pooling="steps")
    with pytest.raises(ConfigError, match="settings of a served reward model are"):
        loaded(folder, lambda path, body: None, device="cuda")
    with pytest.raises(ConfigError, match="an outcome model is one"):
        load_prm(folder, engine="served", url=["http://a", "http://b"])
