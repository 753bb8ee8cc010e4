import asyncio
from dataclasses import replace

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_ttc.cost import Price
from adaptive_ttc.driver.driver import Driver
from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.driver.state import derive_seed
from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.events import ForkEvent, RequestEvent, SampledEvent
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policy import Sampled
from adaptive_ttc.prm.base import Scored
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.strategies.requests import Expand, Fork
from adaptive_ttc.tasks import Signal
from adaptive_ttc.types import ROOT, Problem
from tests.doubles import TinyPolicy, in_virtual_time

PROBLEM = Problem.of("how much?", id="p")
STEP = ("\n\n",)


def whole(n, **settings):
    return (yield from Expand(prefixes=(ROOT,), n=n, **settings))


def last_ended_path(n, max_tokens=200, score=False, depth=60):
    """A tree search that goes on from the last child that ended a step, until a solution ends."""
    best = ROOT
    for _ in range(depth):
        children = yield from Expand(prefixes=(best,), n=n, stop=STEP, max_tokens=max_tokens, score=score)
        ended = [child for child in children if child.finish != "budget"]
        if not ended:
            return (best,)
        best = next((child for child in ended if child.finish != "stop"), ended[-1])
        if best.finish != "stop":
            return (best,)
    return (best,)


def drive(search, policy=None, budget=None, **settings):
    ledger = Ledger(budget)
    policy = policy or TinyPolicy()
    driver = Driver(PROBLEM, policy, ledger, **settings)
    prefixes = in_virtual_time(driver.run, search)
    assert_settled(ledger, policy, driver)
    return prefixes, driver, ledger, policy


def assert_settled(ledger, policy, driver):
    statistics = ledger.statistics()
    assert (statistics.reserved, statistics.open_reservations, statistics.open_children) == (0, 0, 0)
    assert statistics.limit is None or statistics.spent <= statistics.limit
    assert not policy.in_flight
    if driver._engines.price == Price():
        assert driver.usage.completion_tokens == policy.delivered
        assert statistics.spent == policy.delivered + driver.usage.lost_tokens


def scorer():
    return FakePRM(lambda question, steps: (len(steps[-1]) % 10) / 10, count=lambda r: 10 + sum(map(len, r.steps)))


# ---- enough money: everything at once -------------------------------------------------------------------------


def test_all_samples_are_in_flight_at_once_in_one_request_each():
    prefixes, driver, _, policy = drive(whole(16), budget=16 * 2048)
    assert policy.max_in_flight == 16
    assert len(policy.requests) == driver.usage.num_calls == 16
    assert all(prefix.finished for prefix in prefixes)


def test_children_come_in_order_and_carry_text_logprob_and_path():
    prefixes, _, _, policy = drive(whole(3))
    assert [prefix.path for prefix in prefixes] == [(0,), (1,), (2,)]
    for prefix in prefixes:
        assert prefix.text == policy.decode(prefix.token_ids)
        assert prefix.logprob == pytest.approx(-0.5 * len(prefix.token_ids))


def test_continuation_prompts_are_exactly_the_tokens_that_were_generated():
    """Trap 8."""
    _, driver, _, policy = drive(last_ended_path(2), TinyPolicy(mean=40))
    known = {(): ()}
    for event in driver.trace.of(RequestEvent):
        known[event.path] = known[event.path[:-1]] + event.token_ids
    assert len(policy.requests) > 4
    for request in policy.requests:
        prompt = policy.encode(PROBLEM)
        assert request.prompt_ids[: len(prompt)] == prompt
        assert request.prompt_ids[len(prompt) :] in known.values()


def test_solution_limit_counts_the_prefix_and_ends_a_sample_as_length():
    def search():
        (first,) = yield from Expand(prefixes=(ROOT,), max_tokens=3)
        (second,) = yield from Expand(prefixes=(first,), max_tokens=5)
        (third,) = yield from Expand(prefixes=(second,), max_tokens=5)
        return (first, second, third)

    prefixes, _, _, policy = drive(search(), TinyPolicy(mean=10_000))
    assert [len(prefix.token_ids) for prefix in prefixes] == [3, 5, 5]
    assert [prefix.finish for prefix in prefixes] == ["length"] * 3
    assert len(policy.requests) == 2


def test_a_step_that_uses_up_the_solutions_limit_ends_as_length():
    def steps(limit):
        return (yield from Expand(prefixes=(ROOT,), stop=STEP, max_tokens=limit))

    (free,), *_ = drive(steps(500), TinyPolicy(mean=500))
    (full,), *_ = drive(steps(len(free.token_ids)), TinyPolicy(mean=500))
    assert (free.finish, full.finish) == ("stop", "length")
    assert full.token_ids == free.token_ids


def test_the_context_bounds_a_sample():
    context = len(TinyPolicy().encode(PROBLEM)) + 7
    prefixes, *_ = drive(whole(2), TinyPolicy(mean=10_000, max_context=context))
    assert [(len(prefix.token_ids), prefix.finish) for prefix in prefixes] == [(7, "length")] * 2


def test_an_ended_solution_cannot_be_expanded():
    """Trap 4."""

    def search():
        children = yield from Expand(prefixes=(ROOT,))
        return (yield from Expand(prefixes=children))

    with pytest.raises(ValueError, match="has ended"):
        drive(search())


# ---- seeds: trap 10 -------------------------------------------------------------------------------------------


def test_seed_depends_on_run_problem_and_path_only():
    seeds = {
        derive_seed(run, problem, path) for run in (0, 1) for problem in "ab" for path in ((), (0,), (0, 1), (1, 0))
    }
    assert len(seeds) == 16
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, "p", (2, 3)) == derive_seed(1, "p", (2, 3))


def test_slices_continue_the_numbering_so_no_sample_is_drawn_twice():
    def sliced():
        done = ()
        for _ in range(4):
            done += yield from Expand(prefixes=(ROOT,), n=4)
        return done

    together, *_ = drive(whole(16))
    in_slices, *_ = drive(sliced())
    assert in_slices == together
    assert len({prefix.token_ids for prefix in together}) == 16


def test_the_same_prefix_twice_in_one_request_gets_different_children():
    def search():
        return (yield from Expand(prefixes=(ROOT, ROOT, ROOT), n=2))

    prefixes, *_ = drive(search())
    assert [prefix.path for prefix in prefixes] == [(i,) for i in range(6)]


def test_observed_evidence_is_not_drawn_again():
    drawn, *_ = drive(whole(3))

    async def main():
        driver = Driver(PROBLEM, TinyPolicy(), Ledger(None))
        driver.observe(drawn)
        return await driver.run(whole(2))

    more = anyio.run(main)
    assert [prefix.path for prefix in more] == [(3,), (4,)]


@settings(max_examples=60)
@given(
    chaos=st.tuples(st.integers(0, 99), st.integers(100, 199)),
    n=st.integers(1, 20),
    budget=st.integers(1, 600),
    price=st.sampled_from([Price(), Price(score=1), Price(decode=3, prompt=2, score=5)]),
)
def test_order_of_replies_changes_nothing(chaos, n, budget, price):
    results = []
    for seed in chaos:
        policy = TinyPolicy(chaos=seed)
        prefixes, driver, ledger, _ = drive(
            whole(n, max_tokens=150, score=True), policy, budget * price.decode, prm=scorer(), price=price, seed=7
        )
        calls = sorted((e.path, e.position, e.max_tokens, e.token_ids) for e in driver.trace.of(RequestEvent))
        results.append((prefixes, ledger.spent, calls))
    assert results[0] == results[1]


# ---- leases ---------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(n=st.integers(1, 24), budget=st.integers(0, 700), mean=st.sampled_from([5, 20, 60]), score=st.booleans())
def test_leases_do_not_change_the_samples_and_never_overspend(n, budget, mean, score):
    free, *_ = drive(whole(n, max_tokens=300), TinyPolicy(mean=mean))
    tight, _, ledger, _ = drive(whole(n, max_tokens=300, score=score), TinyPolicy(mean=mean), budget, prm=scorer())
    assert ledger.spent <= budget
    for one, other in zip(tight, free, strict=True):
        assert one.token_ids == other.token_ids[: len(one.token_ids)]
        assert one.finish == other.finish or one.finish == "budget"
        assert bool(one.scores) == (score and bool(one.steps))
    if any(prefix.finish == "budget" for prefix in tight):
        assert ledger.spent == budget


def test_a_budget_of_n_mean_lengths_runs_close_to_n_samples_side_by_side():
    free, *_ = drive(whole(16), TinyPolicy(mean=100))
    needed = sum(len(prefix.token_ids) for prefix in free)
    assert needed < 2048 * 2
    tight, _, _, policy = drive(whole(16), TinyPolicy(mean=100), needed)
    assert sum(prefix.finished for prefix in tight) >= 14
    assert policy.max_in_flight >= 15


@settings(max_examples=60)
@given(n=st.integers(1, 20), seed=st.integers(0, 10_000), extra=st.integers(0, 300))
def test_a_starved_crowd_still_finishes_one_sample(n, seed, extra):
    prefixes, *_ = drive(whole(n, max_tokens=200), TinyPolicy(mean=60), 200 + extra, seed=seed)
    assert any(prefix.finish in ("eos", "length") for prefix in prefixes)


@settings(max_examples=60)
@given(n=st.integers(1, 12), seed=st.integers(0, 10_000), extra=st.integers(0, 300))
def test_a_starved_tree_search_still_finishes_one_solution(n, seed, extra):
    search = last_ended_path(n, max_tokens=200)
    (prefix,), *_ = drive(search, TinyPolicy(mean=300), 200 + extra, seed=seed)
    assert prefix.finish in ("eos", "length")


def test_stop_strings_are_found_across_the_seam_of_two_leases():
    def steps(n):
        return (yield from Expand(prefixes=(ROOT,), n=n, stop=STEP, max_tokens=400))

    free, *_ = drive(steps(24), TinyPolicy(mean=400, step=40))
    lengths = {len(prefix.token_ids) for prefix in free}
    needed = sum(len(prefix.token_ids) for prefix in free)
    seams = 0
    for budget in range(420, needed, 7):
        tight, driver, _, _ = drive(steps(24), TinyPolicy(mean=400, step=40), budget)
        for one, other in zip(tight, free, strict=True):
            assert one.token_ids == other.token_ids[: len(one.token_ids)]
            assert one.text.count("\n\n") <= 1
        seams += sum(
            event.finish == "stop" and event.token_ids == (3,) and event.position > 0
            for event in driver.trace.of(RequestEvent)
        )
    assert len(lengths) > 3
    assert seams > 0


def test_a_renewal_does_not_see_the_stop_string_that_ended_the_step_before():
    _, _, _, policy = drive(last_ended_path(1), TinyPolicy(mean=60))
    assert len(policy.requests) > 2
    assert all(request.stop_context == "" for request in policy.requests)


def test_no_money_is_data_not_an_exception():
    prefixes, driver, _, policy = drive(whole(4, score=True), budget=0, prm=scorer())
    assert [prefix.finish for prefix in prefixes] == ["budget"] * 4
    assert not policy.requests
    assert driver.usage.num_prm_calls == 0


# ---- forks ----------------------------------------------------------------------------------------------------


def forked(parts, n):
    results = yield from Fork(searches=tuple(whole(n, max_tokens=100) for _ in range(parts)))
    after = yield from Expand(prefixes=(ROOT,), n=2, max_tokens=100)
    return tuple(prefix for result in results for prefix in result) + after


@settings(max_examples=30)
@given(chaos=st.integers(0, 1000), budget=st.integers(0, 900))
def test_forks_share_equally_and_do_not_depend_on_who_asks_first(chaos, budget):
    calm, driver, _, _ = drive(forked(3, 4), TinyPolicy(), budget)
    wild, _, _, _ = drive(forked(3, 4), TinyPolicy(chaos=chaos), budget)
    assert calm == wild
    (event,) = driver.trace.of(ForkEvent)
    assert sum(event.limits) == budget
    assert max(event.limits) - min(event.limits) <= 1


@settings(max_examples=40)
@given(parts=st.integers(1, 6), n=st.integers(1, 4), seed=st.integers(0, 10_000), extra=st.integers(0, 500))
def test_a_starved_fork_still_finishes_one_solution_and_wastes_nothing(parts, n, seed, extra):
    def search():
        results = yield from Fork(searches=tuple(last_ended_path(n) for _ in range(parts)), least=200)
        return tuple(prefix for result in results for prefix in result)

    budget = 200 + extra
    prefixes, driver, _, _ = drive(search(), TinyPolicy(mean=40), budget, seed=seed)
    wild, *_ = drive(search(), TinyPolicy(mean=40, chaos=seed), budget, seed=seed)
    assert prefixes == wild
    assert len(prefixes) == parts
    assert any(prefix.finish in ("eos", "length") for prefix in prefixes)
    first, *rest = (event.limits for event in driver.trace.of(ForkEvent))
    if budget // parts >= 200:
        assert (len(first), rest) == (parts, [])
    else:
        assert first == (200,)
        events = list(driver.trace)
        before = events[: events.index(driver.trace.of(ForkEvent)[-1])]
        spent_by_first = sum(len(event.token_ids) for event in before if isinstance(event, RequestEvent))
        assert sum(rest[0]) == budget - spent_by_first


def test_samples_of_a_fork_are_those_that_one_search_would_draw():
    prefixes, *_ = drive(forked(3, 4))
    assert sorted(prefix.path for prefix in prefixes) == [(i,) for i in range(14)]
    together, *_ = drive(whole(14, max_tokens=100))
    assert sorted(prefixes, key=lambda prefix: prefix.path) == list(together)


def test_forks_in_forks_never_share_a_path():
    def inner(n):
        results = yield from Fork(searches=(whole(n), whole(n)))
        return tuple(prefix for result in results for prefix in result)

    def outer():
        yield from Expand(prefixes=(ROOT,), n=3)
        results = yield from Fork(searches=(inner(2), whole(5), inner(1)))
        yield from Expand(prefixes=(ROOT,), n=1)
        return tuple(prefix for result in results for prefix in result)

    _, driver, _, _ = drive(outer())
    paths = [event.path for event in driver.trace.of(SampledEvent)]
    assert len(paths) == len(set(paths)) == 15


# ---- cancellation and stopping --------------------------------------------------------------------------------


async def cancelled_half_way(cancel):
    """Runs 8 samples of which the first never ends by itself, and cancels when the others have ended."""
    frozen = derive_seed(0, PROBLEM.id, (0,))
    policy, ledger = TinyPolicy(frozen={frozen}), Ledger(5000)
    driver = Driver(PROBLEM, policy, ledger)
    task = asyncio.create_task(driver.run(whole(8, max_tokens=100)))
    while len(driver.trace.of(SampledEvent)) < 7:
        await anyio.lowlevel.checkpoint()
    assert len(policy.in_flight) == 1
    cancel(task)
    with pytest.raises(asyncio.CancelledError):
        await task
    return policy, ledger, driver


async def test_cancelling_the_task_aborts_counts_settles_and_goes_on():
    policy, ledger, driver = await cancelled_half_way(lambda task: task.cancel())
    assert len(policy.aborted) == 1
    assert_settled(ledger, policy, driver)
    assert driver.usage.lost_tokens == 0


async def test_cancelling_twice_changes_nothing():
    policy, ledger, driver = await cancelled_half_way(lambda task: (task.cancel(), task.cancel()))
    assert_settled(ledger, policy, driver)


@settings(max_examples=60)
@given(turns=st.integers(0, 200), chaos=st.integers(0, 1000), budget=st.none() | st.integers(0, 900))
def test_cancelling_at_any_moment_counts_every_token(turns, chaos, budget):
    """Trap 6."""

    async def main():
        policy, ledger = TinyPolicy(chaos=chaos), Ledger(budget)
        driver = Driver(PROBLEM, policy, ledger, prm=scorer())
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(driver.run, forked(2, 3))
                tasks.start_soon(driver.run, whole(2, score=True))
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
        assert_settled(ledger, policy, driver)
        assert driver.usage.lost_tokens == 0

    anyio.run(main)


async def test_a_policy_that_ignores_aborts_is_charged_in_full_after_the_grace():
    frozen = {derive_seed(0, PROBLEM.id, (index,)) for index in range(2)}
    policy, ledger = TinyPolicy(frozen=frozen, deaf=True), Ledger(2000)
    driver = Driver(PROBLEM, policy, ledger, config=DriverConfig(grace=0))
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(driver.run, whole(2, max_tokens=300))
            await policy.started.wait()
            scope.cancel()
    assert_settled(ledger, policy, driver)
    assert driver.usage.lost_tokens == ledger.spent == 600


async def test_stop_returns_what_is_there_and_starts_nothing_new():
    frozen = derive_seed(0, PROBLEM.id, (0,))
    stop = Signal()
    policy, ledger = TinyPolicy(frozen={frozen}), Ledger(None)
    driver = Driver(PROBLEM, policy, ledger, prm=scorer(), stop=stop)
    replies = []

    def search():
        replies.append((yield from Expand(prefixes=(ROOT,), n=4, score=True)))
        replies.append((yield from Expand(prefixes=(ROOT,), n=4, score=True)))
        return replies[0]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(driver.run, search())
        while len(driver.trace.of(SampledEvent)) < 3:
            await anyio.lowlevel.checkpoint()
        stop.set()
    assert [prefix.finish for prefix in replies[0]] == ["abort", "eos", "eos", "eos"]
    assert all(prefix.scores for prefix in replies[0][1:])
    assert [(prefix.finish, prefix.token_ids) for prefix in replies[1]] == [("abort", ())] * 4
    assert len(policy.requests) == 4
    assert_settled(ledger, policy, driver)


# ---- failures -------------------------------------------------------------------------------------------------


class Failing(TinyPolicy):
    """Fails the calls whose numbers are listed."""

    def __init__(self, failures, error, **settings):
        super().__init__(**settings)
        self.failures, self.error, self.calls = failures, error, 0

    async def _generate(self, request):
        self.calls += 1
        if self.calls in self.failures:
            raise self.error
        return await super()._generate(request)


def test_a_call_that_failed_is_charged_in_full_and_repeated():
    calm, *_ = drive(whole(3, max_tokens=100))
    policy = Failing({2}, EngineError("gone", retryable=True))
    prefixes, driver, ledger, _ = drive(whole(3, max_tokens=100), policy, 400)
    assert prefixes == calm
    assert driver.usage.lost_tokens == 100
    assert driver.usage.num_calls == 4
    assert ledger.spent == driver.usage.completion_tokens + 100


def test_a_lost_call_may_leave_nothing_to_repeat_it_with():
    policy = Failing({1}, EngineError("gone", retryable=True))
    prefixes, driver, ledger, _ = drive(whole(1, max_tokens=100), policy, 64)
    assert [prefix.finish for prefix in prefixes] == ["budget"]
    assert ledger.spent == driver.usage.lost_tokens == 64


def test_failing_too_often_raises_the_error_itself():
    policy = Failing(set(range(99)), EngineError("gone", retryable=True))
    with pytest.raises(EngineError, match="gone"):
        drive(whole(1), policy)
    assert policy.calls == 3


@pytest.mark.parametrize("error", [EngineError("broken"), ConfigError("cannot")])
async def test_a_final_failure_aborts_the_others_settles_and_is_raised_as_itself(error):
    frozen = {derive_seed(0, PROBLEM.id, (index,)) for index in range(4)}
    policy, ledger = Failing({6}, error, frozen=frozen), Ledger(10_000)
    driver = Driver(PROBLEM, policy, ledger)

    def search():
        yield from Fork(searches=(whole(4, max_tokens=100), whole(4, max_tokens=100)))
        return ()

    with pytest.raises(type(error)) as raised:
        await driver.run(search())
    assert raised.value is error
    assert driver.usage.lost_tokens == (100 if error.generated else 0)
    assert_settled(ledger, policy, driver)


def test_a_policy_that_delivers_too_much_is_an_engine_error():
    class Greedy(TinyPolicy):
        async def _generate(self, request):
            return Sampled(token_ids=(1,) * (request.max_tokens + 1), finish="length")

    policy, ledger = Greedy(), Ledger(100)
    driver = Driver(PROBLEM, policy, ledger)
    with pytest.raises(EngineError, match="must be obeyed"):
        in_virtual_time(driver.run, whole(1, max_tokens=10))
    assert (ledger.spent, ledger.statistics().reserved) == (30, 0)


@settings(max_examples=80)
@given(
    chaos=st.integers(0, 10_000),
    n=st.integers(1, 12),
    budget=st.none() | st.integers(0, 1500),
    failure=st.sampled_from([0.0, 0.1, 0.5]),
    fatal=st.sampled_from([0.0, 0.02]),
)
def test_random_failures_never_overspend_or_leak(chaos, n, budget, failure, fatal):
    policy, ledger = TinyPolicy(chaos=chaos, failure=failure, fatal=fatal), Ledger(budget)
    driver = Driver(PROBLEM, policy, ledger, prm=scorer())
    try:
        prefixes = in_virtual_time(driver.run, whole(n, max_tokens=200, score=True))
    except EngineError:
        pass
    else:
        assert len(prefixes) == n
    assert_settled(ledger, policy, driver)


# ---- scoring --------------------------------------------------------------------------------------------------


async def test_a_sample_is_scored_while_others_are_still_generated():
    frozen = derive_seed(0, PROBLEM.id, (0,))
    policy, prm, stop = TinyPolicy(frozen={frozen}), scorer(), Signal()
    driver = Driver(PROBLEM, policy, Ledger(None), prm=prm, stop=stop)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(driver.run, whole(3, score=True))
        while driver.usage.num_prm_calls < 2 or driver.usage.prm_tokens == 0:
            await anyio.lowlevel.checkpoint()
        assert len(policy.in_flight) == 1
        stop.set()


def test_every_step_gets_a_score_and_the_usage_is_the_prms():
    prm = scorer()
    prefixes, driver, _, _ = drive(whole(5, score=True), TinyPolicy(mean=60), prm=prm)
    assert max(len(prefix.steps) for prefix in prefixes) > 2
    assert all(len(prefix.scores) == len(prefix.steps) for prefix in prefixes)
    assert driver.usage.prm_tokens == prm.prm_tokens
    assert driver.usage.num_prm_calls == len(prm.requests) == 5


def test_the_empty_piece_after_the_last_blank_line_is_no_step():
    """Trap 3: a step ends with its blank line, and what a naive split leaves behind it is not scored."""
    prm = scorer()

    def search():
        first = yield from Expand(prefixes=(ROOT,), stop=STEP, max_tokens=400, score=True)
        return (yield from Expand(prefixes=first, stop=STEP, max_tokens=400, score=True))

    (prefix,), *_ = drive(search(), TinyPolicy(mean=500), prm=prm)
    assert prefix.text.endswith("\n\n")
    assert [len(request.steps) for request in prm.requests] == [1, 2]
    assert all(step.strip() for request in prm.requests for step in request.steps)
    assert prefix.scores == tuple((len(step) % 10) / 10 for step in prefix.steps)


def test_a_child_that_got_nothing_keeps_its_parents_scores_and_is_not_scored_again():
    def search():
        parents = yield from Expand(prefixes=(ROOT,), stop=STEP, max_tokens=50, score=True)
        children = yield from Expand(prefixes=parents, stop=STEP, max_tokens=len(parents[0].token_ids), score=True)
        return parents + children

    prm = scorer()
    (parent, child), *_ = drive(search(), TinyPolicy(mean=500), prm=prm)
    assert child.scores == parent.scores != ()
    assert len(prm.requests) == 1


def test_scores_without_a_prm_are_refused():
    with pytest.raises(ConfigError, match="give the solver a PRM"):
        drive(whole(1, score=True))


def test_a_prm_that_cannot_read_a_solution_leaves_it_unscored():
    prm = FakePRM(lambda question, steps: 0.5, count=lambda r: sum(map(len, r.steps)), max_context=40)
    for price in (Price(), Price(score=1)):
        prefixes, driver, _, _ = drive(whole(8, score=True), TinyPolicy(mean=40), prm=prm, price=price, budget=20_000)
        assert {bool(prefix.scores) for prefix in prefixes} == {True, False}
        assert any("unscored" in event.what for event in driver.trace if event.kind == "decision")


def test_a_failed_score_is_repeated_then_raised():
    prm = scorer()
    prm.fail(EngineError("busy", retryable=True), times=2)
    prefixes, driver, _, _ = drive(whole(1, score=True), prm=prm)
    assert prefixes[0].scores
    assert driver.usage.num_prm_calls == 3
    prm.fail(EngineError("busy", retryable=True), times=3)
    with pytest.raises(EngineError, match="busy"):
        drive(whole(1, score=True), prm=prm)


def test_a_prm_with_a_wrong_number_of_scores_is_an_engine_error():
    class Short(FakePRM):
        async def score(self, request):
            return Scored(scores=(0.5,), prm_tokens=1)

    with pytest.raises(EngineError, match="1 scores for"):
        drive(whole(6, score=True), TinyPolicy(mean=100), prm=Short(lambda question, steps: 0.5))


# ---- what a budget bounds -------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(n=st.integers(1, 10), budget=st.integers(0, 3000), chatter=st.integers(1, 9))
def test_generated_and_prm_tokens_are_bounded_together(n, budget, chatter):
    prm = FakePRM(lambda question, steps: 0.5, count=lambda r: 10 + chatter * sum(map(len, r.steps)))
    _, driver, ledger, policy = drive(
        whole(n, max_tokens=200, score=True), TinyPolicy(), budget, prm=prm, price=Price(score=1)
    )
    assert policy.delivered + prm.prm_tokens == ledger.spent <= budget
    assert driver.usage.prm_tokens == prm.prm_tokens


def test_a_step_is_charged_once_after_its_parents():
    prm = FakePRM(lambda question, steps: 0.5, count=lambda r: 10 + sum(map(len, r.steps)))
    search = last_ended_path(1, score=True)
    (prefix,), _, ledger, policy = drive(search, TinyPolicy(mean=60), prm=prm, price=Price(score=1))
    assert len(prefix.steps) > 2
    assert ledger.spent == policy.delivered + 10 + sum(map(len, prefix.steps))
    assert prm.prm_tokens > ledger.spent - policy.delivered


def test_flops_charge_the_prompt_once_a_problem():
    price = Price(decode=20, prompt=20)
    _, _, ledger, policy = drive(whole(5), price=price)
    assert ledger.spent == 20 * (policy.delivered + len(policy.encode(PROBLEM)))


def test_a_prompt_that_cannot_be_paid_for_starts_nothing():
    price = Price(decode=20, prompt=20)
    budget = 20 * len(TinyPolicy().encode(PROBLEM)) - 1
    prefixes, _, ledger, policy = drive(whole(2), price=price, budget=budget)
    assert [prefix.finish for prefix in prefixes] == ["budget"] * 2
    assert (ledger.spent, policy.requests) == (0, [])


def test_flops_are_measured_from_what_was_computed():
    prm = scorer()
    _, driver, _, policy = drive(whole(3, score=True), prm=prm)
    usage = driver.usage
    expected = 2 * policy.parameters * (policy.delivered + 3 * len(policy.encode(PROBLEM)))
    assert usage.flops == expected + 2 * prm.parameters * prm.prm_tokens
    assert replace(usage, flops=0.0) != usage
