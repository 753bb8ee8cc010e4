"""``eval`` and ``solve --dataset``: a line a problem, going on, no right answers, exit codes, ``show``."""

import argparse
import json

import pytest

from adaptive_ttc.calibration.collect.__main__ import main as collect
from adaptive_ttc.cli import batch, main, options
from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.evaluation.settled import SettledFile
from adaptive_ttc.policies.fake import FakePolicy, toy_answer, toy_right_so_far
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver

QUESTIONS = [f"Add {11 * i % 37} + {i + 3} + {5 * i % 23}." for i in range(8)]

pytestmark = pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")


@pytest.fixture
def loaded(monkeypatch):
    """The policies of the solvers that were loaded, of which the last is to be used next."""
    made = []

    def load(policy, prm=None, *, seed=0, config=None, **settings):
        made.append(FakePolicy.generative(error_rate=0.15))
        for fail in plan:
            fail(made[-1])
        return Solver(made[-1], FakePRM.truthful(toy_right_so_far) if prm else None, seed=seed, config=config)

    plan = []
    monkeypatch.setattr(Solver, "load", load)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    return made, plan


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "sums.jsonl"
    path.write_text("\n".join(json.dumps({"question": one}) for one in QUESTIONS))
    return path


@pytest.fixture
def graded(tmp_path):
    path = tmp_path / "graded.jsonl"
    rows = [{"id": f"my {i}", "problem": one, "answer": toy_answer(one)} for i, one in enumerate(QUESTIONS)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def killed_after(monkeypatch, number):
    """The process ends as by a kill when so many lines are written."""
    write, written = SettledFile.write, []

    class KilledError(BaseException):
        pass

    def counted(self, one):
        if len(written) == number:
            raise KilledError
        written.append(one)
        write(self, one)

    monkeypatch.setattr(SettledFile, "write", counted)
    return KilledError


@pytest.mark.parametrize("command", ["solve", "eval", "evaluate"])
def test_problems_without_right_answers_are_answered(command, loaded, data, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    assert main([command, "--dataset", str(data), "--strategy", "majority", "--n", "3", "--out", str(out)]) == 0
    found = lines(out)
    assert sorted(one["id"] for one in found) == [f"sums/{i + 1}" for i in range(8)]
    assert {one["problem"] for one in found} == set(QUESTIONS)
    assert {(one["gold"], one["correct"], one["strategy"], one["stopped"]) for one in found} == {
        (None, None, "majority", "settled")
    }
    assert all(one["answer"] and one["candidates"] == 3 and one["error"] is None for one in found)
    assert sum(one["tokens"]["generated"] for one in found) == loaded[0][-1].completion_tokens
    printed = capsys.readouterr().out
    assert "accuracy" not in printed
    assert "answered" in printed


def test_right_answers_are_compared_and_ids_are_the_files_own(loaded, graded, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    assert main(["solve", "--dataset", str(graded), "--budget-tokens", "300", "--out", str(out)]) == 0
    found = lines(out)
    assert sorted(one["id"] for one in found) == [f"my {i}" for i in range(8)]
    assert all(one["correct"] == (one["answer"] == one["gold"]) for one in found)
    assert all(one["spent"] <= one["budget"] == 300 for one in found)
    assert "accuracy" in capsys.readouterr().out


def test_without_a_file_the_answers_are_printed(loaded, data, capsys):
    assert main(["solve", "--dataset", str(data), "--n", "2", "--strategy", "majority", "--limit", "3"]) == 0
    printed = capsys.readouterr().out
    assert [line.count("sums/") for line in printed.splitlines() if "why" not in line].count(1) >= 3
    assert "stopped: 3 settled" in printed


def test_a_killed_run_goes_on_and_asks_nothing_again(loaded, data, tmp_path, monkeypatch, capsys):
    out, words = tmp_path / "out.jsonl", ["eval", "--dataset", str(data), "--strategy", "majority", "--n", "3"]
    words += ["--concurrency", "1", "--out", str(out)]
    with monkeypatch.context() as patch:
        killed = killed_after(patch, 3)
        with pytest.raises(killed):
            main(words)
    assert len(lines(out)) == 3
    out.write_bytes(out.read_bytes() + b'{"schema": 1, "id": "sums/4", "pro')
    assert main(words) == 0
    assert len(loaded[0][-1].requests) == 3 * 5
    assert sorted(one["id"] for one in lines(out)) == [f"sums/{i + 1}" for i in range(8)]
    assert "solving 8 problems (3 are settled)" in capsys.readouterr().err
    number = len(loaded[0])
    assert main(words) == 0
    assert len(loaded[0]) == number, "nothing is left to load models for"
    assert "generated tokens" in capsys.readouterr().out


def test_a_shared_budget_holds_over_all_runs(loaded, graded, tmp_path, monkeypatch):
    out = tmp_path / "out.jsonl"
    words = ["solve", "--dataset", str(graded), "--shared-budget", "1500", "--seed", "1", "--out", str(out)]
    with monkeypatch.context() as patch:
        killed = killed_after(patch, 2)
        with pytest.raises(killed):
            main(words)
    first = loaded[0][-1].completion_tokens
    assert len(lines(out)) == 2
    assert main(words) == 0
    assert first + loaded[0][-1].completion_tokens <= 1500
    found = lines(out)
    assert sorted(one["id"] for one in found) == [f"my {i}" for i in range(8)]
    assert sum(one["spent"] for one in found) <= 1500
    assert (tmp_path / "out.jsonl.checkpoint").exists()


def test_one_problem_gets_no_more_of_a_shared_budget_than_its_own_maximum(loaded, graded, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    words = ["solve", "--dataset", str(graded), "--out", str(out), "--per-problem-max", "9e1", "--shared-budget"]
    assert main([*words, "1_500"]) == 0
    assert 0 < max(one["spent"] for one in lines(out)) <= 90
    assert main([*words[:-2], "100", "--shared-budget", "1500"]) == 2
    assert "per_problem_max 90 there and 100 here" in capsys.readouterr().err
    assert main([*words, "0"]) == 2
    assert "budget_tokens=0 does not pay for one token: give more" in capsys.readouterr().err
    assert main([*words[:-1], "--budget-tokens", "100"]) == 2
    assert "--per-problem-max is of a shared budget: give --shared-budget" in capsys.readouterr().err


def test_a_shared_budget_whose_checkpoint_is_gone_is_refused(loaded, graded, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    words = ["solve", "--dataset", str(graded), "--shared-budget", "1500", "--out", str(out)]
    assert main(words) == 0
    for file in tmp_path.glob("out.jsonl.checkpoint*"):
        file.unlink()
    assert main(words) == 2
    assert "put it back, or name another file with --out" in capsys.readouterr().err


def test_failed_problems_are_told_and_tried_again(loaded, data, tmp_path):
    out = tmp_path / "out.jsonl"
    made, plan = loaded
    plan.append(lambda policy: policy.fail(EngineError("out of memory"), times=2))
    words = ["eval", "--dataset", str(data), "--strategy", "greedy", "--out", str(out)]
    assert main(words) == 0
    failed = [one for one in lines(out) if one["error"]]
    assert [(one["error"], one["stopped"], one["answer"]) for one in failed] == [
        ("EngineError: out of memory", "failed", None)
    ] * 2
    plan.clear()
    assert main(words) == 0
    assert len(made[-1].requests) == 2
    assert [one["error"] for one in lines(out)] == [None] * 8


def test_what_a_failed_problem_cost_is_told(loaded, data, tmp_path):
    _, plan = loaded
    out, figures = tmp_path / "out.jsonl", tmp_path / "figures.json"
    plan.append(lambda policy: policy.fail(EngineError("out of memory"), after_tokens=5))
    words = ["eval", "--dataset", str(data), "--n", "4", "--budget-tokens", "900", "--limit", "1"]
    assert main([*words, "--out", str(out), "--json", str(figures)]) == 1
    (failed,) = lines(out)
    assert failed["error"] == "EngineError: out of memory"
    assert failed["tokens"]["generated"] > 0
    assert failed["tokens"]["generated"] <= failed["spent"] <= failed["budget"] == 900
    told = json.loads(figures.read_text())["figures"]
    assert told["generated_tokens"] == failed["tokens"]["generated"]
    assert told["generated_tokens_per_problem"] is None


def test_a_password_in_a_base_url_is_written_nowhere(loaded, data, tmp_path, monkeypatch):
    monkeypatch.setattr(options, "knock", lambda options: None)
    words = ["eval", "--dataset", str(data), "--n", "2", "--engine", "openai", "--policy", "toy", "--limit", "2"]
    words += ["--out", str(tmp_path / "out.jsonl"), "--json", str(tmp_path / "figures.json")]
    for password in ("sesame", "changed"):  # which makes no other run of it
        assert main([*words, "--base-url", f"http://ann:{password}@host:8000/v1"]) == 0
        for file in tmp_path.glob("*.json*"):
            assert password not in file.read_text()
    assert {one["run"]["base_url"] for one in lines(tmp_path / "out.jsonl")} == {"http://***@host:8000/v1"}


@pytest.mark.parametrize("command", ["solve", "eval"])
def test_figures_alone_go_to_standard_output(command, loaded, graded, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([command, "--dataset", str(graded), "--strategy", "greedy", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"]["problems"] == 8
    assert not (tmp_path / "-").exists()


@pytest.mark.parametrize(
    "change",
    [
        ["--n", "4"],
        ["--seed", "2"],
        ["--temperature", "0.3"],
        ["--option", "top_p=0.5"],
        ["--rule", "esc"],
        ["--second", "x"],
    ],
)
def test_changed_arguments_are_refused_before_models_are_loaded(change, loaded, data, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    words = ["solve", "--dataset", str(data), "--strategy", "majority", "--n", "3", "--out", str(out)]
    assert main([*words, "--limit", "2"]) == 0
    assert main([*words, *change]) == 2
    told = capsys.readouterr().err
    assert "was begun with other arguments" in told
    assert "name another file with --out" in told
    assert len(loaded[0]) == 1
    assert main([*words, "--limit", "3", "--concurrency", "1"]) == 0, "more problems of the same are no other run"
    assert len(lines(out)) == 3


def test_a_data_set_that_has_changed_is_refused(loaded, data, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    words = ["solve", "--dataset", str(data), "--strategy", "greedy", "--out", str(out)]
    assert main(words) == 0
    data.write_text(data.read_text().replace(QUESTIONS[0], "Add 1 + 1."))
    assert main(words) == 2
    assert "another problem of the id sums/1" in capsys.readouterr().err


def test_show_lists_problems_and_why_each_stopped(loaded, graded, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out.jsonl"
    monkeypatch.setattr(batch, "SHOWN", 3)
    assert main(["eval", "--dataset", str(graded), "--shared-budget", "1500", "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["show", str(out)]) == 0
    printed = capsys.readouterr().out
    for one in lines(out):
        (row,) = [line for line in printed.splitlines() if f"│ {one['id']} " in line]
        assert one["stopped"] in row
        assert ("yes" if one["correct"] else "no") in row
    assert "stopped: " in printed
    assert main(["show", str(out), "--html", str(tmp_path / "page.html")]) == 2
    assert "--html" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.AnswerWarning")
def test_nothing_answered_is_exit_code_3(monkeypatch, data, capsys):
    silent = {one: ["I do not know."] for one in QUESTIONS}
    monkeypatch.setattr(Solver, "load", lambda *models, **settings: Solver(FakePolicy.scripted(silent)))
    assert main(["solve", QUESTIONS[0], "--strategy", "greedy"]) == 3
    assert main(["solve", QUESTIONS[0], "--strategy", "greedy", "--json", "-"]) == 3
    assert main(["solve", "--dataset", str(data), "--strategy", "greedy"]) == 3
    assert main(["eval", "--dataset", str(data), "--strategy", "greedy"]) == 3


@pytest.mark.parametrize("command", ["solve", "eval"])
def test_the_help_tells_exit_codes_and_an_example(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = capsys.readouterr().out
    assert told.startswith(f"usage: adaptive-ttc {command}")
    assert "3 nothing was answered" in told
    assert f"adaptive-ttc {command} " in told.split("example")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["solve", "q", "--dataset", "x"], "not both"),
        (["solve", "q", "--n", "1", "--out", "x"], "--out is for many problems"),
        (["solve", "--dataset", "minimath-500", "--n", "1", "--trace", "x"], "--trace is of one problem"),
    ],
)
def test_options_of_one_problem_and_of_many_are_told_apart(words, message, loaded, capsys):
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert loaded[0] == []


def test_budgets_are_typed_as_they_are_said():
    typed = {"2000000": 2_000_000, "2_000_000": 2_000_000, "2e15": 2 * 10**15, "1.5e3": 1500, "1e23": 10**23, "7.0": 7}
    assert {text: options.units(text) for text in typed} == typed
    for text in ("1.5", "2e-1", "many", "nan", "inf", "", "1e999999999"):
        with pytest.raises(argparse.ArgumentTypeError, match="is no whole number, such as 2000000, 2_000_000 or 2e6"):
            options.units(text)


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"question": "Which?", "choices": ["1", "2"], "answer": 1}, ""),
        ({"question": "How many?", "answer": "1 and 1. #### 2"}, None),
        ({"problem": "1 + 1?", "answer": "2"}, None),
    ],
)
@pytest.mark.parametrize("command", ["solve --n 1", "export --format sft", "doctor", "calibrate", "collect", "pareto"])
def test_a_model_is_asked_for_a_box_only_where_answers_stand_in_one(command, row, asked, monkeypatch, tmp_path):
    file, out = tmp_path / "problems.jsonl", str(tmp_path / "out")
    rows = [{**row, "id": str(number)} for number in range(60)]
    file.write_text("\n".join(map(json.dumps, rows)))
    given = []

    def load(*models, **settings):
        given.append(settings.get("system_prompt"))
        raise ConfigError("far enough")

    monkeypatch.setattr(Solver, "load", load)
    name, *words = command.split()
    words += ["--dataset", str(file), "--policy", "own"]
    words += {"export": ["--out", out], "calibrate": ["--out", out], "collect": ["--store", out]}.get(name, [])
    words += ["--store", str(tmp_path / "store")] if name in ("calibrate", "pareto") else []
    (collect(words) if name == "collect" else main([name, *words]))
    assert given == [asked]
