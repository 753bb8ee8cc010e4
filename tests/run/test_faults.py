"""Engines that go wrong in every way that we know of: no fault ends a pool, nothing is lost that was paid for."""

import asyncio
import random

import pytest

from adaptive_ttc.answers import Grader
from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.errors import AdaptiveTTCError, ConfigError, EngineError, OutageError
from adaptive_ttc.events import DecisionEvent
from adaptive_ttc.policies.fake import FakePolicy, toy_right_so_far
from adaptive_ttc.policies.faulty import POLICY_FAULTS, PRM_FAULTS, Fault, FaultyPolicy, FaultyPRM
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.run.retrace import retrace
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Stopped
from tests.doubles import virtually

pytestmark = pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")

QUESTIONS = [f"Add {number} + {number % 3 + 1}." for number in range(8)]
BUDGET = 8 * 250


@pytest.fixture(scope="module")
def grader():
    with Grader() as one:
        yield one


def solver(grader, policy_faults=(), prm_faults=(), **config):
    policy = FaultyPolicy(FakePolicy.generative(error_rate=0.0), *policy_faults)
    prm = FaultyPRM(FakePRM.truthful(toy_right_so_far), *prm_faults)
    return Solver(policy, prm, grader=grader, config=DriverConfig(**config))


async def solve_all(one, questions=QUESTIONS, budget=BUDGET, **settings):
    pool = one.solve_many(questions, budget_tokens=budget, max_tokens=200, **settings)
    solutions = await pool
    statistics = pool._scheduler.ledger.statistics()
    assert (statistics.reserved, statistics.open_reservations, statistics.open_children) == (0, 0, 0)
    assert pool.spent == sum(one.spent for one in solutions) <= budget
    assert [one.problem.question for one in solutions] == list(questions)
    for solution in solutions:
        usage = solution.usage
        assert solution.spent == usage.completion_tokens + usage.lost_tokens
        assert solution.answer is not None or solution.abstained
        assert solution.error is None or isinstance(solution.error, AdaptiveTTCError)
        assert (solution.error is not None) == (solution.stopped is Stopped.FAILED)
        assert solution.explain()
    return pool, solutions


@pytest.mark.parametrize("kind", POLICY_FAULTS)
@virtually
async def test_a_fault_of_the_policy_costs_one_call(grader, kind):
    one = solver(grader, [Fault(kind=kind, calls=(3,))])
    _, solutions = await solve_all(one)
    assert one.policy.struck.get(kind) or kind.startswith("abort")
    failed = [solution for solution in solutions if solution.error]
    if kind == "death":
        assert all(isinstance(solution.error, OutageError) for solution in failed)
        assert len(failed) > 4
    else:
        assert len(failed) == (kind in ("fatal", "config_error"))


@pytest.mark.parametrize("kind", PRM_FAULTS)
@virtually
async def test_a_fault_of_the_prm_costs_one_call(grader, kind):
    one = solver(grader, prm_faults=[Fault(kind=kind, calls=(2,))])
    _, solutions = await solve_all(one, budget=8 * 600, min_gain=0.0)
    failed = [solution for solution in solutions if solution.error]
    assert all(solution.answer is not None for solution in solutions)
    if kind != "death":
        assert len(failed) <= (kind == "fatal")


@pytest.mark.parametrize("kind", ["lost", "unavailable", "runtime_error", "nan_logprob", "hang", "none", "fatal"])
@virtually
async def test_a_tenth_of_all_calls_may_fail(grader, kind):
    of_prm = Fault(kind=kind if kind in PRM_FAULTS else "text", rate=0.1)
    one = solver(grader, [Fault(kind=kind, rate=0.1)], [of_prm], loss_share=0.2)
    questions = [f"Add {number} + {number % 7 + 1}." for number in range(40)]
    pool, solutions = await solve_all(one, questions, 40 * 250, max_rounds=2)
    assert one.policy.struck[kind] > 3
    answered = [solution for solution in solutions if solution.answer is not None]
    assert len(answered) >= (32 if kind == "fatal" else 40)  # a fatal one ends its problem, which has several calls
    if kind == "unavailable":
        assert pool.usage.lost_tokens == 0


@virtually
async def test_paid_answers_are_voted_on_when_a_problem_fails(grader):
    one = solver(grader, [Fault(kind="fatal", calls=(4,))])
    with pytest.raises(EngineError, match="broke down") as raised:
        await one.solve("Add 2 + 3.", strategy="majority", n=6, slice_size=3, budget_tokens=2000)
    solution = raised.value.solution
    assert solution.answer == "5"
    assert solution.error is raised.value
    assert len([one for one in solution.candidates if one.prefix.finished]) >= 3
    assert "broke down" in solution.explain()
    again = await retrace(solution.trace, grader)
    assert (again.answer, str(again.error), again.stopped) == ("5", str(solution.error), Stopped.FAILED)


@virtually
async def test_a_dead_engine_does_not_look_like_an_empty_budget(grader):
    one = solver(grader, [Fault(kind="lost")], patience=5.0)
    questions = [f"Add {number} + 1." for number in range(60)]
    pool, solutions = await solve_all(one, questions, 60 * 300)
    assert all(isinstance(solution.error, EngineError) for solution in solutions)
    assert all("the connection was lost" in solution.abstained for solution in solutions)
    assert all("the connection was lost" in solution.explain() for solution in solutions)
    assert pool.spent <= 0.1 * 60 * 300


@pytest.mark.parametrize("seconds", [1.0, 5.0])
@pytest.mark.parametrize("kind", ["lost", "unavailable", "runtime_error", "hang"])
@virtually
async def test_an_outage_costs_little_and_all_are_answered_after_it(grader, kind, seconds):
    one = solver(grader, [Fault(kind=kind, during=(0.0, seconds))], call_timeout=2.0, grace=0.1)
    questions = [f"Add {number} + {number % 7 + 1}." for number in range(60)]
    budget = 60 * 850
    pool, solutions = await solve_all(one, questions, budget, max_rounds=2)
    assert all(solution.answer is not None for solution in solutions)
    assert pool.usage.lost_tokens <= budget * (0.05 if seconds == 1.0 else 0.1)
    paused = [event for one in solutions for event in one.trace.of(DecisionEvent) if event.what == "paused"]
    assert paused


@virtually
async def test_calls_are_not_repeated_where_the_error_will_be(grader):
    one = solver(grader, [Fault(kind="config_error")])
    pool, solutions = await solve_all(one)
    assert all(isinstance(solution.error, ConfigError) for solution in solutions)
    assert one.policy.struck["config_error"] == len(QUESTIONS)
    assert pool.spent == 0


@virtually
async def test_losses_end_a_run_at_their_share(grader):
    one = solver(grader, [Fault(kind="lost", rate=0.6)], loss_share=0.05, attempts=9)
    budget = 8 * 1000
    pool, solutions = await solve_all(one, budget=budget)
    assert any(isinstance(solution.error, OutageError) for solution in solutions)
    assert pool.usage.lost_tokens <= 0.05 * budget + 40 * 64


@virtually
async def test_a_call_that_hangs_is_aborted_charged_and_repeated_and_holds_up_nobody(grader):
    one = solver(grader, [Fault(kind="hang", calls=(1,))], grace=1.0)
    pool, solutions = await solve_all(one)
    assert all(solution.answer is not None and solution.error is None for solution in solutions)
    told = [event.why for one in solutions for event in one.trace.of(DecisionEvent)]
    assert sum("did not come back" in why for why in told) == 1
    assert pool.usage.lost_tokens > 0


@pytest.mark.parametrize("kind", ["abort_error", "abort_hang"])
@virtually
async def test_an_abort_that_fails_holds_up_nobody(grader, kind):
    faults = [Fault(kind="hang", calls=(1, 2)), Fault(kind=kind)]
    one = solver(grader, faults, call_timeout=5.0, grace=1.0)
    _, solutions = await solve_all(one)
    assert one.policy.struck[kind] == 2
    assert all(solution.answer is not None for solution in solutions)


@virtually
async def test_a_deadline_bounds_scores_that_hang(grader):
    one = solver(grader, prm_faults=[Fault(kind="hang")])
    loop = asyncio.get_running_loop()
    began = loop.time()
    solution = await one.solve("Add 2 + 3.", strategy="weighted_best_of_n", n=4, budget_tokens=2000, deadline=1.0)
    assert solution.answer == "5"
    assert solution.vote == "majority"
    assert loop.time() - began < 3.0


@virtually
async def test_answers_that_cannot_be_compared_agree_by_their_text():
    class Broken(Grader):
        async def classes(self, answers):
            raise OSError("no more processes")

    one = solver(Broken())
    _, solutions = await solve_all(one)
    assert all(solution.answer is not None for solution in solutions)
    assert all("no more processes" in str(solution.error) for solution in solutions)


@virtually
async def test_what_ends_a_run_bounds_grading():
    class Slow(Grader):
        async def classes(self, answers):
            loop.call_later(50, pool.stop)  # when nothing else is at work any more
            await asyncio.sleep(1000)

    one, loop = solver(Slow()), asyncio.get_running_loop()
    pool = one.solve_many(QUESTIONS, budget_tokens=BUDGET, max_tokens=200)
    solutions = await pool
    assert all(solution.answer is not None and solution.error is None for solution in solutions)
    assert loop.time() < 53


@virtually
async def test_a_policy_that_decodes_now_and_then_ends_no_pool(grader):
    class Stammering(FakePolicy):
        def decode(self, token_ids):
            if chances.random() < 0.4:
                raise KeyError("no such piece")
            return super().decode(token_ids)

    chances = random.Random(0)
    async with Solver(Stammering.generative(), grader=grader) as one:
        solutions = await one.solve_many(QUESTIONS, budget_tokens=BUDGET, max_tokens=200)
    assert sum(solution.answer is not None for solution in solutions) > len(QUESTIONS) // 2
    assert all(solution.answer is not None or solution.abstained for solution in solutions)


@pytest.mark.parametrize("kind", ["lost", "hang"])
@virtually
async def test_what_is_under_way_when_an_engine_goes_is_a_twentieth_of_the_budget_at_most(grader, kind):
    slow, outage = Fault(kind="slow", seconds=0.02), Fault(kind=kind, during=(0.05, 1.05))
    one = solver(grader, call_timeout=5.0, grace=0.5)
    one.policy = FaultyPolicy(FaultyPolicy(FakePolicy.generative(), slow), outage)
    questions = [f"Add {number} + {number % 7 + 1}." for number in range(150)]
    pool, solutions = await solve_all(one, questions, 150 * 200)
    assert one.policy.struck[kind] > 0
    assert 0 < pool.usage.lost_tokens <= pool.report().budget / 20
    assert sum(solution.answer is None for solution in solutions) <= 1


@virtually
async def test_what_is_lost_and_when_an_engine_is_gone_and_back_is_logged(grader, caplog):
    one = solver(grader, [Fault(kind="lost", calls=tuple(range(9, 18)))], loss_share=0.5)
    caplog.set_level("INFO", "adaptive_ttc")
    await solve_all(one)
    told = [record.getMessage() for record in caplog.records if record.name == "adaptive_ttc.driver"]
    for beginning, ending in (
        ("32 units were charged for a call that failed: ", "the connection was lost"),
        ("the policy is gone (the connection was lost): paused for ", " s"),
        ("the policy is back after ", " s"),
    ):
        assert any(line.startswith(beginning) and line.endswith(ending) for line in told), told
