"""Equal samples are scored once, whoever ends first, and what is charged for it is the same in any order."""

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_ttc.cost import Price
from adaptive_ttc.driver.driver import Driver
from adaptive_ttc.errors import EngineError
from adaptive_ttc.events import FinishedEvent, ScoredEvent
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.strategies import make_strategy
from adaptive_ttc.strategies.requests import Expand, Fork
from adaptive_ttc.types import ROOT, Prefix, Problem
from tests.doubles import TinyPolicy

PROBLEM = Problem.of("how much?", id="p")
STEP = ("\n\n",)


def scorer(**settings):
    return FakePRM(
        lambda question, steps: (len("".join(steps)) * 7 % 11) / 11,
        count=lambda request: 10 + sum(len(step) + 1 for step in request.steps),
        **settings,
    )


def drive(search, policy, *, budget=None, price=None, prm=None, evidence=()):
    prm, ledger = prm or scorer(), Ledger(budget)
    driver = Driver(PROBLEM, policy, ledger, prm=prm, price=price or Price(score=1))
    driver.observe(evidence)
    children = anyio.run(driver.run, search)
    statistics = ledger.statistics()
    assert (statistics.reserved, statistics.open_reservations) == (0, 0)
    assert budget is None or statistics.spent <= budget
    return children, driver, ledger, prm


def once(n=4, stop=(), **settings):
    return (yield from Expand(prefixes=(ROOT,), n=n, stop=stop, score=True, **settings))


def same(*texts):
    return FakePolicy.scripted({"how much?": list(texts)})


# ---- scored once ----------------------------------------------------------------------------------------------


def test_equal_samples_are_scored_once_and_all_get_the_score():
    children, driver, ledger, prm = drive(once(), same("so 1", "so 2", "so 1", "so 1"))
    assert sorted(request.steps for request in prm.requests) == [("so 1",), ("so 2",)]
    assert [one.scores for one in children] == [(4 * 7 % 11 / 11,)] * 4
    assert driver.usage.num_prm_calls == 2
    assert driver.usage.prm_tokens == prm.prm_tokens == 2 * 15
    assert ledger.spent == driver.usage.completion_tokens + 2 * 15


def test_the_score_of_an_equal_sample_is_on_the_trace_and_costs_nothing():
    children, driver, _, _ = drive(once(3), same("so 1", "so 1", "so 1"))
    scored = driver.trace.of(ScoredEvent)
    assert sorted(event.path for event in scored) == [one.path for one in children]
    assert sorted(event.prm_tokens for event in scored) == [0, 0, 15]
    assert {event.scores for event in scored} == {children[0].scores}


def test_every_finished_solution_is_told_of_once_and_with_its_score():
    children, driver, _, _ = drive(once(), same("so 1", "so 2", "so 1", "so 1"))
    told = {event.path: event.scores for event in driver.trace.of(FinishedEvent)}
    assert told == {one.path: one.scores for one in children}
    assert len(driver.trace.of(FinishedEvent)) == 4


def test_solutions_with_the_same_steps_are_equal_whatever_blank_lines_end_them():
    _, _, _, prm = drive(once(2), same("so 1\n\n", "so 1"))
    assert len(prm.requests) == 1


def test_a_solution_that_an_earlier_request_had_scored_is_not_scored_again():
    def search():
        first = yield from once(2)
        return first + (yield from once(2))

    children, _, _, prm = drive(search(), same("so 1", "so 2", "so 2", "so 1"))
    assert len(prm.requests) == 2
    assert all(one.scores for one in children)


def test_what_the_searches_of_a_fork_had_scored_is_known_afterwards():
    def search():
        yield from Fork(searches=(once(1), once(1)))
        return (yield from once(2))

    children, _, _, prm = drive(search(), same("so 1", "so 2", "so 2", "so 1"))
    assert len(prm.requests) == 2
    assert all(one.scores for one in children)


def test_scores_known_from_evidence_are_not_computed_again():
    evidence = Prefix((1, 0), "so 1", (0.25,), -1.0, "eos", (0,))
    children, _, ledger, prm = drive(once(2), same("so 1", "so 2"), evidence=(evidence,))
    assert [request.steps for request in prm.requests] == [("so 2",)]
    assert [one.scores for one in children] == [(0.25,), (4 * 7 % 11 / 11,)]
    assert ledger.spent == sum(len(one.token_ids) for one in children) + 15


def test_unscored_evidence_is_not_taken_for_a_score():
    evidence = Prefix((1, 0), "so 1", (), -1.0, "eos", (0,))
    _, _, _, prm = drive(once(1), same("so 1"), evidence=(evidence,))
    assert len(prm.requests) == 1


def test_a_step_that_was_cut_and_scored_is_charged_for_its_rest_alone():
    """The PRM reads every character of a path once, wherever it was cut."""

    def search(*cuts):
        parents = (ROOT,)
        for limit in cuts:
            parents = yield from Expand(prefixes=parents, max_tokens=limit, score=True)
            parents = tuple(
                Prefix(one.token_ids, one.text, one.scores, one.logprob, "budget", one.path) for one in parents
            )
        return (yield from Expand(prefixes=parents, score=True))

    spent = []
    for cuts in ((), (4,), (2, 9)):
        (child,), _, ledger, _ = drive(search(*cuts), FakePolicy.scripted({"how much?": ["one and two\n\nthree"]}))
        assert child.steps == ("one and two", "three")
        spent.append(ledger.spent - len(child.token_ids))
    assert spent == [10 + 12 + 6] * 3


def test_equal_samples_of_a_failed_score_fail_with_it():
    prm = scorer()
    prm.fail(EngineError("broken"))
    with pytest.raises(EngineError, match="broken"):
        drive(once(2), same("so 1", "so 1"), prm=prm)


def test_the_score_of_an_equal_sample_costs_nothing():
    free, *_ = drive(once(1), same("so 1"))
    cost = 2 * len(free[0].token_ids) + 15
    children, _, ledger, _ = drive(once(2), same("so 1", "so 1"), budget=10_000)
    assert ledger.spent == cost
    assert [bool(one.scores) for one in children] == [True, True]


# ---- in any order ---------------------------------------------------------------------------------------------


class Repetitive(TinyPolicy):
    """Writes few different texts, of different lengths, so that equal samples are common."""

    def next_token(self, request, before):
        return super().next_token(_Seeded(request), before)


class _Seeded:
    def __init__(self, request):
        self.seed, self.temperature = request.seed % 5, request.temperature


def charged(name, budget, chaos, **options):
    strategy = make_strategy(name, max_tokens=60, **options)
    policy = Repetitive(mean=12, step=3, chaos=chaos)
    candidates, driver, ledger, prm = drive(strategy.search(), policy, budget=budget)
    assert ledger.spent >= policy.delivered
    return candidates, ledger.spent, driver.usage.prm_tokens, len(prm.requests)


@settings(max_examples=60)
@given(
    strategy=st.sampled_from(
        [
            ("weighted_best_of_n", {"n": 8}),
            ("beam_search", {"n": 8, "beam_width": 2}),
            ("beam_search", {"n": 4, "beam_width": 2, "lookahead": 1}),
            ("dvts", {"n": 6, "beam_width": 2}),
            ("revision", {"n": 6, "sequential": 2}),
        ]
    ),
    budget=st.none() | st.integers(60, 900),
    chaos=st.integers(0, 10_000),
)
def test_what_is_charged_does_not_depend_on_the_order_in_which_samples_end(strategy, budget, chaos):
    name, options = strategy
    assert charged(name, budget, chaos, **options) == charged(name, budget, None, **options)


@pytest.mark.parametrize("last", [(0, 0), (1,)])
async def test_equal_solutions_from_different_beginnings_are_charged_alike_whichever_ends_first(last):
    """One is charged for the rest of a step that was scored when it was cut, the other for the whole step."""
    begun = Prefix(tuple(b"so"), "so", (0.5,), -1.0, "budget", (0,))
    policy = FakePolicy.scripted({"how much?": ["so 1"], ("how much?", "so"): [" 1"]})
    hold, ledger = policy.hold(lambda request: request.path == last), Ledger(100_000)
    driver = Driver(PROBLEM, policy, ledger, prm=scorer(), price=Price(score=1))
    driver.observe([begun])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(driver.run, expand_both(begun))
        for _ in range(200):
            await anyio.lowlevel.checkpoint()
        assert len(driver.trace.of(ScoredEvent)) == 1
        hold.release()
    assert {event.scores for event in driver.trace.of(ScoredEvent)} == {(4 * 7 % 11 / 11,)}
    assert ledger.spent == driver.usage.completion_tokens + 2 + 15


def expand_both(begun):
    return (yield from Expand(prefixes=(begun, ROOT), score=True))


def test_equal_samples_are_common_in_that_test():
    _, driver, _, _ = drive(
        make_strategy("weighted_best_of_n", n=8).search(), Repetitive(mean=12, step=3), budget=100_000
    )
    scored = driver.trace.of(ScoredEvent)
    assert 0 < sum(event.prm_tokens == 0 for event in scored) < len(scored)


@pytest.mark.parametrize("chaos", range(10))
def test_every_distinct_solution_is_charged_once_when_the_budget_is_ample(chaos):
    children, _, ledger, prm = drive(once(12, max_tokens=60), Repetitive(mean=12, step=3, chaos=chaos), budget=100_000)
    distinct = {one.steps for one in children if one.steps}
    assert len(distinct) < 12
    prices = [10 + sum(len(step) + 1 for step in steps) for steps in distinct]
    assert ledger.spent == sum(len(one.token_ids) for one in children) + sum(prices)
    assert prm.prm_tokens == sum(prices)
