"""A cascade opens problems by the second policy where a budget pays for it, and the first one's prompt comes later."""

from dataclasses import replace

import pytest

from adaptive_ttc.estimate.artefact import Opening
from adaptive_ttc.events import AllocationEvent
from adaptive_ttc.run.retrace import retrace
from tests.run.test_adaptive import slices
from tests.run.test_cascade import MIXED, QUESTIONS, TREES, by_second, cascade, solver

BOTH = Opening("greedy", True, 40, 60, second_generated=160, second_prm=60, second_from=2.0, second_scored_from=2.5)


def test_the_budget_decides_who_opens():
    prompt = 90.0
    assert BOTH.within(409, 1.0, 0.0, prompt) == BOTH
    assert BOTH.within(410, 1.0, 0.0, prompt) == Opening("second:greedy", True, 160, 60)
    assert BOTH.within(410, 1.0, 2.0, prompt) == Opening("second:greedy", False, 160, 60)
    assert BOTH.within(400, 1.0, 2.0) == Opening("second:greedy", True, 160, 60)
    assert not BOTH.within(399, 1.0, 2.0).scored
    assert not replace(BOTH, second_scored_from=0.0).within(10**6, 1.0, 2.0).scored, "never"
    assert replace(BOTH, second_scored_from=0.0).within(10**6, 1.0, 0.0).scored, "where scores are free"
    assert not replace(BOTH, scored=False).within(10**6, 1.0, 0.0).scored, "without a PRM"
    assert BOTH.within(820, 2.0, 0.0, 180).kind == "second:greedy"
    assert BOTH.within(819, 2.0, 0.0, 180).kind == "greedy"
    assert replace(BOTH, second_from=0.0).within(10**9, 1.0, 0.0).kind == "greedy"


@pytest.mark.parametrize(("budget", "opens"), [(300, "greedy"), (100_000, "second:greedy")])
async def test_a_problem_begins_with_the_policy_that_its_budget_affords(budget, opens):
    policy = cascade()
    async with solver(policy, arms=MIXED, opening=BOTH) as one:
        solution = await one.solve("how much?", budget_tokens=budget)
        again = await retrace(solution.trace, one.grader)
    assert slices(solution)[0] == (opens, 1)
    first = solution.trace.of(AllocationEvent)[0]
    assert (first.opening, first.action) == (True, f"1 x {opens}")
    assert again == solution
    assert solution.spent == policy.first.delivered + 4 * policy.second.inner.delivered <= budget


async def test_the_first_policys_prompt_is_charged_where_it_first_draws():
    policy = cascade()
    several = [(*one[:4], accuracy) for one, accuracy in zip(MIXED, (0.9, 0.5, 0.55), strict=True)]
    async with solver(policy, arms=several, opening=BOTH, prm=False) as one:
        solution = await one.solve("how much?", budget_tokens=10_000_000, count="flops")
        alone = await one.solve("how much?", budget_tokens=20_000, count="flops")
    prompt = len("how much?")
    kinds = [kind for kind, _ in slices(solution)]
    assert kinds[0] == "second:greedy"
    assert "sample" in kinds[1:]
    of_first = {event.action.split()[-1]: event for event in solution.trace.of(AllocationEvent) if event.action}
    costs = {name: cost for name, _, cost in of_first["sample"].considered}
    assert costs["4 x sample"] >= 20 * prompt
    assert slices(alone)[0][0] == "second:greedy"
    delivered = policy.first.delivered, policy.second.inner.delivered
    spent = solution.spent + alone.spent
    drew_first = 1 + any(not kind.startswith("second:") for kind, _ in slices(alone))
    assert spent == 20 * (delivered[0] + drew_first * prompt) + 80 * (delivered[1] + 2 * (prompt + 1))


@pytest.mark.parametrize("count", ["generated", "generated+prm", "flops"])
@pytest.mark.parametrize("factor", [1, 2, 3, 5, 9, 20])
async def test_a_tight_budget_is_never_overspent(count, factor):
    budget = {"generated": 100, "generated+prm": 300, "flops": 6000}[count] * factor
    eager = replace(BOTH, second_from=0.01)
    async with solver(arms=TREES, opening=eager) as one:
        solution = await one.solve("how much?", budget_tokens=budget, count=count)
        assert (await retrace(solution.trace, one.grader)).answer == solution.answer
    assert solution.spent <= budget


async def test_a_pool_is_opened_by_the_second_and_goes_on_where_it_was_cut(tmp_path):
    found = []
    for _ in range(2):
        async with solver(arms=MIXED, opening=BOTH) as one:
            pool = one.solve_many(QUESTIONS, budget_tokens=6000, checkpoint=tmp_path / "run.db")
            found.append((await pool, pool.spent))
    (whole, spent), (again, _) = found
    assert {slices(one)[0][0] for one in whole} == {"second:greedy"}
    assert all(by_second(one) for one in whole)
    assert spent <= 6000
    assert again == whole
