"""``show``: prints what a solution explains, and refuses what is no trace."""

import json
import os
import re
import subprocess
import sys

import pytest

from adaptive_ttc.cli import main
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver
from tests.doubles import TinyPolicy
from tests.tracing.runs import RUNS, STEERING, save_run, scored


@pytest.fixture
def saved(tmp_path):
    """Writes the trace of a run; gives its path and the solution."""

    def save(**arguments):
        path = tmp_path / "trace.json"
        return path, save_run(path, **arguments)

    return save


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.RevisionWarning")
def test_show_prints_what_the_solution_explains(run, saved, capsys):
    path, solution = saved(**run)
    assert main(["show", str(path)]) == 0
    assert capsys.readouterr().out == f"{solution.explain()}\n"


def test_text_of_the_model_steers_no_terminal_and_is_no_markup(saved, capsys):
    path, solution = saved(strategy="weighted_best_of_n", n=1)
    evil = json.dumps(f"[bold]{STEERING}[/nonsense]")
    path.write_text(path.read_text().replace(f'"answer": {json.dumps(solution.answer)}', f'"answer": {evil}'))
    assert main(["show", str(path)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("[bold]a\ufffd[2J\ufffd]0;owned\ufffdb\ufffdc\ufffdd[/nonsense]") == 2
    assert not any(letter in printed for letter in "\x1b\x07\u202e\x9b")


def test_names_in_a_trace_steer_no_terminal(saved, capsys):
    path, _ = saved(strategy="majority", n=2)
    path.write_text(path.read_text().replace('"strategy": "majority"', '"strategy": "\\u001b[2Jnone\\u202e"'))
    assert main(["show", str(path)]) == 0
    assert capsys.readouterr().out.startswith("\ufffd[2Jnone\ufffd: 2 candidates")


def test_show_explains_a_run_that_broke_off(saved, capsys):
    path, _ = saved(strategy="beam_search", n=8, beam_width=2)
    document = json.loads(path.read_text())
    document["events"] = [one for one in document["events"] if one["event"] not in ("done", "vote", "candidate")]
    path.write_text(json.dumps(document))
    assert main(["show", str(path)]) == 0
    printed = capsys.readouterr().out
    tokens = sum(len(one["token_ids"]) for one in document["events"] if one["event"] == "request")
    assert f"{tokens:,} tokens generated until the run broke off." in printed
    assert printed.endswith("No answer: the run did not end\n")
    document["events"] = document["events"][:1]
    path.write_text(json.dumps(document))
    assert main(["show", str(path)]) == 0
    assert capsys.readouterr().out.startswith("No search was begun.")


def test_what_cannot_be_written_does_not_stop_the_page(saved, tmp_path, capsys):
    path, _ = saved(strategy="majority", n=1)
    document = json.loads(path.read_text())
    document["events"][0]["messages"] = [["user", "half a pair \ud800"]]
    path.write_text(json.dumps(document))
    assert main(["show", str(path), "--html", str(tmp_path / "page.html")]) == 0
    assert "half a pair" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_solve_saves_a_trace_that_show_reads(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        Solver, "load", lambda *models, **settings: Solver(TinyPolicy(mean=12, step=4), FakePRM(scored))
    )
    trace, page = tmp_path / "new" / "trace.json", tmp_path / "page.html"
    solve = ["solve", "how much?", "--strategy", "beam_search", "--n", "8", "--beam-width", "2"]
    assert main([*solve, "--trace", str(trace)]) == 0
    answer = re.search(r"^Answer: (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert main(["show", str(trace), "--html", str(page)]) == 0
    assert f"The answer is {answer[1]}: " in capsys.readouterr().out
    assert f"<title>Search tree: {answer[1]}</title>" in page.read_text()


def test_a_trace_that_cannot_be_written_is_known_before_anything_is_loaded(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(Solver, "load", lambda *models, **settings: pytest.fail("loaded"))
    assert main(["solve", "q", "--n", "1", "--trace", str(tmp_path)]) == 2
    assert "is a folder; name a file" in capsys.readouterr().err


NO_TRACES = {
    "no JSON": (b"hello", "is not a trace"),
    "no text": (bytes(range(256)) * 1000, "is not a trace"),
    "a list": (b"[]", "is not a trace"),
    "another object": (b'{"answer": 5}', "is not a trace"),
    "another schema": (b'{"schema": 1, "started": 0, "events": []}', "schema 1"),
    "events that are none": (b'{"schema": 3, "started": 0, "events": [5]}', "is not a trace"),
    "unknown events": (b'{"schema": 3, "started": 0, "events": [{"event": "x"}]}', "is not a trace"),
    "no run": (b'{"schema": 3, "started": 0, "events": []}', "holds no run"),
    "nested without end": (b"[" * 100_000, "is not a trace"),
}


@pytest.mark.parametrize("case", NO_TRACES)
def test_what_is_no_trace_is_refused_in_one_short_line(case, tmp_path, capsys):
    content, words = NO_TRACES[case]
    path = tmp_path / "trace.json"
    path.write_bytes(content)
    assert main(["show", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert any(remedy in line for remedy in ("give one that is", "solve the problem anew", "save its trace"))
    assert len(line) < 400


def test_a_missing_trace_and_a_folder_are_named(tmp_path, capsys):
    for path in (tmp_path / "none.json", tmp_path):
        assert main(["show", str(path)]) == 2
        told = capsys.readouterr().err
        assert f"error: cannot read {path}: " in told
        assert "`solve --trace FILE`" in told


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_printed(saved, tmp_path, capsys):
    path, _ = saved(strategy="majority", n=1)
    assert main(["show", str(path), "--html", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "is a folder; name a file" in captured.err
    assert captured.out == ""


def test_who_reads_only_the_first_lines_sees_no_traceback(saved):
    path, _ = saved(strategy="majority", n=2)
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-u", "-m", "adaptive_ttc", "show", str(path)]
    shown = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (shown.returncode, shown.stderr) == (141, "")
