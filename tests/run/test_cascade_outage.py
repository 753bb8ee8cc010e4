"""A policy of a cascade that is gone is left out: the run goes on with the other one, on the same hard budget."""

from dataclasses import replace

import pytest

from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.errors import ConfigError, EngineError, OutageError, OutageWarning
from adaptive_ttc.estimate.artefact import Opening
from adaptive_ttc.events import AllocationEvent, DecisionEvent
from adaptive_ttc.policies.cascade import Cascade
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.run.retrace import retrace
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Stopped
from adaptive_ttc.wrappers import WrappedPolicy
from tests.doubles import Shifted, TinyPolicy, virtually
from tests.run.test_adaptive import calibrated, slices
from tests.run.test_cascade import MIXED, QUESTIONS, SECOND, TREES, by_second, cascade, solver
from tests.run.test_cascade_opening import BOTH

BUDGET = 6000
GONE = {
    "died": lambda: OutageError("the engine has died"),
    "no replica": lambda: OutageError("no replica took a request", generated=False),
    "broke": lambda: EngineError("it broke", generated=False),
    "nobody": lambda: EngineError("nobody answers", retryable=True, generated=False),
    "lost": lambda: EngineError("the connection was lost", retryable=True),
}
SOME = ("died", "nobody")
AT_ONCE = {"died": 2, "no replica": 2, "broke": 1, "nobody": 1, "lost": 1}  # what fails problems together counts once
SHORT = DriverConfig(patience=5.0, loss_share=0.3)


class Mortal(WrappedPolicy):
    """Fails from its ``after``-th call on, and serves again once ``after`` is changed."""

    def __init__(self, inner, kind, after=0):
        super().__init__(inner)
        self.error, self.after, self.calls = GONE[kind], after, 0

    async def sample(self, request):
        self.calls += 1
        if self.calls > self.after:
            raise self.error()
        return await self._policy.sample(request)


class WholeMortal(Mortal):
    whole_samples = True


def mortal(kind, after=0, *, first=False, made=Mortal, both=None):
    one, other = TinyPolicy(), Shifted()
    if first or both is not None:
        one = made(one, kind, after)
    if not first:
        other = made(other, kind, after if both is None else both)
    return Cascade(one, other)


def delivered(policy):
    first, second = policy.first, policy.second
    first = getattr(first, "_policy", first)
    second = second._policy if isinstance(second, Mortal) else second
    return first.delivered + 4 * second.inner.delivered


def check(pool, found, policy, budget=BUDGET):
    told = pool._scheduler.ledger.statistics()
    assert (told.reserved, told.open_reservations, told.open_children) == (0, 0, 0)
    assert delivered(policy) <= pool.spent == sum(one.spent for one in found) <= budget
    assert [one.problem.question for one in found] == QUESTIONS[: len(found)]


def left_out(solution):
    return [event.what for event in solution.trace.of(DecisionEvent) if event.what.startswith("went on")]


def ended_well(solution):
    return solution.error is None and solution.answer is not None and solution.stopped is not Stopped.FAILED


async def many(policy, file=None, *, budget=BUDGET, arms=MIXED, opening=None, warned=1, **asked):
    async with solver(policy, arms=arms, opening=opening, config=SHORT) as one:
        pool = one.solve_many(QUESTIONS, budget_tokens=budget, checkpoint=file, **asked)
        if not warned:
            return await pool, pool
        with pytest.warns(
            OutageWarning, match=r"the (first|second) policy is gone, and the run goes on without"
        ) as told:
            found = await pool
    assert len([one for one in told if one.category is OutageWarning]) == warned
    return found, pool


# ---- the second is gone ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", GONE)
@pytest.mark.parametrize("after", [0, 3, 7])
@virtually
async def test_the_first_goes_on_alone_where_the_second_is_gone(kind, after):
    policy = mortal(kind, after)
    found, pool = await many(policy, max_concurrency=AT_ONCE[kind])
    check(pool, found, policy)
    assert all(map(ended_well, found))
    without = [one for one in found if left_out(one)]
    assert without
    assert all(left_out(one) == ["went on without the second policy"] for one in without)
    assert all("went on without the second policy: " in one.explain() for one in without)
    assert any("sample" in dict(slices(one)) for one in without), "votes of the first in place of those of the second"
    assert policy.second.calls <= after + 40
    if not after:
        assert not any(by_second(one) for one in found)
    else:
        assert any(by_second(one) for one in found), "what was drawn before stays, and votes"
    if kind == "died":
        assert pool.usage.lost_tokens > 0
        assert pool.spent == delivered(policy) + 4 * pool.usage.lost_tokens


@virtually
async def test_a_pool_that_the_second_opens_is_opened_by_the_first_once_it_is_gone():
    policy = mortal("died", 2)
    found, pool = await many(policy, opening=BOTH, max_concurrency=2)
    check(pool, found, policy)
    assert all(map(ended_well, found))
    openings = [[event.action for event in one.trace.of(AllocationEvent) if event.opening] for one in found]
    assert ["1 x second:greedy"] in openings
    assert ["1 x second:greedy", "1 x greedy"] in openings, "what came to nothing is opened anew"
    assert ["1 x greedy"] in openings, "what waited for its opening"
    assert not any("second" in action for one in openings[-2:] for action in one)


@virtually
async def test_a_second_that_fails_a_problem_now_and_then_is_left_out_of_that_problem_alone():
    class Stumbling(Mortal):
        async def sample(self, request):
            self.calls += 1
            if self.calls in (2, 9):
                raise self.error()
            return await self._policy.sample(request)

    policy = mortal("broke", made=Stumbling)
    found, pool = await many(policy, warned=0, max_concurrency=1, budget=2 * BUDGET)
    check(pool, found, policy, 2 * BUDGET)
    assert all(map(ended_well, found))
    assert sum(bool(left_out(one)) for one in found) == 2
    assert all(by_second(one) for one in found if not left_out(one))
    assert pool._resources.second_health.policy.given_up is None


@virtually
async def test_a_single_problem_goes_on_and_is_told_once():
    for kind in GONE:
        policy = mortal(kind, 2)
        async with solver(policy, arms=MIXED, config=SHORT) as one:
            with pytest.warns(OutageWarning, match="the second policy is gone") as told:
                solution = await one.solve("how much?", budget_tokens=BUDGET)
            again = await retrace(solution.trace, one.grader)
        assert len(told) == 1
        assert ended_well(solution)
        assert again == solution
        assert delivered(policy) <= solution.spent <= BUDGET
        assert any(kind == "sample" for kind, _ in slices(solution))
        assert left_out(solution) == ["went on without the second policy"]
        assert solution.explain().count("s on it went on without the second policy: ") == 1


@virtually
async def test_the_next_run_asks_it_again():
    policy = mortal("no replica")
    async with solver(policy, arms=MIXED, config=SHORT) as one:
        with pytest.warns(OutageWarning):
            before = await one.solve("how much?", budget_tokens=BUDGET)
        policy.second.after = 10**9
        after = await one.solve("how much?", budget_tokens=BUDGET)
    assert not by_second(before)
    assert by_second(after)
    assert not left_out(after)


@virtually
async def test_a_stream_tells_when_it_was_left_out():
    policy, heard = mortal("no replica"), []
    async with solver(policy, arms=MIXED, config=SHORT) as one:
        stream = one.stream("how much?", budget_tokens=BUDGET)
        with pytest.warns(OutageWarning):
            heard = [event async for event in stream]
        assert ended_well(await stream.solution())
    assert "went on without the second policy" in [event.what for event in heard if isinstance(event, DecisionEvent)]


@virtually
async def test_losses_by_the_second_leave_the_rest_of_the_budget_to_the_first():
    policy = mortal("lost")
    found, pool = await many(policy, max_concurrency=2)
    assert all(map(ended_well, found))
    assert 0 < 4 * pool.usage.lost_tokens < BUDGET / 2
    check(pool, found, policy)


@virtually
async def test_losses_by_one_do_not_count_against_the_other():
    """Else a single lost call would end the run, once the other policy has lost its share."""

    class Stumbling(Mortal):
        async def sample(self, request):
            self.calls += 1
            if self.calls % 7 == 0 and policy.second.calls > 5:
                raise self.error()
            return await self._policy.sample(request)

    policy = Cascade(Stumbling(TinyPolicy(), "lost"), Mortal(Shifted(), "lost", 1))
    config = DriverConfig(loss_share=0.1, attempts=9)
    async with solver(policy, arms=MIXED, config=config) as one:
        pool = one.solve_many(QUESTIONS, budget_tokens=BUDGET, max_concurrency=2)
        with pytest.warns(OutageWarning, match=r"units were charged for \d+ calls that failed, more than 10%"):
            found = await pool
    check(pool, found, policy)
    assert policy.first.calls > 7
    assert all(map(ended_well, found))
    first, second = pool._resources.health, pool._resources.second_health
    assert second.losses.units > 0.1 * BUDGET > first.losses.units > 0


@pytest.mark.parametrize("count", ["generated", "generated+prm", "flops"])
@pytest.mark.parametrize("kind", SOME)
@pytest.mark.parametrize("factor", [1, 3, 9])
@virtually
async def test_a_tight_budget_is_never_overspent(kind, count, factor):
    budget = {"generated": 100, "generated+prm": 300, "flops": 6000}[count] * factor
    policy = mortal(kind, 2)
    async with solver(policy, arms=TREES, opening=BOTH, config=SHORT) as one:
        pool = one.solve_many(QUESTIONS, budget_tokens=budget, count=count, max_concurrency=2)
        with WARNED():
            found = await pool
        for solution in found:
            assert (await retrace(solution.trace, one.grader)).answer == solution.answer
    assert pool.spent == sum(one.spent for one in found) <= budget


class WARNED(pytest.WarningsRecorder):
    """Warnings are no errors inside: it may or may not come to one."""

    def __init__(self):
        super().__init__(_ispytest=True)


@virtually
async def test_whole_samples_of_the_second_are_left_out_likewise():
    for after, opening in ((0, None), (2, None), (0, BOTH), (1, BOTH)):
        policy = mortal("died", after, made=WholeMortal)
        found, pool = await many(policy, opening=opening, max_concurrency=2, max_tokens=60)
        check(pool, found, policy)
        assert all(map(ended_well, found))
        assert pool.usage.lost_tokens > 0


@virtually
async def test_what_is_still_to_come_is_opened_by_the_first():
    async def source():
        for question in QUESTIONS:
            yield question

    policy = mortal("no replica")
    async with solver(policy, arms=MIXED, opening=BOTH, config=SHORT) as one:
        pool = one.solve_many(source(), budget_tokens=BUDGET, expected=len(QUESTIONS), max_concurrency=2)
        with pytest.warns(OutageWarning):
            found = await pool
    check(pool, found, policy)
    assert all(map(ended_well, found))
    assert slices(found[-1])[0] == ("greedy", 1)


# ---- the first is gone -----------------------------------------------------------------------------------------


LATE = replace(BOTH, second_from=100.0)


@pytest.mark.parametrize("kind", [kind for kind in GONE if kind != "lost"])
@pytest.mark.parametrize("opening", [None, LATE, Opening("sample", True, 40, 60)], ids=["unmeasured", "late", "sample"])
@pytest.mark.parametrize("after", [0, 3])
@virtually
async def test_the_second_goes_on_alone_where_the_first_is_gone(kind, opening, after):
    policy = mortal(kind, after, first=True)
    found, pool = await many(policy, opening=opening, max_concurrency=AT_ONCE[kind])
    check(pool, found, policy)
    assert all(map(ended_well, found))
    assert all(by_second(one) for one in found[after:])
    told = [one for one in found if left_out(one)]
    assert told
    assert all(left_out(one) == ["went on without the first policy"] for one in told)
    if kind in ("died", "no replica"):
        assert slices(found[-1])[0] == ("second:sample" if opening not in (None, LATE) else "second:greedy", 1)


@virtually
async def test_where_the_second_has_nothing_to_open_with_the_problems_fail_with_what_the_first_failed_with():
    trees = [("dvts", 16, "second:dvts-4", 1, 0.95)]
    policy = mortal("no replica", first=True)
    found, pool = await many(policy, arms=trees, max_concurrency=2)
    check(pool, found, policy)
    assert all(isinstance(one.error, OutageError) and one.stopped is Stopped.FAILED for one in found)
    assert policy.second.inner.delivered == 0


# ---- both are gone ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", GONE)
@virtually
async def test_where_both_are_gone_the_run_ends_with_what_it_has(kind):
    policy = mortal(kind, 3, both=2)
    found, pool = await many(policy, max_concurrency=2)
    check(pool, found, policy)
    assert any(one.answer is not None for one in found)
    assert any(isinstance(one.error, EngineError) for one in found)
    failed = [one for one in found if one.error is None and one.answer is None]
    assert not failed


@virtually
async def test_a_single_problem_without_both_raises_with_its_answer():
    policy = mortal("no replica", 1, both=0)
    policy.first.after = 1
    async with solver(policy, arms=MIXED, config=SHORT) as one:
        with pytest.warns(OutageWarning), pytest.raises(OutageError) as raised:
            await one.solve("how much?", budget_tokens=BUDGET)
    assert raised.value.solution.stopped is Stopped.FAILED


@virtually
async def test_a_prm_that_is_gone_is_no_failure_of_a_policy():
    class Dead(FakePRM):
        async def score(self, request):
            raise OutageError("the PRM has died", generated=False)

    policy = cascade()
    made = calibrated(*MIXED)
    async with Solver(policy, Dead(lambda question, steps: 0.5), calibration=made, seed=0) as one:
        pool = one.solve_many(QUESTIONS, budget_tokens=BUDGET)
        found = await pool
    check(pool, found, policy)
    assert all(isinstance(one.error, OutageError) for one in found)
    assert not any(map(left_out, found))


@virtually
async def test_what_a_policy_refuses_is_still_the_error_of_its_problem():
    class Refusing(Shifted):
        async def sample(self, request):
            raise ConfigError("it takes no such request")

    policy = Cascade(TinyPolicy(), Refusing())
    found, pool = await many(policy, warned=0, arms=SECOND)
    check(pool, found, policy)
    assert all(isinstance(one.error, ConfigError) and one.answer is not None for one in found)


# ---- what stays ------------------------------------------------------------------------------------------------


@virtually
async def test_an_outage_of_the_second_leaves_the_first_ones_breaker_closed():
    policy = mortal("nobody")
    _, pool = await many(policy)
    assert pool._resources.second_health.policy.gone
    assert isinstance(pool._resources.second_health.policy.given_up, OutageError)
    assert not pool._resources.health.policy.gone
    assert pool._resources.health.policy.given_up is None


@pytest.mark.parametrize("count", ["generated", "flops"])
@pytest.mark.parametrize("opening", [None, BOTH], ids=["first", "second"])
@pytest.mark.parametrize("kind", SOME)
@virtually
async def test_a_run_that_has_ended_is_the_same_again(tmp_path, kind, opening, count):
    budget = BUDGET * (3000 if count == "flops" else 1)
    policy, asked = mortal(kind, 3), {"count": count, "opening": opening, "max_concurrency": 2, "budget": budget}
    first, cut = await many(policy, tmp_path / "run.db", max_rounds=2, **asked)
    assert all(one.error is None for one in first)
    again, pool = await many(cascade(), tmp_path / "run.db", warned=0, max_rounds=2, **asked)
    assert again == first
    assert pool.spent == cut.spent
    assert pool.usage == cut.usage


@pytest.mark.parametrize("opening", [None, BOTH], ids=["first", "second"])
@pytest.mark.parametrize("kind", SOME)
@pytest.mark.parametrize("after", [1, 3, 5])
@virtually
async def test_a_run_that_was_stopped_after_the_outage_goes_on_with_both(tmp_path, kind, opening, after):
    policy, asked = mortal(kind, after), {"opening": opening, "max_concurrency": 2}
    async with solver(policy, arms=MIXED, opening=opening, config=SHORT) as one:
        pool = one.solve_many(QUESTIONS, budget_tokens=BUDGET, max_concurrency=2, checkpoint=tmp_path / "run.db")
        told, hear = [], policy.first.sample

        async def then_stop(request):
            sampled = await hear(request)
            told.append(policy.second.calls > after)
            if sum(told) == 1:
                pool.stop()
            return sampled

        policy.first.sample = then_stop
        with WARNED():
            cut = await pool
    assert any(one.stopped is Stopped.STOPPED for one in cut)
    found, pool = await many(cascade(), tmp_path / "run.db", warned=0, **asked)
    assert all(map(ended_well, found))
    assert any(by_second(one) for one in found)
    assert sum(one.spent for one in cut) <= pool.spent == sum(one.spent for one in found) <= BUDGET
    for solution in found:
        paths = [one.prefix.path for one in solution.candidates]
        assert len(paths) == len(set(paths))
    again, _ = await many(cascade(), tmp_path / "run.db", warned=0, **asked)
    assert again == found
