"""Parts of the policy over HTTP that need no server: counting tokens, the map of prefixes, the gate, reading events."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import anyio
import pytest

from adaptive_ttc.errors import EngineError
from adaptive_ttc.policies.openai.answer import Answer
from adaptive_ttc.policies.openai.gate import Gate
from adaptive_ttc.policies.openai.prefixes import PrefixMap
from adaptive_ttc.policies.openai.protocol import Chunk, body_of, read_chunk
from adaptive_ttc.policies.requests import TokenTexts, stream_seed
from adaptive_ttc.policy import SampleRequest
from adaptive_ttc.types import Message
from tests.policies.openai_server import folder


@pytest.fixture(scope="module")
def words():
    """A model whose tokenizer has words, which may be written in several ways."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {letter: index for index, letter in enumerate("abcĠ")}
    vocabulary = {"ab": 4, "abc": 5, "Ġabc": 6, "Ġa": 7, "bc": 8, "<end>": 9}
    merges = [("a", "b"), ("ab", "c"), ("Ġ", "abc"), ("b", "c"), ("Ġ", "a")]
    core = Tokenizer(models.BPE(vocab=letters | vocabulary, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>")
    return SimpleNamespace(chat=SimpleNamespace(tokenizer=tokenizer), eos=frozenset([9]))


def answer_of(model, *chunks, whole, limit=20, stop=(), top=0):
    texts = TokenTexts(lambda ids: model.chat.tokenizer.decode(list(ids), skip_special_tokens=True), 5)
    request = SampleRequest(id="x", prompt_ids=(0,), max_tokens=limit, seed=0, stop=stop, top_logprobs=top)
    answer = Answer(request, limit, texts.stop_rule(stop), model, whole=whole)
    for chunk in chunks:
        answer.take(chunk)
    return answer


def test_as_many_tokens_are_charged_as_were_counted(words):
    decode = words.chat.tokenizer.decode
    for finish, end in (("stop", (9,)), ("length", ())):
        for count in range(2, 9):
            last = Chunk(text="abc", finish=finish, completion_tokens=count + len(end))
            sampled = answer_of(words, Chunk(text="abc "), Chunk(text=""), last, whole=True).sampled()
            assert len(sampled.token_ids) == max(len(words.chat.tokenizer.encode("abc abc")), count) + len(end)
            assert decode(sampled.token_ids, skip_special_tokens=True) == "abc abc"
            assert sampled.finish == ("eos" if end else "length")
    # fewer cannot be; more are charged then, never fewer
    fewer = answer_of(words, Chunk(text="abc abc", finish="stop", completion_tokens=1), whole=True).sampled()
    assert fewer.token_ids == (*words.chat.tokenizer.encode("abc abc"), 9)


def test_no_more_is_delivered_than_was_asked_for(words):
    told = Chunk(text="abc abc", finish="length", completion_tokens=7)
    assert len(answer_of(words, told, whole=True, limit=5).sampled().token_ids) == 5


def test_tokens_that_were_counted_and_not_named_are_the_tokenizer_s_own(words):
    named = Chunk(text="abc", token_ids=(5,), completion_tokens=1)
    unnamed = Chunk(text=" abc", completion_tokens=2)
    eos = Chunk(finish="stop", completion_tokens=3)
    assert answer_of(words, named, unnamed, eos, whole=False).sampled().token_ids == (5, 6, 9)
    # the end token alone was not named
    assert answer_of(words, named, replace(eos, completion_tokens=2), whole=False).sampled().token_ids == (5, 9)
    stopped = answer_of(words, named, unnamed, eos, whole=False, stop=("c",)).sampled()
    assert (stopped.token_ids, stopped.finish, stopped.discarded_tokens) == ((5,), "stop", 2)


def test_tokens_that_nobody_can_name_are_lost_where_a_search_goes_on_from_them(words):
    named = Chunk(text="abc", token_ids=(5,), completion_tokens=1)
    last = Chunk(text=" abc", finish="length", completion_tokens=6)
    with pytest.raises(EngineError) as caught:
        answer_of(words, named, last, whole=False).sampled()
    assert caught.value.retryable


def test_prefixes_are_found_by_whole_blocks_and_forgotten_oldest_first():
    known = PrefixMap(block=4, capacity=4)
    known.note(range(10), 0)
    assert known.find(range(9)) == ({0}, 8)
    assert known.find([*range(4), 99, 98, 97, 96])[1] == 4
    assert known.find([9, *range(1, 10)])[1] == 0
    known.note(range(8), 1)
    assert known.find(range(8))[0] == {0, 1}
    known.forget(0)
    assert known.find(range(8))[0] == {1}
    known.note(range(100, 116), 2)
    assert known.find(range(8))[1] == 0
    assert known.find(range(100, 116))[1] == 16


async def test_the_gate_lets_the_urgent_in_first_and_forgets_who_left():
    gate = Gate(1)
    order = []
    scopes = {}

    async def enter(name: str, priority: int) -> None:
        with anyio.CancelScope() as scopes[name]:
            async with gate.place(priority):
                order.append(name)
                await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for name, priority in (("first", 5), ("late", 5), ("gone", 0), ("urgent", 1), ("later", 5)):
            tasks.start_soon(enter, name, priority)
        await anyio.lowlevel.checkpoint()
        scopes["gone"].cancel()
    assert order == ["first", "urgent", "late", "later"]
    assert gate.waiting == 0
    async with gate.place(0):
        order.append("again")
    assert order[-1] == "again"


async def test_a_gate_lets_more_in_when_it_is_widened_and_nobody_out_when_it_is_narrowed():
    gate = Gate(2)
    inside, leave = [], anyio.Event()

    async def enter(number: int) -> None:
        async with gate.place(0):
            inside.append(number)
            await leave.wait()

    async with anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(enter, number)
        await anyio.lowlevel.checkpoint()
        assert inside == [0, 1]
        gate.resize(4)
        await anyio.lowlevel.checkpoint()
        assert inside == [0, 1, 2, 3]
        gate.resize(1)
        assert gate.waiting == 2
        leave.set()
    assert inside == [*range(6)]


def test_seeds_of_pieces_differ_and_fit_every_server():
    seeds = {
        stream_seed(SampleRequest(id="x", prompt_ids=(0,) * length, max_tokens=1, seed=seed), bits=31)
        for seed in (0, 1, 2, 2**63 - 1)
        for length in range(1, 200)
    }
    assert len(seeds) == 4 * 199
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_events_are_read_as_engines_write_them():
    told = {"token_logprobs": [-1.0, -2], "tokens": ["a", "b"]}
    choice = {"text": "ab", "token_ids": [7, 8], "logprobs": told, "finish_reason": "stop", "stop_reason": None}
    chunk = read_chunk({"choices": [choice]})
    assert (chunk.token_ids, chunk.logprobs, chunk.finish) == ((7, 8), (-1.0, -2.0), "stop")
    assert (chunk.tells_stop, chunk.stop) == (True, None)
    choice = {"text": "x", "logprobs": {"content": [{"id": 3, "token": "x", "logprob": -0.5}]}}
    llama = read_chunk({"choices": [choice], "timings": {"prompt_n": 4, "cache_n": 6, "predicted_n": 9}})
    assert (llama.token_ids, llama.logprobs, llama.tells_stop) == ((3,), (-0.5,), False)
    assert (llama.prompt_tokens, llama.cached_tokens, llama.completion_tokens) == (10, 6, 9)
    assert (chunk.top_logprobs, llama.top_logprobs) == ((), ((),))
    told = {"tokens": ["a", "b"], "top_logprobs": [{"a": -1.0, "c": -2.0}, {"b": -3}]}
    assert read_chunk({"choices": [{"text": "ab", "logprobs": told}]}).top_logprobs == ((-1.0, -2.0), (-3.0,))
    told = {"content": [{"token": "x", "logprob": -0.5, "top_logprobs": [{"logprob": -0.5}, {"logprob": -1.5}]}]}
    assert read_chunk({"choices": [{"delta": {"content": "x"}, "logprobs": told}]}).top_logprobs == ((-0.5, -1.5),)
    chat = read_chunk({"choices": [{"delta": {"content": "hi"}, "matched_stop": "\n\n"}], "usage": None})
    assert (chat.text, chat.token_ids, chat.stop) == ("hi", None, "\n\n")
    assert read_chunk({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}).completion_tokens == 2


def test_the_toy_tokenizer_has_one_token_a_byte():
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder())
    assert tokenizer.encode("2 + 3é\n\n") == list("2 + 3é\n\n".encode())


def test_means_are_over_the_most_probable_tokens_that_were_asked_for(words):
    told = {"token_ids": (4, 9), "logprobs": (-3.0, -0.5), "completion_tokens": 2, "finish": "stop"}
    # the sampled token comes beside the two that were asked for
    chunk = Chunk(text="ab", top_logprobs=((-3.0, -0.5, -1.5), (-0.5, -float("inf"))), **told)
    assert answer_of(words, chunk, whole=False).sampled().top_logprobs == ()
    assert answer_of(words, chunk, whole=False, top=2).sampled().top_logprobs == (-1.0, -50.25)
    few = replace(chunk, top_logprobs=((-3.0,),))
    assert answer_of(words, few, whole=False, top=2).sampled().top_logprobs == ()


def test_servers_are_asked_for_no_more_than_they_give(words):
    asked = {}
    for api in ("tokens", "chat"):
        for count in (0, 3, 2**31):
            config = SimpleNamespace(api=api, logprobs=True, standard_fields=True, extra={}, thinking_field=None)
            messages = (Message("user", "hi"),)
            request = SampleRequest(
                id="x", prompt_ids=(0,), max_tokens=9, seed=0, top_logprobs=count, messages=messages
            )
            model = SimpleNamespace(chat=SimpleNamespace(turns=list, template_kwargs={}))
            body = body_of(request, 9, "served", model, config)
            asked[api, count] = body["top_logprobs" if api == "chat" else "logprobs"]
    assert [asked["tokens", count] for count in (0, 3, 2**31)] == [1, 3, 5]
    assert [asked["chat", count] for count in (0, 3, 2**31)] == [1, 3, 20]
