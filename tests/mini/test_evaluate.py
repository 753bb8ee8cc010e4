"""The figures of a mini pair: right on pools made by hand, complete, and measured through the real engines."""

import json
import math

import numpy as np
import pytest

from adaptive_ttc.evaluation.datasets import load_problems
from adaptive_ttc.evaluation.evaluate import Pool
from adaptive_ttc.evaluation.metrics import NO_ANSWER
from adaptive_ttc.mini.evaluate import Measured, figures_of, main, prm_figures
from adaptive_ttc.mini.models import fresh, save, with_verifier
from adaptive_ttc.mini.settings import Size
from adaptive_ttc.mini.tokenizer import train_tokenizer
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver

KEYS = {
    "pass_at_1", "pass_at_1_by_quintile", "prm_auc", "prm_auc_within", "prm_auc_within_distinct", "accuracy",
    "mean_tokens", "mixed_problems", "problems", "wall_time",
}  # fmt: skip


def pool(right, scores=None, texts=None, tokens=10):
    correct = np.array(right, dtype=bool)
    return Pool(
        row=load_problems("minimath-500", limit=1)[0],
        correct=correct,
        classes=np.where(correct, 0, 1),
        scores=np.array(scores if scores is not None else np.where(correct, 0.9, 0.1), dtype=float),
        tokens=np.full(len(correct), tokens),
        texts=tuple(texts or (f"text {index}" for index in range(len(correct)))),
    )


def measured(*pools):
    return Measured(pools, tuple(bool(one.correct[0]) for one in pools), 1.5)


def test_figures_of_pools_made_by_hand():
    right = (64, 60, 48, 40, 36, 30, 20, 8, 4, 0)
    pools = [pool([True] * count + [False] * (64 - count), tokens=10 + count) for count in right]
    found = figures_of(measured(*pools))
    assert set(found) == KEYS | {"pass_at_64", "weighted_minus_majority_64"}
    assert found["pass_at_1"] == pytest.approx(310 / 640)
    assert found["pass_at_1_by_quintile"] == pytest.approx([124 / 128, 88 / 128, 66 / 128, 28 / 128, 4 / 128])
    assert found["pass_at_64"] == 0.9
    assert found["accuracy"]["greedy"] == 0.9
    for strategy in ("majority", "best_of_n", "weighted_best_of_n"):
        assert set(found["accuracy"][strategy]) == {"1", "4", "16", "64"}
        assert found["accuracy"][strategy]["1"] == pytest.approx(310 / 640)
    assert found["accuracy"]["majority"]["64"] == 0.5
    assert found["accuracy"]["best_of_n"]["64"] == 0.9
    assert found["accuracy"]["weighted_best_of_n"]["64"] == 0.8  # 4 * .9 < 60 * .1, 8 * .9 > 56 * .1
    gain = found["weighted_minus_majority_64"]
    assert gain["difference"] == pytest.approx(0.3)
    assert gain["low"] < 0.3 < gain["high"]
    assert found["prm_auc"] == found["prm_auc_within"] == 1.0
    assert (found["mixed_problems"], found["problems"]) == (8, 10)
    assert found["mean_tokens"] == pytest.approx(10 + 31)


def test_within_problem_auc_counts_each_problem_once_and_names_its_variant_on_distinct_texts():
    copies = pool([True] + [False] * 9, [0.5] + [0.2] + [0.7] * 8, ["r", "w", *["v"] * 8])
    plain = pool([True, False], [0.9, 0.1])
    easy = pool([True, True], [0.1, 0.2])
    figures = prm_figures([copies, plain, easy])
    assert figures["prm_auc_within"] == pytest.approx((1 / 9 + 1) / 2)
    assert figures["prm_auc_within_distinct"] == pytest.approx((1 / 2 + 1) / 2)


def test_unscored_samples_are_left_out_and_nothing_scored_has_no_auc():
    figures = prm_figures([pool([True, False, False], [0.9, 0.1, math.nan], ["a", "b", "b"])])
    assert figures["prm_auc"] == figures["prm_auc_within_distinct"] == 1.0
    figures = prm_figures([pool([False, False], [math.nan] * 2)])
    assert math.isnan(figures["prm_auc"])
    assert math.isnan(figures["prm_auc_within"])


def test_samples_without_an_answer_are_wrong_ones_for_the_auc():
    one = pool([True, False], [0.4, 0.6])
    silent = Pool(row=one.row, correct=one.correct, classes=np.array([0, NO_ANSWER]), scores=one.scores,
                  tokens=one.tokens, texts=one.texts)  # fmt: skip
    assert prm_figures([silent])["prm_auc"] == 0.0


def test_few_samples_name_the_size_that_they_allow():
    found = figures_of(measured(*(pool([True, False, False, True, True]) for _ in range(3))))
    assert "pass_at_4" in found
    assert "weighted_minus_majority_4" in found
    assert None in found["pass_at_1_by_quintile"]  # three problems fill three quintiles


@pytest.fixture
def toys(monkeypatch):
    """Loads toy engines, and keeps the policies that it made."""
    policies = []

    def load(policy, prm=None, *, seed=0):
        policies.append((policy, FakePolicy.generative(error_rate=0.2)))
        return Solver(policies[-1][1], FakePRM(lambda question, steps: 0.5) if prm else None, seed=seed)

    monkeypatch.setattr(Solver, "load", load)
    return policies


def test_the_command_writes_every_figure(toys, tmp_path, capsys):
    target = tmp_path / "mini.json"
    assert main(["--limit", "3", "--json", str(target)]) == 0
    record = json.loads(target.read_text())
    assert set(record["figures"]) == KEYS | {"pass_at_64", "weighted_minus_majority_64"}
    assert record["figures"]["problems"] == 3
    assert record["command"] == f"python -m adaptive_ttc.mini.evaluate --limit 3 --json {target}"
    requests = toys[0][1].requests
    assert len(requests) == 3 * 65
    assert {request.temperature for request in requests} == {0.8, 0.0}
    assert len({request.seed for request in requests if request.temperature}) == 3 * 64
    assert "weighted_best_of_n" in capsys.readouterr().out


def test_a_seed_draws_fresh_problems(toys):
    for seed in ([], ["--seed", "4"]):
        assert main(["--limit", "3", "--samples", "1", *seed]) == 0
    fixed, fresh_ones = ({request.prompt_ids for request in policy.requests} for _, policy in toys)
    assert len(fixed) == len(fresh_ones) == 3
    assert not fixed & fresh_ones


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pair", "mini-b"], "name their folder with --models"),
        (["--samples", "0"], "--samples 0"),
        (["--limit", "0"], "limit=0"),
        (["--json", "."], "is a folder"),
    ],
)
def test_impossible_requests_end_with_code_2_and_one_line(arguments, message, toys, capsys):
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.AnswerWarning")  # random weights answer nothing
def test_real_models_are_measured_from_end_to_end(tmp_path, capsys):
    tokenizer = train_tokenizer(problems=200)
    size = Size(hidden=32, layers=1, heads=2, intermediate=48)
    save(fresh(size, tokenizer, 0), tokenizer, tmp_path / "policy")
    save(with_verifier(fresh(size, tokenizer, 0), 1, 0), tokenizer, tmp_path / "prm", adaptive_ttc_prm="rlhflow")
    save(fresh(size, tokenizer, 1), tokenizer, tmp_path / "large")
    for folder in ("policy", "large"):  # random weights hardly ever end a solution
        config = json.loads((tmp_path / folder / "config.json").read_text())
        (tmp_path / folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 200}))
    target = tmp_path / "mini.json"
    arguments = ["--models", str(tmp_path), "--limit", "2", "--samples", "4", "--reference", "--json", str(target)]
    assert main(arguments) == 0
    found = json.loads(target.read_text())["figures"]
    assert set(found) == KEYS | {"pass_at_4", "weighted_minus_majority_4", "reference"}
    assert set(found["reference"]) == {"pass_at_1", "accuracy", "mean_tokens", "wall_time"}
    assert 1 <= found["mean_tokens"] < 200
    assert found["pass_at_1"] == 0.0
