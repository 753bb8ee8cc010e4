"""Every kind is trained for a few steps on tiny models, cut and gone on with, and read by ``load_prm``."""

import json
import math
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file

from adaptive_ttc.answers import parse_space
from adaptive_ttc.cli import main
from adaptive_ttc.errors import CheckpointError, ConfigError
from adaptive_ttc.prm import ScoreRequest, load_prm
from adaptive_ttc.prm.base import traits_of
from adaptive_ttc.training.graded import held_out, read_graded
from adaptive_ttc.training.judge import figures
from adaptive_ttc.training.settings import TrainSettings
from adaptive_ttc.training.verifier import train_verifier
from tests.prm import tiny
from tests.training.samples import FEW, rows, write

MATH = parse_space("math")
REQUEST = ScoreRequest("What is 1 + 3 + 1?", ("1 + 3 = 4.", "4 + 1 = 5. So it is \\boxed{5}."))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "labels.jsonl", rows())


def trained(policy, data, out, *, stop=lambda: False, reference=None, **chosen):
    settings = TrainSettings(**{**FEW, **chosen})
    return train_verifier(policy, [data], out, settings, MATH, reference=reference, stop=stop)


async def scores_of(folder):
    prm = load_prm(folder)
    try:
        return (await prm.score(REQUEST)).scores
    finally:
        await prm.aclose()


def tensors(folder):
    files = {str(file.relative_to(folder)): load_file(file) for file in folder.rglob("*.safetensors")}
    return {f"{file}/{name}": tensor for file, some in files.items() for name, tensor in some.items()}


@pytest.mark.parametrize("kind", ["process", "outcome", "implicit"])
async def test_the_result_is_read_and_described(policy, data, tmp_path, kind):
    result = trained(policy, data, tmp_path / "out", kind=kind)
    scores = await scores_of(result.folder)
    assert len(scores) == 2
    assert all(0 < score < 1 for score in scores)
    assert kind != "outcome" or scores[0] == scores[1]
    assert traits_of(load_prm(result.folder)).finished_only == (kind == "outcome")
    record = json.loads((result.folder / "training.json").read_text())
    assert [look["step"] for look in record["looks"]] == [0, 2, 4]
    assert record["counts"]["held_out_problems"] == 2
    assert record["counts"]["samples"] == 36
    card = (result.folder / "README.md").read_text()
    assert record["policy_fingerprint"][:16] in card
    assert "| held out problems | 2 |" in card
    assert not list(result.folder.glob("checkpoint*"))
    assert f"{kind} verifier" in result.line()
    mixed = result.best["mixed"]
    assert f"AUC within {mixed} held-out problem" in result.line()
    assert result.line().endswith(
        "under 10 problems with right and wrong samples say little; the best of 3 looks at these"
    )
    assert ("before its scale" in card) == (kind == "implicit")


@pytest.mark.parametrize("kind", ["process", "outcome", "implicit"])
def test_training_that_is_cut_anywhere_ends_at_the_same_weights(policy, data, tmp_path, kind):
    whole = trained(policy, data, tmp_path / "whole", kind=kind, accumulate=2)
    cut, cuts = tmp_path / "cut", 0
    for _ in range(20):
        calls = iter(range(100))
        try:
            parts = trained(policy, data, cut, kind=kind, accumulate=2, stop=lambda calls=calls: next(calls) > 3)
            break
        except KeyboardInterrupt:
            cuts += 1
            assert (cut / "checkpoint.pt").exists()
    assert cuts > 1
    assert parts.record["looks"] == whole.record["looks"]
    expected, found = tensors(whole.folder), tensors(parts.folder)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("kind", ["process", "outcome", "implicit"])
def test_it_learns_what_can_be_learned(policy, tmp_path, kind):
    """The same few samples again and again: the loss of training falls far below that of guessing."""
    chosen = {"max_steps": 30, "eval_every": 15, "learning_rate": 1e-2, "tokens": 1500, "beta": 0.5, "patience": 9}
    few = write(tmp_path / "few.jsonl", rows(problems=3, samples=3))
    result = trained(policy, few, tmp_path / "out", kind=kind, **chosen)
    losses = [look["train_loss"] for look in result.record["looks"]]
    assert losses[-1] < 0.8 * losses[1]
    assert losses[-1] < math.log(2)


def test_an_implicit_verifier_learns_the_labels_of_steps_where_it_is_told_to(policy, data, tmp_path):
    steps = trained(policy, data, tmp_path / "steps", kind="implicit", learn="steps").record["looks"]
    last = trained(policy, data, tmp_path / "last", kind="implicit").record["looks"]
    wholes = write(tmp_path / "rollouts.jsonl", rows(), "rollouts")
    assert trained(policy, wholes, tmp_path / "wholes", kind="implicit").record["looks"] == last
    assert all(look["auc_steps"] is not None for look in steps)
    assert all(look["auc_steps"] is None for look in last)
    assert steps[1]["train_loss"] != last[1]["train_loss"]


async def test_scores_are_those_of_training(policy, data, tmp_path):
    """The finished PRM, read by the library, says what was measured while it was trained."""
    result = trained(policy, data, tmp_path / "out")
    _, held = held_out(read_graded([data], MATH).rows, FEW["held_out"], 0)
    prm = load_prm(result.folder)
    scores = [(await prm.score(ScoreRequest(one.question, one.steps))).scores for one in held]
    await prm.aclose()
    found = figures(held, scores).entries()
    assert found == {key: pytest.approx(result.best[key], abs=1e-4) for key in found}


async def test_two_checkpoints_are_compared_without_training(policy, data, tmp_path):
    other = tmp_path / "other"
    tiny.save("tiny", other, seed=1)
    result = trained(policy, data, tmp_path / "out", kind="implicit", reference=other, max_steps=0)
    assert all(0 < score < 1 for score in await scores_of(result.folder))
    config = json.loads((result.folder / "config.json").read_text())
    assert (config["tuned"], config["reference"]) == ("tuned", "reference")
    found, name = tensors(result.folder), "model.safetensors/model.norm.weight"
    assert torch.equal(found[f"tuned/{name}"], tensors(policy)[name])
    assert torch.equal(found[f"reference/{name}"], tensors(other)[name])


@pytest.mark.parametrize("kind", ["process", "outcome", "implicit"])
def test_a_batch_in_parts_is_one_optimiser_step(policy, data, tmp_path, kind):
    whole = trained(policy, data, tmp_path / "whole", kind=kind, micro_batch=600)
    parts = trained(policy, data, tmp_path / "parts", kind=kind, micro_batch=100, gradient_checkpointing=True)
    for one, other in zip(whole.record["looks"], parts.record["looks"], strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-3)
    expected, found = tensors(whole.folder), tensors(parts.folder)
    assert all(torch.allclose(expected[name], found[name], atol=1e-3) for name in expected)


def test_it_stops_where_nothing_gets_better(policy, data, tmp_path):
    result = trained(policy, data, tmp_path / "out", max_steps=50, eval_every=1, patience=2, learning_rate=1e-9)
    assert result.record["best_step"] == 0
    assert result.record["steps"] == 2


@pytest.mark.parametrize("name", ["llama3", "mistral3"])
async def test_a_tokenizer_without_a_template_gets_one(data, tmp_path, name):
    policy = tmp_path / "policy"
    tiny.save(name, policy)
    (policy / "chat_template.jinja").unlink()
    result = trained(policy, data, tmp_path / "out")
    assert "[INST]" in (result.folder / "chat_template.jinja").read_text()
    assert all(0 < score < 1 for score in await scores_of(result.folder))


def test_checkpoints_of_another_call_and_finished_folders_are_refused(policy, data, tmp_path):
    out = tmp_path / "out"
    calls = iter(range(100))
    with pytest.raises(KeyboardInterrupt):
        trained(policy, data, out, stop=lambda: next(calls) > 5)
    with pytest.raises(CheckpointError, match="other settings"):
        trained(policy, data, out, seed=5)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="cannot be read"):
        trained(policy, data, tmp_path / "damaged")
    trained(policy, data, out, micro_batch=64)  # less memory is no other training
    with pytest.raises(ConfigError, match="finished"):
        trained(policy, data, out)
    with pytest.raises(ConfigError, match="not empty"):
        trained(policy, data, policy)


@pytest.mark.parametrize("kind", ["process", "implicit"])
def test_one_that_diverges_says_what_to_change(policy, data, tmp_path, kind):
    out = tmp_path / "out"
    for _ in range(2):  # the same command again says the same
        with pytest.raises(ConfigError, match=rf"not a number after step \d: lower --learning-rate .* remove {out}"):
            trained(policy, data, out, kind=kind, learning_rate=1e30, max_steps=3, eval_every=1)
    with pytest.raises(CheckpointError, match="another --out"):
        trained(policy, data, out, kind=kind, max_steps=3, eval_every=1)
    assert trained(policy, data, tmp_path / "other", kind=kind, max_steps=3, eval_every=1).record["steps"] == 3


def test_a_kill_while_the_first_checkpoint_is_written_loses_nothing(policy, data, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "checkpoint.partial").write_bytes(b"half")
    result = trained(policy, data, out)
    assert not list(result.folder.glob("checkpoint*"))
    other = tensors(trained(policy, data, tmp_path / "b").folder)
    assert all(torch.equal(tensor, other[name]) for name, tensor in tensors(out).items())


def test_samples_that_do_not_fit_are_left_out_and_told(policy, data, tmp_path):
    with pytest.raises(ConfigError, match="36 samples are longer than 20 tokens"):
        trained(policy, data, tmp_path / "out", max_length=20)


def test_problems_whose_samples_are_alike_teach_nothing_unless_asked(policy, tmp_path):
    some = [row for row in rows() if row["right"] == (row["problem"] < "What is 3")]
    file = write(tmp_path / "rows.jsonl", some, "rollouts")
    with pytest.raises(ConfigError, match="no problem has both labels"):
        trained(policy, file, tmp_path / "out", kind="outcome")
    result = trained(policy, file, tmp_path / "out", kind="outcome", balance="none")
    assert result.best["auc_within"] is None


@pytest.mark.filterwarnings("ignore::FutureWarning:peft", "ignore:.*gradient_checkpointing:FutureWarning")
@pytest.mark.skipif(find_spec("peft") is None, reason="needs the extra train")
@pytest.mark.parametrize("kind", ["process", "outcome", "implicit"])
async def test_lora_is_merged(policy, data, tmp_path, kind):
    result = trained(policy, data, tmp_path / "out", kind=kind, lora=4)
    assert all(0 < score < 1 for score in await scores_of(result.folder))
    assert not any("lora" in name for name in tensors(result.folder))
    assert result.record["lora"] == 4


@pytest.mark.skipif(find_spec("peft") is not None, reason="peft is there")
def test_without_peft_lora_says_what_to_install(policy, data, tmp_path):
    with pytest.raises(ConfigError, match=r"LoRA needs peft: pip install"):
        trained(policy, data, tmp_path / "out", lora=4)


def test_the_command_ends_with_one_line(policy, data, tmp_path, capsys):
    words = ["train-prm", "--policy", str(policy), "--data", str(data), "--out", str(tmp_path / "out")]
    words += ["--max-steps", "2", "--held-out", "0.3", "--device", "cpu"]
    assert main(words) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{tmp_path / 'out'}: process verifier after ")
    assert main(words) == 2
    assert "finished model" in capsys.readouterr().err
    assert main([*words[:-2], "--reference", str(policy), "--out", str(tmp_path / "b")]) == 2
    assert "--kind implicit" in capsys.readouterr().err
