"""A caller's check of answers: what a verdict does, and that a failing check costs one verdict."""

import threading

import anyio
import numpy as np
import pytest

from adaptive_ttc.errors import VerifyWarning
from adaptive_ttc.estimate.agreement import SHAPE
from adaptive_ttc.estimate.agreement_gain import AgreementGainModel
from adaptive_ttc.estimate.answer_prior import AnswerPrior, Component
from adaptive_ttc.estimate.features import Attempt, Evidence, Unit
from adaptive_ttc.events import AllocationEvent
from adaptive_ttc.run.retrace import retrace
from adaptive_ttc.run.verify import Verifier
from adaptive_ttc.solver import Solver
from adaptive_ttc.tasks import Signal
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import Problem, Stopped
from tests.doubles import TinyPolicy

pytestmark = pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")

QUESTIONS = [f"how much is {number}?" for number in range(6)]


class Check:
    """Knows that 2 is right; what it does not ``refute`` it does not know."""

    def __init__(self, *, right="2", refute=True):
        self.right, self.refute, self.asked = right, refute, []

    def __call__(self, problem, answer):
        self.asked.append((problem.question, answer))
        return True if answer == self.right else False if self.refute else None


class AsyncCheck(Check):
    async def __call__(self, problem, answer):
        await anyio.lowlevel.checkpoint()
        return super().__call__(problem, answer)


@pytest.mark.parametrize("check", [Check(), Check(refute=False), AsyncCheck()])
async def test_a_verified_answer_settles_its_problem_at_once(check):
    async with Solver(TinyPolicy(), verify=check) as solver:
        solutions = await solver.solve_many(QUESTIONS, budget_tokens=20_000)
    assert {one.answer for one in solutions} == {"2"}
    assert {(one.stopped, one.confidence) for one in solutions} == {(Stopped.SETTLED, 1.0)}
    assert {one.trace.of(AllocationEvent)[-1].why for one in solutions} == {"its answer was verified"}
    for one in solutions:
        *earlier, last = one.trace.of(AllocationEvent)
        assert last.action is None
        assert "2" not in {c.answer for c in one.candidates[: len(one.candidates) - (earlier[-1].at_once or 1)]}
    assert len(check.asked) == len(set(check.asked)), "every answer is asked about once"


async def test_a_class_that_gets_a_shorter_name_is_not_asked_about_again():
    half = {r"\frac{1}{2}": r"\frac{1}{2}"}
    shorter = dict.fromkeys((r"\frac{1}{2}", "0.5"), "0.5")
    for verdict, asked in ((False, [r"\frac{1}{2}", "7"]), (None, [r"\frac{1}{2}", "7"]), (True, [r"\frac{1}{2}"])):
        check = []
        verifier = Verifier(lambda problem, answer: check.append(answer) or verdict, Problem.of("?"), Signal())  # noqa: B023
        await verifier.ask(half)
        await verifier.ask({**shorter, "7": "7"})
        assert check == asked
        assert verifier.refuted("0.5") == (verdict is False)
        assert verifier.right == ("0.5" if verdict else None)  # as the evidence calls the class


async def test_refuted_answers_have_no_votes(tmp_path):
    async with Solver(TinyPolicy(), verify=Check(right="none of them")) as solver:
        solution = await solver.solve(QUESTIONS[0], budget_tokens=400)
        solution.trace.save(tmp_path / "trace.json")
        again = await retrace(Trace.load(tmp_path / "trace.json"), solver.grader)
    assert {one.verdict for one in solution.candidates if one.answer} == {False}
    assert (solution.answer, solution.answer_classes, solution.confidence) == (None, (), 0.0)
    assert "refuted" in solution.abstained
    assert solution.select_with("majority") is None
    assert again.candidates == solution.candidates
    assert again.abstained == solution.abstained
    assert solution.spent <= 400


async def test_a_named_strategy_takes_verdicts_into_its_vote():
    async with Solver(TinyPolicy()) as solver:
        plain = await solver.solve(QUESTIONS[1], strategy="majority", n=12)
        rare = plain.answer_classes[-1].answer
        assert rare != plain.answer
        solver.verify = Check(right=rare)
        found = await solver.solve(QUESTIONS[1], strategy="majority", n=12)
    assert (found.answer, found.confidence) == (rare, 1.0)
    assert plain.confidence is None


async def test_a_check_that_raises_or_hangs_costs_one_verdict():
    never = threading.Event()

    async def hangs(problem, answer):
        await anyio.sleep_forever()

    def blocks(problem, answer):
        never.wait()

    def raises(problem, answer):
        raise ZeroDivisionError(answer)

    def mumbles(problem, answer):
        return "yes"

    try:
        for verify in (hangs, blocks, raises, mumbles):
            asked = Verifier(verify, Problem.of("1 + 1?"), Signal(), patience=0.01)
            with pytest.warns(VerifyWarning, match="its verdict is None"):
                await asked.ask({"2": "2"})
            assert asked.right is None
            assert not asked.refuted("2")
    finally:
        never.set()
    async with Solver(TinyPolicy(), verify=raises) as solver:
        with pytest.warns(VerifyWarning, match="ZeroDivisionError"):
            checked = await solver.solve(QUESTIONS[2], budget_tokens=300)
        solver.verify = None
        plain = await solver.solve(QUESTIONS[2], budget_tokens=300)
    assert checked.answer_classes == plain.answer_classes


async def test_a_stop_ends_the_wait_for_verdicts():
    stop, begun = Signal(), anyio.Event()

    async def hangs(problem, answer):
        begun.set()
        await anyio.sleep_forever()

    asked = Verifier(hangs, Problem.of("1 + 1?"), stop)

    async def end():
        await begun.wait()
        stop.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end)
        await asked.ask({"2": "2", "3": "3"})
    assert asked.right is None


def test_outcomes_of_settled_problems_tell_a_pool_which_prior_is_its_own():
    def component(name, cell):
        weights = np.full(SHAPE, 1e-6)
        weights[cell, 2, 0] = 1.0
        return Component(name, "", "", 10, weights / weights.sum())

    def evidence(*answers, verified=None):
        units = tuple(Unit("sample", (Attempt(one, (), 50),), generated=50) for one in answers)
        return Evidence("?", 5, units, verified=verified)

    prior = AnswerPrior.of([component("hard", 1), component("easy", 10)])
    pool = AgreementGainModel(prior, tokens=50.0).pool()
    pool.learn([evidence("1")] * 20)
    (untold,) = pool.forecasts([evidence("1")])
    pool.learn([evidence("1", verified="1")] * 20)
    (told,) = pool.forecasts([evidence("1")])
    assert told.right > untold.right + 0.1
