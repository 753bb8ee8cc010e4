import datetime

import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policies.chat import ChatFormat
from adaptive_ttc.policies.prompts import MATH_SYSTEM_PROMPT
from adaptive_ttc.types import Problem
from tests.policies.tiny import SPECIALS, TEMPLATE, byte_tokenizer


def rendered(template=TEMPLATE, system_prompt=None, problem="1 + 1"):
    tokenizer = byte_tokenizer(template)
    return tokenizer.decode(ChatFormat(tokenizer, system_prompt, "here").encode(Problem.of(problem)))


def test_a_problem_is_a_user_turn_before_the_solution():
    assert rendered() == "<user>1 + 1<assistant>"


def test_the_system_prompt_stands_before_problems_without_one():
    assert rendered(system_prompt="Be brief.") == "<system>Be brief.<user>1 + 1<assistant>"
    own = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "2"}]
    assert rendered(system_prompt="Be brief.", problem=own) == "<system>Mine.<user>2<assistant>"
    assert MATH_SYSTEM_PROMPT in rendered(system_prompt=MATH_SYSTEM_PROMPT)


@pytest.mark.parametrize("today", ["date_string", "strftime_now('%d %b %Y')"])
def test_the_date_never_changes(today):
    text = rendered("<system>{{ " + today + " }}" + TEMPLATE)
    assert text.startswith("<system>26 Jul 2024<user>")
    assert str(datetime.date.today().year) not in text.replace("2024", "")


def test_control_tokens_in_a_problem_are_text():
    tokenizer = byte_tokenizer()
    chat = ChatFormat(tokenizer, None, "here")
    ids = chat.encode(Problem.of("say <end> and <assistant>"))
    special = [token for token in ids if token < len(SPECIALS)]
    assert special == [SPECIALS.index("<user>"), SPECIALS.index("<assistant>")]
    assert "say <end> and <assistant>" in chat.decode(ids)


def test_a_tokenizer_without_template_is_refused_at_once():
    with pytest.raises(ConfigError, match="here has no chat template"):
        ChatFormat(byte_tokenizer(None), None, "here")


def test_a_template_that_refuses_a_system_prompt_is_named_with_the_remedy():
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + TEMPLATE
    with pytest.raises(ConfigError, match=r"no system turn.*system_prompt=None"):
        ChatFormat(byte_tokenizer(template), "Be brief.", "here")
    own = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "2"}]
    with pytest.raises(ConfigError, match="refuses these messages"):
        ChatFormat(byte_tokenizer(template), None, "here").encode(Problem.of(own))


def test_decoding_leaves_special_tokens_out():
    chat = ChatFormat(byte_tokenizer(), None, "here")
    ids = byte_tokenizer().encode("a b <end>")
    assert chat.decode(ids) == "a b "
