"""The commands that make a verifier of roll-outs, and what is not made twice."""

import json

import pytest

from tests.bench.toys import load


@pytest.fixture
def bench(monkeypatch):
    """The measurement."""
    return load(monkeypatch, "rollout_verifier")


def test_all_of_it_runs_once_and_goes_on_from_its_folder(bench, tmp_path):
    words = [str(tmp_path / "made"), "--problems", "12", "--samples", "8", "--rollouts", "1", "--test", "8"]
    words += ["--json", str(tmp_path / "figures.json")]
    words += ["--train=--max-steps 2 --tokens 2000 --held-out 0.5 --device cpu"]
    assert bench.main(words) == 0
    first = json.loads((tmp_path / "figures.json").read_text())
    made = {file: file.read_bytes() for file in (tmp_path / "made").rglob("*") if file.is_file()}
    assert {"samples.jsonl", "labels.jsonl", "test-8-3.jsonl"} <= {file.name for file in made}
    assert bench.main(words) == 0
    again = json.loads((tmp_path / "figures.json").read_text())
    assert {file: file.read_bytes() for file in (tmp_path / "made").rglob("*.jsonl")}.items() <= made.items()
    kept = {name: value for name, value in first["figures"].items() if not name.endswith(".minutes")}
    assert kept["shared_problems"] == 0
    assert kept["shipped.of_first"] == [1, 1, 1]
    assert kept["trained.of_first"][0] == pytest.approx(kept["trained.auc_within"][0] / kept["shipped.auc_within"][0])
    assert kept == {name: value for name, value in again["figures"].items() if not name.endswith(".minutes")}


def test_a_command_that_fails_ends_it(bench, tmp_path, capsys):
    assert bench.main([str(tmp_path), "--problems", "0"]) == 2
    assert "export ended with exit code 2" in capsys.readouterr().err
