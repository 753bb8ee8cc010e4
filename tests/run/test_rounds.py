"""Several units in one slice: each is evidence of its own, nothing overspends, and its trace is followed like any."""

from dataclasses import replace

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_ttc.answers import Grader
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.estimate.artefact import Calibrated, Opening
from adaptive_ttc.estimate.gain import Action, Forecast, GainModel, Option
from adaptive_ttc.events import RequestEvent, SearchEvent
from adaptive_ttc.run.retrace import retrace
from adaptive_ttc.solver import Solver
from adaptive_ttc.tracing.page import render
from adaptive_ttc.tracing.tree import search_tree
from adaptive_ttc.types import Stopped
from tests.doubles import TinyPolicy
from tests.run.test_adaptive import believer, calibrated

FAR_AWAY = {1: 0.01, 2: 0.02, 4: 0.05, 8: 0.4}  # eight units are worth much, four of them nearly nothing


class Seen(GainModel):
    """Forecasts by which a kind gains ``FAR_AWAY`` until 8 of it are there; remembers all evidence."""

    def __init__(self, kind, beyond=False):
        self.kind = kind
        self.beyond = beyond
        self.states = []

    def forecasts(self, states):
        self.states += states
        return [Forecast(0.5 if state.units else 0.0, tuple(self.options(state))) for state in states]

    def options(self, state):
        done = state.counts()[self.kind]
        return [
            replace(Option.in_tokens(Action(self.kind, n), gain, 160.0 * n, 160.0 * n), beyond=self.beyond)
            for n, gain in FAR_AWAY.items()
            if n + done <= 8
        ]


def solving(budget, kind="dvts-4", chaos=0, mean=30, beyond=False, **arguments):
    seen, made = Seen(kind, beyond), calibrated()
    made = Calibrated(made.table, None, seen, Opening("greedy", True, 80, 120), {})
    with Solver(TinyPolicy(mean=mean, step=3, chaos=chaos), believer(), calibration=made) as solver:
        return solver.solve_sync("how much?", budget_tokens=budget, **arguments), seen


def drawn(solution):
    return [
        (event.options["kind"], event.options["units"])
        for event in solution.trace.of(SearchEvent)
        if event.strategy == "slice"
    ]


@pytest.mark.parametrize("kind", ["dvts-4", "beam_search-4-2"])
def test_far_from_its_end_a_problem_gets_several_units_at_once_and_each_is_evidence(kind):
    solution, seen = solving(100_000, kind)
    assert drawn(solution)[:2] == [("greedy", 1), (kind, 4)]
    assert seen.states[-1].counts()[kind] == sum(units for name, units in drawn(solution) if name == kind) == 8
    units = [unit for unit in seen.states[-1].units if unit.kind == kind]
    assert all(unit.attempts and unit.first_steps and unit.generated for unit in units)
    assert sum(len(unit.attempts) for unit in units) == len(solution.candidates) - 1
    assert sum(unit.generated for unit in seen.states[-1].units) == solution.usage.completion_tokens
    assert solution.spent == solution.usage.completion_tokens


def test_it_is_followed_from_its_trace_and_drawn():
    solution, _ = solving(100_000)
    again = anyio.run(retrace, solution.trace, Grader())
    assert again == solution
    assert "8 x dvts-4" in solution.explain()
    assert "4 at once" in solution.explain()
    assert solution.answer in render(search_tree(solution.trace))


def test_what_was_extrapolated_is_marked():
    marked, plain = (solving(100_000, beyond=beyond)[0].explain() for beyond in (True, False))
    assert "8 x dvts-4*, +0.400" in marked
    assert "What is marked with * goes beyond what calibration recorded" in marked
    assert "*" not in plain


def test_the_order_of_replies_changes_nothing():
    calm, _ = solving(100_000)
    for chaos in (1, 2, 3):
        wild, _ = solving(100_000, chaos=chaos)
        assert [one.prefix for one in wild.candidates] == [one.prefix for one in calm.candidates]
        assert wild.spent == calm.spent


@given(st.integers(1, 3000), st.integers(5, 80), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_no_budget_is_ever_exceeded(budget, mean, chaos):
    solution, _ = solving(budget, chaos=chaos, mean=mean)
    assert solution.spent <= budget
    assert sum(len(event.token_ids) for event in solution.trace.of(RequestEvent)) == solution.spent


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_the_fewer_rounds_are_left_the_more_is_done_at_once(most):
    solution, _ = solving(100_000, max_rounds=most)
    assert len(drawn(solution)) == most
    if most == 1:
        assert solution.stopped == Stopped.NO_OPTION_FITS
        assert "its rounds were used up (max_rounds)" in solution.explain()
    elif most == 2:
        assert drawn(solution)[1] == ("dvts-4", 8)
    with pytest.raises(ConfigError, match="max_rounds"):
        solving(100, strategy="dvts", n=4, max_rounds=2)
    with pytest.raises(ConfigError, match="at least 1"):
        solving(100, max_rounds=0)


async def test_places_are_shared_by_the_problems_at_work():
    made = calibrated()
    made = Calibrated(made.table, None, Seen("dvts-4"), Opening("greedy", True, 80, 120), {})
    async with Solver(TinyPolicy(mean=30, step=3), believer(), calibration=made) as solver:
        crowded = await solver.solve_many(["how much?", "how many?"], budget_tokens=100_000, max_concurrency=2)
        roomy = await solver.solve_many(["how much?", "how many?"], budget_tokens=100_000, max_concurrency=8)
    assert drawn(crowded[0])[1] == ("dvts-4", 1)
    assert ("dvts-4", 4) in drawn(roomy[0])


async def test_a_deadline_that_leaves_time_for_one_slice_makes_it_a_large_one():
    seen = Seen("dvts-4")
    made = Calibrated(calibrated().table, None, seen, Opening("greedy", True, 80, 120), {})
    async with Solver(TinyPolicy(mean=30, step=3), believer(), calibration=made) as solver:
        solution = await solver.solve("how much?", budget_tokens=100_000, deadline=60.0)
        hurried = solver.solve_many(["how much?"], budget_tokens=100_000, deadline=60.0)
        hurried._scheduler._slices, hurried._scheduler._seconds = 1, 61.0  # as if slices took a minute
        (late,) = await hurried
    assert drawn(solution)[1] == ("dvts-4", 4)
    assert drawn(late)[1] == ("dvts-4", 8)
