"""Parts of the policy over HTTP that need no server: cutting text, the map of prefixes, the gate, reading events."""

from __future__ import annotations

import anyio
import pytest

from adaptive_ttc.errors import EngineError
from adaptive_ttc.policies.openai.affinity import PrefixMap
from adaptive_ttc.policies.openai.bodies import stream_seed
from adaptive_ttc.policies.openai.chunks import read_chunk
from adaptive_ttc.policies.openai.gate import Gate
from adaptive_ttc.policies.openai.texts import Cutter
from tests.policies.openai_server import folder


@pytest.fixture(scope="module")
def cutter():
    """A tokenizer that has words, so that there is something to split."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {letter: index for index, letter in enumerate("abcĠ")}
    words = {"ab": 4, "abc": 5, "Ġabc": 6, "Ġa": 7, "bc": 8}
    merges = [("a", "b"), ("ab", "c"), ("Ġ", "abc"), ("b", "c"), ("Ġ", "a")]
    core = Tokenizer(models.BPE(vocab=letters | words, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return Cutter(PreTrainedTokenizerFast(tokenizer_object=core))


def test_a_text_is_cut_into_as_many_tokens_as_were_counted(cutter):
    own = cutter.cut("abc abc")
    assert own == [5, 6]
    decode = cutter._tokenizer.decode
    for count in range(2, 8):
        ids = cutter.cut_into("abc abc", count)
        assert len(ids) == count
        assert decode(ids) == "abc abc"
    assert cutter.cut_into("abc abc", 1) == own  # fewer cannot be; more are charged then, never fewer


def test_more_tokens_than_can_be_are_charged_in_full(cutter):
    with pytest.raises(EngineError) as caught:
        cutter.cut_into("abc", 4)
    assert caught.value.retryable


def test_prefixes_are_found_by_whole_blocks_and_forgotten_oldest_first():
    known = PrefixMap(block=4, capacity=4)
    known.note(range(10), 0)
    assert (known.find(range(9)).replicas, known.find(range(9)).tokens) == ({0}, 8)
    assert known.find([*range(4), 99, 98, 97, 96]).tokens == 4
    assert known.find([9, *range(1, 10)]).tokens == 0
    known.note(range(8), 1)
    assert known.find(range(8)).replicas == {0, 1}
    known.forget(0)
    assert known.find(range(8)).replicas == {1}
    known.note(range(100, 116), 2)
    assert known.find(range(8)).tokens == 0
    assert known.find(range(100, 116)).tokens == 16


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


def test_seeds_of_pieces_differ_and_fit_every_server():
    seeds = {stream_seed(seed, (0,) * length) for seed in (0, 1, 2, 2**63 - 1) for length in range(1, 200)}
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
    chat = read_chunk({"choices": [{"delta": {"content": "hi"}, "matched_stop": "\n\n"}], "usage": None})
    assert (chat.text, chat.token_ids, chat.stop) == ("hi", None, "\n\n")
    assert read_chunk({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}).completion_tokens == 2


def test_the_toy_tokenizer_has_one_token_a_byte():
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder())
    assert tokenizer.encode("2 + 3é\n\n") == list("2 + 3é\n\n".encode())
