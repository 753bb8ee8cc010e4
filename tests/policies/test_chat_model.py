"""Chat templates, and what is read of a model's folder: the same as the loaded model says."""

import datetime
import subprocess
import sys

import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policies.chat_model import MATH_SYSTEM_PROMPT, ChatFormat, eos_tokens, read_chat_model
from adaptive_ttc.policies.transformers import TransformersPolicy
from adaptive_ttc.types import Problem
from tests.policies.tiny import ENDS, SPECIALS, TEMPLATE, byte_tokenizer, llama


@pytest.mark.parametrize("tied", [False, True])
async def test_it_agrees_with_the_loaded_model(tmp_path, tied):
    llama(tie_word_embeddings=tied).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    model = read_chat_model(tmp_path)
    policy = TransformersPolicy.from_pretrained(tmp_path)
    assert (model.name, model.fingerprint) == (policy.name, policy.fingerprint)
    assert model.parameters == policy.parameters
    assert model.vocab_size == policy.model.vocab_size
    assert model.eos == policy.model.eos == frozenset(range(len(ENDS)))
    assert model.revision_prompt is None
    await policy.aclose()


def test_a_config_without_generation_config_names_the_end_tokens(tmp_path):
    llama(eos_token_id=3).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    assert read_chat_model(tmp_path).eos == {3}
    assert read_chat_model(tmp_path, eos_token_ids=()).eos == frozenset()


def test_nothing_that_ends_a_solution_is_refused():
    tokenizer = byte_tokenizer()
    assert eos_tokens(None, tokenizer) == {0}
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="eos_token_ids"):
        eos_tokens(None, tokenizer)


def test_a_folder_without_a_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="readable"):
        read_chat_model(tmp_path)


def test_without_vllm_its_policy_names_the_remedy():
    script = "import sys; sys.modules['vllm'] = None; import adaptive_ttc.policies.vllm"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert "needs vLLM, which is not installed: " in last
    assert "pip install" in last
    assert "During handling" not in done.stderr


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
    assert "say <end> and <assistant>" in chat.decode(ids).replace("< ", "<")


def test_control_tokens_are_broken_up_where_transformers_takes_them_for_its_own():
    class Before(type(byte_tokenizer())):
        def apply_chat_template(self, conversation, add_generation_prompt, tokenize, return_dict, **template_kwargs):
            assert "sanitize_control_tokens" not in template_kwargs
            given = {"tokenize": tokenize, "return_dict": return_dict, **template_kwargs}
            return super().apply_chat_template(conversation, add_generation_prompt=add_generation_prompt, **given)

    tokenizer = byte_tokenizer()
    tokenizer.__class__ = Before
    chat = ChatFormat(tokenizer, None, "here")
    ids = chat.encode(Problem.of("say <end> and <assistant>"))
    special = [token for token in ids if token < len(SPECIALS)]
    assert special == [SPECIALS.index("<user>"), SPECIALS.index("<assistant>")]
    assert "say < end> and < assistant>" in chat.decode(ids)


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
