"""A pool goes on from its checkpoint, however it was ended: nothing settled is lost, and the budget holds over all."""

import shutil
import sqlite3

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_ttc.answers import Grader
from adaptive_ttc.errors import CheckpointError, EngineError, GradingError
from adaptive_ttc.events import AllocationEvent
from adaptive_ttc.policy import Sampled
from adaptive_ttc.run.checkpointed import CheckpointedProblem
from adaptive_ttc.solver import Solver
from adaptive_ttc.tasks import Signal
from adaptive_ttc.types import Problem, Stopped
from tests.doubles import TinyPolicy
from tests.run.test_adaptive import SAMPLES, believer, calibrated

QUESTIONS = [f"how much is {number}?" for number in range(8)]
BUDGET = 3000
TREES = [*SAMPLES, ("dvts", 8, "dvts-4", 2, 0.9), ("beam_search", 8, "beam_search-8-4", 1, 0.85)]


class Watched(TinyPolicy):
    """Copies a checkpoint when it is called for the ``after``-th time, as a kill at that moment would leave it."""

    def __init__(self, file=None, after=0, **settings):
        super().__init__(**settings)
        self.file, self.after = file, after
        self.copied = False

    async def sample(self, request):
        sampled = await super().sample(request)
        self.after -= 1
        if self.after == 0 and self.file is not None:
            left = self.file.with_name("left.db")
            for end in ("", "-wal"):
                if (found := self.file.with_name(self.file.name + end)).exists():
                    shutil.copy(found, left.with_name(left.name + end))
            self.copied = True
            self.until_copied = self.delivered
        return sampled


def solver(policy=None, *, calibration=None, prm=True, **rest):
    made = calibration or calibrated(*SAMPLES)
    return Solver(policy or TinyPolicy(), believer() if prm else None, calibration=made, **rest)


async def solve(file, policy=None, problems=QUESTIONS, *, budget=BUDGET, made=None, **asked):
    async with made or solver(policy) as one:
        pool = one.solve_many(problems, budget_tokens=budget, checkpoint=file, **asked)
        return await pool, pool


async def test_a_finished_call_gives_the_same_solutions_again_and_calls_no_engine(tmp_path):
    first, pool = await solve(tmp_path / "run.db")
    policy = TinyPolicy()
    again, other = await solve(tmp_path / "run.db", policy)
    assert again == first
    assert [one.explain() for one in again] == [one.explain() for one in first]
    assert all(0 <= anyio.current_time() - one.trace.started < 60 for one in again)  # on this run's clock
    assert policy.requests == []
    assert (other.spent, other.usage) == (pool.spent, pool.usage)
    assert other.report().spent == pool.report().spent
    assert [one.ending for one in other.report().problems] == [one.ending for one in pool.report().problems]


@settings(max_examples=12)
@given(st.data())
async def test_a_kill_at_any_call_loses_only_what_was_in_flight(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("kill")
    count = data.draw(st.sampled_from(["generated", "generated+prm", "flops"]))
    budget = {"generated": BUDGET, "generated+prm": 4 * BUDGET, "flops": 100 * BUDGET}[count]
    trees = data.draw(st.booleans())
    asked = {"budget": budget, "count": count, "max_concurrency": data.draw(st.integers(1, 6))}
    policy = Watched(folder / "run.db", data.draw(st.integers(1, 60)), chaos=data.draw(st.integers(0, 99)))
    made = calibrated(*(TREES if trees else SAMPLES))
    await solve(folder / "run.db", made=solver(policy, calibration=made), **asked)
    if not policy.copied:
        return
    other = TinyPolicy(chaos=5)
    found, pool = await solve(folder / "left.db", made=solver(other, calibration=made), **asked)
    assert all(one.answer for one in found) or pool.spent > 0.8 * budget
    assert sum(one.spent for one in found) == pool.spent <= budget
    assert pool.report().spent == pool.spent
    if count == "generated":
        assert policy.until_copied + other.delivered <= pool.spent
        usage = pool.usage
        assert usage.completion_tokens + usage.lost_tokens == pool.spent
    for solution in found:
        paths = [one.prefix.path for one in solution.candidates]
        assert len(paths) == len(set(paths))
    again, _ = await solve(folder / "left.db", **asked, made=solver(TinyPolicy(), calibration=made))
    assert again == found


async def test_a_resumed_problem_is_as_if_it_had_never_been_interrupted(tmp_path, monkeypatch):
    """After every slice: the same evidence, usage, trace and next samples."""
    states = []
    advance = CheckpointedProblem.advance

    async def watched(problem, todo, account, *, opening=False):
        moved = await advance(problem, todo, account, opening=opening)
        again = CheckpointedProblem(
            problem._file, problem._number, problem.request, resources, problem._ledger, Signal()
        )
        stored = problem._file.enter(problem._number, problem.request.problem)
        await again.go_on_from(stored)
        states.append((todo.kind, again.evidence == problem.evidence, again.usage == problem.usage))
        assert tuple(again.trace) == tuple(problem.trace)
        assert again.spent == problem.spent
        assert again.rounds == problem.rounds
        ours, theirs = problem._driver._account, again._driver._account
        assert (ours.lengths, ours.solved, ours.scores) == (theirs.lengths, theirs.solved, theirs.scores)
        assert problem._driver._branch._number == again._driver._branch._number
        return moved

    monkeypatch.setattr(CheckpointedProblem, "advance", watched)
    made = solver(TinyPolicy(chaos=3, failure=0.05), calibration=calibrated(*TREES))
    resources = made.resources
    await solve(tmp_path / "run.db", made=made, budget=6000, count="generated+prm")
    assert len(states) > 12
    assert {kind for kind, *_ in states} == {"greedy", "dvts-4"}
    assert all(same for _, *rest in states for same in rest), states


async def test_a_cancelled_call_is_charged_what_it_generated_and_goes_on(tmp_path):
    policy = TinyPolicy(frozen=())
    async with solver(policy, prm=False) as one:
        pool = one.solve_many(QUESTIONS, budget_tokens=BUDGET, checkpoint=tmp_path / "run.db", max_concurrency=2)
        async for _ in pool:
            break
        await pool.aclose()
    spent = pool.spent
    assert spent == policy.delivered
    other = TinyPolicy()
    found, pool = await solve(tmp_path / "run.db", made=solver(other, prm=False))
    assert pool.spent == spent + other.delivered <= BUDGET
    assert all(one.answer for one in found)


async def test_what_failed_is_tried_again_and_what_the_deadline_ended_goes_on(tmp_path):
    class Failing(TinyPolicy):
        async def sample(self, request):
            if bytes(one - 100 for one in request.prompt_ids[:13]) == b"how much is 3":
                raise EngineError("it is down")
            return await super().sample(request)

    found, _ = await solve(tmp_path / "run.db", Failing())
    assert [one.stopped is Stopped.FAILED for one in found] == [number == 3 for number in range(8)]
    again, pool = await solve(tmp_path / "run.db")
    assert again[3].answer is not None
    assert [one for one in again if one is not again[3]] == [one for one in found if one is not found[3]]
    assert pool.spent <= BUDGET
    early, _ = await solve(tmp_path / "early.db", deadline=0.0)
    assert {one.stopped for one in early} == {Stopped.DEADLINE}
    later, _ = await solve(tmp_path / "early.db")
    assert all(one.answer for one in later)


@pytest.mark.parametrize("strategies", [SAMPLES, TREES])
async def test_what_a_slice_drew_before_it_failed_is_there_again(tmp_path, strategies):
    class Failing(TinyPolicy):
        async def sample(self, request):
            if len(self.requests) >= 40:
                raise EngineError("it is down", generated=False)
            return await super().sample(request)

    policy, made = Failing(), calibrated(*strategies)
    found, pool = await solve(tmp_path / "run.db", made=solver(policy, calibration=made), max_concurrency=6)
    failed = [one for one in found if one.error is not None and any(c.prefix.token_ids for c in one.candidates)]
    assert failed
    assert pool.spent == policy.delivered
    other = TinyPolicy()
    again, pool = await solve(tmp_path / "run.db", made=solver(other, calibration=made), max_concurrency=6)
    assert pool.spent == policy.delivered + other.delivered <= BUDGET
    assert pool.usage.lost_tokens == 0
    for one in failed:
        (same,) = (later for later in again if later.problem == one.problem)
        kept = {c.prefix.path: c.prefix.text for c in same.candidates}
        assert all(kept[c.prefix.path] == c.prefix.text for c in one.candidates if c.prefix.finished)
        assert same.answer is not None
        assert same.spent >= one.spent


@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.VerifyWarning")
async def test_no_verdict_is_asked_for_again(tmp_path):
    class Check:
        def __init__(self):
            self.asked = []

        async def __call__(self, problem, answer):
            self.asked.append((problem.question, answer))
            if answer == "3":
                raise RuntimeError("it cannot tell now")
            return {"1": False, "2": None}.get(answer)

    first, second, third = Check(), Check(), Check()
    asked = {"budget_tokens": BUDGET, "max_concurrency": 3, "checkpoint": tmp_path / "run.db"}
    async with solver(verify=first) as one, one.solve_many(QUESTIONS, **asked) as pool:
        async for _ in pool:
            break
    async with solver(verify=second) as one:
        found = await one.solve_many(QUESTIONS, **asked)
    async with solver(verify=third) as one:
        assert await one.solve_many(QUESTIONS, **asked) == found
    twice = set(first.asked) & set(second.asked)
    assert {answer for _, answer in first.asked} >= {"1", "2", "3"}
    assert twice
    assert {answer for _, answer in twice} == {"3"}
    assert not third.asked
    assert {one.verdict for solution in found for one in solution.candidates if one.answer == "1"} == {False}
    async with solver() as one:
        with pytest.raises(CheckpointError, match="verify was given, is none"):
            one.solve_many(QUESTIONS, **asked)


async def test_what_was_paid_for_comes_back_where_nothing_can_be_graded(tmp_path):
    class Broken(Grader):
        def for_problem(self, space=None):
            return self

        async def classes(self, answers):
            raise GradingError("no worker starts")

    class Stopping(TinyPolicy):
        async def sample(self, request):
            if len(self.requests) == 20:
                pool.stop()
            return await super().sample(request)

    async with solver(Stopping(), prm=False) as one:
        pool = one.solve_many(QUESTIONS, budget_tokens=BUDGET, checkpoint=tmp_path / "stopped.db", max_concurrency=6)
        drawn = {one.problem.id: one.candidates for one in await pool}
    broken = solver(prm=False)
    broken.grader = Broken()
    found, pool = await solve(tmp_path / "stopped.db", made=broken)
    assert any(drawn.values())
    for solution in found:
        assert isinstance(solution.error, GradingError)
        if drawn[solution.problem.id]:
            assert solution.answer is not None
            assert {one.prefix.path for one in solution.candidates} >= {
                one.prefix.path for one in drawn[solution.problem.id]
            }
    assert sum(one.spent for one in found) == pool.spent
    settled, _ = await solve(tmp_path / "run.db", made=solver(prm=False))
    broken = solver(prm=False)
    broken.grader = Broken()
    again, _ = await solve(tmp_path / "run.db", made=broken)
    assert again == settled


async def test_a_source_goes_on_where_it_brings_the_same_problems(tmp_path):
    async def source(questions):
        for question in questions:
            yield question

    async with solver() as one:
        file = tmp_path / "run.db"
        pool = one.solve_many(source(QUESTIONS), budget_tokens=BUDGET, checkpoint=file, max_concurrency=3, expected=8)
        first = [solution async for solution in pool if pool.spent < 1500]
        pool = one.solve_many(source(QUESTIONS), budget_tokens=BUDGET, checkpoint=file, max_concurrency=3, expected=8)
        again = [solution async for solution in pool]
        assert {one.problem.id for one in again} >= {one.problem.id for one in first}
        assert len(again) == len(QUESTIONS)
        pool = one.solve_many(source(QUESTIONS[::-1]), budget_tokens=BUDGET, checkpoint=file)
        with pytest.raises(CheckpointError, match=r"problem 1 of .*run\.db was another one"):
            await pool


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"budget": 2999}, "budget_tokens was 3000, is 2999"),
        ({"seed": 1}, "seed was None, is 1"),
        ({"temperature": 0.5}, "options was "),
        ({"problems": QUESTIONS[:-1]}, "problems was 8, "),
        ({"per_problem_max": 70}, "per_problem_max was None, is 70"),
        ({"made": "without"}, "prm was .*, is None"),
        ({"made": "other"}, "calibration was "),
    ],
)
async def test_the_file_of_another_call_is_refused_at_once(tmp_path, change, said):
    await solve(tmp_path / "run.db")
    if "made" in change:
        made = {"without": solver(prm=False), "other": Solver(TinyPolicy(), believer(), rule="esc")}[change["made"]]
        change = {"made": made}
    policy = TinyPolicy()
    with pytest.raises(CheckpointError, match=said):
        await solve(tmp_path / "run.db", **{"policy": policy, **change})
    assert not policy.requests


async def test_a_file_in_use_of_something_else_or_damaged_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("adaptive_ttc.run.checkpoint.Checkpoint.wait", 0.0)
    (tmp_path / "text.db").write_text("this is no database, and far from one" * 100)
    with pytest.raises(CheckpointError, match="no checkpoint, or is damaged"):
        await solve(tmp_path / "text.db")
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE mine (number INTEGER)")
    other.close()
    with pytest.raises(CheckpointError, match="something else"):
        await solve(tmp_path / "other.db")
    with pytest.raises(CheckpointError, match="see to its folder"):
        await solve(tmp_path / "no folder" / "run.db")
    file = tmp_path / "run.db"
    async with solver() as one, one.solve_many(QUESTIONS, budget_tokens=BUDGET, checkpoint=file) as pool:
        async for _ in pool:
            with pytest.raises(CheckpointError, match="wait for the run that writes to it"):
                one.solve_many(QUESTIONS, budget_tokens=BUDGET, checkpoint=file)
    with sqlite3.connect(file) as damaged:
        damaged.execute("UPDATE problems SET closing = x'00'")
    damaged.close()
    with pytest.raises(CheckpointError, match="damaged"):
        await solve(file)


async def test_traces_are_dropped_where_they_are_not_wanted():
    async with solver() as one:
        bare = await one.solve_many(QUESTIONS[:3], budget_tokens=600, keep_traces=False)
        full = await one.solve_many(QUESTIONS[:3], budget_tokens=600)
    assert [one.answer for one in bare] == [one.answer for one in full]
    assert all(len(one.trace) == 0 for one in bare)
    assert all(one.trace.last(AllocationEvent) for one in full)
    assert "was not kept" in bare[0].explain()


def test_equal_problems_are_told_apart_by_their_place(tmp_path):
    async def run():
        first, _ = await solve(tmp_path / "run.db", problems=[Problem.of("how?")] * 3)
        again, _ = await solve(tmp_path / "run.db", problems=[Problem.of("how?")] * 3)
        assert again == first

    anyio.run(run)


class Silent(TinyPolicy):
    """Delivers nothing before it is aborted, while ``silent``."""

    silent = True

    def __init__(self):
        super().__init__()
        self.aborted = {}

    async def sample(self, request):
        if not self.silent:
            return await super().sample(request)
        told = self.aborted[request.id] = anyio.Event()
        await told.wait()
        return Sampled(token_ids=(), finish="abort")

    async def abort(self, request_id):
        if request_id in self.aborted:
            self.aborted[request_id].set()


async def test_problems_whose_openings_brought_nothing_are_opened_when_it_goes_on(tmp_path):
    policy = Silent()
    arms = calibrated(("weighted_best_of_n", 4, "sample", 4, 0.9))
    async with solver(policy, calibration=arms) as one, anyio.create_task_group() as tasks:
        pool = one.solve_many(QUESTIONS, budget_tokens=600, checkpoint=tmp_path / "run.db")

        async def stop():
            while not policy.aborted:
                await anyio.lowlevel.checkpoint()
            pool.stop()

        tasks.start_soon(stop)
        assert all(solution.spent == 0 for solution in await pool)
    policy.silent = False
    async with solver(policy, calibration=arms) as one:
        found = await one.solve_many(QUESTIONS, budget_tokens=600, checkpoint=tmp_path / "run.db")
    openings = [[event.opening for event in solution.trace.of(AllocationEvent)] for solution in found]
    assert all(any(some) for some in openings), openings
    assert sum(solution.spent for solution in found) <= 600
