"""Traces as a policy, a PRM and a grader: what they answer, and what they refuse."""

import json
import math
import os
from pathlib import Path

import pytest

from adaptive_ttc.answers import extract_answer
from adaptive_ttc.cli import main
from adaptive_ttc.errors import CalibrationWarning, ConfigError
from adaptive_ttc.evaluation.datasets import load_problems
from adaptive_ttc.evaluation.traces import read_trace_files
from adaptive_ttc.policies.replay import ReplayPolicy, ReplayPRM, TracePolicy, TracePRM
from adaptive_ttc.policies.replay.order import RecordedOrder
from adaptive_ttc.policies.replay.traces import text_of
from adaptive_ttc.policy import SampleRequest
from adaptive_ttc.prm import ScoreRequest
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Problem
from adaptive_ttc.wrappers import WrappedPolicy

DATA = Path(os.environ.get("ADAPTIVE_TTC_DATA", Path(__file__).parents[2] / "../shared/data"))
GSM8K = DATA / "traces" / "interlace-gsm8k-half-qwen2.5-0.5b.jsonl.gz"

needs_traces = pytest.mark.skipif(not GSM8K.exists(), reason="the recorded traces are not in $ADAPTIVE_TTC_DATA")

MODEL = "small-0.5b"
ANSWERS = {"p0": "5565655655", "p1": "7787778777", "p2": "91234"}
GOLD = {"p0": "5", "p1": "8", "p2": "9"}


def line(id, **more):
    samples = [
        {"answer": answer, "tokens": 20 + 3 * n, "logprob": -0.5, "score": 0.1 * n, "correct": answer == GOLD[id]}
        for n, answer in enumerate(ANSWERS[id])
    ]
    return {"id": id, "model": MODEL, "gold": GOLD[id], "samples": samples, **more}


@pytest.fixture
def path(tmp_path):
    """Three problems of 10, 10 and 5 samples, the first with a question."""
    lines = [line("p0", question="What is 2 + 3?"), line("p1"), line("p2")]
    lines[1]["samples"][3]["answer"] = None
    file = tmp_path / "traces.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return file


def solver_of(path, *, prm=False, seed=0):
    traces = read_trace_files(path)
    return Solver(TracePolicy(traces, seed=seed), TracePRM(traces) if prm else None)


def answers(solution):
    return [candidate.answer for candidate in solution.candidates]


async def test_how_sure_a_model_was_of_its_answer_is_what_the_traces_tell(path):
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    lines[0]["samples"][0]["answer_logprob"] = -0.125
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    async with solver_of(path) as solver:
        solution = await solver.solve("What is 2 + 3?", strategy="majority", n=2)
    first, second = (one.prefix.answer_logprob for one in solution.candidates)
    assert first == -0.125
    assert math.isnan(second), "equal shares of a sum tell nothing of the answer"


async def test_samples_come_as_they_were_recorded(path):
    async with solver_of(path) as solver:
        solution = await solver.solve("What is 2 + 3?", strategy="majority", n=10)
        assert answers(solution) == list(ANSWERS["p0"])
        assert [len(one.prefix.token_ids) for one in solution.candidates] == [20 + 3 * n for n in range(10)]
        assert solution.candidates[2].prefix.logprob == pytest.approx(-0.5 * 26)
        assert (solution.answer, solution.spent) == ("5", sum(20 + 3 * n for n in range(10)))
        solution = await solver.solve("p1", strategy="majority", n=5)
        assert answers(solution) == ["7", "7", "8", None, "7"]
        assert await solver.grader.equal("8", "8")
        assert not await solver.grader.equal("8", "7")


async def test_a_seed_permutes_them(path):
    orders = set()
    for seed in range(4):
        async with solver_of(path, seed=seed) as solver:
            found = answers(await solver.solve("p2", strategy="majority", n=5))
        assert sorted(found) == sorted(ANSWERS["p2"])
        orders.add(tuple(found))
    assert tuple(ANSWERS["p2"]) in orders
    assert len(orders) > 2


async def test_scores_belong_to_samples_and_not_to_answers(path):
    async with solver_of(path, prm=True) as solver:
        solution = await solver.solve("p2", strategy="best_of_n", n=5)
        assert solution.scores == pytest.approx((0.0, 0.1, 0.2, 0.3, 0.4))
        assert solution.answer == "4"
        with pytest.raises(ConfigError, match="holds no score of this solution"):
            await solver.prm.score(ScoreRequest("p2", ("something else",)))


async def test_a_piece_of_a_sample_is_a_piece_of_its_text(path):
    policy = TracePolicy(read_trace_files(path))
    prompt = policy.encode(Problem.of("p2"))
    request = SampleRequest(id="a", prompt_ids=prompt, max_tokens=7, seed=0, path=(1,))
    first = await policy.sample(request)
    rest = await policy.sample(
        SampleRequest(id="b", prompt_ids=prompt + first.token_ids, max_tokens=99, seed=0, path=(1,))
    )
    assert (len(first.token_ids), first.finish, rest.finish) == (7, "length", "eos")
    assert len(first.token_ids + rest.token_ids) == 23
    whole = policy.decode(first.token_ids + rest.token_ids)
    assert extract_answer(whole) == "1"
    assert whole.startswith(policy.decode(first.token_ids))
    assert math.fsum(first.logprobs + rest.logprobs) == pytest.approx(-0.5 * 23)
    with pytest.raises(ConfigError, match="not that of the recorded sample"):
        await policy.sample(SampleRequest(id="c", prompt_ids=prompt + first.token_ids, max_tokens=9, seed=0, path=(2,)))


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("prm", [False, True])
@pytest.mark.parametrize("budget", [1, 30, 100, 333, 10_000])
async def test_budgets_hold_and_what_was_recorded_ends_a_run_quietly(path, budget, prm, wrapped):
    async with solver_of(path, prm=prm) as solver:
        if wrapped:
            solver.policy = WrappedPolicy(solver.policy)
        with pytest.warns(CalibrationWarning):
            solution = await solver.solve("p2", budget_tokens=budget)
        assert solution.spent <= budget
        assert solution.usage.completion_tokens == solution.spent
        problems = ["What is 2 + 3?", "p1", "p2"]
        async with solver.solve_many(problems, budget_tokens=budget) as pool:
            solutions = [one async for one in pool]
        assert sum(one.spent for one in solutions) <= budget
        for one in solutions:
            assert one.error is None
            held = solver.policy.recorded_samples(one.problem)
            assert len(one.candidates) <= held
            drawn = [candidate.prefix.token_ids[0] for candidate in one.candidates]
            assert len(set(drawn)) == len(drawn), "no sample is drawn twice"
        if budget == 10_000:
            assert all(one.answer for one in solutions)


async def test_a_rule_can_draw_all_that_was_recorded(path):
    traces = read_trace_files(path)
    async with Solver(TracePolicy(traces), rule="uniform") as solver:
        solution = await solver.solve("p2", budget_tokens=10_000)
    assert sorted(answers(solution)) == sorted(ANSWERS["p2"])


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"strategy": "majority", "n": 6}, "hold 5 samples of .*; take n=5 or less"),
        ({"strategy": "greedy"}, "greedy cannot be replayed"),
        ({"strategy": "beam_search", "n": 4}, "beam_search cannot be replayed"),
        ({"strategy": "revision", "n": 4}, "revision cannot be replayed"),
        ({"strategy": "majority", "n": 2, "count": "flops"}, "take count='generated'"),
        ({"strategy": "best_of_n", "n": 2, "agg_strategy": "prod"}, "take agg_strategy='mean'"),
    ],
)
async def test_what_traces_cannot_answer_is_refused_before_any_sampling(path, request_, reason):
    async with solver_of(path, prm=True) as solver:

        async def sample(request):
            raise AssertionError("sampled")

        solver.policy.sample = sample
        with pytest.raises(ConfigError, match=reason):
            await solver.solve("p2", **request_)
        with pytest.raises(ConfigError, match="is not among the 3 problems"):
            await solver.solve("p9", strategy="majority", n=1)


def test_a_run_that_skips_numbers_gets_every_sample_once():
    order = RecordedOrder(4, 0, "p")
    numbers = [0, 3, 5, 6]  # 1, 2 and 4 were never begun
    assert [order.sample((number,), begins=True) for number in numbers] == [0, 3, 1, 2]
    assert order.sample((5,), begins=False) == 1
    assert order.sample((7,), begins=True) is None
    order.give_back((6,))
    assert order.sample((7,), begins=True) == 2
    assert order.sample((0,), begins=True) == 0  # another run
    assert [order.sample((number,), begins=True) for number in (1, 2, 3)] == [1, 2, 3]
    assert RecordedOrder(4, 0, "p").sample((4,), begins=True) is None
    assert order.sample((0, 1), begins=True) is None


def test_texts_are_kept_where_the_answer_can_be_read_off_them(path):
    lines = [
        {
            "id": "p",
            "gold": "5",
            "samples": [
                {"answer": "5", "text": "It is \\boxed{5}.", "tokens": 9},
                {"answer": "abc1", "text": "def f(): pass", "tokens": 9},
                {"answer": None, "text": "It is \\boxed{5}.", "tokens": 9},
            ],
        }
    ]
    path.write_text(json.dumps(lines[0]))
    (problem,) = read_trace_files(path).problems
    texts = [text_of(sample, number) for number, sample in enumerate(problem.samples)]
    assert texts[0] == "It is \\boxed{5}."
    assert [extract_answer(text) for text in texts] == ["5", "abc1", None]


def test_the_engine_and_the_reader_take_traces(path):
    assert isinstance(ReplayPolicy.from_pretrained(path, seed=3), TracePolicy)
    assert isinstance(ReplayPRM.from_pretrained(path), TracePRM)
    with pytest.raises(ConfigError, match="runs no model"):
        ReplayPolicy.from_pretrained(path, device="cpu")
    assert [row["problem"] for row in load_problems(path)] == ["What is 2 + 3?", "p1", "p2"]
    path.write_text(path.read_text().replace(', "score": ', ', "other": '))
    with pytest.raises(ConfigError, match="hold no scores"):
        ReplayPRM.from_pretrained(path)


def evaluated(tmp_path, *arguments):
    target = tmp_path / "figures.json"
    assert main(["eval", "--engine", "replay", *map(str, arguments), "--json", str(target)]) == 0
    return json.loads(target.read_text())["figures"]


def test_the_command_line_evaluates_traces_of_several_models(path, tmp_path, capsys):
    other = json.dumps({**line("p0", question="What is 2 + 3?"), "model": "other-7b"})
    path.write_text(path.read_text() + other + "\n")
    figures = evaluated(tmp_path, "--policy", path, "--strategy", "majority", "--n", "5")
    assert (figures["problems"], figures["failed"]) == (4, 0)
    assert figures["correct"] == [1, 0, 0, 1]
    figures = evaluated(tmp_path, "--policy", path, "--shared-budget", "500", "--rule", "adaptive_consistency")
    assert figures["generated_tokens"] <= 500
    assert (figures["overspent"], figures["failed"]) == (0, 0)
    capsys.readouterr()
    assert main(["eval", "--n", "2"]) == 2
    assert "--dataset says what is solved" in capsys.readouterr().err


@needs_traces
def test_real_traces_give_the_accuracy_of_their_flags(tmp_path):
    figures = evaluated(tmp_path, "--policy", GSM8K, "--strategy", "majority", "--n", "1")
    problems = read_trace_files(GSM8K).problems
    assert figures["correct"] == [int(bool(one.samples[0].correct)) for one in problems]
    assert figures["tokens"] == [one.samples[0].tokens for one in problems]


@pytest.mark.parametrize(
    ("answers", "written", "gold", "read"),
    [
        ("number", "1,000.0", "1000", "1000"),
        ("choice", "(b)", "B", "B"),
        ("json:a[1].b", '{"x": 1}', '{"x":1.0}', '{"x":1}'),
        ("text", "Paris.", "paris", "paris"),
        ("code", "x = 1", "assert x == 1", "x = 1"),
    ],
)
async def test_answers_of_any_space_are_replayed_without_texts(tmp_path, answers, written, gold, read):
    samples = [{"answer": written, "tokens": 5, "correct": True, "score": 0.5}, {"answer": None, "tokens": 7}]
    samples[1] |= {"correct": False, "score": 0.25}
    path = tmp_path / "traces.jsonl"
    path.write_text(json.dumps({"id": "p", "question": "which?", "gold": gold, "samples": samples}))
    async with Solver.load(path, path, engine="replay", answers=answers) as solver:
        solution = await solver.solve("which?", strategy="weighted_best_of_n", n=2)
        assert [one.answer for one in solution.candidates] == [read, None]
        assert solution.answer == read
        assert await solver.grader.equal(gold, read)


def test_answers_that_no_text_can_show_are_refused(tmp_path):
    path = tmp_path / "traces.jsonl"
    path.write_text(json.dumps({"id": "p", "gold": "5", "samples": [{"answer": "5", "tokens": 5}]}))
    with pytest.raises(
        ConfigError, match=r"line 1, sample 1: nothing is known of which answers='regex:x=.*give the texts"
    ):
        Solver.load(path, engine="replay", answers="regex:x=(.*)")
