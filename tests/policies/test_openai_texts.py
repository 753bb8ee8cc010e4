"""Texts that the tokenizer in the model's folder writes otherwise than the server did: they are used as they came."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from adaptive_ttc import Solver
from adaptive_ttc.answers.thinking import ThinkingTags
from adaptive_ttc.driver.boundary import checked_sample
from adaptive_ttc.errors import ReplyError, RevisionWarning
from adaptive_ttc.policies.openai import OpenAIPolicy
from adaptive_ttc.policies.openai.answer import Answer
from adaptive_ttc.policies.openai.protocol import Chunk
from adaptive_ttc.policies.replay import Recorder, SampleSettings
from adaptive_ttc.policies.requests import TokenTexts
from adaptive_ttc.policy import SampleRequest
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.prm.written import Writer
from tests.policies.openai_server import ToyServer, folder
from tests.policies.server_profiles import CHAT_ONLY
from tests.policies.test_openai_servers import each_event

QUESTION = "What is 17 + 25 + 31?"
OHM, OMEGA = "\u2126", "\u03a9"  # NFC makes the second of the first
ACUTE = "e\u0301"  # two characters, of which NFC makes one


@pytest.fixture(scope="module")
def composing(tmp_path_factory):
    """The toy's folder with a tokenizer that normalises as Qwen's do."""
    path = tmp_path_factory.mktemp("composing") / "toy"
    shutil.copytree(folder(), path)
    core = json.loads((path / "tokenizer.json").read_text())
    (path / "tokenizer.json").write_text(json.dumps({**core, "normalizer": {"type": "NFC"}}))
    return path


@pytest.fixture(scope="module")
def model(composing):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(composing)
    return SimpleNamespace(chat=SimpleNamespace(tokenizer=tokenizer), eos=frozenset([tokenizer.eos_token_id]))


def answer_of(model: Any, *chunks: Chunk, limit: int = 100) -> Answer:
    tokenizer = model.chat.tokenizer
    texts = TokenTexts(lambda ids: tokenizer.decode(list(ids), skip_special_tokens=True), ord("a"))
    request = SampleRequest(id="x", prompt_ids=(0,), max_tokens=limit, seed=0)
    answer = Answer(request, limit, texts.stop_rule(()), model, whole=True)
    for chunk in chunks:
        answer.take(chunk)
    return answer


@pytest.mark.parametrize("counted", [None, 12, 3, 5000])
def test_a_text_that_is_normalised_is_kept_and_its_tokens_are_counted(model, counted):
    said = f"So 10 {OHM}."
    answer = answer_of(model, Chunk(text=said, finish="stop", completion_tokens=counted))
    sampled = answer.sampled()
    came = len(f"So 10 {OMEGA}.".encode()) + 1  # a token a byte, and the end's
    assert len(sampled.token_ids) == max(came, counted if counted == 12 else 0)
    assert (sampled.finish, sampled.text) == ("eos", said)
    assert sampled.ends[:6] == (1, 2, 3, 4, 5, 6)
    assert sampled.ends[7:] == (7, *[8] * (len(sampled.token_ids) - 8))
    assert "text" in answer.doubts
    # one that is cut short keeps what it was paid for
    cut = answer_of(model, Chunk(text=said), limit=4).aborted()
    assert (cut.text, len(cut.token_ids)) == (said[:4], 4)


def test_what_the_tokenizer_writes_as_it_came_has_no_text_of_its_own(model):
    answer = answer_of(model, Chunk(text=f"So 10 {OMEGA}.", finish="stop", completion_tokens=11))
    sampled = answer.sampled()
    assert (sampled.text, sampled.ends, answer.doubts) == (None, (), {})
    assert model.chat.tokenizer.decode(sampled.token_ids, skip_special_tokens=True) == f"So 10 {OMEGA}."


def test_halves_of_a_character_are_joined_and_lone_ones_replaced(model):
    halves = answer_of(model, Chunk(text="a\ud83d"), Chunk(text="\ude00b\ud83d", finish="stop")).sampled()
    assert model.chat.tokenizer.decode(halves.token_ids, skip_special_tokens=True) == "a\U0001f600b\ufffd"


def test_where_little_is_left_of_a_text_its_pieces_count(model):
    """A tokenizer that makes one token of much must not make much cheap."""
    many = [Chunk(text="e"), *(Chunk(text="\u0301") for _ in range(4)), Chunk(text="e\u0301" * 20, finish="stop")]
    for counted in (None, 4000):
        last = replace(many[-1], completion_tokens=counted)
        sampled = answer_of(model, *many[:-1], last, limit=60).sampled()
        assert len(sampled.token_ids) >= max(len(many), len(("\u00e9" * 20).encode()))
        assert sampled.text is not None
        assert sampled.text.startswith("e\u0301")


def test_the_thought_of_such_a_text_ends_where_it_ended(model):
    apart = answer_of(model, Chunk(reasoning=ACUTE * 9), Chunk(text=f"{OHM}!", finish="stop")).sampled()
    assert apart.text == ACUTE * 9 + f"{OHM}!"
    assert apart.thought is not None
    assert apart.ends[apart.thought - 1] == len(ACUTE * 9)
    tags = ThinkingTags(opening=(0,), closing=(0,), forced=(0,), texts=("<t>", "</t>"))
    within = answer_of(model, Chunk(text=f"<t>{ACUTE * 9}</t>{OHM}!", finish="stop")).sampled()
    decode = within.decoder(model.chat.tokenizer.decode)
    thought = tags.thought(within.token_ids, decode(within.token_ids), decode)
    assert within.text is not None
    assert within.text[thought.answer_at :] == f"{OHM}!"
    assert thought.tokens == len(("<t>" + "\u00e9" * 9 + "</t>").encode())


def test_a_text_that_does_not_go_with_the_tokens_is_refused(model):
    request = SampleRequest(id="x", prompt_ids=(0,), max_tokens=100, seed=0)
    policy: Any = SimpleNamespace(name="toy", max_context=1000)
    sampled = answer_of(model, Chunk(text=f"So {OHM}.", finish="stop")).sampled()
    assert checked_sample(sampled, request, policy) == sampled
    falling = (sampled.ends[-1], *sampled.ends[1:])
    for wrong in ({"ends": ()}, {"text": None}, {"ends": falling}, {"text": 5}, {"text": ""}, {"ends": None}):
        with pytest.raises(ReplyError):
            checked_sample(replace(sampled, **wrong), request, policy)


def ohms(event: dict[str, Any]) -> None:
    for choice in event["choices"]:
        if choice["finish_reason"]:
            choice["delta"]["content"] = (choice["delta"]["content"] or "") + f" {OHM}"


async def test_votes_verdicts_and_records_see_the_text_as_it_came(composing, caplog):
    seen: list[str] = []
    prm = FakePRM(lambda question, steps: seen.append(steps[-1]) or 0.5)
    with ToyServer(CHAT_ONLY) as server, caplog.at_level(logging.WARNING, "adaptive_ttc.policies.openai"):
        server.trouble.bend = each_event(ohms)
        three = [
            OpenAIPolicy.from_pretrained(composing, base_url=server.url, api="chat", backoff=0.0) for _ in range(3)
        ]
        recorder = Recorder(three[0], settings=SampleSettings(max_tokens=300))
        async with Solver(recorder.policy, seed=1) as solver:
            solution = await solver.solve(QUESTION, n=4, max_tokens=300)
            assert solution.spent == solution.usage.completion_tokens > server.generated
        async with Solver(three[1], prm, seed=1) as solver:
            with pytest.warns(RevisionWarning):
                again = await solver.solve(QUESTION, strategy="revision", n=2, max_tokens=300)
        reply = await Writer(three[2], max_tokens=300, temperature=0.0).write(solution.problem.messages)
        await three[2].aclose()
    assert solution.answer == "73"
    for text in (reply.text, *(one.prefix.text for one in (*solution.candidates, *again.candidates))):
        assert text is not None
        assert text.endswith(f" {OHM}")
    [problem] = recorder.record().problems
    assert all(one.text.endswith(OHM) and one.ends[-1] == len(one.text) for one in problem.samples)
    told = [record.message for record in caplog.records if "text is not what the tokenizer" in record.message]
    assert len(told) == 3  # once a policy
    asked = json.dumps([body["messages"] for body in server.requests], ensure_ascii=False)
    assert OHM in "".join(seen)
    assert OMEGA not in "".join(seen)
    assert OHM in asked
    assert OMEGA not in asked  # a revision is shown what was written
