"""Tokenizer, targets, verifier stacking, and a whole shrunken training that is cut and resumed."""

import json
import random
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_ttc.mini import train as command
from adaptive_ttc.mini.card import write_card
from adaptive_ttc.mini.data import IGNORE, attempt, batches, drawn, drill, judged, revision, verdict
from adaptive_ttc.mini.implicit import implicit_ratios
from adaptive_ttc.mini.models import fresh, widened, with_verifier
from adaptive_ttc.mini.settings import PAIRS, Size, Training
from adaptive_ttc.mini.stages import train, writer_loss
from adaptive_ttc.mini.tokenizer import REVISE, train_tokenizer
from adaptive_ttc.training.logistic import fit_logistic

TINY = Size(hidden=32, layers=2, heads=2, intermediate=64)
SOURCE = PAIRS["mini"].source


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(problems=2000)


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_any_text_encodes_and_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_digits_stand_alone_and_blank_lines_are_one_token(tokenizer):
    ids = tokenizer("So 120\n\nx").input_ids
    assert [tokenizer.decode([i]) for i in ids] == ["So ", "1", "2", "0", "\n\n", "x"]


def test_chat_template_marks_turns_and_where_the_solution_begins(tokenizer):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "+"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    assert text == "<|begin|><|user|>Hi<|end|><|assistant|>+<|end|>"
    asked = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert asked == "<|begin|><|user|>Hi<|end|><|assistant|>"


def first_batch(tokenizer, render, *, verifier):
    _, batch = next(batches(tokenizer, drawn(SOURCE, render, 0), verifier=verifier, tokens=4000))
    return batch


def test_writer_learns_the_solution_and_its_end_only(tokenizer):
    batch = first_batch(tokenizer, attempt(SOURCE, {}), verifier=False)
    for ids, targets in zip(batch.input_ids, batch.targets, strict=True):
        learned = [int(t) for t in targets if t != IGNORE]
        begins = list(ids).index(tokenizer.convert_tokens_to_ids("<|assistant|>"))
        assert list(targets[:begins]) == [IGNORE] * begins
        assert learned == list(ids[begins + 1 : begins + 1 + len(learned)])
        assert learned[-1] == tokenizer.eos_token_id


def test_reviser_learns_the_last_attempt_only(tokenizer):
    batch = first_batch(tokenizer, revision(SOURCE, SOURCE.slips, 0.5), verifier=False)
    for ids, targets in zip(batch.input_ids, batch.targets, strict=True):
        text = tokenizer.decode(ids)
        learned = tokenizer.decode([t for t in targets if t != IGNORE])
        assert text.count(REVISE) in range(1, 5)
        assert learned in text.split(REVISE)[-1]
        assert text.replace("<|pad|>", "").endswith(learned)


def test_verifier_judges_steps_where_the_plus_is_predicted(tokenizer):
    question, solution = "Evaluate $2 + 3$.", "So 6\n\nThe answer is $\\boxed{6}$."
    rows = batches(tokenizer, lambda number: [judged(question, solution, 3)], verifier=True, tokens=100)
    _, batch = next(rows)
    tokens = tokenizer.convert_ids_to_tokens(batch.input_ids[0])
    verdicts = [int(batch.targets[0][i]) for i, token in enumerate(tokens) if token == "<|assistant|>"]
    assert verdicts == [0, 0]
    so = next(i for i, token in enumerate(tokens) if token.startswith("So"))
    assert [int(t) for t in batch.targets[0][so : so + 2]] == [1, 0]
    _, right = next(batches(tokenizer, lambda n: [judged(question, solution, 99)], verifier=True, tokens=100))
    assert {int(t) for t in right.targets[0] if t != IGNORE} == {1}


def test_batches_resume_at_a_group(tokenizer):
    group = drawn(SOURCE, verdict(SOURCE, SOURCE.slips), 5)
    whole = list(islice(batches(tokenizer, group, verifier=True, tokens=4000), 60))
    second = next(b for number, b in whole if number == 2)
    _, resumed = next(batches(tokenizer, group, verifier=True, tokens=4000, start=1))
    assert np.array_equal(second.input_ids, resumed.input_ids)


def test_a_new_verifier_computes_what_its_base_does_and_leaves_it_frozen(tokenizer):
    base = fresh(TINY, tokenizer, 0).eval()
    verifier = with_verifier(base, 2, 0).eval()
    ids = torch.tensor([[1, 3, 50, 60, 2]])
    with torch.no_grad():
        assert torch.allclose(base.model(ids).last_hidden_state, verifier.model(ids).last_hidden_state, atol=1e-6)
    frozen = [name for name, p in verifier.named_parameters() if not p.requires_grad]
    assert len(frozen) == 1 + 2 * len(list(base.model.layers[0].parameters()))
    assert not verifier.config.tie_word_embeddings


def test_a_cut_stage_goes_on_to_the_same_number_of_steps(tokenizer, tmp_path):
    group = drawn(SOURCE, attempt(SOURCE, {}), 0)

    def stream(start):
        return batches(tokenizer, group, verifier=False, tokens=1500, start=start)

    def cut(step, steps, loss):
        if step == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(fresh(TINY, tokenizer, 0), writer_loss, stream, Training(40), tmp_path, cut)
    seen = []
    train(fresh(TINY, tokenizer, 0), writer_loss, stream, Training(40), tmp_path, lambda *row: seen.append(row))
    assert [step for step, *_ in seen] == [40]
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 2
    assert losses[1] < losses[0]


def test_a_widened_model_computes_what_its_base_does(tokenizer):
    base = fresh(TINY, tokenizer, 0).eval()
    wide = widened(base, 3, 0).eval()
    ids = torch.tensor([[1, 3, 50, 60, 2]])
    with torch.no_grad():
        ours, theirs = base(ids).logits, wide(ids).logits
    assert (ours - theirs).abs().max() < 0.1 * ours.abs().max()
    assert wide.config.hidden_size == 2 * base.config.hidden_size
    assert sum(p.numel() for p in wide.parameters()) > 4 * sum(p.numel() for p in base.model.layers.parameters())


def test_drills_are_right():
    text = "".join(segment.text for segment in drill(200)(None, random.Random(0)))
    lines = [line.replace("\\cdot", "*").replace(" = ", " == ") for line in text[9:].split("\n\n")]
    facts = [line for line in lines if line and "x" not in line and "f" not in line]
    assert len(facts) > 100
    assert all(eval(fact) for fact in facts)


def test_the_command_trains_every_model_and_refuses_other_settings(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(PAIRS, "mini-b", replace(PAIRS["mini-b"], small=TINY, large_layers=2))
    arguments = ["--pair", "mini-b", "--work", str(tmp_path), "--shrink", "0.0006", "--workers", "1", "--worker", "0"]
    assert command.main([*arguments, "--parts", "pair", "large", "verifier"]) == 0
    for name in ("policy", "large", "verifier", "prm/clean", "prm/noisy"):
        assert (tmp_path / "models" / name / "model.safetensors").stat().st_size > 50_000
    kinds = [json.loads((tmp_path / "models" / name / "config.json").read_text()) for name in ("prm", "verifier")]
    assert [kind["adaptive_ttc_prm"] for kind in kinds] == ["implicit", "rlhflow"]
    write_card(PAIRS["mini-b"], tmp_path, tmp_path / "models")
    card = (tmp_path / "models" / "README.md").read_text()
    assert "| verifier |" in card
    assert "Not measured yet" in card
    with pytest.raises(SystemExit):
        command.main(["--pair", "mini", "--work", str(tmp_path), "--worker", "0"])
    assert "other settings" in capsys.readouterr().err


def test_logistic_regression_recovers_what_made_the_labels():
    generator = torch.Generator().manual_seed(0)
    ratios = torch.randn(20_000, generator=generator) * 3
    labels = (torch.rand(20_000, generator=generator) < torch.sigmoid(0.7 * ratios + 0.4)).float()
    scale, offset = fit_logistic(ratios, labels)
    assert scale == pytest.approx(0.7, abs=0.05)
    assert offset == pytest.approx(0.4, abs=0.05)


def test_a_ratio_is_of_the_solution_alone_and_knows_nothing_of_its_batch(tokenizer):
    clean, noisy = (fresh(TINY, tokenizer, seed).eval() for seed in (0, 1))
    samples = [
        {"question": "Evaluate $2 + 3$.", "solution": "So 2 + 3 = 5\n\nThe answer is $\\boxed{5}$.", "right": 42},
        {"question": "Evaluate $2 + 30$.", "solution": "So 6", "right": 3},
    ]
    ratios, labels = implicit_ratios(clean, noisy, tokenizer, samples)
    alone, _ = implicit_ratios(clean, noisy, tokenizer, samples[1:])
    assert labels.tolist() == [1.0, 0.0]
    assert alone[0] == pytest.approx(ratios[1].item(), abs=1e-5)
    same, _ = implicit_ratios(clean, clean, tokenizer, samples)
    assert same.abs().max() < 1e-6
