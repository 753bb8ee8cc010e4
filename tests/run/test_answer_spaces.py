"""Answer spaces from the solver to the vote: per solver, per problem, in streams, pools, checkpoints and traces."""

import warnings

import pytest

from adaptive_ttc import Problem, retrace
from adaptive_ttc.answers import AnswerSpace, Grader
from adaptive_ttc.errors import AnswerWarning, CalibrationError, CalibrationWarning, CheckpointError, ConfigError
from adaptive_ttc.events import RunEvent, VoteEvent
from adaptive_ttc.loading import MINI_CALIBRATION
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.solver import Solver
from adaptive_ttc.tracing.trace import Trace

SUM, PICK, JSON = "how many?", "which one?", "which value?"
REPLIES = {
    SUM: ["She has 5 + 7 = 12.", "So 12 of them.", "The answer is $12.00 in all.", "It is 11."] * 20,
    PICK: ["The answer is (B) 17", "So **B**", "Answer: c", "Option B"] * 20,
    JSON: ['{"value": 3}', '{"value": 3.0}', '{"value": 4}', '{"other": 4}'] * 20,
}


def scripted():
    return FakePolicy.scripted(REPLIES)


def problems():
    answers = (None, "choice", "json:value")
    return [Problem.of(text, answers=one) for text, one in zip(REPLIES, answers, strict=True)]


async def test_a_solver_reads_and_compares_by_its_space():
    async with Solver(scripted(), answers="number") as solver:
        solution = await solver.solve(SUM, strategy="majority", n=4)
    assert [one.answer for one in solution.candidates] == ["12", "12", "12", "11"]
    assert (solution.answer, solution.answer_classes[0].votes) == ("12", 3)
    assert solution.trace.of(RunEvent)[0].answers == "number"
    assert "Answers were read as number." in solution.explain()


async def test_without_a_space_boxes_are_read():
    async with Solver(scripted()) as solver:
        solution = await solver.solve(SUM, strategy="majority", n=3)
    assert solution.answer is None
    assert "Answers were read" not in solution.explain()
    assert "ended without \\boxed{...}" in solution.abstained


async def test_each_problem_may_have_its_own():
    async with Solver(scripted(), answers="number") as solver:
        asked = {"strategy": "majority", "n": 4}
        answers = [(await solver.solve(one, **asked)).answer for one in problems()]
    assert answers == ["12", "B", "3"]


async def test_streams_vote_by_the_space():
    async with Solver(scripted(), answers="number") as solver:
        events = [event async for event in solver.stream(problems()[1], strategy="majority", n=4)]
    votes = [event for event in events if isinstance(event, VoteEvent)]
    assert votes[-1].answer == "B"
    assert votes[-1].classes[0].votes == 3


async def test_pools_and_their_checkpoints(tmp_path):
    asked = {"budget_tokens": 3_000, "checkpoint": tmp_path / "pool"}
    rule = "adaptive_consistency"
    async with Solver(scripted(), answers="number", rule=rule) as solver:
        first = await solver.solve_many(problems(), **asked)
    assert [one.answer for one in first] == ["12", "B", "3"]
    async with Solver(FakePolicy.scripted({}), answers="number", rule=rule) as solver:
        again = await solver.solve_many(problems(), **asked)
        assert [one.answer_classes for one in again] == [one.answer_classes for one in first]
        with pytest.raises(CheckpointError, match="problems was"):
            await solver.solve_many([*REPLIES], **asked)
    async with Solver(scripted(), rule=rule) as solver:
        with pytest.raises(CheckpointError, match="answers was number, is none"):
            await solver.solve_many(problems(), **asked)


async def test_a_trace_is_followed_in_its_own_space(tmp_path):
    async with Solver(scripted()) as solver:
        solution = await solver.solve(problems()[2], strategy="majority", n=4)
    solution.trace.save(tmp_path / "trace.json")
    async with Grader() as grader:
        again = await retrace(Trace.load(tmp_path / "trace.json"), grader)
    assert again.answer_classes == solution.answer_classes


async def test_log_probabilities_are_those_of_the_answer_that_the_space_finds():
    async with Solver(scripted(), answers="number") as solver:
        solution = await solver.solve(SUM, strategy="majority", n=2)
        other = await solver.solve(Problem.of(SUM, answers="math"), strategy="majority", n=2)
    told = [one.prefix.answer_logprob for one in solution.candidates]
    assert all(value == value for value in told)
    assert all(one.prefix.answer_logprob != one.prefix.answer_logprob for one in other.candidates)


class Verified(AnswerSpace):
    """The last word; a check that comes with the space knows which is right."""

    name = "last word"

    def extract(self, text):
        return text.split()[-1].strip(".")

    def verify(self, answer, problem):
        return answer == "11"


async def test_a_space_may_bring_its_own_check():
    async with Solver(scripted(), answers=Verified()) as solver:
        solution = await solver.solve(SUM, strategy="majority", n=4)
        assert (solution.answer, solution.confidence) == ("11", 1.0)
    async with Solver(scripted(), answers=Verified(), verify=lambda problem, answer: None) as solver:
        solution = await solver.solve(SUM, strategy="majority", n=4)
        assert {one.verdict for one in solution.candidates} == {None}, "the caller's own check is asked in its place"


def test_what_is_no_space_is_refused_before_anything_is_sampled():
    with pytest.raises(ConfigError, match="is no answer space; known are math"):
        Solver(scripted(), answers="numbers")
    with pytest.raises(ConfigError, match="is no answer space"):
        Solver.load("no such model", answers="numbers")
    with Solver(scripted()) as solver, pytest.raises(ConfigError, match="is no answer space"):
        solver.solve_sync(Problem.of(SUM, answers="letters"), n=1, strategy="majority")


async def test_a_calibration_is_of_one_space():
    async with Solver.mini() as mini:
        with pytest.raises(
            CalibrationError, match=r"made with answers='math', and here they are number.*--answers number"
        ):
            await mini.solve(Problem.of("1 + 1?", answers="number"), budget_tokens=200)
        with pytest.raises(CalibrationError, match="here they are choice"):
            mini.solve_many(["1 + 1?", Problem.of("1 + 1?", answers="choice")], budget_tokens=200)
        pair = mini.policy, mini.prm
        asked = {"calibration": MINI_CALIBRATION, "allow_mismatch": True, "answers": "number"}
        solver = Solver(*pair, **asked)
        with pytest.warns(CalibrationWarning, match="may not hold here: it was made with answers='math'"):
            await solver.solve("What is 1 + 1?", budget_tokens=200)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            await solver.solve("What is 1 + 1?", budget_tokens=200)


async def test_a_run_without_answers_is_told_once_after_the_first_few():
    async with Solver(scripted()) as solver:
        with pytest.warns(AnswerWarning) as told:
            await solver.solve(PICK, strategy="majority", n=40)
        await solver.solve(SUM, strategy="majority", n=40)  # a second warning would be an error
    (one,) = told
    text = str(one.message)
    assert "none of the first 4 solutions holds \\boxed{...}, which answers='math' looks for" in text
    assert "'So **B**'" in text
    assert 'ask for it in a system prompt: "End with the final answer as \\boxed{answer}."' in text


async def test_the_space_that_would_read_them_is_named():
    said = {SUM: ["So the answer is 5."] * 9}
    async with Solver(FakePolicy.scripted(said)) as solver:
        with pytest.warns(AnswerWarning, match="answers='number' would read them all"):
            await solver.solve(SUM, strategy="majority", n=9)


async def test_one_answer_is_enough_not_to_be_told():
    async with Solver(FakePolicy.scripted({SUM: ["\\boxed{5}", *["no"] * 20]})) as solver:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            await solver.solve(SUM, strategy="majority", n=21)
