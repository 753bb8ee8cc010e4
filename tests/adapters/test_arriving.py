"""Problems that arrive one by one and are solved from one budget, however many come at once."""

import asyncio

import anyio
import pytest

from adaptive_ttc import Solver
from adaptive_ttc.adapters import arriving
from adaptive_ttc.adapters.arriving import ArrivingProblems
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.types import Problem

pytestmark = pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")

PROBLEMS = [Problem.of(f"What is {i} + 30 + 5?") for i in range(9)]


async def solved(problems, at_once, budget):
    limit, found = anyio.Semaphore(at_once), {}

    async def one(problem):
        async with limit:
            found[problem.id] = await problems.solve(problem)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for problem in PROBLEMS:
                tasks.start_soon(one, problem)
    assert sum(one.spent for one in found.values()) <= budget
    assert set(found) == {one.id for one in PROBLEMS}
    return [found[problem.id] for problem in PROBLEMS]


@pytest.mark.parametrize("at_once", [9, 4, 1])
async def test_all_are_solved_within_one_budget(at_once, monkeypatch):
    monkeypatch.setattr(arriving, "_PATIENCE", 0.01)
    async with Solver(FakePolicy.generative(error_rate=0.1)) as solver:
        problems = ArrivingProblems(solver, 3000, len(PROBLEMS))
        found = await solved(problems, at_once, 3000)
        assert problems.complete
    assert None not in [one.answer for one in found]
    assert sum(one.answer == str(i + 35) for i, one in enumerate(found)) >= 7


async def test_where_the_budget_is_spent_there_is_no_answer(monkeypatch):
    monkeypatch.setattr(arriving, "_PATIENCE", 0.01)
    async with Solver(FakePolicy.generative(error_rate=0.1)) as solver:
        found = await solved(ArrivingProblems(solver, 100, len(PROBLEMS)), 1, 100)
    assert any(one.answer is None for one in found)


async def test_what_cannot_be_solved_is_told_to_all():
    async with Solver(FakePolicy.generative()) as solver:
        with pytest.raises(ConfigError):
            await ArrivingProblems(solver, 100, 1, nothing=1).solve(PROBLEMS[0])


async def test_a_failure_is_told_to_all_who_wait_and_holds_up_nobody_later(monkeypatch):
    monkeypatch.setattr(arriving, "_PATIENCE", 0.01)
    async with Solver(FakePolicy.generative(error_rate=0.1)) as solver:
        problems, many = ArrivingProblems(solver, 3000, len(PROBLEMS)), solver.solve_many

        def fail(*arguments, **named):
            raise ConfigError("not today")

        monkeypatch.setattr(solver, "solve_many", fail)
        with anyio.fail_after(60):
            asked = [asyncio.create_task(problems.solve(problem)) for problem in PROBLEMS[:3]]
            await asyncio.sleep(0)
            asked[0].cancel()
            found = await asyncio.gather(*asked, return_exceptions=True)
            assert [type(one) for one in found] == [asyncio.CancelledError, ConfigError, ConfigError]
            monkeypatch.setattr(solver, "solve_many", many)
            later = await asyncio.gather(*map(problems.solve, PROBLEMS[3:]))
        assert [one.problem.id for one in later] == [one.id for one in PROBLEMS[3:]]
