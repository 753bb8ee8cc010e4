"""Why a problem got no more, and how sure its answer is: solution, words, page, report and retrace say the same."""

import anyio
import pytest

from adaptive_ttc.answers import Grader
from adaptive_ttc.driver.state import derive_seed
from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.estimate.gain import Action, Forecast, GainModel, Option
from adaptive_ttc.events import AllocationEvent, DoneEvent
from adaptive_ttc.run.retrace import retrace
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies.adaptive import GREEDY
from adaptive_ttc.tracing.page import render
from adaptive_ttc.tracing.tree import search_tree
from adaptive_ttc.types import Stopped
from tests.doubles import TinyPolicy
from tests.run.test_adaptive import SAMPLES, Everything, believer, calibrated, solve


def forecasting(right, *options):
    """A calibration that always says the same."""

    class Model(GainModel):
        def forecasts(self, states):
            return [Forecast(right if state.units else 0.0, tuple(options)) for state in states]

    made = calibrated()
    return Calibrated(made.table, None, Model(), made.opening, {})


def more(gain, tokens=20.0, kind="sample"):
    return Option.in_tokens(Action(kind, 1), gain, tokens, tokens)


CASES = {
    "nothing gains": ({"calibration": forecasting(0.9, more(-0.1))}, Stopped.SETTLED),
    "nothing is on offer": ({"calibration": forecasting(0.9)}, Stopped.NO_OPTION_FITS),
    "what gains is too dear": ({"calibration": forecasting(0.9, more(0.5, 5000.0))}, Stopped.NO_OPTION_FITS),
    "it gains too little": ({"calibration": forecasting(0.9, more(0.001)), "min_gain": 1.0}, Stopped.NOT_WORTH_IT),
    "all is spent": ({"calibration": forecasting(0.9, more(0.5))}, Stopped.BUDGET),
}


@pytest.mark.parametrize("case", CASES)
async def test_every_end_is_told_alike_wherever_it_is_told(case):
    asked, stopped = CASES[case]
    async with Solver(TinyPolicy(), believer(), calibration=asked.pop("calibration")) as solver:
        pool = solver.solve_many(["how much?"], budget_tokens=500, **asked)
        (solution,) = await pool
    (done,) = solution.trace.of(DoneEvent)
    (report,) = pool.report().problems
    assert solution.stopped == report.ending.stopped == stopped
    assert done.why == report.ending.why == solution.trace.of(AllocationEvent)[-1].why
    assert (solution.confidence, done.confidence) == (0.9, 0.9)
    assert f"Right with probability 0.90, stopped: {done.why}" in solution.explain()
    assert report.ending.why in report.explain()
    assert f"{stopped.value}: {done.why}; right with probability 0.90" in render(search_tree(solution.trace))
    again = await retrace(solution.trace, Grader())
    assert again == solution
    assert again.explain() == solution.explain()


def test_no_words_about_probability_where_there_is_no_answer():
    solution = solve(60, policy=TinyPolicy(mean=400), calibration=forecasting(0.43, more(0.2, 400.0, GREEDY)))
    assert (solution.answer, solution.confidence, solution.stopped) == (None, 0.0, Stopped.BUDGET)
    assert "probability" not in solution.explain()
    assert "Stopped: " in solution.explain()


@pytest.mark.filterwarnings("ignore:this pair has no calibration")
def test_without_a_calibration_confidence_is_not_known():
    with Solver(TinyPolicy(), believer()) as solver:
        solution = solver.solve_sync("how much?", budget_tokens=2000)
    assert solution.answer is not None
    assert solution.confidence is None
    assert "right with" not in render(search_tree(solution.trace))


@pytest.mark.parametrize("arguments", [{"budget_tokens": 50_000}, {"strategy": "majority", "n": 3}])
@pytest.mark.parametrize("late", [True, False])
async def test_a_deadline_and_a_callers_stop_are_told_apart(arguments, late):
    policy, stop = TinyPolicy(), anyio.Event()
    async with Solver(policy, believer(), calibration=calibrated(*SAMPLES)) as solver:
        policy.frozen = Everything()
        if not late:
            stop.set()
        solution = await solver.solve("how much?", deadline=0.01 if late else 60.0, stop=stop, **arguments)
    assert solution.stopped == (Stopped.DEADLINE if late else Stopped.STOPPED)
    assert ("the deadline came" in solution.explain()) == late
    assert ("it was stopped" in solution.explain()) != late
    assert "later deadline" not in solution.abstained or late


async def test_a_deadline_after_the_last_sample_ended_nothing():
    policy = TinyPolicy()
    async with Solver(policy) as solver:
        solution = await solver.solve("how much?", n=3, deadline=60.0)
        assert solution.stopped == Stopped.SETTLED
        policy.frozen.update(derive_seed(0, solution.problem.id, (index,)) for index in range(3))
        assert (await solver.solve("how much?", n=3, deadline=0.01)).stopped == Stopped.DEADLINE


@pytest.mark.parametrize("strategy", ["majority", "weighted_best_of_n", "dvts", "beam_search"])
def test_a_named_strategy_is_settled_once_it_has_done_all_and_else_tells_that_the_budget_ended_it(strategy):
    wish = {"strategy": strategy, "n": 8, "policy": TinyPolicy(mean=30, step=3)}
    whole, cut = solve(100_000, **wish), solve(100, **wish)
    assert (whole.stopped, whole.confidence) == (Stopped.SETTLED, None)
    assert "Stopped" not in whole.explain()
    assert cut.stopped == Stopped.BUDGET
    assert "Stopped early: the budget ended it." in cut.explain()


async def test_a_problem_that_fails_says_so():
    async with Solver(TinyPolicy(chaos=1, fatal=1.0), believer(), calibration=calibrated(*SAMPLES)) as solver:
        pool = solver.solve_many(["how much?"], budget_tokens=500)
        (solution,) = await pool
    assert (solution.stopped, solution.confidence) == (Stopped.FAILED, 0.0)
    assert pool.report().problems[0].ending.stopped == Stopped.FAILED
    assert "it failed" in solution.explain()
