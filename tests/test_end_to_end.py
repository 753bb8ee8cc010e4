"""The whole way, on the public fakes: a toy model that errs, and a PRM that is right in the main."""

import anyio
import pytest

from adaptive_ttc.errors import EngineError
from adaptive_ttc.events import RequestEvent
from adaptive_ttc.policies.fake import FakePolicy, toy_answer, toy_right_so_far
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver

QUESTIONS = [f"Add {' + '.join(str(7 * i % 50 + 3 * k) for k in range(6))}." for i in range(30)]


def fakes(error_rate=0.12, noise=1.0, **settings):
    return FakePolicy.generative(error_rate=error_rate, **settings), FakePRM.truthful(toy_right_so_far, noise=noise)


async def right(**arguments):
    policy, prm = fakes()
    async with Solver(policy, prm) as solver:
        solutions = [await solver.solve(question, **arguments) for question in QUESTIONS]
    return sum(solution.answer == toy_answer(solution.problem.question) for solution in solutions)


async def test_more_samples_and_a_prm_solve_more_problems():
    one = await right(strategy="majority", n=1)
    majority = await right(strategy="majority", n=16)
    weighted = await right(strategy="weighted_best_of_n", n=16)
    assert one < majority < weighted
    assert weighted >= majority + 4


@pytest.mark.parametrize("budget", [150, 700, 3000, 100_000])
async def test_reported_tokens_are_the_engines_own(budget):
    policy, prm = fakes(overrun=3, turn_tokens=1)
    async with Solver(policy, prm) as solver:
        solution = await solver.solve(QUESTIONS[0], budget_tokens=budget, strategy="weighted_best_of_n", n=12)
    usage = solution.usage
    assert usage.completion_tokens == policy.completion_tokens == solution.spent <= budget
    assert usage.num_calls == len(policy.requests)
    assert (usage.prm_tokens, usage.num_prm_calls) == (prm.prm_tokens, len(prm.requests))
    prompts = sum(len(request.prompt_ids) for request in policy.requests)
    assert usage.prompt_tokens + usage.cached_prompt_tokens == prompts


async def test_a_tight_budget_changes_no_sample_that_it_lets_end():
    policy, prm = fakes()
    async with Solver(policy, prm) as solver:
        free = await solver.solve(QUESTIONS[1], n=16)
        tight = await solver.solve(QUESTIONS[1], n=16, budget_tokens=free.spent)
    assert len(tight.trace.of(RequestEvent)) > 16
    finished = {one.prefix for one in tight.candidates if one.prefix.finished}
    assert len(finished) >= 14
    assert finished <= {one.prefix for one in free.candidates}


async def test_problems_share_the_engine_and_keep_their_results():
    alone_policy, prm = fakes()
    policy, _ = fakes(max_batch=5, turn_tokens=3)
    together = {}
    async with Solver(alone_policy, prm) as solver:
        alone = {question: await solver.solve(question, n=4, budget_tokens=400) for question in QUESTIONS[:8]}
    async with Solver(policy, fakes()[1]) as solver, anyio.create_task_group() as tasks:

        async def solve(question):
            together[question] = await solver.solve(question, n=4, budget_tokens=400)

        for question in QUESTIONS[:8]:
            tasks.start_soon(solve, question)
    assert policy.max_running == 5
    assert {q: one.candidates for q, one in together.items()} == {q: one.candidates for q, one in alone.items()}


async def test_a_lost_connection_costs_its_reservation_and_nothing_else():
    policy, prm = fakes()
    policy.lose_connection(after_tokens=10)
    async with Solver(policy, prm) as solver:
        solution = await solver.solve(QUESTIONS[2], n=4, max_tokens=300, budget_tokens=5000)
    calm_policy, prm = fakes()
    async with Solver(calm_policy, prm) as solver:
        calm = await solver.solve(QUESTIONS[2], n=4, max_tokens=300, budget_tokens=5000)
    assert solution.candidates == calm.candidates
    assert solution.usage.lost_tokens == 300
    assert solution.spent == calm.spent + 300


async def test_a_broken_engine_fails_the_run_with_its_own_error():
    policy, prm = fakes()
    policy.fail(EngineError("the engine died"), after_tokens=5)
    async with Solver(policy, prm) as solver:
        with pytest.raises(EngineError, match="the engine died"):
            await solver.solve(QUESTIONS[3], n=8)
    assert policy.in_flight == 0
    assert len(policy.aborted) == 7


async def test_stopping_counts_what_was_under_way():
    policy, prm = fakes()
    hold = policy.hold(lambda request: len(policy.requests) == 4, after_tokens=20)
    stop = anyio.Event()
    async with Solver(policy, prm) as solver, anyio.create_task_group() as tasks:
        solutions = []

        async def solve():
            solutions.append(await solver.solve(QUESTIONS[4], n=4, stop=stop))

        tasks.start_soon(solve)
        await hold.arrived.wait()
        stop.set()
    (solution,) = solutions
    aborted = [one for one in solution.candidates if one.prefix.finish == "abort"]
    assert [len(one.prefix.token_ids) for one in aborted] == [20] * len(aborted)
    assert aborted
    assert solution.usage.completion_tokens == policy.completion_tokens == solution.spent
