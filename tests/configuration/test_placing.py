"""What is said of a pair as a whole reaches each model by its engine's own name for it."""

from pathlib import Path

import pytest

from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.configuration.placing import Placing
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.loading import MINI_POLICY, MINI_PRM

JUDGE = "Qwen/Qwen2.5-Math-PRM-7B"
GPU = {"device": "cuda", "dtype": "bfloat16"}


def placed(policy="a/b", prm=JUDGE, engine="transformers", of_policy=None, of_prm=None, answers=None, **said):
    return Placing(**said).settings(
        policy, prm, engine, policy_settings=of_policy or {}, prm_settings=of_prm or {}, answers=answers
    )


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def test_without_a_gpu_nothing_is_said():
    assert placed(system_prompt="") == ({}, {})


def test_a_gpu_is_taken_by_both_in_bfloat16(gpu):
    assert placed(system_prompt="") == (GPU, GPU)
    assert placed(system_prompt="", dtype="float16")[1] == {"device": "cuda", "dtype": "float16"}
    assert placed(device="cuda:1")[1] == {"device": "cuda:1", "dtype": "bfloat16"}
    assert placed(device="cpu")[1] == {"device": "cpu"}
    assert placed(of_prm={"device": "cpu"})[1] == {"device": "cpu"}


def test_what_is_said_of_one_model_wins(gpu):
    policy, prm = placed(device="cuda:0", of_policy={"max_batch": 8}, of_prm={"device": "cuda:1", "dtype": "float32"})
    assert policy == {"device": "cuda:0", "dtype": "bfloat16", "max_batch": 8, "system_prompt": "auto"}
    assert prm == {"device": "cuda:1", "dtype": "float32"}


def test_the_embedded_models_stay_where_their_calibration_was_made(gpu):
    policy, prm = placed(MINI_POLICY, MINI_PRM)
    assert (policy, prm) == ({"system_prompt": "auto"}, {})
    assert placed(MINI_POLICY, MINI_PRM, device="cuda")[1] == {"device": "cuda"}


ENGINES = {
    "transformers": {"dtype": "float16", "max_context": 512},
    "vllm": {"dtype": "float16", "max_model_len": 512},
    "openai": {"max_context": 512},
    "somebodys": {"dtype": "float16", "max_model_len": 512},
}


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_are_told_in_their_own_words(engine):
    policy, prm = placed(engine=engine, dtype="float16", max_model_len=512, system_prompt="Add.")
    assert policy == {**ENGINES[engine], "system_prompt": "Add."}
    assert prm == {"dtype": "float16"}


def test_readers_are_told_what_they_take(gpu, tmp_path):
    said = {"dtype": "float16", "max_model_len": 512}
    assert placed(of_prm={"engine": "vllm"}, **said)[1] == {"engine": "vllm", **said}
    assert placed(of_prm={"engine": "served", "url": "u"}, **said)[1] == {
        "engine": "served",
        "url": "u",
        "dtype": "float16",
    }
    assert placed(prm="confidence:tail", **said)[1] == {}
    assert placed(prm=None, **said)[1] == {}
    assert placed(prm=f"judge:{JUDGE}", of_prm={"engine": "openai"}, **said)[1] == {"engine": "openai"}
    record = tmp_path / "samples.jsonl"
    record.touch()
    assert placed(record, record, engine="replay", answers=(one := space_of("number"))) == ({"answers": one},) * 2


@pytest.mark.parametrize(
    ("engine", "said", "words"),
    [
        ("vllm", {"device": "cuda:1"}, "nothing here takes device: vLLM takes the GPU"),
        ("openai", {"dtype": "float16"}, "nothing here takes dtype: servers have their own"),
        ("replay", {"system_prompt": "Add."}, "nothing here takes system_prompt"),
    ],
)
def test_what_nothing_takes_is_refused(engine, said, words):
    with pytest.raises(ConfigError, match=words):
        placed(prm=None, engine=engine, **said)


def test_two_system_prompts_are_refused():
    with pytest.raises(ConfigError, match="two system prompts"):
        placed(of_policy={"system_prompt": "Add."}, system_prompt="Subtract.")
    assert placed(of_policy={"system_prompt": "Add."}, system_prompt="Add.")[0] == {"system_prompt": "Add."}


def test_mathematics_is_asked_for_where_answers_are_mathematics():
    assert placed()[0] == {"system_prompt": "auto"}
    assert placed(engine="openai")[0] == {"system_prompt": "auto"}
    assert placed(answers=space_of("choice"))[0] == {"answers": space_of("choice")}
    for own in (None, "", "Add."):
        assert placed(of_policy={"system_prompt": own})[0] == {"system_prompt": own}
    assert placed(engine="somebodys")[0] == {}


@pytest.mark.parametrize("prm", [None, "Qwen/Qwen2.5-1.5B-Instruct"])
@pytest.mark.parametrize(
    ("policy", "reader"),
    [
        (str(MINI_PRM), "implicit"),
        (Path(MINI_PRM), "implicit"),
        ("RLHFlow/Llama3.1-8B-PRM-Deepseek-Data", "rlhflow"),
        ("judge:a/b", "judge"),
    ],
)
def test_a_prm_in_the_policys_place_is_told_with_the_call_to_write(policy, reader, prm):
    writer = prm or "MODEL"
    with pytest.raises(ConfigError) as told:
        placed(policy, prm)
    assert f"is a reward model ({reader})" in str(told.value)
    assert f"Solver.load({writer!r}, {str(policy)!r})" in str(told.value)
    assert f"--policy {writer} --prm {policy}" in str(told.value)
