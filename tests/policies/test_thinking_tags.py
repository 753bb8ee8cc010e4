"""How a model's thinking tags are found, with a real tokenizer and chat template."""

import pytest

from adaptive_ttc import Solver
from adaptive_ttc.answers.thinking import KNOWN
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.events import RequestEvent
from adaptive_ttc.policies.chat_model import ChatFormat, read_chat_model
from adaptive_ttc.policies.transformers import TransformersPolicy
from adaptive_ttc.types import Problem
from tests.policies.tiny import TEMPLATE, byte_tokenizer, llama

OPENED = TEMPLATE.replace("'<assistant>' }}", "'<assistant><think>\\n' }}")
EFFORT = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"


def chat(template=TEMPLATE, *, special=(), added=(), **settings):
    tokenizer = byte_tokenizer(template)
    tokenizer.add_tokens(list(special), special_tokens=True)
    tokenizer.add_tokens(list(added))
    return ChatFormat(tokenizer, None, "here", **settings)


def read(chat, text):
    """The answer of a solution, in the tokenizer's own tokens."""
    ids = chat.tokenizer.encode(text, add_special_tokens=False)
    decoded = chat.decode(ids)
    at = chat.thinking.thought(ids, decoded, chat.decode).answer_at
    return None if at is None else decoded[at:]


def test_a_model_without_tags_does_not_think():
    assert chat().thinking is None
    assert chat(TEMPLATE + "{# <think> #}").thinking is None
    assert chat(OPENED, thinking=None).thinking is None


@pytest.mark.parametrize(("opening", "closing"), KNOWN)
@pytest.mark.parametrize("special", [True, False])
def test_tags_in_use_are_found_among_the_model_s_tokens_and_in_its_template(opening, closing, special):
    tokens = ["<|channel|>", "<|message|>", "<|end|>"] if "<|channel|>" in opening else [opening, closing]
    found = chat(TEMPLATE + "{# " + closing + " #}", **{"special" if special else "added": tokens})
    assert found.thinking.texts is None
    assert read(found, f"{opening}so 1{closing}2") == "2"
    assert read(found, f"{opening}so 1") is None
    assert read(found, "2") == "2"
    # where they are ordinary text, which melts into what is around it
    spelled = chat(TEMPLATE + "{# " + closing + " #}")
    assert spelled.thinking.texts == (opening, closing)
    assert read(spelled, f"{opening}so 1{closing}2") == "2"


def test_tokens_of_the_model_s_own_are_enough():
    assert (
        chat(added=["<think>", "</think>"]).thinking.closing
        == chat(OPENED, added=["<think>", "</think>"]).thinking.closing
    )
    assert chat(added=["<think>"]).thinking is None


def test_a_template_that_opens_the_thought_is_recognised_whatever_the_problem_says():
    found = chat(OPENED, special=["<think>", "</think>"])
    assert found.thinking.begun
    assert read(found, "so 1") is None
    assert read(found, "so 1</think>2") == "2"
    assert not chat(TEMPLATE + "{# </think> #}", added=["<think>", "</think>"]).thinking.begun
    ended = chat(TEMPLATE + EFFORT, added=["<think>", "</think>"], template_kwargs={"enable_thinking": False})
    assert not ended.thinking.begun
    assert ended.decode(ended.encode(Problem.of("1"))).endswith("<think>\n\n</think>\n\n")


def test_a_caller_names_the_tags():
    assert chat(thinking="<seed:think>").thinking.texts == ("<seed:think>", "</seed:think>")
    found = chat(thinking=("<thought>", "</thought>"))
    assert read(found, "<thought>1</thought>2") == "2"
    for wrong in ("<thought>", ("<a>",), ("", "x"), ()):
        with pytest.raises(ConfigError, match="tag"):
            chat(thinking=wrong)


def test_only_what_is_set_changes_the_fingerprint(tmp_path):
    llama().save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    plain = read_chat_model(tmp_path).fingerprint
    assert chat(added=["<think>", "</think>"]).format == chat().format
    said = [
        read_chat_model(tmp_path, **settings).fingerprint
        for settings in (
            {"thinking": "<think>"},
            {"thinking": None},
            {"chat_template_kwargs": {"enable_thinking": True}},
            {"chat_template_kwargs": {"enable_thinking": False}},
        )
    ]
    assert len({plain, *said}) == 5
    assert read_chat_model(tmp_path, thinking="auto", chat_template_kwargs={}).fingerprint == plain
    assert read_chat_model(tmp_path, thinking="<think>").chat.thinking.texts == KNOWN[0]


def test_template_arguments_are_rendered_and_may_not_be_the_library_s_own():
    effort = chat(
        "{{ 'effort ' + (reasoning_effort or 'none') }}" + TEMPLATE, template_kwargs={"reasoning_effort": "low"}
    )
    assert "effort low" in effort.tokenizer.decode(effort.encode(Problem.of("1")))
    with pytest.raises(ConfigError, match="chat_template_kwargs may not set tokenize"):
        chat(template_kwargs={"tokenize": False})


@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    """A tiny model whose template opens the thought, with tags of its own."""
    path = tmp_path_factory.mktemp("thinker")
    tokenizer = byte_tokenizer(OPENED)
    tokenizer.add_tokens(["<think>", "</think>"])
    llama(vocab_size=len(tokenizer)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


async def test_a_model_in_this_process_is_made_to_answer_and_to_go_on(thinker):
    policy = TransformersPolicy.from_pretrained(thinker, max_batch=4)
    assert policy.thinking.begun
    forced, close = policy.thinking.forced, policy.thinking.closing[0]
    async with Solver(policy, answers="regex:(?P<answer>.)") as solver:
        limited = await solver.solve("1 + 1", n=3, think_tokens=10, max_tokens=40, seed=1)
        free = await solver.solve("1 + 1", n=3, max_tokens=40, seed=1)
        longer = await solver.solve("1 + 1", n=24, max_tokens=160, waits=1, seed=1)
    for one, same in zip(limited.candidates, free.candidates, strict=True):
        if close not in same.prefix.token_ids[:10]:
            assert one.prefix.token_ids[10 : 10 + len(forced)] == forced
            assert one.prefix.token_ids[:10] == same.prefix.token_ids[:10]
        assert one.prefix.answer_at is not None
        assert len(one.prefix.token_ids) <= 40
    assert (
        limited.spent
        == limited.usage.completion_tokens
        == sum(len(event.token_ids) for event in limited.trace.of(RequestEvent))
    )
    went_on = [one for one in longer.candidates if one.prefix.waits]
    assert went_on
    assert all("Wait" in one.prefix.text for one in went_on)
    ended = [event.token_ids for event in longer.trace.of(RequestEvent) if event.finish == "stop"]
    assert {ids.index(close) - len(ids) for ids in ended} == {-1}  # the engine stops at the tag
