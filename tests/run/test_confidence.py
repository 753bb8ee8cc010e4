"""Solving by a policy's own confidence: it costs nothing, prunes, votes, and is never assumed to beat the majority."""

import json
from dataclasses import replace

import pytest

from adaptive_ttc.cli import main
from adaptive_ttc.events import DecisionEvent, ScoredEvent
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.prm import ConfidencePRM, FakePRM
from adaptive_ttc.run.retrace import retrace
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import split_steps
from adaptive_ttc.wrappers import WrappedPolicy

QUESTION = "Add 3, 44, 5, 66 and 777."


class Silent(WrappedPolicy):
    """An engine that tells no log-probabilities."""

    async def sample(self, request):
        return replace(await super().sample(request), logprobs=())


class Telling(WrappedPolicy):
    """An engine that tells those of the most probable tokens; keeps what it was asked for."""

    def __init__(self, policy):
        super().__init__(policy)
        self.asked = []

    async def sample(self, request):
        self.asked.append(request.top_logprobs)
        sampled = await super().sample(request)
        wanted = request.top_logprobs
        return replace(sampled, top_logprobs=tuple(-10 + one for one in sampled.logprobs) if wanted else ())


def policy():
    return FakePolicy.generative(error_rate=0.1)


@pytest.mark.parametrize("count", ["generated", "generated+prm", "flops"])
async def test_it_costs_nothing_whatever_a_budget_counts(count):
    asked = {"n": 6, "budget_tokens": 3_000 if count != "flops" else 10**9, "count": count}
    async with Solver(policy(), ConfidencePRM()) as solver:
        scored = await solver.solve(QUESTION, strategy="weighted_best_of_n", **asked)
        again = await retrace(scored.trace, solver.grader)
    async with Solver(policy()) as solver:
        plain = await solver.solve(QUESTION, strategy="majority", **asked)
    assert scored.vote == "weighted"
    assert "Settled, not verified" in scored.explain()
    assert all(one.score is not None for one in scored.candidates)
    assert (scored.spent, scored.usage.completion_tokens) == (plain.spent, plain.usage.completion_tokens)
    assert (scored.usage.flops, scored.usage.prm_tokens) == (plain.usage.flops, 0)
    assert [one.score for one in again.candidates] == [one.score for one in scored.candidates]


async def test_a_tight_budget_draws_as_much_as_without():
    asked = {"n": 8, "budget_tokens": 250, "count": "generated+prm", "max_tokens": 200}
    spent = []
    for prm in (ConfidencePRM(), None):
        async with Solver(policy(), prm) as solver:
            name = "majority" if prm is None else "weighted_best_of_n"
            spent.append((await solver.solve(QUESTION, strategy=name, **asked)).spent)
    assert spent[0] == spent[1] > 200


@pytest.mark.parametrize("strategy", ["beam_search", "dvts"])
async def test_searches_prune_by_the_confidence_of_the_solution_so_far(strategy):
    async with Solver(policy(), ConfidencePRM()) as solver:
        solution = await solver.solve(QUESTION, strategy=strategy, n=4, beam_width=2, budget_tokens=5_000)
    assert solution.candidates
    for one in solution.candidates:
        assert len(one.prefix.scores) == len(split_steps(one.prefix.text))
    # 1 where nothing was uncertain: the least score of the search was not kept
    first = [event.scores[0] for event in solution.trace.of(ScoredEvent) if len(event.scores) == 1]
    assert min(one.prefix.scores[0] for one in solution.candidates) >= min(first)
    assert len({*first}) > 1


async def test_the_most_probable_tokens_are_asked_for_only_where_something_reads_them():
    for prm, wanted in ((ConfidencePRM(), 20), (FakePRM(lambda question, steps: 0.5), 0), (None, 0)):
        engine = Telling(policy())
        async with Solver(engine, prm) as solver:
            solution = await solver.solve(QUESTION, n=2, budget_tokens=2_000)
        assert {*engine.asked} == {wanted}
        if wanted:
            assert all(0.1 < one.score < 0.5 for one in solution.candidates)


async def test_an_engine_that_tells_none_leaves_solutions_unscored_and_says_why():
    async with Solver(Silent(policy()), ConfidencePRM()) as solver:
        solution = await solver.solve(QUESTION, strategy="weighted_best_of_n", n=3, budget_tokens=2_000)
    assert solution.vote == "majority"
    assert solution.answer is not None
    assert any("take an engine that tells them" in event.why for event in solution.trace.of(DecisionEvent))


@pytest.mark.parametrize("rule", [None, "esc"])
@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")
async def test_without_a_calibration_votes_stay_votes(rule):
    async with Solver(policy(), ConfidencePRM(), rule=rule) as solver:
        solution = await solver.solve(QUESTION, budget_tokens=2_000, count="generated+prm", max_tokens=200)
        asked = await solver.solve(QUESTION, budget_tokens=2_000, max_tokens=200, vote="weighted")
    assert (solution.vote, asked.vote) == ("majority", "weighted")
    assert all(one.score is not None for one in solution.candidates)


async def test_a_rule_stops_where_no_surer_solution_is_expected():
    async with Solver(policy(), ConfidencePRM(), rule="pandora_ucb") as solver:
        solution = await solver.solve(QUESTION, budget_tokens=6_000, max_tokens=200, vote="best")
    assert solution.stopped == "settled"
    assert 2 <= len(solution.candidates) < 20
    assert solution.vote == "best"
    assert solution.answer == max(solution.candidates, key=lambda one: one.score).answer


def test_the_command_line_takes_it_for_a_prm(capsys):
    words = ["solve", "Evaluate $6 - 8$.", "--prm", "confidence:tail", "--strategy", "weighted_best_of_n", "--n", "2"]
    assert main([*words, "--device", "cpu", "--budget-tokens", "500", "--json", "-"]) == 0
    scores = [one["step_scores"] for one in json.loads(capsys.readouterr().out)["candidates"]]
    assert len(scores) == 2
    assert all(0 < score < 0.5 for some in scores for score in some)


def test_recorded_samples_are_scored_by_their_mean_log_probability(tmp_path, capsys):
    samples = [
        {"answer": answer, "tokens": 10, "logprob": logprob, "correct": answer == "5"}
        for answer, logprob in (("5", -0.1), ("6", -2.0), ("6", -2.0))
    ]
    line = {"id": "p", "model": "m", "question": "What is 2 + 3?", "gold": "5", "samples": samples}
    file = tmp_path / "traces.jsonl"
    file.write_text(json.dumps(line) + "\n")
    words = ["solve", "What is 2 + 3?", "--engine", "replay", "--policy", str(file), "--n", "3"]
    found = {}
    for more in (["--strategy", "majority"], ["--prm", "confidence", "--strategy", "weighted_best_of_n"]):
        assert main([*words, *more, "--json", "-"]) == 0
        found[more[1]] = capsys.readouterr().out
    assert '"answer": "6"' in found["majority"]
    assert '"answer": "5"' in found["confidence"]
