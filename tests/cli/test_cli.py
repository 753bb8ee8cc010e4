"""The command line: what it prints and writes, how it ends, and that it hands on what it was told."""

import io
import json
import signal
from dataclasses import replace

import pytest
import torch
from rich.console import Console

import adaptive_ttc
from adaptive_ttc.cli import main
from adaptive_ttc.cli.interruption import GRACE
from adaptive_ttc.cli.solve import show
from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.errors import CalibrationError, EngineError
from adaptive_ttc.evaluation.evaluate import solve_rows
from adaptive_ttc.events import AllocationEvent, DoneEvent, ExpandEvent, VoteEvent
from adaptive_ttc.loading import MINI_POLICY, MINI_PRM, mini_calibration
from adaptive_ttc.policies.fake import FakePolicy, toy_answer, toy_right_so_far
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver
from adaptive_ttc.stopping.registry import make_rule
from adaptive_ttc.strategies import strategy_names
from adaptive_ttc.tracing.trace import Trace

QUESTIONS = [f"Add {11 * i % 37} + {i + 3} + {5 * i % 23}." for i in range(12)]

said = pytest.mark.filterwarnings("default::adaptive_ttc.errors.CalibrationWarning")  # as a user has it


class Loaded:
    """Stands for the loader: hands out a toy pair and keeps what was asked for."""

    def __init__(self, policy=None):
        self.given = policy
        self.solvers = []
        self.calls = []

    def __call__(self, policy, prm=None, *, seed=0, config=None, **settings):
        self.calls.append({"policy": policy, "prm": prm, "seed": seed, "config": config, **settings})
        reward = FakePRM.truthful(toy_right_so_far) if prm else None
        policy = self.given or FakePolicy.generative(error_rate=0.15)
        self.solvers.append(Solver(policy, reward, seed=seed, config=config))
        return self.solvers[-1]

    @property
    def policy(self):
        return self.solvers[-1].policy

    @property
    def questions(self):
        return {request.prompt_ids for request in self.policy.requests}


@pytest.fixture
def loaded(monkeypatch):
    stand_in = Loaded()
    monkeypatch.setattr(Solver, "load", stand_in)
    monkeypatch.setenv("TQDM_DISABLE", "1")  # so that what the command sets is taken back
    monkeypatch.setenv("COLUMNS", "200")
    return stand_in


@pytest.fixture
def dataset(tmp_path):
    path = tmp_path / "sums.jsonl"
    path.write_text("\n".join(json.dumps({"problem": one, "answer": toy_answer(one)}) for one in QUESTIONS))
    return str(path)


def figures(path):
    record = json.loads(path.read_text())
    assert set(record) == {"name", "command", "git", "machine", "figures"}
    return record["figures"]


def test_alone_it_prints_help(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert "solve" in printed
    assert "eval" in printed


@pytest.mark.parametrize("name", ["calibrate", "pareto"])
def test_what_is_built_on_the_core_is_a_command_too(name, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    told = capsys.readouterr().out
    assert told.startswith(f"usage: adaptive-ttc {name} ")
    assert f"\n    adaptive-ttc {name} [" in told or f"\n    adaptive-ttc {name} --" in told
    with pytest.raises(SystemExit) as ended:
        main([name, "--folds", "many"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"adaptive-ttc {name}: argument --folds")
    assert main([name, "--replay", str(tmp_path / "none.jsonl"), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_version_is_the_installed_one(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"adaptive-ttc {adaptive_ttc.__version__}\n"


def test_solve_uses_the_solver_as_it_was_made(loaded):
    assert main(["solve", "Add 1 + 1.", "--n", "3", "--strategy", "majority"]) == 0
    assert type(loaded.policy) is FakePolicy
    assert len(loaded.policy.requests) == 3


def test_solve_prints_answer_votes_usage_and_why(loaded, capsys):
    assert main(["solve", "Add 40 + 38 + 47 + 45.", "--n", "9", "--budget-tokens", "2000"]) == 0
    printed = capsys.readouterr().out
    solver = loaded.solvers[0]
    assert "Answer: 170" in printed
    assert "weighted vote" in printed
    assert f"{loaded_tokens(solver):,} of 2,000" in printed
    assert "the scores of its candidates have the largest sum" in printed
    assert solver.policy.closed


def loaded_tokens(solver):
    return solver.policy.completion_tokens


def test_solve_writes_json(loaded, tmp_path, capsys):
    target = tmp_path / "new" / "solution.json"
    arguments = ["solve", "Add 40 + 38 + 47 + 45.", "--n", "5", "--strategy", "best_of_n", "--json"]
    assert main([*arguments, str(target)]) == 0
    assert "Answer: 170" in capsys.readouterr().out
    written = json.loads(target.read_text())
    assert main([*arguments, "-"]) == 0
    printed = json.loads(capsys.readouterr().out)  # and nothing else
    for solution in (written, printed):
        solution["usage"].pop("wall_time")
    assert written == printed
    assert written["strategy"] == "best_of_n"
    assert len(written["candidates"]) == 5
    assert sum(one["tokens"] for one in written["candidates"]) == written["spent"]
    best = max(written["candidates"], key=lambda one: one["score"])
    assert written["answer"] == best["answer_class"]


def test_solve_reads_a_problem_from_standard_input(loaded, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("Add 1 + 1 + 1.\n"))
    assert main(["solve", "-", "--strategy", "greedy"]) == 0
    assert "Answer: 3" in capsys.readouterr().out


def test_text_of_the_model_is_never_markup(monkeypatch, capsys):
    policy = FakePolicy.scripted(
        {"q": ["\\boxed{[bold]x[/bold]}", "\\boxed{[/nonsense]}", "\\boxed{[link=http://a]b}"]}
    )
    monkeypatch.setattr(Solver, "load", Loaded(policy))
    assert main(["solve", "q", "--n", "3", "--strategy", "majority"]) == 0
    printed = capsys.readouterr().out
    for text in ("[bold]x[/bold]", "[/nonsense]", "[link=http://a]b"):
        assert text in printed


async def test_text_of_the_model_steers_no_terminal():
    evil = "\x1b[31m5\u202e6\x07"
    async with Solver(FakePolicy.scripted({"q": ["\\boxed{5}"]})) as solver:
        solution = await solver.solve("q", strategy="majority", n=1)
    classes = (replace(solution.answer_classes[0], answer=evil),)
    trace = Trace()
    for event in solution.trace:
        changed = {VoteEvent: {"answer": evil, "classes": classes}, DoneEvent: {"answer": evil}}
        trace.record(replace(event, **changed.get(type(event), {})))
    console = Console(file=io.StringIO(), width=200)
    show(replace(solution, answer=evil, answer_classes=classes, trace=trace), console)
    printed = console.file.getvalue()
    assert printed.count("\ufffd[31m5\ufffd6\ufffd") == 4  # answer, table, votes and reason
    assert not set(printed) & {"\x1b", "\x07", "\u202e"}


@pytest.mark.parametrize(
    ("arguments", "policy", "prm"),
    [
        ([], MINI_POLICY, MINI_PRM),
        (["--policy", "own"], "own", None),
        (["--policy", "own", "--prm", "judge"], "own", "judge"),
        (["--prm", "judge"], MINI_POLICY, "judge"),
    ],
)
def test_which_models_are_loaded(loaded, arguments, policy, prm):
    assert main(["solve", "Add 1 + 1.", "--n", "1", "--seed", "3", "--device", "cpu", *arguments]) == 0
    (call,) = loaded.calls
    assert call == {
        "policy": policy,
        "prm": prm,
        "seed": 3,
        "answers": None,
        "engine": "transformers",
        "device": "cpu",
        "config": DriverConfig(finish_tokens=200 if policy == MINI_POLICY else None, grace=GRACE),
        "calibration": mini_calibration() if not arguments else None,
        "allow_mismatch": False,
    }


@said
def test_a_budget_alone_goes_where_evidence_sends_it(loaded, capsys, tmp_path):
    trace = tmp_path / "trace.json"
    wish = ["--budget-tokens", "600", "--min-gain", "0.01", "--trace", str(trace)]
    assert main(["solve", "Add 40 + 38 + 47 + 45.", *wish]) == 0
    printed, told = capsys.readouterr()
    assert told.startswith("warning: this pair has no calibration")
    assert "adaptive-ttc calibrate" in told.splitlines()[0]
    assert str(trace) in told
    assert "adaptive: " in printed
    assert "each by what the evidence then was:" in printed
    decided = Trace.load(trace).of(AllocationEvent)
    assert decided[0].opening
    assert min(event.price for event in decided) >= 0.01
    assert main(["show", str(trace)]) == 0
    assert "adaptive: " in capsys.readouterr().out


@said
def test_eval_with_a_budget_alone(loaded, dataset, tmp_path, capsys):
    target = tmp_path / "figures.json"
    assert main(["eval", "--dataset", dataset, "--budget-tokens", "300", "--json", str(target)]) == 0
    assert capsys.readouterr().err.count("warning: this pair has no calibration") == 1
    assert figures(target)["overspent"] == 0
    assert figures(target)["problems"] == 12
    assert max(figures(target)["tokens"]) <= 300


@said
def test_eval_with_one_budget_for_all_problems(loaded, dataset, tmp_path, capsys):
    target = tmp_path / "figures.json"
    words = ["eval", "--dataset", dataset, "--shared-budget", "2500", "--json", str(target)]
    assert main(words) == 0
    assert "shared_budget=2500" in capsys.readouterr().out
    assert figures(target)["overspent"] == 0
    assert figures(target)["problems"] == 12
    assert sum(figures(target)["tokens"]) <= 2500
    assert len(set(figures(target)["tokens"])) > 1
    for more in (["--n", "4"], ["--budget-tokens", "100"], ["--strategy", "greedy"]):
        assert main([*words, *more]) == 2
        assert f"leave out {more[0]}" in capsys.readouterr().err


@said
def test_eval_goes_on_from_its_checkpoint(loaded, dataset, tmp_path, capsys):
    target, file = tmp_path / "figures.json", tmp_path / "new" / "run.db"
    words = ["eval", "--dataset", dataset, "--json", str(target), "--checkpoint", str(file)]
    assert main([*words, "--budget-tokens", "300"]) == 2
    assert "give --shared-budget" in capsys.readouterr().err
    assert main([*words, "--shared-budget", "2500"]) == 0
    first = figures(target)
    assert main([*words, "--shared-budget", "2500"]) == 0
    assert {**figures(target), "wall_time": first["wall_time"]} == first
    assert main([*words, "--shared-budget", "2400"]) == 1
    assert "budget_tokens was 2500, is 2400" in capsys.readouterr().err


def test_what_a_budget_counts(loaded, tmp_path):
    target = tmp_path / "solution.json"
    wish = ["--strategy", "weighted_best_of_n", "--n", "4", "--budget-tokens", "5000", "--count", "generated+prm"]
    assert main(["solve", "Add 40 + 38.", *wish, "--json", str(target)]) == 0
    solution = json.loads(target.read_text())
    assert solution["spent"] > solution["usage"]["completion_tokens"]


def test_a_search_by_its_name_alone_is_refused(loaded, capsys):
    assert main(["solve", "Add 40 + 38.", "--strategy", "majority", "--budget-tokens", "2000"]) == 2
    assert "majority needs n" in capsys.readouterr().err


def test_the_calibration_is_handed_on(loaded):
    arguments = ["--calibration", "mine", "--allow-mismatch", "--policy", "own"]
    assert main(["solve", "Add 1 + 1.", "--n", "1", *arguments]) == 0
    (call,) = loaded.calls
    assert (call["calibration"], call["allow_mismatch"]) == ("mine", True)


def test_a_rule_is_handed_on_in_place_of_a_calibration(loaded, capsys):
    assert main(["solve", "Add 1 + 1.", "--n", "1", "--rule", "esc:window=4"]) == 0
    (call,) = loaded.calls
    assert (call["calibration"], call["rule"]) == (None, make_rule("esc", window=4))
    assert main(["solve", "Add 1 + 1.", "--budget-tokens", "500", "--rule", "esc", "--calibration", "mine"]) == 2
    assert "give the rule or the calibration" in capsys.readouterr().err
    assert main(["solve", "Add 1 + 1.", "--budget-tokens", "500", "--rule", "guess"]) == 2
    assert "choose one of uniform" in capsys.readouterr().err


def test_a_system_prompt_and_options_are_handed_on(loaded, capsys):
    options = ["--option", "agg_strategy=min", "--option", "slice_size=2", "--option", "vote=best"]
    arguments = ["solve", "Add 4 + 4.", "--n", "3", "--system-prompt", "Be brief.", "--temperature", "0.5", *options]
    assert main(arguments) == 0
    assert loaded.calls[0]["system_prompt"] == "Be brief."
    assert {request.temperature for request in loaded.policy.requests} == {0.5}
    assert "(best vote)" in capsys.readouterr().out


BAD = {
    "unknown strategy": (["solve", "q", "--strategy", "guess"], "unknown strategy 'guess'"),
    "impossible n": (["solve", "q", "--n", "0"], "n is a whole number"),
    "no end": (["solve", "q"], "give budget_tokens, n, or a strategy"),
    "empty problem": (["solve", "  ", "--n", "1"], "the problem is empty"),
    "no budget": (["solve", "q", "--budget-tokens", "0"], "budget_tokens=0"),
    "a PRM is missing": (["solve", "q", "--policy", "own", "--strategy", "best_of_n"], "needs a PRM"),
    "broken option": (["solve", "q", "--n", "1", "--option", "top_p"], "must be NAME=VALUE"),
    "unknown option": (["eval", "--dataset", "minimath-500", "--n", "1", "--option", "x=1"], "has no option x"),
    "no data set": (["eval", "--dataset", "minimath-400", "--n", "1"], "minimath-500"),
    "no problems": (["eval", "--dataset", "minimath-500", "--n", "1", "--limit", "0"], "limit=0"),
    "no places": (
        ["eval", "--dataset", "minimath-500", "--limit", "2", "--n", "1", "--concurrency", "0"],
        "concurrency=0",
    ),
    "no strategy fits": (["eval", "--dataset", "minimath-500", "--limit", "2", "--n", "3", "--strategy", "x"], "'x'"),
    "a folder for a file": (["eval", "--dataset", "minimath-500", "--n", "1", "--json", "."], "is a folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_impossible_requests_end_with_code_2_and_one_line(case, loaded, capsys):
    arguments, message = BAD[case]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.strip()]
    assert lines[-1].startswith("error: ")
    assert message in lines[-1]
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert all(solver.policy.closed for solver in loaded.solvers if isinstance(solver.policy, FakePolicy))


LATE = ("no places",)
"""Refused only when the work begins."""


@pytest.mark.parametrize("case", [case for case in BAD if case not in LATE])
def test_impossible_requests_are_refused_before_the_models_are_loaded(case, loaded):
    assert main(BAD[case][0]) == 2
    assert loaded.calls == []


@pytest.mark.parametrize("command", ["solve", "eval", "evaluate"])
def test_without_anything_it_ends_with_code_2_and_one_line(command, capsys):
    assert main([command]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["guess"], ""),
        (["solve", "q", "--n", "many"], " solve"),
        (["solve", "q", "--budgt-tokens", "5"], " solve"),
        (["eval", "--dataset"], " eval"),
    ],
)
def test_what_cannot_be_parsed_ends_with_code_2_and_one_line(arguments, command, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"(see adaptive-ttc{command} --help)")


def test_a_calibration_that_is_none_is_an_impossible_request(tmp_path, capsys):
    assert main(["solve", "Add 1 + 1.", "--n", "1", "--calibration", str(tmp_path / "none")]) == 2
    assert "is no calibration" in capsys.readouterr().err


def test_an_engine_that_fails_ends_with_code_1(loaded, capsys):
    loaded.given = FakePolicy.generative()
    loaded.given.fail(EngineError("out of\nmemory"))
    assert main(["solve", "Add 1 + 1.", "--n", "1"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: out of memory"


def test_an_engine_that_fails_leaves_its_trace(loaded, tmp_path, capsys):
    loaded.given = FakePolicy.generative()
    loaded.given.fail(EngineError("out of memory"))
    target = tmp_path / "trace.json"
    assert main(["solve", "Add 1 + 1.", "--n", "1", "--trace", str(target)]) == 1
    assert Trace.load(target).of(ExpandEvent)
    assert main(["show", str(target)]) == 0
    assert "it failed: out of memory" in capsys.readouterr().out


def test_ctrl_c_leaves_the_trace_of_what_was_sampled(loaded, tmp_path, capsys):
    loaded.given = FakePolicy.generative()
    loaded.given.hold(after_tokens=5)
    sample, asked = loaded.given.sample, []

    async def interrupted(request):
        asked.append(request)
        if len(asked) == 3:
            signal.raise_signal(signal.SIGINT)
        return await sample(request)

    loaded.given.sample = interrupted
    target = tmp_path / "trace.json"
    assert main(["solve", "Add 1 + 1.", "--n", "3", "--trace", str(target)]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert Trace.load(target).of(ExpandEvent)
    assert main(["show", str(target)]) == 0
    assert loaded.policy.closed


def test_eval_measures_what_the_engine_did(loaded, dataset, tmp_path, capsys):
    target = tmp_path / "out.json"
    assert main(["eval", "--dataset", dataset, "--strategy", "majority", "--n", "3", "--json", str(target)]) == 0
    found = figures(target)
    assert found["generated_tokens"] == loaded.policy.completion_tokens == sum(found["tokens"])
    assert found["problems"] == len(found["correct"]) == 12
    assert found["accuracy"] == pytest.approx(sum(found["correct"]) / 12)
    assert 0 < found["accuracy_low"] < found["accuracy"] < found["accuracy_high"] <= 1
    assert (found["failed"], found["unfinished"], found["overspent"]) == (0, 0, 0)
    printed = capsys.readouterr().out
    assert f"{found['accuracy']:.3f} [{found['accuracy_low']:.3f}, {found['accuracy_high']:.3f}]" in printed
    assert f"{found['generated_tokens']:,}" in printed
    record = json.loads(target.read_text())
    assert record["command"].startswith("adaptive-ttc eval --dataset")


def test_eval_gives_the_same_whatever_the_concurrency(loaded, dataset, tmp_path):
    results = []
    for concurrency in ("1", "7"):
        target = tmp_path / f"{concurrency}.json"
        arguments = ["--n", "4", "--budget-tokens", "200", "--concurrency", concurrency, "--json", str(target)]
        assert main(["eval", "--dataset", dataset, *arguments]) == 0
        results.append({key: figures(target)[key] for key in ("correct", "tokens", "prm_tokens", "overspent")})
    assert results[0] == results[1]
    assert max(results[0]["tokens"]) <= 200
    assert results[0]["overspent"] == 0


@pytest.mark.parametrize("strategy", strategy_names())
def test_eval_runs_every_registered_strategy(strategy, loaded, dataset, capsys):
    size = [] if strategy == "greedy" else ["--n", "4"]
    assert main(["eval", "--dataset", dataset, "--limit", "3", "--strategy", strategy, *size]) == 0
    assert f"sums.jsonl: {strategy}" in capsys.readouterr().out


def test_a_failing_problem_is_counted_as_wrong_and_told(loaded, dataset, tmp_path, capsys):
    loaded.given = FakePolicy.generative(error_rate=0.0)
    loaded.given.fail(EngineError("out of memory"), times=2)
    target = tmp_path / "out.json"
    assert main(["eval", "--dataset", dataset, "--strategy", "greedy", "--json", str(target)]) == 0
    found = figures(target)
    assert (found["failed"], found["problems"]) == (2, 12)
    assert found["accuracy"] == pytest.approx(10 / 12)
    assert "2 failed: EngineError: out of memory" in capsys.readouterr().out


def test_when_all_problems_fail_the_command_fails(loaded, dataset, capsys):
    loaded.given = FakePolicy.generative()
    loaded.given.fail(EngineError("out of memory"), times=1000)
    assert main(["eval", "--dataset", dataset, "--strategy", "greedy"]) == 1
    assert "12 failed" in capsys.readouterr().out


def test_ctrl_c_prints_what_was_finished(loaded, dataset, tmp_path, capsys, monkeypatch):
    async def interrupted_after_three(solver, rows, request, report, *, concurrency):
        ended = 0

        def counted(outcome):
            nonlocal ended
            ended += 1
            report(outcome)
            if ended == 3:
                signal.raise_signal(signal.SIGINT)

        await solve_rows(solver, rows, request, counted, concurrency=concurrency)

    monkeypatch.setattr("adaptive_ttc.cli.batch.solve_rows", interrupted_after_three)
    target = tmp_path / "out.json"
    arguments = ["eval", "--dataset", dataset, "--strategy", "majority", "--n", "2", "--concurrency", "1"]
    assert main([*arguments, "--json", str(target)]) == 130
    found = figures(target)
    assert (found["problems"], found["unfinished"]) == (3, 9)
    assert len(found["correct"]) == 3
    assert "unfinished" in capsys.readouterr().out
    assert loaded.policy.closed


def test_ctrl_c_before_anything_is_finished(loaded, dataset, capsys, monkeypatch):
    async def interrupted(*arguments, **options):
        signal.raise_signal(signal.SIGINT)
        await solve_rows(*arguments, **options)

    monkeypatch.setattr("adaptive_ttc.cli.batch.solve_rows", interrupted)
    assert main(["eval", "--dataset", dataset, "--n", "2"]) == 130
    assert "accuracy" not in capsys.readouterr().out


def test_seeds_draw_other_problems_or_other_samples(loaded, capsys):
    def questions_and_samples(*arguments):
        assert (
            main(
                ["eval", "--dataset", "minimath-500", "--limit", "4", "--n", "2", "--strategy", "majority", *arguments]
            )
            == 0
        )
        return loaded.questions, sorted(request.seed for request in loaded.policy.requests)

    fixed = questions_and_samples()
    assert questions_and_samples() == fixed
    resampled = questions_and_samples("--sampling-seed", "1")
    assert resampled[0] == fixed[0]
    assert not set(resampled[1]) & set(fixed[1])
    assert not questions_and_samples("--seed", "1")[0] & fixed[0]


def test_a_device_that_is_not_there_is_one_line(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert main(["solve", "1 + 1", "--n", "1", "--strategy", "majority", "--device", "cuda:0"]) == 2
    told = capsys.readouterr().err
    assert "device='cuda:0' cannot be used here" in told


def test_the_embedded_pair_takes_another_calibration(tmp_path):
    with pytest.raises(CalibrationError, match="is no calibration"):
        Solver.mini(calibration=tmp_path)
