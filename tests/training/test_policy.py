"""A policy is fine-tuned for a few steps, cut and gone on with, and loaded by the solver."""

import json
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adaptive_ttc import Solver
from adaptive_ttc.cli import main
from adaptive_ttc.errors import CheckpointError, ConfigError
from adaptive_ttc.evaluation.datasets import load_problems
from adaptive_ttc.loading import MINI_POLICY
from adaptive_ttc.policies.chat_model import read_chat_model
from adaptive_ttc.prm.checkpoint import fingerprint
from adaptive_ttc.training.policy import PolicyTrainee, train_policy
from adaptive_ttc.training.settings import PolicySettings
from adaptive_ttc.training.solutions import read_solutions
from tests.bench.toys import load
from tests.prm import tiny
from tests.training.samples import FEW


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Right solutions of problems that the embedded policy knows, in a style that it does not write."""
    file = tmp_path_factory.mktemp("data") / "sft.jsonl"
    rows = load_problems("minimath-train", 24)
    lines = []
    for row in rows:
        said = {"role": "assistant", "content": f"The answer is $\\boxed{{{row['answer']}}}$."}
        lines.append({"messages": [{"role": "user", "content": row["problem"]}, said]})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def trained(policy, data, out, *, stop=lambda: False, **chosen):
    return train_policy(policy, [data], out, PolicySettings(**{**FEW, **chosen}), stop=stop)


def test_the_loss_on_other_problems_falls(data, tmp_path):
    result = trained(MINI_POLICY, data, tmp_path / "out", max_steps=8, eval_every=4, learning_rate=1e-3)
    before, after = result.record["looks"][0], result.best
    assert after["loss"] < 0.7 * before["loss"]
    assert result.record["counts"]["train_problems"] == 17
    assert "loss on held-out problems" in result.line()
    card = (result.folder / "README.md").read_text()
    assert "Solver.load" in card
    assert "| held out problems | 7 |" in card
    assert not list(result.folder.glob("checkpoint*"))


async def test_the_solver_samples_from_what_was_trained(data, tmp_path):
    """Trained long enough on one style, it answers in it, and stops there."""
    result = trained(MINI_POLICY, data, tmp_path / "out", max_steps=30, eval_every=30, learning_rate=2e-3)
    async with Solver.load(result.folder, seed=0) as solver:
        solution = await solver.solve("Evaluate $2 + 3$.", strategy="greedy")
    (candidate,) = solution.candidates
    assert candidate.prefix.text.startswith("The answer is $")
    assert candidate.prefix.finish == "eos"


def test_tokenizer_template_and_generation_config_are_the_policy_s_own(data, tmp_path):
    result = trained(MINI_POLICY, data, tmp_path / "out")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (result.folder / name).read_bytes() == (MINI_POLICY / name).read_bytes()
    before, after = read_chat_model(MINI_POLICY), read_chat_model(result.folder)
    assert (after.eos, after.revision_prompt) == (before.eos, before.revision_prompt)
    assert fingerprint(result.folder) != fingerprint(MINI_POLICY)
    assert load_file(result.folder / "model.safetensors")["model.norm.weight"].dtype == torch.float32


def test_only_the_solution_s_tokens_and_its_end_are_learned(data):
    trainee = PolicyTrainee(Path(MINI_POLICY), PolicySettings(**FEW), "cpu")
    one = read_solutions([data]).rows[0]
    row = trainee.render(one).row
    model = trainee.chat_model
    assert row.token_ids[: row.positions[0] + 1] == model.chat.encode(one.problem)
    assert row.targets[-1] == model.end
    assert model.end in model.eos
    assert model.chat.decode(row.targets) == one.solution
    assert trainee.weight([trainee.render(one)]) == len(row.targets)
    # the loss is that of the model itself on these tokens, and does not depend on the rows beside it
    first, others = trainee.render(one), [trainee.render(other) for other in read_solutions([data]).rows[1:4]]
    ids = torch.tensor([[*row.token_ids, row.targets[-1]]])
    with torch.no_grad():
        logits = trainee.model(ids).logits[0].log_softmax(-1)
        told = -sum(float(logits[place, token]) for place, token in zip(row.positions, row.targets, strict=True))
        alone, rest, both = (float(trainee.loss(some)) for some in ([first], others, [first, *others]))
    assert alone == pytest.approx(told, rel=1e-5)
    assert both == pytest.approx(alone + rest, rel=1e-5)


def gradients(trainee, parts):
    """The loss of all parts together, and its gradient by the name of a weight."""
    trainee.model.train()
    trainee.model.zero_grad()
    loss = sum(trainee.loss(some) for some in parts)
    loss.backward()
    return loss.item(), {name: one.grad.clone() for name, one in trainee.model.named_parameters()}


@pytest.mark.parametrize("chosen", [{}, {"micro_batch": 150}, {"micro_batch": 150, "gradient_checkpointing": True}])
def test_loss_and_gradients_are_those_of_all_logits_of_a_whole_batch(data, chosen, monkeypatch):
    trainee = PolicyTrainee(Path(MINI_POLICY), PolicySettings(**{**FEW, "tokens": 2000, **chosen}), "cpu")
    rows = [trainee.render(one) for one in read_solutions([data]).rows[:12]]
    parts = [some for _, some in trainee.batches(rows)]
    assert len(parts) == 1 if not chosen else len(parts) > 2
    assert all(len(some) * max(one.length for one in some) <= chosen.get("micro_batch", 1024) for some in parts)
    loss, found = gradients(trainee, parts)
    trainee.loss = partial(load(monkeypatch, "training_memory").loss_of_all_logits, trainee)
    expected, plain = gradients(trainee, [rows])
    assert loss == pytest.approx(expected, rel=1e-5)
    assert plain.keys() == found.keys()
    for name, gradient in plain.items():
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max())), name


def test_a_batch_in_parts_is_one_optimiser_step(policy, data, tmp_path):
    whole = trained(policy, data, tmp_path / "whole", micro_batch=600)
    parts = trained(policy, data, tmp_path / "parts", micro_batch=100, gradient_checkpointing=True)
    assert [look["step"] for look in parts.record["looks"]] == [look["step"] for look in whole.record["looks"]]
    for one, other in zip(whole.record["looks"], parts.record["looks"], strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-3)
    expected, found = (load_file(one.folder / "model.safetensors") for one in (whole, parts))
    assert all(torch.allclose(expected[name], found[name], atol=1e-3) for name in expected)
    assert (parts.folder / "config.json").read_bytes() == (whole.folder / "config.json").read_bytes()


def test_a_model_that_cannot_compute_its_layers_again_is_told(policy, data, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.LlamaForCausalLM.supports_gradient_checkpointing", False)
    with pytest.raises(ConfigError, match="leave --gradient-checkpointing out"):
        trained(policy, data, tmp_path / "out", gradient_checkpointing=True)


@pytest.mark.parametrize("family", ["llama3", "mistral1", "mistral3", "tiny"])
def test_a_solution_stands_where_the_chat_template_puts_it(family, tmp_path):
    tiny.save(family, tmp_path)
    model = read_chat_model(tmp_path, system_prompt="Be brief." if family == "llama3" else None)
    trainee = PolicyTrainee(tmp_path, PolicySettings(**FEW, system_prompt=model.chat.system_prompt), "cpu")
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"problem": "What is 3 + 4?", "solution": "3 + 4 = 7."}))
    (one,) = read_solutions([file]).rows
    row = trainee.render(one).row
    prompt = model.chat.encode(one.problem)
    assert (*row.token_ids, row.targets[-1]) == (*prompt, *row.targets)
    assert model.chat.decode(row.targets[:-1]).strip() == one.solution
    assert row.targets[-1] in model.eos


def test_training_that_is_cut_anywhere_ends_at_the_same_weights(policy, data, tmp_path):
    whole = trained(policy, data, tmp_path / "whole", accumulate=2)
    cut, cuts = tmp_path / "cut", 0
    for _ in range(20):
        calls = iter(range(100))
        try:
            parts = trained(policy, data, cut, accumulate=2, stop=lambda calls=calls: next(calls) > 4)
            break
        except KeyboardInterrupt:
            cuts += 1
            assert (cut / "checkpoint.pt").exists()
    assert cuts > 1
    assert parts.record["looks"] == whole.record["looks"]
    expected, found = (load_file(one.folder / "model.safetensors") for one in (whole, parts))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_other_settings_finished_folders_and_prms_are_refused(policy, data, tmp_path):
    out = tmp_path / "out"
    calls = iter(range(100))
    with pytest.raises(KeyboardInterrupt):
        trained(policy, data, out, stop=lambda: next(calls) > 5)
    with pytest.raises(CheckpointError, match="other settings"):
        trained(policy, data, out, seed=5)
    trained(policy, data, out, micro_batch=64)  # less memory is no other training
    with pytest.raises(ConfigError, match="finished"):
        trained(policy, data, out)
    prm = tmp_path / "prm"
    tiny.save("tiny", prm)
    config = json.loads((prm / "config.json").read_text())
    (prm / "config.json").write_text(json.dumps({**config, "adaptive_ttc_prm": "rlhflow"}))
    with pytest.raises(ConfigError, match="is a PRM"):
        trained(prm, data, tmp_path / "other")


def test_solutions_that_do_not_fit_are_left_out_and_told(policy, data, tmp_path):
    with pytest.raises(ConfigError, match="24 solutions are too long"):
        trained(policy, data, tmp_path / "out", max_length=5)


def test_a_policy_without_a_chat_template_is_refused(data, tmp_path):
    folder = tmp_path / "policy"
    tiny.save("tiny", folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="chat template"):
        trained(folder, data, tmp_path / "out")


@pytest.mark.filterwarnings("ignore::FutureWarning:peft", "ignore:.*gradient_checkpointing:FutureWarning")
@pytest.mark.skipif(find_spec("peft") is None, reason="needs the extra train")
def test_lora_is_merged(policy, data, tmp_path):
    result = trained(policy, data, tmp_path / "out", lora=4)
    assert result.record["lora"] == 4
    assert not any("lora" in name for name in load_file(result.folder / "model.safetensors"))


@pytest.mark.parametrize(
    ("words", "prompt"),
    [
        ([], "auto"),
        (["--answers", "math"], "auto"),
        (["--answers", "number"], ""),
        (["--answers", "number", "--system-prompt", "Add."], "Add."),
    ],
)
def test_a_policy_is_trained_under_the_prompt_that_a_solver_of_these_answers_gives(words, prompt, monkeypatch):
    asked = []

    def train(policy, data, out, settings, **rest):
        asked.append(settings.system_prompt)
        raise ConfigError("far enough")

    monkeypatch.setattr("adaptive_ttc.training.policy.train_policy", train)
    assert main(["train-policy", "--policy", "p", "--data", "d", "--out", "o", *words]) == 2
    assert asked == [prompt]


def test_the_command_ends_with_one_line(policy, data, tmp_path, capsys):
    words = ["train-policy", "--policy", str(policy), "--data", str(data), "--out", str(tmp_path / "out")]
    words += ["--max-steps", "2", "--held-out", "0.3", "--device", "cpu"]
    assert main(words) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{tmp_path / 'out'}: policy after ")
    assert main(words) == 2
    assert "finished model" in capsys.readouterr().err
