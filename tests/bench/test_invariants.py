"""A thousand random runs of the whole solver over fake engines: what must hold, holds in all of them."""

import importlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from adaptive_ttc.answers import Grader
from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policies.fake import FakePolicy, Trouble, toy_right_so_far
from adaptive_ttc.policy import Sampled, SampleRequest
from adaptive_ttc.prm.base import Scored, ScoreRequest
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies import BeamSearch, strategy_names
from adaptive_ttc.types import Prefix, Problem

pytestmark = pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")

BENCH = Path(__file__).parents[2] / "bench"
RUNS = 1000
SHARES = 20


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("invariants")


@pytest.mark.parametrize("share", range(SHARES))
def test_what_must_hold_holds_in_random_runs(bench, share):
    size = RUNS // SHARES
    counts, found = bench.check_share(0, False, share * size, (share + 1) * size)
    assert found == {}
    assert {name: counts[name] for name in bench.VIOLATIONS} == dict.fromkeys(bench.VIOLATIONS, 0)
    assert counts["solutions"] > size / 2
    assert counts["calls"] > 2 * size


def test_what_must_hold_holds_in_random_pools_and_streams(bench):
    counts, found = bench.check_share(0, True, 0, 40)
    assert found == {}
    assert min(counts[name] for name in ("calm_runs", "solutions", "cancelled", "streams", "resumed")) > 0


def test_runs_of_every_kind_are_drawn(bench):
    cases = [bench.draw(0, index) for index in range(RUNS)]
    strategies = [case.request.get("strategy") for case in cases]
    for name in (None, *strategy_names()):
        assert strategies.count(name) > 20
    evidence = [one for one in strategies if one is not None and not isinstance(one, str)]
    assert {one.inner.name for one in evidence} == set(strategy_names())
    assert {one.begun > 0 for one in evidence} == {one.finished > 0 for one in evidence} == {True, False}
    for chosen in (
        lambda case: case.request["count"],
        lambda case: case.request.get("lookahead"),
        lambda case: case.prm,
    ):
        assert min(Counter(map(chosen, cases)).values()) > 20
    for early in ("deadline" in case.request for case in cases), (case.stopped_after is not None for case in cases):
        assert sum(early) > 20
    cancelled = Counter(case.natively for case in cases if case.cancelled_after is not None)
    assert min(cancelled[True], cancelled[False]) > 20
    for engine in range(2):
        troubles = [case.troubles[engine] for case in cases]
        assert sum(one.lost > 0 for one in troubles) > 50
        assert sum(one.fatal > 0 for one in troubles) > 20
    assert sum(case.troubles[0].deaf for case in cases) > 10
    assert sum(bench.owes_an_end(case) for case in cases) > 200


def test_a_run_is_the_same_whenever_it_is_repeated(bench):
    for index in range(40):
        first, again = (bench.carry_out(bench.draw(5, index), Grader()) for _ in range(2))
        assert [call.sampled for call in first.recorder.calls] == [call.sampled for call in again.recorder.calls]
        assert bench.result(first) == bench.result(again)


def calm(bench, **request):
    """A quiet run of a problem that takes several steps."""
    case = next(one for index in range(100) if (one := bench.draw(0, index)).calm and one.question.count("+") > 2)
    request = {"seed": 1, "count": "generated", "strategy": "majority", "n": 3, "max_tokens": 100} | request
    policy = {"error_rate": 0.0, "max_context": 4096}
    config = replace(case.config, attempts=2, finish_tokens=None)
    return replace(case, request=request, prm=True, prm_context=None, policy=policy, config=config)


def found_in(bench, case, spoil=lambda outcome: None):
    outcome = bench.carry_out(case, Grader())
    spoil(outcome)
    return {name for name, _ in bench.violations(case, outcome)}


def test_a_quiet_run_shows_nothing(bench):
    assert found_in(bench, calm(bench)) == set()


@pytest.mark.parametrize("count", ["generated", "generated+prm", "flops"])
@pytest.mark.parametrize("strategy", ["weighted_best_of_n", "beam_search", "revision"])
def test_a_charge_that_is_off_by_one_is_found(bench, count, strategy):
    options = {"n": 4, "temperature": 0.8}
    case = calm(bench, strategy=strategy, count=count, **options)
    assert found_in(bench, case) == set()

    def forget(outcome):
        outcome.recorder.ledgers[0]._spent -= 1

    assert "miscounted" in found_in(bench, case, forget)


def test_a_reply_that_nobody_counted_is_found(bench):
    def one_more(outcome):
        outcome.recorder.log.append(outcome.recorder.calls[0])

    assert found_in(bench, calm(bench), one_more) == {"miscounted"}


def test_a_reservation_and_a_request_left_open_are_found(bench):
    def leave_open(outcome):
        outcome.recorder.ledgers[0].reserve(1)
        outcome.prm.in_flight += 1

    assert found_in(bench, calm(bench), leave_open) == {"leaked_reservations", "leaked_requests"}


def test_an_account_that_promised_too_much_is_found(bench, monkeypatch):
    def careless(ledger, amount):
        ledger._granted += 1
        ledger._reserved += amount
        return True

    monkeypatch.setattr(Ledger, "_set_aside", careless)
    monkeypatch.setattr(Ledger, "available", property(lambda ledger: ledger.limit - ledger._spent - ledger._reserved))
    # an account that grants whatever is asked for, before a planner that asks for more than there is
    monkeypatch.setattr(
        "adaptive_ttc.driver.expand.plan_round", lambda terms, members: [one.remaining for one in members]
    )
    assert "overspent" in found_in(bench, calm(bench, budget_tokens=60))


def test_empty_hands_and_copies_are_found(bench):
    case = calm(bench, budget_tokens=100)
    assert bench.owes_an_end(case)
    assert not bench.owes_an_end(calm(bench, budget_tokens=99))
    assert not bench.owes_an_end(replace(case, stopped_after=1))

    def empty(outcome):
        outcome.solution = replace(outcome.solution, candidates=())

    def double(outcome):
        outcome.solution = replace(outcome.solution, candidates=outcome.solution.candidates * 2)

    assert found_in(bench, case, empty) == {"empty_handed"}
    assert found_in(bench, case, double) == {"duplicates"}


# ---- what such runs have brought to light ------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["beam_search", "dvts"])
@pytest.mark.parametrize("prm_context", [None, 45])
def test_looking_ahead_leaves_what_finishes_a_solution(strategy, prm_context):
    """Roll-outs once took the money that was kept for the beams."""
    question = "Add 13 + 5 + 4 + 6 + 8."
    for seed in range(12):
        for limit in (60, 150):
            policy = FakePolicy.generative(error_rate=0.05)
            prm = FakePRM.truthful(toy_right_so_far, max_context=prm_context)
            with Solver(policy, prm, seed=seed) as solver:
                solution = solver.solve_sync(
                    question,
                    strategy=strategy,
                    n=4,
                    beam_width=2,
                    lookahead=1 + seed % 3,
                    max_tokens=limit,
                    budget_tokens=limit + 7 * seed,
                )
            assert any(one.prefix.finish in ("eos", "length") for one in solution.candidates)


def test_a_finished_roll_out_is_handed_in_though_it_has_no_score():
    """It was once thrown away where the PRM could not read it, and the search ended with nothing."""
    first, second = (Prefix((7,), f"{name}\n\n", (0.5,), finish="stop", path=(name,)) for name in range(2))
    ended = Prefix((7, 8), "0\n\n\\boxed{1}", (), finish="eos", path=(0, 0))
    further = Prefix((7, 9), "1\n\n2\n\n", (0.5, 0.5), finish="stop", path=(1, 0))
    search = BeamSearch(n=2, beam_width=1, lookahead=1).search()
    next(search)
    search.send((first, second))
    steps = search.send((ended, further))
    assert steps.prefixes == (first, second)
    with pytest.raises(StopIteration) as returned:
        search.send(tuple(replace(one, finish="budget", path=(*one.path, 1)) for one in (first, second)))
    assert ended in returned.value.value


# ---- the fakes' troubles -----------------------------------------------------------------------------------------


async def outcomes(engine, calls):
    """What each of the calls, made at once, came to, in the order in which they came back."""
    back = []

    async def call(name):
        try:
            back.append((name, await engine(name)))
        except EngineError as error:
            back.append((name, error.retryable))

    async with anyio.create_task_group() as tasks:
        for name in calls:
            tasks.start_soon(call, name)
    return back


async def test_troubles_change_the_order_of_replies_and_nothing_else():
    names = [str(index) for index in range(12)]
    problem = "Add 3 + 4."

    async def replies(trouble):
        policy = FakePolicy.generative(trouble=trouble, turn_tokens=4)
        ids = policy.encode(Problem.of(problem))

        async def call(name):
            return await policy.sample(SampleRequest(id=name, prompt_ids=ids, max_tokens=40, seed=int(name)))

        return await outcomes(call, names)

    plain = await replies(None)
    slow, again = await replies(Trouble(seed=1, turns=6)), await replies(Trouble(seed=1, turns=6))
    assert slow == again
    assert [name for name, _ in slow] != [name for name, _ in plain]
    assert dict(slow) == dict(plain)


async def test_troubles_fail_calls_of_policy_and_prm_at_the_given_rates():
    trouble = {"lost": 0.3, "fatal": 0.2}
    policy = FakePolicy.generative(trouble=Trouble(seed=1, **trouble), max_batch=1000)
    prm = FakePRM(lambda question, steps: 0.5, trouble=Trouble(seed=2, **trouble))
    ids = policy.encode(Problem.of("Add 3 + 4."))

    async def sample(name):
        return await policy.sample(SampleRequest(id=name, prompt_ids=ids, max_tokens=1, seed=0))

    async def score(name):
        return await prm.score(ScoreRequest("q", (name,)))

    for call, kind in ((sample, Sampled), (score, Scored)):
        back = [reply for _, reply in await outcomes(call, [str(index) for index in range(400)])]
        assert 0.2 < back.count(True) / 400 < 0.4
        assert 0.1 < back.count(False) / 400 < 0.3
        assert sum(isinstance(reply, kind) for reply in back) == 400 - back.count(True) - back.count(False)
    assert policy.in_flight == prm.in_flight == 0


async def test_a_deaf_engine_ignores_aborts():
    policy = FakePolicy.generative(trouble=Trouble(seed=0, turns=2, deaf=True), turn_tokens=1)
    ids = policy.encode(Problem.of("Add 3 + 4."))
    async with anyio.create_task_group() as tasks:
        replies = []

        async def sample():
            replies.append(await policy.sample(SampleRequest(id="a", prompt_ids=ids, max_tokens=30, seed=0)))

        tasks.start_soon(sample)
        await anyio.lowlevel.checkpoint()
        await policy.abort("a")
    assert replies[0].finish in ("eos", "length")


@pytest.mark.parametrize("bad", [{"turns": -1}, {"lost": -0.1}, {"lost": 0.6, "fatal": 0.6}])
def test_impossible_troubles_are_refused(bad):
    with pytest.raises(ConfigError, match="probabilities"):
        Trouble(seed=0, **bad)
