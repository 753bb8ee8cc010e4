"""Where thoughts stand in tokens and texts, and that answers are read after them alone."""

import math

import pytest

from adaptive_ttc.answers.confidence import answer_logprob
from adaptive_ttc.answers.thinking import ThinkingTags, Thought, after_thought, tags_in
from adaptive_ttc.types import Prefix

OPEN, CLOSE = 300, 301


def decode(ids):
    """A token a character; the tags are special tokens, which are dropped."""
    return "".join(chr(one) for one in ids if one < 256)


def encode(text):
    marks = {"[": OPEN, "]": CLOSE}
    return tuple(marks.get(char, ord(char)) for char in text)


def by_ids(text, *, begun=False):
    tags = ThinkingTags(opening=(OPEN,), closing=(CLOSE,), forced=(CLOSE,), begun=begun)
    return tags.thought(encode(text), decode(encode(text)), decode)


def by_text(text, *, begun=False):
    ids = tuple(map(ord, text))
    tags = ThinkingTags(opening=(1,), closing=(2,), forced=(2,), texts=("<t>", "</t>"), begun=begun)
    return tags.thought(ids, text, decode)


@pytest.mark.parametrize(
    ("text", "begun", "tokens", "answer"),
    [
        ("7", False, 0, "7"),
        ("", False, 0, ""),
        ("", True, 0, None),
        ("[ab", False, 3, None),
        ("ab", True, 2, None),
        ("[ab]7", False, 4, "7"),
        ("ab]7", True, 3, "7"),
        (" [ab]7", False, 4, "7"),
        ("ab]7", False, 3, "7"),  # a server took the opening tag away
        ("[ab]7[c]8", False, 7, "8"),
        ("[ab]7[c", False, 6, None),
        ("[ab]", False, 4, ""),
        ("[a[b]7", False, 5, "7"),
    ],
)
def test_the_answer_begins_after_the_last_thought(text, begun, tokens, answer):
    found = by_ids(text, begun=begun)
    plain = text.replace("[", "").replace("]", "")
    assert found.tokens == tokens
    assert (None if found.answer_at is None else plain[found.answer_at :]) == answer
    spelled = text.replace("[", "<t>").replace("]", "</t>")
    found = by_text(spelled, begun=begun)
    assert (None if found.answer_at is None else spelled[found.answer_at :]) == answer
    assert found.tokens == tokens + 2 * text.count("[") + 3 * text.count("]")


def test_an_end_token_within_a_thought_belongs_to_it():
    tags = ThinkingTags(opening=(1,), closing=(2,), forced=(2,), texts=("<t>", "</t>"))
    assert tags.thought((*map(ord, "<t>abc"), 999), "<t>abc", decode) == Thought(7, None)


def test_tags_of_several_tokens_are_found_whole():
    tags = ThinkingTags(opening=(OPEN, 65), closing=(CLOSE, OPEN, 66), forced=(CLOSE,))
    ids = (OPEN, 65, 97, CLOSE, OPEN, OPEN, 66, CLOSE, OPEN, 66, 55)
    assert tags.thought(ids, decode(ids), decode) == Thought(10, 4)
    with pytest.raises(ValueError, match="not empty"):
        ThinkingTags(opening=(), closing=(1,), forced=(1,))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed{1}", "so \\boxed{1}"),
        ("<think>\\boxed{1}</think>\\boxed{2}", "\\boxed{2}"),
        ("\\boxed{1}\n</think>\n\\boxed{2}", "\n\\boxed{2}"),
        ("<think>\\boxed{1}", ""),
        ("[THINK]1[/THINK]2", "2"),
        ("<seed:think>1</seed:think>2", "2"),
        ("<|channel|>analysis<|message|>1<|end|><|start|>assistant<|channel|>final<|message|>2", "2"),
        ("if a<think>b", "if a<think>b"),
    ],
)
def test_recorded_texts_are_read_after_their_thoughts(text, answer):
    assert after_thought(text) == answer
    tags = tags_in([text, "plain"])
    assert (tags is None) == (answer == text)


def test_a_prefix_tells_what_its_answer_is_read_off():
    assert Prefix(text="ab7").answer_text == "ab7"
    assert Prefix(text="ab7", answer_at=2).answer_text == "7"
    assert Prefix(text="ab7", answer_at=None).answer_text == ""


def test_the_sureness_is_that_of_the_answer_behind_the_thought():
    text = "\\boxed{1}\\boxed{2}"
    logprobs = [-1.0] * 9 + [-3.0] * 9
    assert answer_logprob(text, logprobs, lambda n: n) == -3.0
    assert answer_logprob("\\boxed{1}2", logprobs[:10], lambda n: n) == -1.0
    assert math.isnan(answer_logprob("\\boxed{1}2", logprobs[:10], lambda n: n, begin=9))
    assert answer_logprob(text, logprobs, lambda n: n, begin=9) == -3.0
    assert math.isnan(answer_logprob(text, logprobs, lambda n: n, begin=None))
