"""The file of settled problems: a line each, gone on from whatever ended a run, refused where it is another's."""

import json
from pathlib import Path

import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.settled import SCHEMA, Settled, SettledFile, figures_of, holds_settled, read_settled
from tests.doubles import NearlyFull

TOKENS = {"generated": 20, "thinking": 0, "prompt": 5, "prm": 30}
RUN = {"dataset": "sums.jsonl", "n": 4}


def settled(number, **others):
    known = {"answer": str(number), "stopped": "settled", "why": "it is done", "candidates": 4, "effective_n": 3}
    return Settled(**{"id": f"sums/{number}", "problem": f"Add {number}.", "tokens": TOKENS, **known, **others})


def written(path, *ones, run=RUN):
    with SettledFile(path, run) as file:
        for one in ones:
            file.write(one)
    return path


def test_every_line_is_whole_as_soon_as_it_is_written(tmp_path):
    path = tmp_path / "new" / "out.jsonl"
    with SettledFile(path, RUN) as file:
        for number in range(3):
            file.write(settled(number, gold="1", correct=number == 1, confidence=0.5))
            lines = path.read_text().splitlines()
            assert len(lines) == number + 1
    entry = json.loads(lines[1])
    assert (entry["schema"], entry["id"], entry["answer"], entry["correct"]) == (SCHEMA, "sums/1", "1", True)
    assert entry["run"] == RUN
    assert holds_settled(path)
    assert [one for one, _ in read_settled(path)] == [
        settled(n, gold="1", correct=n == 1, confidence=0.5) for n in range(3)
    ]


def test_wherever_a_kill_cuts_the_last_line_the_others_are_kept(tmp_path):
    path = written(tmp_path / "out.jsonl", settled(0), settled(1))
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole) + 1):
        path.write_bytes(whole[:cut])
        with SettledFile(path, RUN) as file:
            assert list(file.settled) == ["sums/0", "sums/1"][: 1 + (cut == len(whole))]
            file.write(settled(7))
        assert [one.id for one, _ in read_settled(path)][-1] == "sums/7"
        assert path.read_bytes().endswith(b"}\n")
    assert [one.name for one in tmp_path.iterdir()] == ["out.jsonl"]


def test_failed_problems_are_tried_again_and_have_one_line_in_the_end(tmp_path):
    path = written(tmp_path / "out.jsonl", settled(0), settled(1, error="EngineError: gone", answer=None), settled(2))
    with SettledFile(path, RUN) as file:
        assert list(file.settled) == ["sums/0", "sums/2"]
        file.write(settled(1))
    assert [one.id for one, _ in read_settled(path)] == ["sums/0", "sums/2", "sums/1"]


def test_another_run_is_refused_with_what_differs(tmp_path):
    path = written(tmp_path / "out.jsonl", settled(0))
    with pytest.raises(
        ConfigError, match=r"n 4 there and 8 here, seed None there and 1 here\): give those again"
    ) as told:
        SettledFile(path, {"dataset": "sums.jsonl", "n": 8, "seed": 1})
    assert "dataset" not in str(told.value)
    assert len(read_settled(path)) == 1


def test_two_processes_do_not_write_to_one_file(tmp_path):
    with SettledFile(tmp_path / "out.jsonl", RUN), pytest.raises(ConfigError, match="another process writes to"):
        SettledFile(tmp_path / "out.jsonl", RUN)


def test_a_file_that_was_replaced_while_it_was_opened_takes_no_lines(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    path = written(tmp_path / "out.jsonl", settled(0))

    def too_late(file, how):
        (tmp_path / "new").write_bytes(path.read_bytes())
        (tmp_path / "new").replace(path)

    monkeypatch.setattr(fcntl, "flock", too_late)
    with pytest.raises(ConfigError, match="another process writes to"):
        SettledFile(path, RUN)


def test_a_full_disk_ends_the_run_and_costs_one_line(tmp_path):
    with SettledFile(tmp_path / "out.jsonl", RUN) as file:
        file.write(settled(0))
        whole, file._file = file._file, NearlyFull(file._file)
        with pytest.raises(ConfigError, match=r"takes no more lines .*make room"):
            file.write(settled(1))
        file._file = whole
    with SettledFile(tmp_path / "out.jsonl", RUN) as file:
        assert list(file.settled) == ["sums/0"]
        file.write(settled(1))
    assert [one.id for one, _ in read_settled(tmp_path / "out.jsonl")] == ["sums/0", "sums/1"]


def broken(**changes):
    entry = json.loads(settled(0).line(RUN))
    entry.update(changes)
    return json.dumps(entry) + "\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello\n", "line 1 is no settled problem"),
        ('{"problem": "Add 1."}', "line 1 is no settled problem"),
        ("[1]\n", "line 1 is no settled problem"),
        (broken() + "{}\n", "line 2 is no settled problem"),
        (broken(schema=2), "schema 2, and this version reads 1"),
        (broken(spent="many"), "its spent is of another kind"),
        (broken(confidence=True), "its confidence is of another kind"),
        (broken(tokens={"generated": 1.5, "prm": 1}), "its tokens is of another kind"),
        (broken(tokens={}), "its tokens is of another kind"),
        (broken(run=None), "its run is of another kind"),
        (broken(new=1), "is no settled problem"),
    ],
)
def test_what_is_something_else_is_refused_and_stays_as_it_is(tmp_path, text, words):
    path = Path(tmp_path / "out.jsonl")
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        SettledFile(path, RUN)
    assert path.read_text() == text


def test_figures_are_over_what_can_be_graded():
    ones = [
        settled(0, correct=True, gold="0"),
        settled(1, correct=False, gold="2"),
        settled(2),
        settled(3, answer=None),
        settled(4, answer=None, error="EngineError: gone", candidates=None, effective_n=None, stopped="failed"),
    ]
    figures = figures_of(ones, 7, 1.0)
    assert (figures["accuracy"], figures["graded"], figures["problems"]) == (0.5, 2, 5)
    assert (figures["failed"], figures["unfinished"], figures["unanswered"]) == (1, 2, 1)
    assert figures["generated_tokens_per_problem"] == 20  # of the solved ones
    assert figures["correct"] == [1, 0, None, None, None]
    assert figures_of([settled(2)], 1, 1.0)["accuracy"] is None
