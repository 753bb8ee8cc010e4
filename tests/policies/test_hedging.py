"""Hedged requests: when they are sent, who is followed, what is charged; no budget is overspent, whatever the fleet."""

from __future__ import annotations

from random import Random
from typing import Any

import anyio
import pytest

from adaptive_ttc.answers import Grader
from adaptive_ttc.driver.driver import Driver
from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.errors import EngineError
from adaptive_ttc.events import RequestEvent
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policies.fake import EOS
from adaptive_ttc.policies.fake.servers import Server
from adaptive_ttc.policies.openai.hedging import Hedges
from adaptive_ttc.policies.openai.protocol import DONE
from adaptive_ttc.run.retrace import retrace
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies.requests import Expand
from adaptive_ttc.types import ROOT, Problem
from tests.doubles import in_virtual_time, virtually
from tests.policies.virtual import Endless, Purse, asked, virtual_policy

HEDGE = {"hedge": 0.9, "hedge_share": 1.0, "affinity_block": 1, "connect_timeout": 1.0}


async def warmed(policy: Any, **fields: Any) -> None:
    """It is known how long answers are waited for, and all replicas are well; the first will take number 99."""
    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(policy.sample, asked(number, max_tokens=100, **fields))
    policy._fleet._prefixes.note(asked(99).prompt_ids, 0)
    await anyio.sleep_until(99.0)


def test_a_request_is_late_when_it_waits_longer_than_most_did():
    hedges = Hedges(0.9, 0.1)
    for wait in range(31):
        hedges.came_back(float(wait), 10)
    assert hedges.patience is None
    for wait in range(31, 2000):
        hedges.came_back(float(wait % 100), 10)
    assert hedges.patience == pytest.approx(1.25 * 90, abs=3)
    assert hedges.pay(2000)
    assert not hedges.pay(1)
    hedges.give_back(1500)
    assert hedges.pay(1500)


@virtually
async def test_a_late_request_goes_on_elsewhere_from_what_has_come():
    servers = [Server(hangs=[(100.0, 200.0)]), Server(hangs=[(100.0, 100.1)], pace=0.03)]
    policy = virtual_policy(servers, Endless(), **HEDGE)
    await warmed(policy)
    purse = Purse()
    delivered_before = [one.generated for one in servers]
    sampled = await policy.sample(asked(99, max_tokens=200, spare=purse))
    came = 45  # about, at 0.02 s each
    assert (len(sampled.token_ids), sampled.finish) == (200, "length")
    assert len(sampled.logprobs) in (0, 200)
    assert 100.0 < anyio.current_time() < 110.0
    by_first, by_second = (one.generated - then for one, then in zip(servers, delivered_before, strict=True))
    assert by_first == pytest.approx(came, abs=8)
    assert by_first + by_second == 200
    # the first said nothing more: all that it may have generated is charged, and was reserved
    assert sampled.hedged_tokens == purse.tokens == 200 - by_first


@virtually
async def test_the_one_that_is_left_is_charged_what_it_told():
    servers = [Server(hangs=[(100.0, 102.0)]), Server(pace=0.03)]
    policy = virtual_policy(servers, Endless(), **HEDGE)
    await warmed(policy)
    before = sum(one.generated for one in servers)
    sampled = await policy.sample(asked(99, max_tokens=200, spare=Purse()))
    assert 0 < sampled.hedged_tokens <= 8
    assert sum(one.generated for one in servers) - before == 200 + sampled.hedged_tokens


@pytest.mark.parametrize(
    "refused", [{"seeded": True, "seed": 5}, {"spare": None}, {"spare": Purse(100)}], ids=["seeded", "no spare", "poor"]
)
@virtually
async def test_nothing_is_hedged_that_may_not_be(refused):
    servers = [Server(hangs=[(100.0, 130.0)]), Server()]
    policy = virtual_policy(servers, Endless(), **HEDGE)
    await warmed(policy)
    sampled = await policy.sample(asked(99, max_tokens=200, **{"spare": Purse(), **refused}))
    assert (len(sampled.token_ids), sampled.hedged_tokens) == (200, 0)
    assert anyio.current_time() > 130.0


@virtually
async def test_a_sample_with_its_own_draws_is_hedged_before_it_begins():
    servers = [Server(), Server()]
    policy = virtual_policy(servers, **HEDGE)
    prompt = policy.encode(Problem.of("Add 1, 22, 333, 44 and 5."))
    await warmed(policy, prompt_ids=prompt)
    policy._fleet._prefixes.forget(1)
    alone = await policy.sample(asked(99, prompt_ids=prompt, max_tokens=200, seeded=True))
    servers[0].first = 50.0
    begun = anyio.current_time()
    hedged = await policy.sample(asked(99, prompt_ids=prompt, max_tokens=200, seeded=True, spare=Purse()))
    assert anyio.current_time() - begun < 40
    assert hedged.token_ids == alone.token_ids
    assert hedged.hedged_tokens == 200  # the first, which said nothing


@virtually
async def test_an_attempt_that_fails_is_made_up_for_and_two_that_fail_are_told():
    servers = [Server(hangs=[(100.0, 300.0)], deaf=True), Server(hangs=[(140.0, 300.0)])]
    policy = virtual_policy(servers, Endless(), stall_timeout=20.0, **HEDGE)
    await warmed(policy)
    sampled = await policy.sample(asked(99, max_tokens=1500, spare=Purse()))  # the first is lost after 20 s
    assert len(sampled.token_ids) == 1500
    assert not policy.replicas[0].ready


@virtually
async def test_two_attempts_that_fail_are_told_as_one_that_may_have_generated():
    servers = [Server(hangs=[(100.0, 300.0)]), Server(hangs=[(103.0, 300.0)])]
    policy = virtual_policy(servers, Endless(), stall_timeout=20.0, **HEDGE)
    await warmed(policy)
    with pytest.raises(EngineError) as caught:
        await policy.sample(asked(99, max_tokens=1500, spare=Purse()))
    assert caught.value.retryable
    assert caught.value.generated


def scripted(policy: Any, *scripts: Any) -> None:
    """The answer of each replica to number 99 is what its script makes of it."""
    events = policy._connections.events

    def of(replica: Any, path: str, body: Any, limit: int) -> Any:
        answer = events(replica, path, body, limit)
        return scripts[replica.index](answer) if body["prompt"][0] == 99 else answer

    policy._connections.events = of


@virtually
async def test_a_second_one_that_may_have_generated_is_told_where_the_first_surely_did_not():
    policy = virtual_policy([Server(), Server()], Endless(), **HEDGE)
    await warmed(policy)

    async def refuses(answer: Any) -> Any:
        await anyio.sleep(30.0)
        raise EngineError("refuses with 408", generated=False)
        yield

    async def breaks(answer: Any) -> Any:
        await anyio.sleep(10.0)
        raise EngineError("broke off its answer", retryable=True)
        yield

    scripted(policy, refuses, breaks)
    purse = Purse()
    with pytest.raises(EngineError, match=r"both .* failed") as caught:
        await policy.sample(asked(99, max_tokens=1500, spare=purse))
    assert purse.tokens
    assert caught.value.generated


@virtually
async def test_an_answer_that_is_complete_is_not_gone_on_with():
    policy = virtual_policy([Server(), Server()], Endless(50), **HEDGE)
    await warmed(policy)

    async def lingers(answer: Any) -> Any:
        async for event in answer:
            if event is DONE:
                await anyio.sleep(30.0)
            yield event

    scripted(policy, lingers, lingers)
    purse = Purse()
    sampled = await policy.sample(asked(99, max_tokens=1500, spare=purse))
    assert sampled.finish == "eos"
    assert [place for place, one in enumerate(sampled.token_ids, 1) if one == EOS] == [len(sampled.token_ids)]
    assert purse.tokens == sampled.hedged_tokens == 0


@virtually
async def test_an_abort_charges_what_the_other_one_may_have_generated():
    servers = [Server(hangs=[(100.0, 300.0)]), Server()]
    policy = virtual_policy(servers, Endless(), **HEDGE)
    servers[1].pace = 0.02
    await warmed(policy)
    servers[1].pace = 1.0
    purse, ended = Purse(), []

    async def run() -> None:
        ended.append(await policy.sample(asked(99, max_tokens=200, spare=purse)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await anyio.sleep(30.0)
        await policy.abort("99")
    assert ended[0].finish == "abort"
    assert ended[0].hedged_tokens == purse.tokens > 0
    assert all(one.running == one.waiting == 0 for one in servers)


@virtually
async def test_a_replica_whose_answers_others_give_is_taken_out_and_tried_again():
    servers = [Server(hangs=[(100.0, 160.0)]), Server(), Server()]
    policy = virtual_policy(servers, Endless(50), suspect_after=5.0, **{**HEDGE, "affinity_block": 0})
    await warmed(policy)
    taken: list[int] = []

    async def watch() -> None:
        for moment in (100.0, 110.0, 158.0, 200.0):
            await anyio.sleep_until(moment)
            taken.append(servers[0].taken)

    async def work(first: int) -> None:
        for number in range(first, first + 100):
            await policy.sample(asked(number, spare=Purse()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        for worker in range(8):
            tasks.start_soon(work, 1000 * (1 + worker))
    begun, suspected, hung, back = taken
    assert suspected == hung < begun + 20
    assert back > hung + 10


# ---- budgets --------------------------------------------------------------------------------------------------------


def any_fleet(random: Random) -> list[Server]:
    """Two to four servers with all that can be wrong with them."""

    def hangs() -> list[tuple[float, float]]:
        begins = [random.uniform(0.0, 60.0) for _ in range(random.randrange(4))]
        return [(begin, begin + random.uniform(0.1, 40.0)) for begin in begins]

    return [
        Server(
            pace=random.choice((0.005, 0.02, 0.1)), first=random.choice((0.01, 0.5, 3.0)), hangs=hangs(),
            slots=random.choice((2, 64)), most=random.choice((None, None, 3)), deaf=random.random() < 0.5,
            broken=random.choice((0.0, 0.0, 0.01)),
        )
        for _ in range(random.randint(2, 4))
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(24))
def test_no_budget_is_overspent_and_all_that_was_generated_is_charged(seed):
    random = Random(seed)
    fleet, n, budget, step = any_fleet(random), random.randint(1, 24), random.randint(0, 6000), random.random() < 0.5

    def search():
        prefixes = (ROOT,)
        for _ in range(4 if step else 1):
            prefixes = yield from Expand(
                prefixes=prefixes, n=n if prefixes == (ROOT,) else 1, max_tokens=150, stop=("\n\n",) if step else ()
            )
            prefixes = tuple(one for one in prefixes if one.finish == "stop") or prefixes
            if not any(one.finish == "stop" for one in prefixes):
                return prefixes
        return prefixes

    async def run() -> Driver:
        policy = virtual_policy(
            fleet,
            seed=seed,
            hedge=random.choice((0.05, 0.5, 0.9)),
            hedge_share=1.0,
            stall_timeout=15.0,
            affinity_block=0,
            suspect_after=1.0,
        )
        for wait in (0.05, 0.2) * 16:
            policy._hedges.came_back(wait, 500)  # hedges from the beginning, and has tokens for them
        driver = Driver(
            Problem.of("Add 1, 22, 333 and 4."), policy, ledger, seed=None,
            config=DriverConfig(loss_share=1.0, patience=5.0, grace=1.0), price=None,
        )  # fmt: skip
        await driver.attempt(search())
        return driver

    ledger = Ledger(budget)
    driver = in_virtual_time(run)
    statistics = ledger.statistics()
    assert (statistics.reserved, statistics.open_reservations) == (0, 0)
    # what comes in one piece with the end of a step, and after it, is told apart and charged to nobody
    assert sum(one.generated for one in fleet) - driver.usage.discarded_tokens <= ledger.spent <= budget
    assert ledger.spent == driver.usage.completion_tokens + driver.usage.lost_tokens


@virtually
async def test_a_hedged_run_solves_charges_and_is_retraced():
    servers = [Server(hangs=[(3.0 + 4 * turn, 6.0 + 4 * turn) for turn in range(40)]), Server(), Server()]
    policy = virtual_policy(servers, **{**HEDGE, "hedge_share": 0.5, "max_concurrency": 16})
    with Grader() as grader:
        async with Solver(policy, grader=grader, seed=None) as solver:
            solution = await solver.solve(
                "Add 1, 22, 333, 44 and 5.", strategy="majority", n=150, budget_tokens=40_000, max_tokens=300
            )
        lost = [event for event in solution.trace.of(RequestEvent) if event.finish == "lost"]
        again = await retrace(solution.trace, grader)
    assert lost
    assert solution.usage.lost_tokens == sum(event.max_tokens for event in lost)
    assert sum(one.generated for one in servers) <= solution.spent <= 40_000
    assert solution.spent == solution.usage.completion_tokens + solution.usage.lost_tokens
    assert (again.answer, again.spent, again.usage) == (solution.answer, solution.spent, solution.usage)


@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")
@pytest.mark.parametrize("seed", range(3))
@virtually
async def test_one_budget_over_many_problems_holds(seed):
    random = Random(100 + seed)
    servers = [*any_fleet(random), Server()]
    policy = virtual_policy(servers, seed=seed, stall_timeout=15.0, suspect_after=1.0, **{**HEDGE, "hedge": 0.5})
    for _ in range(32):
        policy._hedges.came_back(0.2, 500)
    questions = [f"Add {number}, 22 and {number % 3}." for number in range(8)]
    with Grader() as grader:
        config = DriverConfig(loss_share=1.0)
        async with Solver(policy, grader=grader, seed=None, config=config) as solver:
            pool = solver.solve_many(questions, budget_tokens=6000, max_tokens=150)
            solutions = await pool
            statistics = pool._scheduler.ledger.statistics()
    assert (statistics.reserved, statistics.open_reservations, statistics.open_children) == (0, 0, 0)
    assert pool.spent == sum(one.spent for one in solutions) <= 6000
    assert pool.spent == sum(one.usage.completion_tokens + one.usage.lost_tokens for one in solutions)
    assert sum(one.generated for one in servers) <= pool.spent + sum(one.usage.discarded_tokens for one in solutions)
