"""``export``: every format and source, going on after a kill, hard budgets, what is left out."""

import json

import pytest

from adaptive_ttc.calibration.collect.__main__ import main as collect
from adaptive_ttc.cli import main
from adaptive_ttc.errors import EngineError
from adaptive_ttc.export.file import ExportFile
from adaptive_ttc.policies.fake import FakePolicy, toy_answer, toy_right_so_far
from adaptive_ttc.policies.replay import Recorder
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver

QUESTIONS = [f"Add {11 * i % 37} + {i + 3} + {5 * i % 23} + {7 * i % 19}." for i in range(8)]

pytestmark = pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")


@pytest.fixture
def loaded(monkeypatch):
    """The policies of the solvers that were loaded."""
    made = []

    def load(policy, prm=None, *, seed=0, config=None, **settings):
        made.append(FakePolicy.generative(error_rate=0.12))
        made[-1].system_prompt = "Add."
        return Solver(made[-1], FakePRM.truthful(toy_right_so_far) if prm else None, seed=seed, config=config)

    monkeypatch.setattr(Solver, "load", load)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    return made


@pytest.fixture
def data(tmp_path):
    """Eight problems, and one without a right answer."""
    path = tmp_path / "sums.jsonl"
    rows = [{"id": f"sum {i}", "problem": one, "answer": toy_answer(one)} for i, one in enumerate(QUESTIONS)]
    path.write_text("\n".join(map(json.dumps, [*rows, {"id": "open", "problem": "Add 1 + 2."}])))
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def card(path):
    return json.loads(path.with_suffix(".card.json").read_text())["figures"]


def export(format, out, *words):
    return main(["export", "--format", format, "--out", str(out), "--seed", "1", *map(str, words)])


def test_samples_are_drawn_once_and_every_format_is_made_of_them(loaded, data, tmp_path, capsys):
    samples = tmp_path / "samples.jsonl"
    assert export("rollouts", samples, "--dataset", data, "--n", 6) == 0
    drawn = lines(samples)
    assert len(drawn) == 8 * 6
    assert all(one["correct"] == (one["answer"] == one["gold"]) for one in drawn)
    assert {one["policy"] for one in drawn} == {loaded[0].fingerprint}
    told = card(samples)
    assert (told["complete"], told["problems"], told["lines"]) == (True, 8, 48)
    assert told["left_out"] == {"without_right_answer": 1}
    assert told["units_of_solutions"] == loaded[0].completion_tokens
    assert sum(one["problems"] for one in told["by_difficulty"].values()) == 8
    page = samples.with_suffix(".card.md").read_text()
    assert "1 problems without a right answer" in page
    assert loaded[0].fingerprint in page

    for format in ("sft", "dpo"):
        assert export(format, tmp_path / f"{format}.jsonl", samples, "--most", 2) == 0
    assert export("prm", tmp_path / "outcome.jsonl", samples, "--labels", "outcome") == 0
    assert len(loaded) == 1, "no model is loaded for what needs none"
    right = {one["text"] for one in drawn if one["correct"]}
    chats = lines(tmp_path / "sft.jsonl")
    assert {one["messages"][0]["content"] for one in chats} == {"Add."}, "what the policy was asked with goes along"
    assert {one["messages"][-1]["content"] for one in chats} <= right
    assert max(sum(one["id"] == f"sum {i}" for one in chats) for i in range(8)) == 2
    for pair in lines(tmp_path / "dpo.jsonl"):
        assert pair["chosen"][0]["content"] in right
        assert pair["rejected"][0]["content"] not in right

    assert export("prm", tmp_path / "prm.jsonl", samples, "--budget-tokens", 4000) == 0
    labelled, told = lines(tmp_path / "prm.jsonl"), card(tmp_path / "prm.jsonl")
    assert all(len(one["completions"]) == len(one["labels"]) for one in labelled)
    assert all(one["labels"] == sorted(one["labels"], reverse=True) for one in labelled)
    assert all(one["labels"][-1] == one["correct"] for one in labelled)
    assert any(True in one["labels"] for one in labelled if not one["correct"])
    assert told["units_of_rollouts"] == loaded[1].completion_tokens > 0
    assert told["rollouts"]["drawn"] < told["rollouts"]["exhaustive"] / 4
    assert "roll-outs of every step" in capsys.readouterr().out


def killed_after(monkeypatch, number):
    """The process ends as by a kill when so many problems are written."""
    add, added = ExportFile.add, []

    class KilledError(BaseException):
        pass

    def counted(self, *arguments, **named):
        if len(added) == number:
            raise KilledError
        added.append(arguments)
        add(self, *arguments, **named)

    monkeypatch.setattr(ExportFile, "add", counted)
    return KilledError


@pytest.mark.parametrize("format", ["rollouts", "prm"])
def test_a_killed_export_goes_on_and_draws_nothing_again(format, loaded, data, tmp_path, monkeypatch):
    words = ["--dataset", data, "--n", "4", "--strategy", "majority", "--concurrency", "1"]
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    assert export(format, whole, *words) == 0
    with monkeypatch.context() as patch:
        killed = killed_after(patch, 3)
        with pytest.raises(killed):
            export(format, out, *words)
    before = len(lines(out))
    out.write_bytes(out.read_bytes() + b'{"id": "sum 3", "te')
    assert not card(out)["complete"]
    assert export(format, out, *words) == 0
    assert lines(out) == lines(whole)
    assert 0 < before < len(lines(out))
    assert len(loaded[2].requests) < len(loaded[0].requests)
    assert card(out)["lines"] == card(whole)["lines"]
    number = len(loaded)
    assert export(format, out, *words) == 0
    assert len(loaded) == number, "what is complete loads nothing"


@pytest.mark.parametrize("budget", [60, 400, 1500, 6000])
@pytest.mark.parametrize("format", ["sft", "prm"])
def test_one_budget_for_all_is_never_exceeded_not_even_over_a_kill(
    budget, format, loaded, data, tmp_path, monkeypatch, capsys
):
    words = ["--dataset", data, "--shared-budget", budget, "--rollouts", "4"]
    out = tmp_path / "out.jsonl"
    with monkeypatch.context() as patch:
        killed = killed_after(patch, 4)
        with pytest.raises(killed):
            export(format, out, *words)
    assert export(format, out, *words) in (0, 3)
    assert sum(policy.completion_tokens for policy in loaded) <= budget
    assert card(out)["complete"]
    if budget == 6000:
        assert lines(out)


@pytest.mark.parametrize("budget", [30, 200, 700])
def test_a_budget_of_each_problem_covers_solutions_and_roll_outs(budget, loaded, data, tmp_path):
    out = tmp_path / "out.jsonl"
    assert export("prm", out, "--dataset", data, "--budget-tokens", budget, "--strategy", "majority", "--n", 4) in (
        0,
        3,
    )
    assert loaded[0].completion_tokens <= 8 * budget
    told = card(out)
    assert told["units_of_solutions"] + told["units_of_rollouts"] == loaded[0].completion_tokens


def test_excluded_problems_and_full_bins_are_left_out(loaded, data, tmp_path):
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"question": f"  {QUESTIONS[0].upper()}\n"}))
    out = tmp_path / "out.jsonl"
    assert export("sft", out, "--dataset", data, "--n", 6, "--exclude", test, "--per-bin", 3) == 0
    told = card(out)
    assert told["left_out"] == {"without_right_answer": 1, "excluded": 1}
    assert QUESTIONS[0] not in {one["messages"][1]["content"] for one in lines(out)}
    assert max(one["lines"] for one in told["by_difficulty"].values()) == 3
    assert told["excluded_data"] == [str(test)]


def test_a_store_is_exported_without_a_model_and_labelled_with_its_own(loaded, data, tmp_path):
    graded = tmp_path / "graded.jsonl"
    graded.write_text("\n".join(data.read_text().splitlines()[:8]))
    store = tmp_path / "units.sqlite"
    words = ["--store", str(store), "--dataset", str(graded), "--arms", "majority:1,4", "greedy"]
    assert collect(words) == 0
    assert export("rollouts", tmp_path / "rollouts.jsonl", store) == 0
    assert len(loaded) == 1
    found = lines(tmp_path / "rollouts.jsonl")
    assert len(found) == 8 * 4
    assert all(one["correct"] == (one["answer"] == one["gold"]) for one in found)
    assert export("prm", tmp_path / "prm.jsonl", store, "--budget-tokens", "2000") == 0
    assert export("sft", tmp_path / "sft.jsonl", store, tmp_path / "rollouts.jsonl") == 0
    ids = {one["id"] for one in lines(tmp_path / "sft.jsonl")}
    assert {one[:2] for one in ids} == {"1:", "2:"}


def test_traces_are_exported_and_texts_alone_cannot_be_rolled_out(loaded, tmp_path, capsys):
    traces = tmp_path / "traces.jsonl"
    texts = ["2 + 3 = 5\n\nIt is \\boxed{5}.", "2 + 3 = 6\n\nIt is \\boxed{6}."]
    one = {"id": "p", "question": "What is 2 + 3?", "gold": "5", "samples": [{"text": text} for text in texts]}
    traces.write_text(json.dumps(one))
    assert export("dpo", tmp_path / "dpo.jsonl", traces) == 0
    (pair,) = lines(tmp_path / "dpo.jsonl")
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == tuple(texts)
    assert export("prm", tmp_path / "prm.jsonl", traces, "--budget-tokens", "100") == 2
    assert "take --labels outcome" in capsys.readouterr().err
    assert export("prm", tmp_path / "outcome.jsonl", traces, "--labels", "outcome") == 0
    assert [one["labels"] for one in lines(tmp_path / "outcome.jsonl")] == [[True, True], [False, False]]


def test_impossible_requests_say_what_to_do(loaded, data, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    assert export("sft", out) == 2
    assert "--dataset" in capsys.readouterr().err
    assert export("sft", out, data, "--n", 4, "--shared-budget", 9) == 2
    assert "leave out --n, --shared-budget" in capsys.readouterr().err
    answers = tmp_path / "answers.jsonl"
    assert main(["solve", "--dataset", str(data), "--strategy", "majority", "--n", "2", "--out", str(answers)]) == 0
    assert export("sft", out, answers) == 2
    assert "holds answers and no solutions" in capsys.readouterr().err
    samples = tmp_path / "samples.jsonl"
    assert export("rollouts", samples, "--dataset", data, "--n", 2, "--limit", 2) == 0
    text = samples.read_text().replace(loaded[-1].fingerprint, "of another model")
    (tmp_path / "other.jsonl").write_text(text)
    assert export("prm", out, tmp_path / "other.jsonl", "--budget-tokens", "100") == 2
    assert "name their own model with --policy" in capsys.readouterr().err


def test_a_record_is_exported_with_the_right_answers_of_its_data_set(loaded, data, tmp_path, capsys):
    recorder = Recorder(FakePolicy.generative(error_rate=0.12))
    with Solver(recorder.policy, seed=0) as solver:
        for question in QUESTIONS[:3]:
            solver.solve_sync(question, strategy="majority", n=5)
    record = tmp_path / "record.jsonl"
    recorder.save(record)
    out = tmp_path / "rollouts.jsonl"
    assert export("rollouts", out, record) == 2
    assert "give the data set with --dataset" in capsys.readouterr().err
    assert export("rollouts", out, record, "--dataset", data) == 0
    found = lines(out)
    assert len(found) == 3 * 5
    assert all(one["correct"] == (one["answer"] == toy_answer(one["problem"])) for one in found)
    assert {one["id"] for one in found} == {"sum 0", "sum 1", "sum 2"}


@pytest.mark.parametrize("words", [["--n", "2"], ["--shared-budget", "3000"]])
def test_a_problem_that_cannot_be_asked_is_left_out_and_one_that_failed_is_tried_again(
    words, loaded, data, tmp_path, monkeypatch, capsys
):
    with data.open("a") as rows:
        rows.write("\n" + json.dumps({"id": "long", "problem": "Add 1 + 2." + " " * 5000 + "?", "answer": "3"}))
    out, load = tmp_path / "out.jsonl", Solver.load

    def failing(*arguments, **settings):
        solver = load(*arguments, **settings)
        loaded[-1].fail(EngineError("it broke"), matching=lambda one: one.prompt_ids[1] == ord("A"), times=10**6)
        return solver

    with monkeypatch.context() as patch:
        patch.setattr(Solver, "load", failing)
        assert export("rollouts", out, "--dataset", data, *words) == 1
    told = card(out)
    assert (told["complete"], told["lines"]) == (False, 0)
    assert told["left_out"] == {"without_right_answer": 1, "impossible": 1}
    assert "it broke" in capsys.readouterr().err
    assert export("rollouts", out, "--dataset", data, *words) == 0
    assert (card(out)["complete"], card(out)["problems"]) == (True, 8)
