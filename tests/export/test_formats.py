"""The lines of every format, and that they are what TRL's loaders read."""

import json

import pytest

from adaptive_ttc.export.formats import dpo, outcome, rollouts, sft, to_label
from adaptive_ttc.export.samples import GradedProblem, GradedSample, normalised
from adaptive_ttc.types import join_steps


def sample(steps, correct, score=None, **known):
    scores = () if score is None else (score,)
    known = {"finish": "eos", **known}
    return GradedSample(text=join_steps(steps.split("|")), correct=correct, answer="1", scores=scores, **known)


def problem(*samples, **known):
    row = {"problem": "What?", "unique_id": "p", "answer": "1"}
    return GradedProblem(row=row, samples=samples, **known)


MIXED = problem(
    sample("a|b|c", True, 0.5),
    sample("a| b|c ", True, 0.9),
    sample("a|b|x", False, 0.9),
    sample("y|b", False, 0.1),
    sample("z|q", True, 0.7),
    sample("z|cut", True, 0.8, finish="length"),
)


def test_chats_hold_distinct_right_whole_solutions_the_best_first():
    lines = sft(MIXED, 4, "Think.")
    said = [line["messages"][-1]["content"] for line in lines]
    assert said == ["z\n\nq", "a\n\nb\n\nc"]
    assert lines[0]["messages"][0] == {"role": "system", "content": "Think."}
    assert [turn["role"] for turn in lines[0]["messages"]] == ["system", "user", "assistant"]
    assert len(sft(MIXED, 1)) == 1
    assert [turn["role"] for turn in sft(MIXED, 1)[0]["messages"]] == ["user", "assistant"]


def test_pairs_that_share_the_longest_beginning_come_first_and_no_solution_is_in_two():
    lines = dpo(MIXED, 4)
    assert [line["shared_steps"] for line in lines] == [2, 0]
    assert lines[0]["prompt"] == [{"role": "user", "content": "What?"}]
    assert lines[0]["chosen"] == [{"role": "assistant", "content": "a\n\nb\n\nc"}]
    assert lines[0]["rejected"] == [{"role": "assistant", "content": "a\n\nb\n\nx"}]
    texts = [line[side][0]["content"] for line in lines for side in ("chosen", "rejected")]
    assert len(set(texts)) == len(texts)
    assert [line["shared_steps"] for line in dpo(MIXED, 4, least_shared=1)] == [2]
    assert len(dpo(MIXED, 1)) == 1
    assert dpo(problem(sample("a", True)), 4) == []


def test_right_and_wrong_solutions_are_labelled_in_equal_parts():
    assert [one.correct for one in to_label(MIXED, 2)] == [True, False]
    assert [one.correct for one in to_label(MIXED, 8)] == [True, True, False, False]
    rights = problem(*(sample(f"{number}", True) for number in range(6)), sample("w", False))
    assert [one.correct for one in to_label(rights, 4)] == [True, True, True, False]
    lines = outcome(MIXED, 8)
    assert [line["labels"] for line in lines] == [[True] * 3, [True] * 2, [False] * 3, [False] * 2]
    assert lines[0]["completions"] == ["a", "b", "c"]


def test_all_samples_are_written_as_they_are():
    lines = rollouts(MIXED)
    assert len(lines) == 6
    assert {line["id"] for line in lines} == {"p"}
    assert lines[1]["steps"] == ["a", "b", "c"]


def test_what_differs_in_blanks_or_the_look_of_characters_is_the_same():
    assert normalised("x =\n ²") == normalised("x = 2 ")
    assert normalised("x") != normalised("X")


@pytest.mark.parametrize(("right", "difficulty"), [(10, 0), (9, 0), (8, 1), (5, 2), (2, 4), (0, 4)])
def test_bins_are_equal_parts_of_the_pass_rate(right, difficulty):
    samples = [sample(str(number), number < right) for number in range(10)]
    assert problem(*samples).difficulty == difficulty


COLUMNS = {
    "sft": {"messages"},
    "dpo": {"prompt", "chosen", "rejected"},
    "prm": {"prompt", "completions", "labels"},
}


@pytest.mark.parametrize("name", COLUMNS)
def test_datasets_reads_the_lines_with_the_columns_that_trl_wants(name, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    make = {"sft": sft, "dpo": dpo, "prm": outcome}[name]
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in make(MIXED, 4)))
    loaded = datasets.Dataset.from_json(str(path), cache_dir=str(tmp_path / "cache"))
    assert COLUMNS[name] <= set(loaded.column_names)
    assert loaded.num_rows == 4 if name == "prm" else loaded.num_rows == 2
    if name == "prm":
        assert loaded.features["labels"].feature.dtype == "bool"
        assert all(len(line["labels"]) == len(line["completions"]) for line in loaded)
