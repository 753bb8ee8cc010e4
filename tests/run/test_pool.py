"""Many problems from one budget: hard total, fair openings, late arrivals, failures, deadlines, cancellation."""

import json
from collections import Counter
from weakref import WeakSet

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_ttc.errors import ConfigError, EngineError, SourceError
from adaptive_ttc.estimate.artefact import Calibrated, Opening
from adaptive_ttc.estimate.gain import Action, Forecast, GainModel, Option
from adaptive_ttc.events import AllocationEvent, SearchEvent
from adaptive_ttc.run.adaptive_problem import AdaptiveProblem
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Problem, Stopped
from tests.doubles import TinyPolicy
from tests.run.test_adaptive import SAMPLES, Everything, believer, calibrated, table

QUESTIONS = [f"how much is {number}?" for number in range(12)]


def solver(policy=None, *, prm=True, calibration=None, **settings):
    made = calibration or calibrated(*SAMPLES)
    return Solver(policy or TinyPolicy(), believer() if prm else None, calibration=made, **settings)


def slices(solution):
    return [event.action for event in solution.trace.of(AllocationEvent) if event.action]


class Lopsided(GainModel):
    """Forecasts by which only questions that hold a word gain anything."""

    def __init__(self, word):
        self.word = word

    def forecasts(self, states):
        return [Forecast(0.5, tuple(self.options(state)) if self.word in state.question else ()) for state in states]

    def options(self, state):
        done, none = state.counts().get("sample", 0), 0.0 if state.units else 0.5
        return [
            Option.in_tokens(Action("sample", n), none + 0.02 * n, 20.0 * n, 20.0 * n) for n in (4, 8) if done + n <= 24
        ]


def lopsided(word):
    made = table(("greedy", 1, "greedy", 1, 0.4), *SAMPLES)
    return Calibrated(made, None, Lopsided(word), Opening("greedy", True, 40, 60), {})


# ---- what comes back ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [True, False])
async def test_solutions_come_as_they_settle_or_all_together_in_the_order_of_the_problems(streamed):
    async with solver() as one:
        pool = one.solve_many(QUESTIONS, budget_tokens=4000)
        found = [solution async for solution in pool] if streamed else await pool
        if streamed:
            with pytest.raises(ConfigError, match="collect them in the loop, or await the pool"):
                await pool
        else:
            assert await pool == found
            assert [solution.problem.question for solution in found] == QUESTIONS
    assert sorted(solution.problem.question for solution in found) == sorted(QUESTIONS)
    assert sum(solution.spent for solution in found) == pool.spent <= 4000
    assert pool.report().spent == pool.spent
    assert pool.usage.completion_tokens == sum(solution.usage.completion_tokens for solution in found)
    assert pool.final
    assert all(solution.answer for solution in found)
    if streamed:
        with pytest.raises(ConfigError, match="once"):
            aiter(pool)


async def test_what_was_handed_out_in_a_loop_is_not_kept(monkeypatch):
    alive, begin = WeakSet(), AdaptiveProblem.__init__

    def begun(problem, *arguments):
        begin(problem, *arguments)
        alive.add(problem)

    monkeypatch.setattr(AdaptiveProblem, "__init__", begun)

    async def produce():
        for number in range(60):
            yield f"how much is {number}?"

    counts = []
    async with solver() as one:
        async for solution in one.solve_many(produce(), budget_tokens=60 * 150, max_concurrency=4):
            del solution
            counts.append(len(alive))
    assert len(counts) == 60
    assert max(counts) <= 3 * 4, "those that are open, and those being handed out"


async def test_an_endless_source_is_taken_in_as_far_as_problems_may_be_open_and_all_of_them_settle():
    begun, settled = 0, 0

    async def endless():
        nonlocal begun
        while True:
            begun += 1
            yield f"how much is {begun}?"

    async with solver() as one, one.solve_many(endless(), budget_tokens=10_000, max_concurrency=4) as pool:
        async for solution in pool:
            settled += 1
            assert begun - settled <= 4
            assert solution.problem.question in {f"how much is {number}?" for number in range(1, begun + 1)}
            if settled == 30:
                break
    assert settled == 30


async def sourced(number=12, closed=None):
    try:
        for question in QUESTIONS[:number]:
            yield question
    finally:
        if closed is not None:
            closed.set()


async def test_a_pool_is_looped_over_or_awaited_and_says_so_at_once():
    async with solver() as one:
        pool = one.solve_many(sourced(), budget_tokens=2000, max_concurrency=4)
        async with pool:
            async for _ in pool:
                with pytest.raises(ConfigError, match="await the pool in place of it"):
                    await pool
                break
        pool = one.solve_many(sourced(), budget_tokens=2000, max_concurrency=4)
        found = await pool
        with pytest.raises(ConfigError, match="await the pool in place of it"):
            aiter(pool)
        assert await pool == found
        assert [solution.problem.question for solution in found] == QUESTIONS


async def test_a_source_that_is_left_early_is_closed():
    closed = anyio.Event()
    async with solver() as one, one.solve_many(sourced(12, closed), budget_tokens=3000, max_concurrency=1) as pool:
        async for _ in pool:
            break
    assert closed.is_set()


@pytest.mark.parametrize(("budget", "expected"), [(600, 12), (1500, 40)])
async def test_what_was_kept_for_problems_that_did_not_come_is_spent_on_those_that_did(budget, expected):
    async with solver() as one:
        sure = one.solve_many(sourced(), budget_tokens=budget)
        await sure
        hopeful = one.solve_many(sourced(), budget_tokens=budget, expected=expected)
        solutions = await hopeful
    assert all(solution.candidates for solution in solutions)
    assert hopeful.spent >= 0.9 * sure.spent


async def test_those_that_come_late_are_opened_as_those_that_come_first():
    async with solver() as one:
        work = one.solve_many(sourced(), budget_tokens=12 * 900, count="generated+prm", max_concurrency=2, expected=12)
        solutions = await work
    opened = [next(event for event in solution.trace.of(SearchEvent)).options["vote"] for solution in solutions]
    assert opened == ["weighted"] * 12


async def test_units_are_left_for_those_that_a_source_is_still_to_bring():
    async def produce():
        for question in QUESTIONS:
            yield question

    async def got(expected):
        async with solver() as one:
            work = one.solve_many(produce(), budget_tokens=1500, max_concurrency=1, expected=expected)
            return [solution.spent async for solution in work]

    unaware, aware = await got(0), await got(len(QUESTIONS))
    assert len(aware) == len(unaware) == len(QUESTIONS)
    assert min(aware) > 0
    assert min(unaware) == 0, "those that came first spent all that helped them"


async def test_the_budget_goes_where_it_brings_something():
    async with solver(calibration=lopsided("7")) as one:
        solutions = await one.solve_many(QUESTIONS, budget_tokens=3000)
    spent = {solution.problem.question: len(solution.candidates) for solution in solutions}
    assert 21 <= spent["how much is 7?"] <= 25
    assert {count for question, count in spent.items() if "7" not in question} == {1}


async def test_priority_weighs_problems():
    def twice(problem):
        return 5.0 if "3" in problem.question else 1.0

    async with solver(calibration=lopsided("how")) as one:
        solutions = await one.solve_many(QUESTIONS[:6], budget_tokens=900, priority=twice, max_concurrency=1)
        counts = [len(solution.candidates) for solution in solutions]
        assert counts[3] == max(counts) == 25
        refused = await one.solve_many(QUESTIONS[:2], budget_tokens=500, priority=lambda problem: 0.0)
    assert all("above 0" in str(solution.error) for solution in refused)


async def test_nobody_gets_a_second_slice_before_all_have_had_their_first():
    async with solver(TinyPolicy(mean=12)) as one:
        pool = one.solve_many(QUESTIONS, budget_tokens=40 * 12 + 60, max_concurrency=3)
        solutions = await pool
    decided = sorted(
        (grant for problem in pool.report().problems for grant in problem.grants), key=lambda one: one.number
    )
    assert [decision.option for decision in decided[:12]] == [None] * 12
    assert all(solution.candidates for solution in solutions)


async def test_one_problem_gets_no_more_than_its_maximum():
    async with solver() as one:
        solutions = await one.solve_many(QUESTIONS, budget_tokens=10_000, per_problem_max=90)
    assert max(solution.spent for solution in solutions) <= 90
    assert {solution.budget for solution in solutions} == {90}


async def test_problems_may_be_the_same_and_named_alike():
    async with solver() as one:
        same, again, other = await one.solve_many(["how?", "how?", Problem.of("why?", "q1")], budget_tokens=2000)
    assert same.problem == again.problem
    assert other.problem.id == "q1"


# ---- problems that are still coming ---------------------------------------------------------------------------


async def test_a_source_that_is_still_producing():
    gate = anyio.Event()

    async def produce():
        yield QUESTIONS[0]
        await gate.wait()
        for question in QUESTIONS[1:5]:
            yield question

    async with solver() as one:
        pool = one.solve_many(produce(), budget_tokens=2500)
        settled = []
        async for solution in pool:
            settled.append(solution.problem.question)
            gate.set()
        assert settled[0] == QUESTIONS[0], "it settled while the source still waited"
        assert sorted(settled) == sorted(QUESTIONS[:5])
        gate = anyio.Event()
        gate.set()
        assert [solution.problem.question for solution in await one.solve_many(produce(), budget_tokens=2500)] == (
            QUESTIONS[:5]
        )
    assert pool.spent <= 2500


async def test_a_late_problem_gets_its_opening_while_another_is_at_work():
    policy = TinyPolicy(mean=15)
    arrived = anyio.Event()

    async def produce():
        yield QUESTIONS[0]
        await policy.started.wait()
        yield QUESTIONS[1]
        arrived.set()

    async with solver(policy) as one:
        solutions = await one.solve_many(produce(), budget_tokens=600)
    assert arrived.is_set()
    assert all(solution.candidates for solution in solutions)


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_source_that_fails_is_told_in_place_of_its_problem_and_those_that_came_are_solved(asynchronous):
    async def produce():
        yield QUESTIONS[0]
        raise RuntimeError("the source broke")

    def produce_at_once():
        yield QUESTIONS[0]
        raise RuntimeError("the source broke")

    policy = TinyPolicy()
    async with solver(policy) as one:
        pool = one.solve_many(produce() if asynchronous else produce_at_once(), budget_tokens=600)
        solved, failed = await pool
    assert solved.answer is not None
    assert isinstance(failed.error, SourceError)
    assert "the source broke" in failed.abstained
    assert pool.solutions == [solved, failed]
    assert not policy.in_flight


# ---- what goes wrong ------------------------------------------------------------------------------------------


class Picky(TinyPolicy):
    """Fails for good on prompts that hold a letter."""

    async def sample(self, request):
        if 100 + ord("4") in request.prompt_ids:
            raise EngineError("it does not like fours")
        return await super().sample(request)


async def test_a_problem_whose_calls_fail_comes_back_with_its_error_and_the_others_get_the_rest():
    async with solver(Picky()) as one:
        pool = one.solve_many(QUESTIONS[:8], budget_tokens=3000)
        solutions = await pool
    failed = [solution for solution in solutions if solution.error]
    assert [solution.problem.question for solution in failed] == ["how much is 4?"]
    assert isinstance(failed[0].error, EngineError)
    assert failed[0].answer is None
    assert "it does not like fours" in failed[0].abstained
    assert failed[0].explain()
    assert all(solution.answer for solution in solutions if not solution.error)
    assert pool.spent <= 3000
    assert Counter(one.standing for one in pool.report().problems)["failed"] == 1


async def test_a_problem_that_the_models_cannot_be_asked_is_returned_and_costs_nothing():
    long = "how " * 200 + "?"
    async with solver(TinyPolicy(max_context=300)) as one:
        fine, refused = await one.solve_many(["how much?", long], budget_tokens=600)
    assert fine.answer
    assert isinstance(refused.error, ConfigError)
    assert (refused.answer, refused.spent, refused.candidates) == (None, 0, ())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"problems": "how much?"}, "problems are several"),
        ({"problems": ["how?", " "]}, "the problem is empty"),
        ({"n": 4}, "leave out n"),
        ({"strategy": "greedy"}, "leave out strategy"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"deadline": -1}, "deadline"),
        ({"budget_tokens": 0}, r"does not pay for one token: give at least 20 \(generated\)"),
        ({"budget_tokens": 7.5}, "budget_tokens is a whole number; got 7.5"),
        ({"max_concurrency": 2.5}, "max_concurrency is a whole number; got 2.5"),
        ({"seed": "x"}, "seed is a whole number; got 'x'"),
        ({"per_problem_max": "5"}, "per_problem_max is a whole number; got '5'"),
        ({"budget_tokens": None}, "budget_tokens"),
        ({"count": "tokens"}, "unknown count"),
        ({"per_problem_max": 0}, "per_problem_max"),
        ({"min_gain": -1}, "min_gain is a gain per 1,000 units of at least 0; got -1"),
        ({"min_gain": float("nan")}, "min_gain is a gain per 1,000 units of at least 0; got nan"),
    ],
)
async def test_the_impossible_is_refused_at_once(arguments, words):
    wish = {"problems": QUESTIONS, "budget_tokens": 100, **arguments}
    async with solver() as one:
        with pytest.raises(ConfigError, match=words):
            one.solve_many(wish.pop("problems"), **wish)


async def test_with_less_than_an_opening_for_each_those_who_are_left_out_say_so():
    async with solver(TinyPolicy(mean=20)) as one:
        pool = one.solve_many(QUESTIONS, budget_tokens=120)
        solutions = await pool
    without = [solution for solution in solutions if not solution.candidates]
    assert 0 < len(without) < 12
    assert pool.spent <= 120
    assert {solution.trace.of(AllocationEvent)[-1].why for solution in without} == {
        "what was left did not pay for its opening, which takes at least 20 units"
    }
    assert {solution.stopped for solution in without} == {Stopped.BUDGET}


async def test_what_a_refusal_calls_enough_begins_a_problem_and_one_less_does_not():
    async with solver(TinyPolicy(mean=20)) as one:
        [less] = await one.solve_many(QUESTIONS[:1], budget_tokens=19)
        [enough] = await one.solve_many(QUESTIONS[:1], budget_tokens=20.0, max_concurrency=2.0, seed=1)
    assert (less.spent, less.candidates) == (0, ())
    assert "which takes at least 20 units" in less.abstained
    assert 0 < enough.spent <= 20


async def test_a_total_of_just_what_all_openings_take_finishes_every_one_though_many_are_cut():
    made = calibrated(opening=Opening("greedy", False, 15, 0))
    policy = TinyPolicy(mean=20)
    async with solver(policy, calibration=made) as one:
        free = await one.solve_many(QUESTIONS, budget_tokens=10_000)
    needed = sum(solution.spent for solution in free)
    assert sum(solution.spent > 15 for solution in free) >= 3
    async with solver(policy, calibration=made) as one:
        tight = await one.solve_many(QUESTIONS, budget_tokens=needed)
    assert [solution.answer for solution in tight] == [solution.answer for solution in free]
    assert sum(solution.spent for solution in tight) == needed


async def test_a_problem_that_is_over_is_handed_out_while_the_source_is_still_open():
    """A service feeds problems as answers come: one that gets no more must not wait for the last one to arrive."""
    answered = anyio.Event()

    async def source():
        for question in QUESTIONS[:3]:
            yield question
        with anyio.fail_after(20):
            await answered.wait()

    async with solver(TinyPolicy(mean=20)) as one:
        settled = 0
        async for _ in one.solve_many(source(), budget_tokens=180, max_concurrency=1):
            settled += 1
            if settled == 3:
                answered.set()
    assert settled == 3


async def test_what_is_no_problem_comes_back_with_its_error_and_the_others_are_solved():
    async def source():
        for question in ("how?", "", 5, "half \ud800", "why?"):
            yield question

    async with solver() as one:
        solutions = await one.solve_many(source(), budget_tokens=2000)
    words = [None if solution.error is None else str(solution.error) for solution in solutions]
    assert [bool(solution.answer) for solution in solutions] == [True, False, False, False, True]
    assert words[0] is words[4] is None
    assert "is empty" in words[1]
    assert "got 5" in words[2]
    assert "surrogate" in words[3]
    assert len({solution.problem.id for solution in solutions}) == 5


async def test_names_that_look_like_repeats_of_others_stay_apart():
    async with solver() as one:
        named = [Problem.of(f"{number}?", name) for number, name in enumerate(("q", "q", "q#2", "q"))]
        assert len(await one.solve_many(named, budget_tokens=2000)) == 4


async def test_openings_of_problems_that_may_not_have_much_are_not_scored():
    made = calibrated(*SAMPLES, opening=Opening("greedy", True, 40, 60))
    async with solver(calibration=made) as one:
        pool = one.solve_many(QUESTIONS, budget_tokens=100_000, per_problem_max=90, count="generated+prm")
        solutions = await pool
    assert all(solution.answer for solution in solutions)
    firsts = [problem.grants[0].units for problem in pool.report().problems]
    assert set(firsts) == {40}


# ---- early ends -----------------------------------------------------------------------------------------------


async def test_at_the_deadline_everything_settles_with_what_it_has():
    policy = TinyPolicy(chaos=1)
    async with solver(policy) as one:
        whole = one.solve_many(QUESTIONS, budget_tokens=5000)
        await whole
        policy.frozen = Everything()
        pool = one.solve_many(QUESTIONS[:4], budget_tokens=5000, deadline=0.05)
        solutions = await pool
    assert len(solutions) == 4
    assert all(solution.answer is None or solution.candidates for solution in solutions)
    assert {solution.trace.of(AllocationEvent)[-1].why for solution in solutions} == {"the deadline came"}
    assert {solution.stopped for solution in solutions} == {Stopped.DEADLINE}
    assert {one.ending.stopped for one in pool.report().problems} == {Stopped.DEADLINE}
    assert not policy.in_flight


async def test_a_stop_before_the_beginning_settles_everything_that_was_asked():
    async with solver() as one:
        pool = one.solve_many(QUESTIONS, budget_tokens=4000)
        pool.stop()
        solutions = await pool
        assert len(solutions) == 12
        assert pool.spent == 0
        stop = anyio.Event()
        stop.set()
        alone = await one.solve("how?", budget_tokens=2000, stop=stop)
    assert alone.answer is None
    assert alone.abstained


async def test_stop_settles_with_what_there_is():
    async with solver(TinyPolicy(chaos=1, mean=40)) as one:
        pool = one.solve_many(QUESTIONS, budget_tokens=100_000, max_concurrency=2)
        solutions = []
        async for solution in pool:
            solutions.append(solution)
            pool.stop()
    assert len(solutions) == 12
    assert sum(len(solution.candidates) for solution in solutions) < 12 * 17


async def test_leaving_the_loop_or_cancelling_ends_the_work_and_settles():
    policy = TinyPolicy(chaos=4)
    async with solver(policy) as one:
        async with one.solve_many(QUESTIONS, budget_tokens=3000, max_concurrency=2) as pool:
            async for _ in pool:
                break
        assert pool.final
        assert not policy.in_flight
        assert pool.spent == policy.delivered
        assert pool.report().promised == 0
        with pytest.raises(ConfigError, match="was ended"):
            await pool

        pool = one.solve_many(QUESTIONS, budget_tokens=3000)
        before = policy.delivered
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(all_of, pool)
                policy.frozen = Everything()
                while not policy.in_flight:
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
    assert pool.final
    assert not policy.in_flight
    assert pool.spent == policy.delivered - before
    assert pool.report().promised == 0


async def all_of(pool):
    return await pool


# ---- hard total -----------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    budget=st.integers(1, 3000),
    problems=st.integers(1, 10),
    concurrency=st.integers(1, 12),
    chaos=st.integers(0, 10_000),
    trouble=st.sampled_from([(0.0, 0.0), (0.1, 0.0), (0.1, 0.02)]),
    count=st.sampled_from(["generated", "generated+prm", "flops"]),
    cancelled=st.one_of(st.none(), st.integers(0, 300)),
    most=st.one_of(st.none(), st.integers(1, 400)),
)
def test_never_over_the_total(budget, problems, concurrency, chaos, trouble, count, cancelled, most):
    policy = TinyPolicy(chaos=chaos, failure=trouble[0], fatal=trouble[1], mean=25)
    units, limit = (budget, most) if count != "flops" else (2000 + 20 * budget, most and 2000 + 20 * most)

    async def run():
        async with solver(policy) as one:
            pool = one.solve_many(
                QUESTIONS[:problems],
                budget_tokens=units,
                per_problem_max=limit,
                max_concurrency=concurrency,
                count=count,
            )
            async with anyio.create_task_group() as tasks:
                solutions = []
                with anyio.CancelScope() as scope:
                    if cancelled is not None:
                        tasks.start_soon(after, cancelled, scope.cancel)
                    solutions = await pool
            return pool, solutions

    pool, solutions = anyio.run(run)
    report = pool.report()
    assert pool.spent == report.spent <= units
    assert report.promised == 0
    assert not policy.in_flight
    assert pool.usage.completion_tokens == policy.delivered
    if count == "generated":
        assert pool.spent == pool.usage.completion_tokens + pool.usage.lost_tokens
    if cancelled is None:
        assert len(solutions) == problems
        assert sum(solution.spent for solution in solutions) == pool.spent
    for one in report.problems:
        assert sum(grant.spent for grant in one.grants) == one.spent <= (limit or units)
        assert all(0 <= grant.spent <= grant.units for grant in one.grants)


async def after(turns, action):
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()
    action()


# ---- the report -----------------------------------------------------------------------------------------------


async def test_the_report_is_saved_and_drawn(tmp_path):
    async with solver() as one:
        pool = one.solve_many(QUESTIONS[:5], budget_tokens=800)
        await pool
    report = pool.report()
    report.save(tmp_path / "report.json")
    report.draw(tmp_path / "report.png")
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["spent"] == report.spent == sum(one["spent"] for one in data["problems"])
    assert len(data["prices"]) == sum(len(one["grants"]) for one in data["problems"])
    assert {grant["option"]["key"] for one in data["problems"] for grant in one["grants"][1:]} <= {
        f"{n} x sample" for n in range(1, 17)
    }
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
