"""Traces that another tool recorded: placeholders, what they cannot answer, real ones through the whole pipeline."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import anyio
import pytest

from adaptive_ttc.answers import Grader, extract_answer
from adaptive_ttc.cli import main
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.datasets import load_problems
from adaptive_ttc.evaluation.evaluate import draw_pools
from adaptive_ttc.policies.fake import FakePolicy, toy_answer, toy_right_so_far
from adaptive_ttc.policies.replay import Recorder, ReplayPolicy, ReplayPRM, load_record
from adaptive_ttc.prm import FakePRM, ScoreRequest
from adaptive_ttc.solver import Solver

DATA = Path(os.environ.get("ADAPTIVE_TTC_DATA", Path(__file__).parents[2] / "../shared/data"))
MATH500 = DATA / "math500.jsonl"
TRACES = DATA / "math500-traces-qwen2.5-1.5b-skywork-prm.json"

FIRST = 16
"""Real problems that are graded here; grading takes most of the time."""

needs_traces = pytest.mark.skipif(
    not TRACES.exists() or not MATH500.exists(), reason="the recorded traces are not in $ADAPTIVE_TTC_DATA"
)

META = {
    "dataset": "sums",
    "model": "some2.5:0.5b-instruct",
    "prm": "Some-PRM-7B",
    "prm_aggregate": "mean",
    "temperature": 0.7,
    "max_tokens": 12,
    "max_n": 3,
}


def trace(text, tokens, score):
    return {"text": text, "tokens": tokens, "correct": False, "prm_score": score}


RECORDS = [
    {
        "problem_id": "sums-1",
        "gold": "5",
        "traces": [
            trace("2 + 3 = 5.\n\nSo \\boxed{5}", 8, 0.9),
            trace("\\boxed{6}", 4, 0.25),
            trace("2 plus 3, and then one more", 12, 0.5),
        ],
    }
]


@pytest.fixture
def traces(tmp_path):
    rows = [{"problem": "1 + 1?", "answer": "2"}, {"problem": "2 + 3?", "answer": "5"}]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = tmp_path / "traces.json"
    path.write_text(json.dumps({"meta": META, "records": RECORDS}, indent=1))
    return path


def test_every_counted_token_has_a_placeholder_and_a_part_of_the_text(traces):
    [problem] = load_record(traces).problems
    policy = ReplayPolicy.load(traces)
    assert problem.question == "2 + 3?"
    everything = [token for sample in problem.samples for token in sample.token_ids if token]
    assert len(everything) == len(set(everything))
    assert not set(everything) & set(problem.prompt_ids)
    for sample, given in zip(problem.samples, RECORDS[0]["traces"], strict=True):
        assert len(sample.token_ids) == given["tokens"]
        assert policy.decode(sample.token_ids) == given["text"]
        parts = [policy.decode(sample.token_ids[:k]) for k in range(given["tokens"] + 1)]
        assert all(given["text"].startswith(part) for part in parts)
        spoken = given["tokens"] - (sample.finish == "eos")
        grown = [len(parts[k]) - len(parts[k - 1]) for k in range(1, spoken + 1)]
        assert max(grown) - min(grown) <= 1
    assert [sample.finish for sample in problem.samples] == ["eos", "eos", "length"]
    assert [sample.token_ids[-1] == 0 for sample in problem.samples] == [True, True, False]


def test_placeholders_do_not_depend_on_what_else_is_in_the_file(traces):
    before = load_record(traces).problems[0]
    more = {"problem_id": "sums-0", "gold": "2", "traces": [trace("\\boxed{2}", 5, 0.5)]}
    traces.write_text(json.dumps({"meta": META, "records": [more, *RECORDS]}))
    assert load_record(traces).problems[1] == before


def test_what_the_names_say_is_taken_and_what_is_unknown_is_zero(traces):
    record = load_record(traces)
    assert (record.policy.parameters, record.prm.parameters) == (500_000_000, 7_000_000_000)
    traces.write_text(json.dumps({"meta": {**META, "model": "large"}, "records": RECORDS}))
    assert load_record(traces).policy.parameters == 0
    assert load_record(traces).policy.fingerprint != record.policy.fingerprint


async def test_scores_are_the_means_and_only_of_whole_solutions(traces):
    async with Solver(ReplayPolicy.load(traces), ReplayPRM.load(traces)) as solver:
        solution = await solver.solve("2 + 3?", strategy="best_of_n", n=3)
        assert solution.scores == (0.9, 0.25, 0.5)
        assert solution.answer == "5"
        assert solution.usage.completion_tokens == solution.spent == 24
        assert solution.usage.prm_tokens == solution.usage.prompt_tokens == 0
        assert solution.strategy.config.agg_strategy == "mean"
        with pytest.raises(ConfigError, match="holds no score of this solution"):
            await solver.prm.score(ScoreRequest("2 + 3?", ("2 + 3 = 5.",)))


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"strategy": "beam_search", "n": 4}, "beam_search cannot be replayed"),
        ({"strategy": "dvts", "n": 4}, "dvts cannot be replayed"),
        ({"strategy": "best_of_n", "n": 2, "agg_strategy": "min"}, "agg_strategy='min' needs the scores of steps"),
        ({"strategy": "best_of_n", "n": 2, "agg_strategy": "last"}, "agg_strategy='last' needs the scores of steps"),
        ({"strategy": "majority", "n": 4}, "holds 3 samples of this problem, not n=4"),
        ({"strategy": "majority", "n": 2, "temperature": 0.8}, r"drawn with temperature=0\.7"),
        ({"strategy": "majority", "n": 2, "count": "flops"}, "how many prompt tokens"),
        ({"strategy": "best_of_n", "n": 2, "count": "generated+prm"}, "how many PRM tokens"),
    ],
)
async def test_what_traces_cannot_answer_is_refused_before_any_sampling(traces, request_, reason):
    async with Solver(ReplayPolicy.load(traces), ReplayPRM.load(traces)) as solver:

        async def sample(request):
            raise AssertionError("sampled")

        solver.policy.sample = sample
        with pytest.raises(ConfigError, match=reason):
            await solver.solve("2 + 3?", **request_)


def test_traces_of_other_problems_and_other_reductions_are_refused(traces, tmp_path):
    (tmp_path / "other.jsonl").write_text(json.dumps({"problem": "2 + 3?", "answer": "5"}))
    with pytest.raises(ConfigError, match="not that of row 1"):
        load_record(traces, problems=tmp_path / "other.jsonl")
    traces.write_text(json.dumps({"meta": {**META, "prm_aggregate": "min"}, "records": RECORDS}))
    with pytest.raises(ConfigError, match="only mean is read"):
        load_record(traces)
    traces.write_text(json.dumps({"meta": {}, "records": []}))
    with pytest.raises(ConfigError, match="is no file of traces: KeyError"):
        load_record(traces)


def evaluated(tmp_path, *arguments):
    target = tmp_path / "figures.json"
    assert main(["eval", *arguments, "--json", str(target)]) == 0
    return json.loads(target.read_text())["figures"]


@needs_traces
@pytest.mark.parametrize("strategy", ["majority", "best_of_n"])
def test_real_traces_give_the_accuracy_that_their_flags_give(strategy, tmp_path):
    replay = ("--engine", "replay", "--policy", str(TRACES), "--prm", str(TRACES), "--limit", str(FIRST))
    figures = evaluated(tmp_path, *replay, "--dataset", str(MATH500), "--strategy", strategy, "--n", "8")
    records = json.loads(TRACES.read_text(encoding="utf-8"))["records"][:FIRST]
    assert figures["generated_tokens"] == sum(one["tokens"] for record in records for one in record["traces"])
    chosen = chosen_by_hand(records, strategy)
    assert len(figures["correct"]) == len(chosen) == FIRST
    differing = 0
    for correct, flags in zip(figures["correct"], chosen, strict=True):
        # where equal answers were flagged unequally, either is right
        if len(set(flags)) == 1:
            assert correct == flags[0]
        differing += len(set(flags)) > 1
    assert differing <= 1
    assert abs(sum(figures["correct"]) - sum(flags[0] for flags in chosen)) <= 1


def chosen_by_hand(records, strategy):
    """For every problem the flags of the samples that hold the chosen answer, that of the chosen sample first."""
    chosen = []
    with Grader() as grader:
        for record in records:
            names = grader.classes_sync([extract_answer(one["text"]) for one in record["traces"]])
            held = [(name, one) for name, one in zip(names, record["traces"], strict=True) if name]
            if not held:
                chosen.append([False])
                continue
            if strategy == "majority":
                votes = Counter(name for name, _ in held)
                best = min(votes, key=lambda name: (-votes[name], name))
                first = next(one for name, one in held if name == best)
            else:
                best, first = max(held, key=lambda item: item[1]["prm_score"])
            chosen.append([first["correct"], *(one["correct"] for name, one in held if name == best)])
    return chosen


@needs_traces
async def test_real_traces_make_pools():
    rows = load_problems(MATH500, limit=FIRST)
    async with Solver(ReplayPolicy.load(TRACES, seed=7), ReplayPRM.load(TRACES)) as solver:
        pools = await draw_pools(solver, rows, 8, lambda pool: None, temperature=0.7)
    records = json.loads(TRACES.read_text(encoding="utf-8"))["records"]
    flags = {one["text"]: one["correct"] for record in records for one in record["traces"]}
    agree = [flags[text] == correct for pool in pools for text, correct in zip(pool.texts, pool.correct, strict=True)]
    assert len(agree) == 8 * FIRST
    assert sum(agree) >= 0.97 * 8 * FIRST
    assert all(0 <= pool.accuracy("weighted_best_of_n", 4) <= 1 for pool in pools)


async def recorded_sums(path, questions):
    recorder = Recorder(FakePolicy.generative(error_rate=0.15), FakePRM.truthful(toy_right_so_far))
    async with Solver(recorder.policy, recorder.prm) as solver:
        for question in questions:
            await solver.solve(question, strategy="weighted_best_of_n", n=8)
    recorder.save(path)


def test_the_command_line_replays_a_recorded_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    questions = [f"Add {11 * i % 37} + {i + 3} + {5 * i % 23}." for i in range(6)]
    dataset, path = tmp_path / "sums.jsonl", str(tmp_path / "record.jsonl")
    dataset.write_text("\n".join(json.dumps({"problem": one, "answer": toy_answer(one)}) for one in questions))
    anyio.run(recorded_sums, path, questions[:5])
    replay = ("--engine", "replay", "--policy", path, "--prm", path, "--dataset", str(dataset))
    figures = evaluated(
        tmp_path, *replay, "--limit", "5", "--strategy", "best_of_n", "--n", "8", "--option", "agg_strategy=min"
    )
    assert (figures["problems"], figures["failed"]) == (5, 0)
    assert figures["prm_tokens"] > 0
    firsts = {
        tuple(evaluated(tmp_path, *replay, "--limit", "5", "--n", "1", "--sampling-seed", str(seed))["tokens"])
        for seed in range(1, 5)
    }
    assert len(firsts) > 1
    assert evaluated(tmp_path, *replay, "--n", "2")["failed"] == 1
    capsys.readouterr()
    for arguments, complaint in (
        (("--n", "9"), "take n=8 or less"),
        (("--n", "2", "--device", "cpu"), "--engine replay runs no model: leave out --device"),
        (("--n", "2", "--temperature", "0.7"), "drawn with temperature=0.8"),
    ):
        assert main(["eval", *replay, *arguments]) == 2
        assert complaint in capsys.readouterr().err
    assert main(["eval", "--engine", "replay", "--dataset", str(dataset), "--n", "2"]) == 2
    assert "name it as --policy FILE" in capsys.readouterr().err
    assert main(["solve", questions[0], "--engine", "replay", "--policy", path, "--n", "3"]) == 0
    assert main(["solve", "Add 1 + 1.", "--engine", "replay", "--policy", path, "--n", "3"]) == 2
    assert "is not among the 5 problems" in capsys.readouterr().err
