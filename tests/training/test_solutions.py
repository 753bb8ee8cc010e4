"""What is read of files of right solutions, and how problems are parted."""

import gzip
import json

import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.training.settings import PolicySettings
from adaptive_ttc.training.solutions import held_out_solutions, read_solutions, reference_solution
from adaptive_ttc.types import Message

USER, SAID = {"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": " It is \\boxed{2}. "}


def read(path, *lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return read_solutions([path])


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, SAID], "pass_rate": 0.5},
        {"prompt": [USER], "completion": [SAID]},
        {"prompt": "1 + 1?", "completion": "It is \\boxed{2}."},
        {"problem": "1 + 1?", "solution": "It is \\boxed{2}.", "answer": "2"},
    ],
)
def test_every_format_gives_the_same_problem_and_solution(tmp_path, row):
    (one,) = read(tmp_path / "rows.jsonl", row).rows
    assert one.problem.messages == (Message("user", "1 + 1?"),)
    assert one.solution == "It is \\boxed{2}."


def test_gsm8k_answers_become_steps_and_a_box(tmp_path):
    answer = "He sold 48/2 = <<48/2=24>>24 in May.\nSo 48+24 = <<48+24=72>>72 in all.\n#### 72"
    (one,) = read(tmp_path / "gsm8k.jsonl", {"question": "How many?", "answer": answer}).rows
    assert one.solution == ("He sold 48/2 = 24 in May.\n\nSo 48+24 = 72 in all.\n\nThe answer is $\\boxed{72}$.")
    assert reference_solution("#### 5") == "The answer is $\\boxed{5}$."


def test_a_system_message_stays_and_repeated_rows_are_one(tmp_path):
    system = {"role": "system", "content": "Be brief."}
    row = {"messages": [system, USER, SAID]}
    found = read(tmp_path / "rows.jsonl", row, {**row, "score": 0.5}, {"messages": [USER, SAID]})
    assert found.repeated == 1
    assert [one.problem.messages[0].role for one in found.rows] == ["system", "user"]
    assert len({one.key for one in found.rows}) == 1


def test_gzip_is_read(tmp_path):
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(json.dumps({"messages": [USER, SAID]}).encode()))
    assert len(read_solutions([file]).rows) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no JSON"),
        ("[]", "JSON object"),
        ({"messages": [USER]}, "ends with the solution"),
        ({"messages": [SAID, USER]}, "the assistant's"),
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, "no text, or empty"),
        ({"messages": [SAID, SAID]}, "user turn"),
        ({"prompt": "1 + 1?", "completion": 2}, "no text"),
        ({"prompt": [USER], "chosen": [SAID], "rejected": [SAID]}, "a preference pair"),
        ({"prompt": "1 + 1?", "completions": ["a"], "labels": [True]}, "step labels"),
        ({"problem": "1 + 1?", "text": "a", "correct": True}, "right or wrong"),
        ({"problem": "1 + 1?", "answer": "2"}, "no solution"),
        ({"text": "a"}, "neither messages"),
    ],
)
def test_other_rows_are_refused_with_the_remedy(tmp_path, line, message):
    with pytest.raises(ConfigError, match=f"line 1: .*{message}.*export --format sft"):
        read(tmp_path / "rows.jsonl", line)


def test_empty_and_missing_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no solutions"):
        read(tmp_path / "rows.jsonl")
    with pytest.raises(ConfigError, match="cannot read"):
        read_solutions([tmp_path / "nothing.jsonl"])


def test_problems_are_on_one_side_only(tmp_path):
    rows = [{"problem": f"{number} + 1?", "solution": f"way {way}"} for number in range(20) for way in range(3)]
    found = read(tmp_path / "rows.jsonl", *rows).rows
    train, held = held_out_solutions(found, 0.2, seed=1)
    assert len(train) + len(held) == 60
    assert not {one.key for one in train} & {one.key for one in held}
    assert len({one.key for one in held}) == 4
    assert held_out_solutions(found, 0.2, seed=1) == (train, held) != held_out_solutions(found, 0.2, seed=2)
    with pytest.raises(ConfigError, match="of one problem"):
        held_out_solutions(found[:3], 0.2, seed=1)


def test_the_rate_of_a_policy_follows_from_its_size():
    assert PolicySettings(learning_rate=0.5).peak(10**6) == 0.5
    assert PolicySettings().peak(135 * 10**6) == pytest.approx(PolicySettings().peak(10**6) / 135**0.5)
