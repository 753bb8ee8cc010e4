"""A cascade opens problems by the second policy where a budget pays for it, and the first one's prompt comes later."""

from dataclasses import replace

import pytest

from adaptive_ttc.estimate.artefact import Opening
from adaptive_ttc.events import AllocationEvent, SearchEvent
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policies.cascade import Cascade
from adaptive_ttc.run.adaptive_problem import AdaptiveProblem
from adaptive_ttc.run.checkpointed import CheckpointedProblem
from adaptive_ttc.run.request import Resources, make_request
from adaptive_ttc.run.retrace import retrace
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies.adaptive import is_second
from adaptive_ttc.tasks import Signal
from adaptive_ttc.types import Problem
from tests.doubles import Shifted, TinyPolicy
from tests.run.test_adaptive import believer, calibrated, slices
from tests.run.test_cascade import MIXED, QUESTIONS, SECOND, TREES, WholeSecond, by_second, cascade, solver
from tests.run.test_checkpoint import Watched

BOTH = Opening("greedy", True, 40, 60, second_generated=160, second_prm=60, second_from=2.0, second_scored_from=2.5)


def test_the_budget_decides_who_opens():
    prompt = 90.0
    assert BOTH.within(409, 1.0, 0.0, 30.0, prompt) == BOTH
    assert BOTH.within(410, 1.0, 0.0, 30.0, prompt) == Opening("second:greedy", True, 160, 60)
    assert BOTH.within(410, 1.0, 2.0, 30.0, prompt) == Opening("second:greedy", False, 160, 60)
    assert BOTH.within(229, 1.0, 2.0, 30.0, prompt) == replace(BOTH, scored=False), "its own prompt"
    assert BOTH.within(230, 1.0, 2.0, 30.0, prompt) == BOTH
    assert BOTH.within(400, 1.0, 2.0) == Opening("second:greedy", True, 160, 60)
    assert not BOTH.within(399, 1.0, 2.0).scored
    assert not replace(BOTH, second_scored_from=0.0).within(10**6, 1.0, 2.0).scored, "never"
    assert replace(BOTH, second_scored_from=0.0).within(10**6, 1.0, 0.0).scored, "where scores are free"
    assert not replace(BOTH, scored=False).within(10**6, 1.0, 0.0).scored, "without a PRM"
    assert BOTH.within(820, 2.0, 0.0, 60.0, 180).kind == "second:greedy"
    assert BOTH.within(819, 2.0, 0.0, 60.0, 180).kind == "greedy"
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


@pytest.mark.parametrize(("each", "opens"), [(8_000, "greedy"), (10_000, "second:greedy")])
async def test_problems_on_one_budget_are_opened_alike_whatever_their_prompts(each, opens):
    """Alone, short ones would be opened by the second policy at either budget, and long ones by the first."""
    questions = ["?" * length for length in (1, 2, 3, 58, 59, 60)]
    async with solver(arms=MIXED, opening=BOTH, prm=False) as one:
        shared = await one.solve_many(questions, budget_tokens=each * len(questions), count="flops")
        alone = [await one.solve(question, budget_tokens=each, count="flops") for question in questions]
    assert [slices(solution)[0][0] for solution in shared] == [opens] * 6
    assert [slices(solution)[0][0] for solution in alone] == ["second:greedy"] * 3 + ["greedy"] * 3


def test_one_policy_opens_what_a_calibration_of_a_cascade_gives_the_second():
    with solver(TinyPolicy(), arms=MIXED, opening=BOTH) as one:
        solution = one.solve_sync("how much?", budget_tokens=100_000)
    assert slices(solution)[0] == ("greedy", 1)


async def test_the_second_does_not_open_where_a_budget_cannot_begin_its_whole_samples():
    """Else every opening waits for more than there is, and no problem gets one."""
    second = WholeSecond(Shifted(max_context=2000))
    async with solver(Cascade(TinyPolicy(), second), arms=MIXED, opening=BOTH) as one:
        found = await one.solve_many(QUESTIONS, budget_tokens=3000, max_tokens=1500)
    assert {slices(one)[0] for one in found} == {("greedy", 1)}
    assert all(one.answer is not None for one in found)


async def test_no_slice_begins_under_what_the_cheaper_policy_needs():
    resources = Resources(policy=cascade(), prm=None)
    request = make_request(Problem.of("how much?"), resources, options={}, budget=10_000)
    problem = AdaptiveProblem(request, resources, Ledger(10_000), Signal())
    problem.opened_by(BOTH, 10_000, problem.prompts)
    assert problem.opening.kind == "second:greedy"
    assert problem.least(1) == problem.least(1, "greedy") == 16 < problem.least(1, "second:greedy") == 64
    await resources.grader.aclose()


async def test_what_opened_a_problem_is_known_when_it_is_taken_up_again(tmp_path, monkeypatch):
    known, advance = [], CheckpointedProblem.advance

    async def watched(problem, todo, account, *, opening=False):
        drawn = [event.options["kind"] for event in problem.trace.of(SearchEvent)]
        known.append((problem.opening.kind, (*drawn, todo.kind)[0], problem.opening.scored, bool(drawn)))
        return await advance(problem, todo, account, opening=opening)

    policy = cascade()
    policy.second.inner.__class__ = Watched
    policy.second.inner.file, policy.second.inner.after, policy.second.inner.copied = tmp_path / "run.db", 8, False
    late, asked = replace(BOTH, second_from=6.0, scored=False), {"budget_tokens": 6000, "max_concurrency": 3}
    async with solver(policy, arms=MIXED, opening=late) as one:
        await one.solve_many(QUESTIONS, checkpoint=tmp_path / "run.db", **asked)
    monkeypatch.setattr(CheckpointedProblem, "advance", watched)
    async with solver(arms=MIXED, opening=late) as one:
        await one.solve_many(QUESTIONS, checkpoint=tmp_path / "left.db", **asked)
    assert ("second:greedy", "second:greedy", False, True) in known
    assert all(told == opened for told, opened, _, _ in known)


async def test_a_prompt_that_was_not_paid_for_is_due_when_a_problem_is_taken_up_again(tmp_path, monkeypatch):
    """Scores of solutions in hand were paid for, by a slice that had too little for its prompt."""
    paid, advance = [], CheckpointedProblem.advance

    async def starved(problem, todo, account, *, opening=False):
        less = account.child(problem._second.prompt_units - 1) if is_second(todo.kind) else account
        moved = await advance(problem, todo, less, opening=opening)
        less.close()
        again = CheckpointedProblem(
            problem._file, problem._number, problem.request, resources, problem._ledger, Signal()
        )
        await again.go_on_from(problem._file.enter(problem._number, problem.request.problem))
        paid.append((less.spent > 0, problem._second.driver.prompt_paid, again._second.driver.prompt_paid))
        return moved

    monkeypatch.setattr(CheckpointedProblem, "advance", starved)
    made = calibrated(*SECOND, opening=Opening("greedy", False, 40, 60))
    async with Solver(cascade(), believer(parameters=1), calibration=made, seed=0) as one:
        resources = one.resources
        await one.solve_many(QUESTIONS[:1], budget_tokens=400_000, count="flops", checkpoint=tmp_path / "run.db")
    assert paid[:2] == [(True, False, False)] * 2
