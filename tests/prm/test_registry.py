"""Choosing a reader, finding a model's files, and importing nothing heavy."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm import BatchedPRM, FakePRM, PRMReader, RewardModel, known_prms, load_prm, register_prm, registry
from adaptive_ttc.prm.checkpoint import fingerprint, is_hub_name, locate
from tests.prm.tiny import save


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, dict[str, Any]]]:
    """The real readers' names and patterns, with loaders that only say what they were given."""
    calls: list[tuple[str, str, dict[str, Any]]] = []

    def loader(name: str) -> Any:
        def load(path: str | Path, **settings: Any) -> RewardModel:
            calls.append((name, str(path), settings))
            return FakePRM(lambda question, steps: 0.5)

        return load

    known = dict(registry._READERS)
    monkeypatch.setattr(registry, "_READERS", {})
    for reader in known.values():
        register_prm(dataclasses.replace(reader, load=loader(reader.name)))
    return calls


def folder_with(path: Path, **config: object) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    return path


def forbid_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*args: object, **kwargs: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)


HUB_NAMES = {
    "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data": "rlhflow",
    "rlhflow/llama3.1-8b-prm-mistral-data": "rlhflow",
    "Qwen/Qwen2.5-Math-PRM-7B": "qwen-math",
    "Qwen/Qwen2.5-Math-PRM-72B": "qwen-math",
    "Qwen/Qwen2.5-Math-7B-PRM800K": "qwen-math",
    "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B": "skywork",
    "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-7B": "skywork",
    "peiyi9979/math-shepherd-mistral-7b-prm": "math-shepherd",
    "Skywork/Skywork-Reward-V2-Qwen3-8B": "outcome",
    "Skywork/Skywork-Reward-Llama-3.1-8B-v0.2": "outcome",
}


@pytest.mark.parametrize("name", HUB_NAMES)
def test_hub_names_are_known_without_asking_the_hub(
    name: str, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_the_hub(monkeypatch)
    load_prm(name, device="cuda")
    assert calls == [(HUB_NAMES[name], name, {"device": "cuda"})]


def test_a_local_folder_is_read_as_its_config_says_before_its_name(tmp_path: Path, calls: list[Any]) -> None:
    stated = folder_with(tmp_path / "Llama3.1-8B-PRM-Deepseek-Data", adaptive_ttc_prm="implicit")
    named = folder_with(tmp_path / "copies" / "Llama3.1-8B-PRM-Deepseek-Data", model_type="llama")
    for path in (stated, named):
        load_prm(path)
    assert [name for name, *_ in calls] == ["implicit", "rlhflow"]


@pytest.mark.parametrize("name", ["RLHFlow/Llama3.1-8B-ORM-Deepseek-Data", "Qwen/Qwen2.5-Math-RM-72B"])
def test_others_are_not_taken_for_it(name: str, calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_the_hub(monkeypatch)
    with pytest.raises(ConfigError, match="Hub did not give it"):
        load_prm(name)
    assert calls == []


def test_a_hub_model_may_state_its_reader_too(
    tmp_path: Path, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    stated = folder_with(tmp_path / "snapshot", adaptive_ttc_prm="implicit")
    asked: list[tuple[object, ...]] = []

    def download(name: str, file: str, *, revision: str | None) -> str:
        asked.append((name, file))
        return str(stated / file)

    def snapshot(name: str, *, revision: str | None, **patterns: list[str]) -> str:
        asked.append((name, revision))
        return str(stated)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    load_prm("me/my-verifier")
    assert [name for name, *_ in calls] == ["implicit"]
    assert locate("me/my-verifier", revision="v2") == stated
    assert asked == [("me/my-verifier", "config.json"), ("me/my-verifier", "v2")]


@pytest.mark.parametrize(
    ("architecture", "reader"),
    [
        ("Qwen2ForProcessRewardModel", "qwen-math"),
        ("Qwen2ForPrmModel", "skywork"),
        ("Gemma2ForSequenceClassification", "outcome"),
    ],
)
def test_a_renamed_copy_is_known_by_its_architecture(
    architecture: str, reader: str, tmp_path: Path, calls: list[Any]
) -> None:
    load_prm(folder_with(tmp_path / "my-finetune", architectures=[architecture]))
    assert [name for name, *_ in calls] == [reader]


def test_an_unknown_model_is_refused_with_what_is_known_and_what_to_do(tmp_path: Path, calls: list[Any]) -> None:
    plain = folder_with(tmp_path / "some-model", model_type="llama")
    with pytest.raises(
        ConfigError,
        match=r"known are confidence, .*skywork\. .*judge:.*; else pass reader=.*register_prm",
    ):
        load_prm(plain)
    odd = folder_with(tmp_path / "odd", adaptive_ttc_prm="qwen")
    with pytest.raises(ConfigError, match=r"reader 'qwen', which is not known"):
        load_prm(odd)
    load_prm(plain, reader="rlhflow", max_batch=3)
    assert calls == [("rlhflow", str(plain), {"max_batch": 3})]


def test_a_new_family_joins_by_registration(tmp_path: Path, calls: list[Any]) -> None:
    fake = FakePRM(lambda question, steps: 0.5)
    reader = PRMReader(name="mine", load=lambda path, **settings: fake, names="^my-prm")
    register_prm(reader)
    register_prm(reader)
    assert set(known_prms()) == {
        *(
            "mine",
            "implicit",
            "self-verification",
            "confidence",
            "generative",
            "judge",
            "pairwise",
            "mean_logit",
            "least",
        ),
        *HUB_NAMES.values(),
    }
    assert load_prm(folder_with(tmp_path / "My-PRM-7B")) is fake
    with pytest.raises(ConfigError, match="already"):
        register_prm(PRMReader(name="mine", load=lambda path: fake))
    with pytest.raises(ConfigError, match="regular expression"):
        PRMReader(name="bad", load=lambda path: fake, names="(")


async def test_the_embedded_kind_of_folder_is_loaded_end_to_end(tmp_path: Path) -> None:
    save("tiny", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"adaptive_ttc_prm": "rlhflow"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    prm = load_prm(str(tmp_path), max_batch=2)
    assert isinstance(prm, BatchedPRM)
    await prm.aclose()


def test_engines_are_found_by_name(tmp_path: Path) -> None:
    save("tiny", tmp_path)
    with pytest.raises(ConfigError, match="unknown PRM engine 'warp'; installed are"):
        load_prm(tmp_path, reader="rlhflow", engine="warp")
    with pytest.raises(ConfigError, match="'replay' runs no models"):
        load_prm(tmp_path, reader="rlhflow", engine="replay")


def test_files_of_the_hubs_cache_are_fingerprinted_by_name_as_if_read(tmp_path: Path) -> None:
    save("tiny", tmp_path / "plain")
    cached, blobs = tmp_path / "snapshot", tmp_path / "blobs"
    cached.mkdir()
    blobs.mkdir()
    import hashlib

    for path in (tmp_path / "plain").iterdir():
        data = path.read_bytes()
        blob = blobs / hashlib.sha256(data).hexdigest()
        blob.write_bytes(data)
        (cached / path.name).symlink_to(blob)
    assert fingerprint(cached, "f") == fingerprint(tmp_path / "plain", "f")
    weights = (cached / "model.safetensors").resolve()
    weights.write_bytes(b"never read")
    assert fingerprint(cached, "f") == fingerprint(tmp_path / "plain", "f")


def test_names_and_folders_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_hub_name("owner/name-1.5B")
    for path in ("name", "./owner/name", "/owner/name", "a/b/c", "../owner"):
        assert not is_hub_name(path)
    folder_with(tmp_path / "owner" / "name")
    monkeypatch.chdir(tmp_path)
    assert not is_hub_name("owner/name")
    assert locate("owner/name") == Path("owner/name")
    (tmp_path / "owner" / "name" / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        load_prm("owner/name")


def test_importing_the_package_imports_no_model_library() -> None:
    modules = ("torch", "transformers", "tokenizers", "huggingface_hub", "numpy")
    code = f"import sys, adaptive_ttc.prm; print([name for name in {modules} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
