"""Data sets: the fixed and the fresh MiniMath sets, JSON Lines files, Hub names, and what is refused."""

import json
import sys
from types import ModuleType

import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.datasets import load_problems
from adaptive_ttc.mini.minimath import split_of
from adaptive_ttc.mini.settings import PAIRS


def write(path, *rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def texts(rows):
    return [row["problem"] for row in rows]


def test_minimath_500_is_fixed_and_a_limit_is_its_beginning():
    rows = load_problems("minimath-500")
    assert len(rows) == len(set(texts(rows))) == 500
    assert rows == load_problems("minimath-500", seed=0)
    assert texts(rows) == texts(PAIRS["mini"].source.rows("test", 500, 0))
    assert load_problems("minimath-500", limit=7) == rows[:7]
    assert set(rows[0]) == {"problem", "solution", "answer", "subject", "level", "unique_id"}


def test_a_seed_draws_other_problems_of_the_same_split():
    fixed, fresh = load_problems("minimath-500"), load_problems("minimath-500", seed=3)
    assert len(fresh) == 500
    assert len(set(texts(fixed)) & set(texts(fresh))) < 100
    assert {split_of(text) for text in texts(fresh)} == {"test"}
    assert not {row["unique_id"] for row in fixed} & {row["unique_id"] for row in fresh}


@pytest.mark.parametrize(("name", "split"), [("minimath-calibration", "calibration"), ("minimath-train", "train")])
def test_the_other_splits_share_no_problem_with_the_test_split(name, split):
    rows = load_problems(name, limit=300)
    assert len(rows) == 300
    assert {split_of(text) for text in texts(rows)} == {split}


def test_another_pair_has_its_own_problems():
    rows = load_problems("minimath-500:mini-b", limit=50)
    assert {row["subject"] for row in rows} == set(PAIRS["mini-b"].source.families)
    with pytest.raises(ConfigError, match=r"no pair of mini models is called 'nano'.*mini-b"):
        load_problems("minimath-500:nano")


def test_a_file_is_read_in_order_and_shuffled_by_a_seed(tmp_path):
    path = write(tmp_path / "set.jsonl", *({"problem": f"{i} + 1?", "answer": str(i + 1)} for i in range(20)))
    rows = load_problems(path)
    assert texts(rows) == [f"{i} + 1?" for i in range(20)]
    assert rows[4]["unique_id"] == "set/5"
    shuffled = load_problems(str(path), seed=1)
    assert texts(shuffled) != texts(rows)
    assert sorted(texts(shuffled)) == sorted(texts(rows))
    assert load_problems(path, limit=5, seed=1) == shuffled[:5]


def test_columns_are_taken_over_and_numbers_become_text(tmp_path):
    row = {"problem": "1 + 1?", "answer": 2, "level": "Level 3", "subject": "sums", "unique_id": "a/1", "other": [1]}
    path = write(tmp_path / "set.jsonl", row, "", {"problem": "?", "answer": "0", "level": "unknown", "solution": None})
    first, second = load_problems(path)
    assert first == {"problem": "1 + 1?", "answer": "2", "level": 3, "subject": "sums", "unique_id": "a/1"}
    assert second == {"problem": "?", "answer": "0", "unique_id": "set/3"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"problem": "1 + 1?"}, r"line 3 has no 'answer'.*its keys are problem"),
        ({"answer": "2", "task": "?"}, r"line 3 has no 'problem'.*its keys are answer, task"),
        ({"problem": "  ", "answer": "2"}, r"line 3 has no 'problem'.*is '  '"),
        ({"problem": "?", "answer": None}, r"line 3 has no 'answer'.*is None"),
        ({"problem": "?", "answer": True}, r"line 3 has no 'answer'.*is True"),
        ("[1, 2]", r"line 3 is no JSON object"),
        ("{problem: 1}", r"line 3 is not JSON"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path, line, message):
    path = write(tmp_path / "set.jsonl", {"problem": "?", "answer": "1"}, "", line)
    with pytest.raises(ConfigError, match=message):
        load_problems(path)


def test_what_is_no_data_set_is_refused(tmp_path):
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    cases = {
        tmp_path / "missing.jsonl": "there is no file",
        "minimath-5000": "minimath-500, minimath-calibration",
        "missing/set.jsonl": "there is no file",
        tmp_path: "is a folder",
        write(tmp_path / "empty.jsonl", "", ""): "holds no problems",
        tmp_path / "binary.jsonl": "not UTF-8",
    }
    for name, message in cases.items():
        with pytest.raises(ConfigError, match=message):
            load_problems(name)
    with pytest.raises(ConfigError, match="limit=0"):
        load_problems("minimath-500", limit=0)


def hub(monkeypatch, answer):
    """Put a stand-in for the datasets library, which records how it was called."""
    calls = []

    def load_dataset(name, config, *, split):
        calls.append((name, config, split))
        return answer()

    library = ModuleType("datasets")
    library.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", library)
    return calls


def test_a_hub_name_is_loaded_with_its_config_and_split(monkeypatch):
    calls = hub(monkeypatch, lambda: [{"problem": "1 + 1?", "answer": "2"}])
    assert load_problems("owner/set")[0]["unique_id"] == "owner/set/test/1"
    load_problems("owner/set/main:train")
    assert calls == [("owner/set", None, "test"), ("owner/set", "main", "train")]


def test_a_hub_set_without_the_columns_says_which_it_has(monkeypatch):
    hub(monkeypatch, lambda: [{"task": "1 + 1?", "answer": "2"}])
    with pytest.raises(ConfigError, match=r"owner/set, row 1 has no 'problem'.*task, answer"):
        load_problems("owner/set")


def test_a_hub_failure_is_one_clear_error(monkeypatch):
    def fail():
        raise RuntimeError("unknown split test")

    hub(monkeypatch, fail)
    with pytest.raises(ConfigError, match=r"owner/set .*split test\) cannot be loaded: RuntimeError: unknown split"):
        load_problems("owner/set")


def test_without_the_library_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'datasets>=[\d.]+' \(docs/answers\.md#data-sets\)"):
        load_problems("owner/set")
