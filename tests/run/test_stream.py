"""Listening to a problem being solved: order, votes, stopping, leaving, failing."""

import asyncio
from itertools import pairwise

import anyio
import pytest

from adaptive_ttc.answers import Grader
from adaptive_ttc.answers.spaces.mathematics import MathSpace
from adaptive_ttc.errors import ConfigError, EngineError, GradingError
from adaptive_ttc.events import (
    DoneEvent,
    FinishedEvent,
    PrunedEvent,
    SampledEvent,
    ScoredEvent,
    VoteEvent,
)
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.run.stream import RunningVote
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies import Majority
from tests.doubles import TinyPolicy


def solver(**settings):
    prm = FakePRM(lambda question, steps: (len("".join(steps)) * 7 % 11) / 11)
    return Solver(TinyPolicy(**settings), prm)


async def listen(stream, events):
    async for event in stream:
        events.append(event)


SEARCH = {"strategy": "beam_search", "n": 8, "beam_width": 2, "max_tokens": 200}


async def test_events_come_as_they_happen_and_tell_the_whole_story():
    async with solver(chaos=3) as one:
        stream = one.stream("how?", **SEARCH)
        events = [event async for event in stream]
        solution = await stream.solution()
    kinds = [type(event) for event in events]
    assert kinds[-2:] == [VoteEvent, DoneEvent]
    assert kinds.index(SampledEvent) < kinds.index(ScoredEvent) < kinds.index(FinishedEvent)
    assert PrunedEvent in kinds
    assert events[-1].answer == solution.answer
    assert sum(event.tokens for event in events if type(event) is SampledEvent) == solution.usage.completion_tokens
    finished = {event.text for event in events if type(event) is FinishedEvent}
    assert finished == {one.prefix.text for one in solution.candidates if one.prefix.finished}
    assert (stream.usage.completion_tokens, stream.spent) == (solution.usage.completion_tokens, solution.spent)


async def test_the_stream_gives_what_solve_gives():
    async with solver() as one:
        stream = one.stream("how?", budget_tokens=150, strategy="majority", n=6)
        async for _ in stream:
            pass
        streamed, solved = await stream.solution(), await one.solve("how?", budget_tokens=150, strategy="majority", n=6)
    assert streamed.candidates == solved.candidates
    assert (streamed.answer, streamed.spent) == (solved.answer, solved.spent)


async def test_a_vote_is_told_when_its_leader_changes_and_at_the_end():
    async with solver() as one:
        events = [event async for event in one.stream("how?", strategy="majority", n=12)]
    votes = [event.answer for event in events if type(event) is VoteEvent]
    running = votes[:-1]
    assert running, "nobody was told of the first leader"
    assert all(before != after for before, after in pairwise(running))
    assert votes[-1] == running[-1]


async def test_leaving_the_loop_cancels_the_work_and_counts_it():
    policy = TinyPolicy(mean=500, chaos=1)
    async with Solver(policy) as one:
        stream = one.stream("how?", budget_tokens=5000, strategy="majority", n=4, slice_size=1)
        async for event in stream:
            if type(event) is SampledEvent:
                break
        assert not stream.final
        await stream.aclose()
        assert stream.final
        assert not policy.in_flight
        assert stream.usage.completion_tokens == stream.spent == policy.delivered > 0
        with pytest.raises(ConfigError, match="left before it was done"):
            await stream.solution()


async def test_leaving_the_loop_ends_the_work_without_being_asked_to():
    policy = TinyPolicy(mean=10_000, chaos=1)
    async with Solver(policy) as one:
        async for event in one.stream("how?", strategy="majority", n=4, slice_size=1, max_tokens=50):
            assert type(event) is SampledEvent
            break
        for _ in range(50):
            await asyncio.sleep(0)
        assert not policy.in_flight
        delivered = policy.delivered
        for _ in range(50):
            await asyncio.sleep(0)
        assert policy.delivered == delivered


async def test_stop_gives_the_best_so_far_with_full_accounting():
    policy = TinyPolicy(mean=30, chaos=1)
    async with Solver(policy) as one:
        stream = one.stream("how?", strategy="majority", n=500, slice_size=10)
        async for event in stream:
            if type(event) is FinishedEvent:
                stream.stop()
        solution = await stream.solution()
    assert solution.answer is not None
    assert 0 < len(solution.candidates) < 500
    assert solution.spent == solution.usage.completion_tokens == policy.delivered
    assert not policy.in_flight


async def test_cancelling_who_listens_cancels_the_work():
    policy = TinyPolicy(mean=10_000, chaos=1)
    async with Solver(policy) as one:
        stream = one.stream("how?", strategy="majority", n=4)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def listen():
                    async for _ in stream:
                        pass

                tasks.start_soon(listen)
                await policy.started.wait()
                scope.cancel()
        assert scope.cancelled_caught
        assert not policy.in_flight
        assert stream.spent == policy.delivered


async def waiting(stream, policy):
    """A task that waits for the solution, and everything under way."""
    task = asyncio.create_task(stream.solution())
    await policy.started.wait()
    await asyncio.sleep(0)
    return task


async def test_cancelling_the_only_one_who_waits_cancels_the_work():
    policy = TinyPolicy(mean=10_000, chaos=1)
    async with Solver(policy) as one:
        stream = one.stream("how?", strategy="majority", n=4)
        task = await waiting(stream, policy)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stream.final
        assert not policy.in_flight
        assert stream.usage.completion_tokens == stream.spent == policy.delivered
        assert len(stream.trace) > 0
        with pytest.raises(ConfigError, match="left before it was done"):
            await stream.solution()


async def test_cancelling_one_of_two_who_wait_leaves_the_work_to_the_other():
    policy = TinyPolicy(chaos=1)
    async with Solver(policy) as one:
        stream = one.stream("how?", strategy="majority", n=4)
        impatient, patient = await waiting(stream, policy), await waiting(stream, policy)
        impatient.cancel()
        assert len((await patient).candidates) == 4
    assert impatient.cancelled()


async def test_cancelling_one_who_waits_does_not_stop_one_who_listens():
    policy = TinyPolicy(chaos=1)
    async with Solver(policy) as one:
        stream, impatient = one.stream("how?", strategy="majority", n=4), None
        kinds = []
        async for event in stream:
            kinds.append(type(event))
            if impatient is None:
                impatient = await waiting(stream, policy)
                impatient.cancel()
        assert kinds[-1] is DoneEvent
        assert len((await stream.solution()).candidates) == 4
    assert impatient.cancelled()


async def test_who_listens_is_told_that_somebody_else_closed_the_stream():
    policy = TinyPolicy(mean=10_000, chaos=1)
    async with Solver(policy) as one:
        stream = one.stream("how?", strategy="majority", n=4, slice_size=1, max_tokens=50)
        events = aiter(stream)
        await anext(events)
        await stream.aclose()
        with pytest.raises(ConfigError, match="left before it was done"):
            [event async for event in events]


async def test_a_running_vote_reads_every_solution_once(monkeypatch):
    read, compared = [], []
    extract = MathSpace.extract

    def counted(space, text):
        read.append(text)
        return extract(space, text)

    monkeypatch.setattr(MathSpace, "extract", counted)
    async with solver() as one:
        classes = one.grader.classes

        async def watched(answers):
            compared.append(len(answers))
            return await classes(answers)

        one.grader.classes = watched
        events = [event async for event in one.stream("how?", strategy="majority", n=40)]
        solution = await one.stream("how?", strategy="majority", n=40).solution()
    told = [event for event in events if type(event) is FinishedEvent]
    assert len(read) == 1 + len(told) + 2 * len(solution.candidates)  # one, as they finish, and at each end
    while_told = compared[: compared.index(len(solution.candidates))]
    assert max(while_told) <= len(while_told) <= len(solution.answer_classes)
    last = [event for event in events if type(event) is VoteEvent][-2]
    assert last.answer == solution.answer


async def test_a_running_vote_takes_the_shortest_text_for_a_class():
    async with Grader() as grader:
        vote = RunningVote(grader, Majority(n=4))
        leaders = []
        for index, answer in enumerate(("\\frac{2}{4}", "3", "0.5", "\\frac{1}{2}")):
            event = FinishedEvent(time=0.0, path=(index,), text=f"\\boxed{{{answer}}}", tokens=9, scores=())
            if change := await vote.after(event):
                leaders.append((change.answer, [one.votes for one in change.classes]))
    assert leaders == [("\\frac{2}{4}", [1]), ("3", [1, 1]), ("0.5", [2, 1])]


async def test_a_solution_can_be_waited_for_without_listening():
    async with solver() as one, one.stream("how?", strategy="majority", n=3) as stream:
        assert len((await stream.solution()).candidates) == 3


async def test_an_engine_that_fails_is_heard_of():
    async with solver(chaos=1, fatal=1.0) as one:
        stream = one.stream("how?", strategy="majority", n=3)
        with pytest.raises(EngineError, match="broken"):
            async for _ in stream:
                pass
        with pytest.raises(EngineError, match="broken"):
            await stream.solution()


async def test_an_impossible_request_is_refused_before_anybody_listens():
    async with solver() as one:
        with pytest.raises(ConfigError, match="not a multiple"):
            one.stream("how?", strategy="beam_search", n=6, beam_width=4)
        with pytest.raises(ConfigError, match="deadline"):
            one.stream("how?", n=2, deadline=-1.0)


async def test_a_stream_is_listened_to_once():
    async with solver() as one:
        stream = one.stream("how?", strategy="majority", n=2)
        async for _ in stream:
            pass
        with pytest.raises(ConfigError, match="once"):
            async for _ in stream:
                pass


async def test_where_answers_cannot_be_compared_votes_go_by_text_and_the_end_tells_the_error():
    class Broken(Grader):
        def for_problem(self, space=None):
            return self

        async def classes(self, answers):
            raise OSError("no more processes")

    async with Solver(TinyPolicy(), grader=Broken()) as one:
        stream = one.stream("how?", strategy="majority", n=6)
        events = []
        listened = listen(stream, events)
        with pytest.raises(GradingError, match="no more processes") as raised:
            await listened
    assert VoteEvent in map(type, events)
    assert type(events[-1]) is DoneEvent
    assert raised.value.solution.answer == events[-1].answer is not None
