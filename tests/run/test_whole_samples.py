"""Policies that cannot go on from a begun solution: whole samples, each in one request, whoever decides how many."""

import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.events import RequestEvent, SearchEvent
from adaptive_ttc.policies.fake import FakePolicy, toy_right_so_far
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.run.retrace import retrace
from adaptive_ttc.solver import Solver
from adaptive_ttc.wrappers import WrappedPolicy

QUESTIONS = ["Add 1, 2 and 31.", "Add 3, 44, 5, 66 and 777.", "Add 6, 70, 888, 9 and 10.", "Add 11 and 12."]
MOST = 200


class WholePolicy(WrappedPolicy):
    """Refuses to go on from anything."""

    whole_samples = True

    async def sample(self, request):
        assert not request.stop
        assert request.messages
        return await super().sample(request)


def solver_of(*, prm):
    judge = FakePRM.truthful(toy_right_so_far) if prm else None
    return Solver(WholePolicy(FakePolicy.generative(error_rate=0.1)), judge)


def check(solution, budget):
    asked = list(solution.trace.of(RequestEvent))
    assert len(asked) == len({event.path for event in asked})
    assert all(event.position == 0 for event in asked)
    kinds = {event.options["kind"] for event in solution.trace.of(SearchEvent) if "kind" in event.options}
    assert not any(kind.startswith(("dvts", "beam_search")) for kind in kinds)
    assert solution.spent <= budget
    return asked


@pytest.mark.parametrize("count", ["generated", "generated+prm"])
@pytest.mark.parametrize("prm", [True, False], ids=["scored", "unscored"])
@pytest.mark.parametrize("factor", [0.5, 1, 2, 5, 20])
@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")
async def test_a_budget_alone_buys_them(factor, prm, count):
    budget = int(factor * MOST * (1 if count == "generated" or not prm else 5))
    async with solver_of(prm=prm) as solver:
        gain = 0.0 if factor == 20 else None  # else what agrees is not asked again
        solution = await solver.solve(QUESTIONS[1], budget_tokens=budget, count=count, max_tokens=MOST, min_gain=gain)
        assert (await retrace(solution.trace, solver.grader)).answer == solution.answer
    asked = check(solution, budget)
    assert asked
    if factor >= 1:
        assert asked[0].max_tokens == MOST
        assert solution.answer is not None
    if factor == 20:
        assert len(asked) > 4
        lost = [event for event in asked if event.finish == "length"]
        assert len(lost) <= 1


@pytest.mark.parametrize("prm", [True, False], ids=["scored", "unscored"])
@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")
async def test_a_budget_for_many_problems_buys_them(prm):
    budget = 3000
    async with solver_of(prm=prm) as solver:
        solutions = await solver.solve_many(QUESTIONS, budget_tokens=budget, max_tokens=MOST)
    assert all(solution.answer is not None for solution in solutions)
    for solution in solutions:
        check(solution, budget)
    assert sum(solution.spent for solution in solutions) <= budget


@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.RevisionWarning")
@pytest.mark.parametrize("budget", [100, 300, 1000, 4000])
@pytest.mark.parametrize("strategy", ["majority", "weighted_best_of_n", "revision"])
async def test_a_strategy_draws_them_within_any_budget_and_can_be_retraced(strategy, budget):
    async with solver_of(prm=True) as solver:
        solution = await solver.solve(QUESTIONS[1], strategy=strategy, n=8, budget_tokens=budget, max_tokens=MOST)
    asked = check(solution, budget)
    if budget >= MOST:
        assert solution.answer is not None
    if budget == 4000:
        assert len(asked) == 8
        assert (await retrace(solution.trace, solver.grader)).answer == solution.answer


async def test_a_thought_that_cannot_be_gone_on_with_is_not_prolonged():
    async with Solver(WholePolicy(FakePolicy.reasoning())) as solver:
        with pytest.raises(ConfigError, match="cannot go on with one: leave waits out"):
            await solver.solve(QUESTIONS[0], strategy="majority", n=2, waits=1)
