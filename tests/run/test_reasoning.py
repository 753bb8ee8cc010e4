"""A reasoning model end to end: its answers are read after its thoughts, which are counted apart."""

import warnings

import pytest

from adaptive_ttc import Problem, Solver
from adaptive_ttc.errors import AnswerWarning
from adaptive_ttc.events import FinishedEvent, SampledEvent
from adaptive_ttc.policies.fake import FakePolicy, toy_right_so_far
from adaptive_ttc.policies.replay import Recorder, ReplayPolicy
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.run.retrace import as_recorded
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import Usage

QUESTION = "What is 17 + 25 + 31?"

pytestmark = pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")


def scripted(*replies, **settings):
    tags = FakePolicy.reasoning().thinking
    plain = {"opening": tuple(b"<think>"), "closing": tuple(b"</think>"), "forced": tuple(b"</think>")}
    return FakePolicy.scripted({"q": list(replies)}, thinking=type(tags)(**plain), **settings)


async def solve(policy, question=QUESTION, prm=None, **options):
    async with Solver(policy, prm) as solver:
        return await solver.solve(question, **{"seed": 1, **options})


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("options", [{"n": 6}, {"budget_tokens": 1500}, {"strategy": "greedy"}])
async def test_thinking_is_counted_and_the_answer_read_after_it(begun, options):
    solution = await solve(FakePolicy.reasoning(begun=begun), **options)
    assert solution.answer == "73"
    thought = [one.prefix for one in solution.candidates]
    assert solution.usage.thinking_tokens == sum(one.thought for one in thought) > 0
    assert solution.usage.thinking_tokens < solution.usage.completion_tokens
    for one in thought:
        if one.finished:
            assert one.answer_text.startswith("The answer is")
            assert one.thought == one.answer_at + 2 - begun  # a token a byte, and the tags


async def test_an_answer_within_a_thought_has_no_vote():
    replies = ("<think>\\boxed{1}", "<think>\\boxed{1}", "<think>no \\boxed{1}</think>\\boxed{2}")
    solution = await solve(scripted(*replies), "q", n=3)
    assert [one.answer for one in solution.candidates] == [None, None, "2"]
    assert solution.answer == "2"


async def test_a_problem_without_a_finished_thought_says_so():
    solution = await solve(FakePolicy.reasoning(), n=3, max_tokens=25)
    assert solution.answer is None
    assert "3 still thinking (end thoughts with think_tokens" in solution.abstained


async def test_solutions_that_end_in_a_thought_are_not_taken_for_answers_in_another_form():
    with warnings.catch_warnings():
        warnings.simplefilter("error", AnswerWarning)
        await solve(scripted(*["<think>so it is 7"] * 6), "q", n=6)


async def test_the_sureness_is_that_of_the_answer():
    policy = FakePolicy.reasoning(error_rate=0.2)
    solution = await solve(policy, n=6)
    assert all(one.prefix.answer_logprob == 0.0 for one in solution.candidates)  # it copies its last sum


@pytest.mark.parametrize("strategy", ["beam_search", "dvts"])
async def test_a_step_search_splits_the_thought_into_steps(strategy):
    policy = FakePolicy.reasoning(error_rate=0.05, again=0.0)
    prm = FakePRM.truthful(toy_right_so_far)
    solution = await solve(policy, "What is 17 + 25 + 31 + 8?", prm, strategy=strategy, n=8, beam_width=4)
    assert solution.answer == "81"
    best = solution.candidates[0].prefix
    assert len(best.steps) == 4
    assert len(best.scores) == 4
    assert best.answer_text == "The answer is \\boxed{81}."
    assert any(event.answer_at is None and event.finish == "stop" for event in solution.trace.of(SampledEvent))


@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.RevisionWarning")
async def test_a_revision_is_shown_what_was_answered_and_not_what_was_thought():
    policy = FakePolicy.reasoning()
    solution = await solve(policy, strategy="revision", n=2, sequential=2, vote="majority")
    assert solution.answer == "73"
    shown = policy.decode(policy.requests[-1].prompt_ids)
    assert "17 + 25 =" not in shown.partition("31?")[2]
    assert "The answer is \\boxed{" in shown


async def test_a_trace_of_thoughts_is_solved_again_without_an_engine(tmp_path):
    solution = await solve(FakePolicy.reasoning(), n=4, max_tokens=80)
    assert {one.prefix.answer_at is None for one in solution.candidates} == {True, False}
    solution.trace.save(tmp_path / "trace.json")
    again = as_recorded(Trace.load(tmp_path / "trace.json"), Solver(FakePolicy.reasoning()).grader.space)
    assert again.candidates == solution.candidates
    assert again.answer == solution.answer
    assert again.usage.thinking_tokens == solution.usage.thinking_tokens
    events = solution.trace.of(FinishedEvent)
    assert [event.text[event.answer_at :][:6] for event in events] == ["The an"] * len(events)


async def test_a_replay_of_recorded_thoughts_gives_the_same_answers(tmp_path):
    recorder = Recorder(FakePolicy.reasoning(again=0.6))
    live = await solve(recorder.policy, n=6, max_tokens=2048)
    recorder.save(tmp_path / "record.jsonl")
    policy = ReplayPolicy.load(tmp_path / "record.jsonl")
    replayed = await solve(policy, n=6, max_tokens=2048)
    assert [one.answer for one in replayed.candidates] == [one.answer for one in live.candidates]
    assert replayed.usage.thinking_tokens == live.usage.thinking_tokens > 0
    policy = ReplayPolicy.load(tmp_path / "record.jsonl")
    tight = await solve(policy, n=6, max_tokens=2048, budget_tokens=350)  # in leases
    assert tight.spent <= 350
    assert tight.usage.thinking_tokens == sum(one.prefix.thought for one in tight.candidates)


def test_old_usage_has_no_thinking():
    assert Usage(completion_tokens=3).thinking_tokens == 0
    assert (Usage(thinking_tokens=2) + Usage(thinking_tokens=3)).thinking_tokens == 5


async def test_problems_of_a_pool_are_read_after_their_thoughts():
    async with Solver(FakePolicy.reasoning()) as solver:
        found = await solver.solve_many(
            [Problem.of(f"What is {a} + {a + 3} + 5?") for a in range(3)], budget_tokens=2500, seed=1
        )
    solutions = [one async for one in found] if hasattr(found, "__aiter__") else found
    assert [one.answer for one in solutions] == ["8", "10", "12"]
