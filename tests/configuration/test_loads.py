"""A solver's models by name: the prompt of general instruct models, and names where models are expected."""

import warnings
from pathlib import Path

import pytest

from adaptive_ttc.errors import ConfigError, PromptWarning
from adaptive_ttc.loading import MINI_POLICY, MINI_PRM
from adaptive_ttc.policies import chat_model
from adaptive_ttc.policies.chat_model import MATH_SYSTEM_PROMPT, ChatFormat, needs_prompt, read_chat_model
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Problem
from tests.policies.tiny import TEMPLATE, byte_tokenizer, folder, llama


def prompt_of(solver):
    return solver.policy.decode(solver.policy.encode(Problem.of("1 + 1")))


@pytest.fixture
def general(monkeypatch):
    """The tiny model counts as a general one."""
    monkeypatch.setattr(chat_model, "GENERAL_VOCABULARY", 100)


def test_a_general_model_is_asked_for_the_box_and_told_so_at_the_callers_line(general):
    with pytest.warns(PromptWarning, match=r"asked for steps and the answer in \\boxed") as told:
        solver = Solver.load(folder())  # this line
    asked, prints = prompt_of(solver), {solver.policy.fingerprint}
    solver.close()
    assert MATH_SYSTEM_PROMPT in asked
    (one,) = told
    assert one.filename == __file__
    assert "# this line" in Path(__file__).read_text().splitlines()[one.lineno - 1]
    for said in ({"system_prompt": ""}, {"answers": "number"}, {"policy_settings": {"system_prompt": None}}):
        with Solver.load(folder(), **said) as solver:
            assert "boxed" not in prompt_of(solver)
            prints.add(solver.policy.fingerprint)
    with Solver.load(folder(), system_prompt="Add.") as solver:
        assert prompt_of(solver).startswith("Add.")
        prints.add(solver.policy.fingerprint)
    assert prints > {read_chat_model(folder()).fingerprint}
    assert len(prints) == 3  # with it, without it, with another


def test_the_embedded_policy_is_asked_for_nothing():
    solver = Solver.load(MINI_POLICY)
    assert "boxed" not in prompt_of(solver)
    assert solver.policy.fingerprint == read_chat_model(MINI_POLICY).fingerprint
    solver.close()


SYSTEMLESS = {
    "refuses": "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + TEMPLATE,
    "ignores": TEMPLATE.replace("{% for message in messages %}", "{% for message in messages[-1:] %}"),
}


@pytest.mark.parametrize("template", SYSTEMLESS)
def test_a_template_without_system_turns_is_told(general, template, tmp_path):
    llama().save_pretrained(tmp_path)
    byte_tokenizer(SYSTEMLESS[template]).save_pretrained(tmp_path)
    with pytest.warns(PromptWarning, match="takes no system message"):
        model = read_chat_model(tmp_path, system_prompt="auto")
    assert model.fingerprint == read_chat_model(tmp_path).fingerprint


def test_which_models_are_general(general, monkeypatch):
    def needs(name="me/Instruct", template=TEMPLATE, **given):
        return needs_prompt(name, ChatFormat(byte_tokenizer(template), None, name, **given))

    assert needs()
    assert not needs("Qwen/Qwen2.5-Math-1.5B-Instruct")
    assert not needs("mistralai/Mathstral-7B-v0.1")
    assert not needs(template="{# \\boxed{} #}" + TEMPLATE)
    assert not needs(thinking=("<think>", "</think>"))
    monkeypatch.setattr(chat_model, "GENERAL_VOCABULARY", 8192)
    assert not needs()


@pytest.mark.parametrize(
    ("models", "call"),
    [
        (("here/policy",), "Solver.load('here/policy')"),
        ((MINI_POLICY, MINI_PRM), f"Solver.load({str(MINI_POLICY)!r}, {str(MINI_PRM)!r})"),
    ],
)
def test_names_in_the_place_of_models_are_answered_with_the_call(models, call):
    with pytest.raises(ConfigError) as told:
        Solver(*models)
    assert call in str(told.value)


async def test_a_warning_names_the_line_that_asked_and_not_the_event_loops():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        async with Solver.load(MINI_POLICY, answers="choice") as solver:
            await solver.solve("Evaluate $6 \\cdot 3 - 8$.", strategy="majority", n=4, max_tokens=200)
            await solver.solve("Evaluate $6 \\cdot 3 - 8$.", budget_tokens=300, max_tokens=100)
    assert {one.category.__name__ for one in told} == {"AnswerWarning", "CalibrationWarning"}
    assert {one.filename for one in told} == {__file__}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"policy_settings": {"max_bacth": 8}}, r"the engine 'transformers' takes no max_bacth \(max_batch\?\)"),
        ({"prm_settings": {"max_bacth": 8}}, r"unknown settings max_bacth \(max_batch\?\); a PRM takes"),
        ({"defaults": {"strateg": "greedy"}}, r"nothing is called strateg \(strategy\?\)"),
    ],
)
def test_misspelled_settings_are_answered_with_the_nearest(settings, told):
    with pytest.raises(ConfigError, match=told):
        Solver.load(MINI_POLICY, MINI_PRM, **settings)
