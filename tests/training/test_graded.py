"""What is read of files, how problems are parted, what a label weighs, how batches are cut."""

import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_ttc.answers import parse_space
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.format import Row
from adaptive_ttc.training.batching import MOST_WEIGHT, Schedule, bucketed, examples_of
from adaptive_ttc.training.graded import Graded, by_problem, held_out, mixed, read_graded
from adaptive_ttc.training.judge import figures
from adaptive_ttc.training.settings import TrainSettings
from tests.training.samples import rows, write

MATH = parse_space("math")


def graded(question, *labels, answer=None):
    return Graded(question, tuple(f"step {k}" for k in range(len(labels))), labels, answer)


def read(path, *lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return read_graded([path], MATH)


def test_both_formats_are_read(tmp_path):
    steps = read_graded([write(tmp_path / "prm.jsonl", rows())], MATH).rows
    whole = read_graded([write(tmp_path / "rollouts.jsonl", rows(), "rollouts")], MATH).rows
    assert [(one.question, one.steps, one.answer) for one in steps] == [
        (one.question, one.steps, one.answer) for one in whole
    ]
    assert steps[0].answer == "5"
    assert [one.labels for one in steps[:3]] == [(1, 1), (0, 0), (1, 0)]
    assert [one.labels for one in whole[:3]] == [(1, 1), (0, 0), (0, 0)]


def test_soft_and_missing_labels_empty_steps_and_chats(tmp_path):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
    found = read(
        tmp_path / "rows.jsonl",
        {"prompt": chat, "completions": ["a", " ", "b"], "labels": [0.75, 1, None]},
        {"prompt": "1 + 1?", "completions": ["a"], "labels": [None]},
        {"question": "1 + 2?", "response": "a\n\nb", "correct": 0.25},
    )
    assert found.left_out == 1
    assert [one.question for one in found.rows] == ["1 + 1?", "1 + 2?"]
    assert found.rows[0].steps == ("a", "b")
    assert found.rows[0].labels[0] == 0.75
    assert math.isnan(found.rows[0].labels[1])
    assert found.rows[1].labels == (0.25, 0.25)


GOOD = {"prompt": "1 + 1?", "completions": ["a"], "labels": [1]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no JSON"),
        ("[]", "JSON object"),
        ({"completions": ["a"], "labels": [1]}, "no text under problem"),
        ({**GOOD, "labels": [1, 0]}, "one label for each"),
        ({**GOOD, "labels": [2]}, "a number from 0 to 1"),
        ({**GOOD, "labels": ["yes"]}, "a number from 0 to 1"),
        ({**GOOD, "completions": "a"}, "list of texts"),
        ({"problem": "1 + 1?", "text": "a"}, "correct is missing"),
        ({"problem": "1 + 1?", "correct": True}, "neither completions"),
        (GOOD, "with only right ones"),
        ({**GOOD, "labels": [0.5]}, "with only wrong ones"),
        ({**GOOD, "labels": [None]}, "with no label"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(tmp_path, line, message):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path / "rows.jsonl", line)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*nothing\.jsonl"):
        read_graded([tmp_path / "nothing.jsonl"], MATH)


def test_problems_are_on_one_side_only_and_both_kinds_on_either():
    some = [graded(f"problem  {k}", 1.0 if s == 0 or k % 2 else 0.0) for k in range(40) for s in range(4)]
    some += [graded("problem 3", 1.0)]  # the same one in another spelling of its blanks
    train, held = held_out(some, 0.2, seed=1)
    assert len(train) + len(held) == len(some)
    assert not {one.key for one in train} & {one.key for one in held}
    assert {mixed(part) for part in by_problem(held).values()} == {True, False}
    assert len({one.key for one in held}) == 8
    assert held_out(some, 0.2, seed=1) == (train, held) != held_out(some, 0.2, seed=2)


def test_one_problem_alone_cannot_be_parted():
    with pytest.raises(ConfigError, match="of one problem"):
        held_out([graded("a", 1.0), graded("a", 0.0)], 0.1, 0)


def test_one_mixed_problem_and_one_alike_are_parted():
    train, held = held_out([graded("a", 1.0), graded("a", 0.0), graded("b", 1.0)], 0.1, 0)
    assert train
    assert held


def weights(some, **how):
    rendered = [Row.labelled(range(9), range(len(one.steps))) for one in some]
    return [one.weights for one in examples_of(some, rendered, **how)]


def test_balanced_labels_count_the_same_within_a_problem():
    some = [graded("a", 1.0, 1.0), graded("a", 1.0, 0.0), graded("b", 1.0, 1.0), graded("c", 0.0, math.nan)]
    found = weights(some, balance="problem")
    assert found[0] == pytest.approx((2 / 3, 2 / 3))
    assert found[1] == pytest.approx((2 / 3, 2.0))
    assert found[2:] == [(0.0, 0.0), (0.0, 0.0)]
    last = [one.last_only() for one in some]
    assert weights(last, balance="problem")[:2] == [(0.0, 1.0), (0.0, 1.0)]
    assert weights(some, balance="none")[2:] == [(1.0, 1.0), (1.0, 0.0)]


def test_one_label_among_many_weighs_a_bounded_amount():
    some = [graded("a", 1.0), *[graded("a", 0.0)] * 40]
    assert weights(some, balance="problem")[0] == (MOST_WEIGHT,)


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=60),
    tokens=st.integers(1, 200),
    accumulate=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_batches_cover_all_rows_once_in_every_epoch(lengths, tokens, accumulate, seed):
    schedule = Schedule(tuple(lengths), tokens, accumulate, seed)
    per_epoch = schedule.steps_per_epoch
    for epoch in (0, 1):
        steps = [schedule.step(epoch * per_epoch + k) for k in range(per_epoch)]
        batches = [batch for step in steps for batch in step]
        assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
        assert all(1 <= len(step) <= accumulate for step in steps)
        assert all(len(some) == 1 or len(some) * max(lengths[k] for k in some) <= tokens for some in batches)


def test_batches_are_of_about_one_length_and_reproducible():
    lengths = [random.Random(k).randint(10, 500) for k in range(400)]
    batches = bucketed(lengths, 4000, random.Random(0))
    padded = sum(len(some) * max(lengths[k] for k in some) for some in batches)
    assert padded < 1.1 * sum(lengths)
    assert batches == bucketed(lengths, 4000, random.Random(0)) != bucketed(lengths, 4000, random.Random(1))


def test_figures_of_a_verifier_that_knows_and_of_one_that_does_not():
    answers = {1.0: "1", 0.0: "2"}
    some = [graded("a", 1.0, y, answer=answers[y]) for y in (1.0, 0.0, 0.0)]
    some += [graded("b", 1.0, 1.0, answer="1")]
    knowing = figures(some, [(0.9, 0.9), (0.8, 0.1), (0.8, 0.2), (0.7, 0.3)])
    assert (knowing.auc_within, knowing.auc, knowing.mixed) == (1.0, 1.0, 1)
    assert (knowing.majority, knowing.weighted, knowing.gain) == (0.5, 1.0, 0.5)
    even = figures(some, [(0.5, 0.5)] * 4)
    assert (even.auc_within, even.auc_steps, even.gain) == (0.5, 0.5, 0.0)
    assert even.loss == pytest.approx(math.log(2))
    assert math.isnan(figures([one.last_only() for one in some], [(0.5, 0.5)] * 4).auc_steps)


def test_without_problems_of_both_outcomes_steps_decide_or_else_the_loss():
    assert figures([graded("a", 1.0, 0.0)], [(0.9, 0.2)]).better_by == 1.0
    assert figures([graded("a", 1.0)], [(0.5,)]).better_by == pytest.approx(-math.log(2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "other"}, {"balance": "x"}, {"template": "x"}, {"lora": -1}, {"epochs": 0.0}, {"held_out": 0.0},
        {"held_out": 0.6}, {"tokens": 0}, {"learning_rate": 0.0}, {"warmup": 1.0}, {"patience": 0}, {"max_steps": -1},
        {"learn": "x"}, {"learn": "steps", "kind": "outcome"},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TrainSettings(**wrong)


@pytest.mark.parametrize(
    ("chosen", "last_only"),
    [
        ({"kind": "process"}, False),
        ({"kind": "outcome"}, True),
        ({"kind": "implicit"}, True),
        ({"kind": "implicit", "learn": "steps"}, False),
        ({"kind": "process", "learn": "outcome"}, True),
    ],
)
def test_which_labels_are_learned_follows_from_the_kind_unless_told(chosen, last_only):
    assert TrainSettings(**chosen).last_only is last_only


def test_defaults_follow_from_the_size():
    chosen = TrainSettings()
    assert (chosen.rank(10**6), chosen.rank(8 * 10**9)) == (0, 16)
    assert chosen.peak(10**6) == 1e-3
    assert chosen.peak(135 * 10**6) == pytest.approx(8.6e-5, rel=0.01)
    assert chosen.peak(8 * 10**9) == 2e-4
    assert TrainSettings(kind="implicit").peak(10**6) == pytest.approx(1e-4)
    assert TrainSettings(lora=0).peak(8 * 10**9) == pytest.approx(1.1e-5, rel=0.02)
