"""Verifiers that write, on the ledger: reserved first, settled by what they wrote, never one unit more."""

import anyio
import pytest

from adaptive_ttc.cost import price_of
from adaptive_ttc.driver.driver import Driver
from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.events import DecisionEvent
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.prm import JUDGE, PAIRWISE, GenerativeVerifier, VerifierSettings
from adaptive_ttc.run.retrace import retrace
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies.registry import make_strategy
from adaptive_ttc.types import Problem
from tests.prm.scribe import Scribe

QUESTION = "Add 3, 44, 5, 66 and 777."
YES, NO = "It holds. Verdict: yes", "It does not. Verdict: no"


def honest(asked, seed):
    return YES if "895" in asked.rpartition("[Solution]")[2] else NO


def verifier(reply=honest, **settings):
    return GenerativeVerifier(Scribe(reply), VerifierSettings(**{"max_tokens": 60, "finished_only": True, **settings}))


def solver(prm, error_rate=0.1):
    return Solver(FakePolicy.generative(error_rate=error_rate), prm)


async def test_what_is_written_is_charged_as_generated_and_no_more():
    prm = verifier()
    async with solver(prm) as one:
        found = await one.solve(QUESTION, strategy="best_of_n", n=8, budget_tokens=5_000)
        again = await retrace(found.trace, one.grader)
    assert found.answer == again.answer == "895"
    assert f" read and {found.usage.prm_written_tokens:,} written by the PRM" in found.explain()
    usage, asked = found.usage, prm._writer.policy.requests
    assert usage.prm_written_tokens == sum(len(honest(one.messages[-1].content, 0)) + 1 for one in asked)
    assert found.spent == usage.completion_tokens + usage.prm_written_tokens
    assert usage.prm_tokens == usage.prm_written_tokens + sum(len(one.prompt_ids) for one in asked)


async def test_prompts_of_verdicts_count_where_prm_tokens_do():
    prm = verifier()
    async with solver(prm) as one:
        found = await one.solve(QUESTION, strategy="best_of_n", n=4, budget_tokens=20_000, count="generated+prm")
        flops = await one.solve(QUESTION, strategy="best_of_n", n=2, budget_tokens=10**9, count="flops", id="flops")
    assert found.spent == found.usage.completion_tokens + found.usage.prm_tokens
    policy_token = 2 * one.policy.parameters
    assert flops.spent == flops.usage.flops - policy_token * flops.usage.prompt_tokens / 2  # the prompt once


@pytest.mark.parametrize("count", ["generated", "generated+prm"])
async def test_no_budget_is_overrun(count):
    for budget in range(40, 1_600, 97):
        async with solver(verifier(max_tokens=30)) as one:
            try:
                found = await one.solve(QUESTION, strategy="weighted_best_of_n", n=6, budget_tokens=budget, count=count)
            except ConfigError as error:
                assert "does not pay for one token" in str(error)  # noqa: PT017
                continue
        assert found.spent <= budget
        bound = found.usage.completion_tokens + found.usage.prm_written_tokens
        assert bound <= found.spent if count == "generated" else found.spent


async def test_a_verdict_that_the_budget_does_not_cover_is_not_asked_for():
    prm = verifier(max_tokens=400)
    async with solver(prm) as one:
        found = await one.solve(QUESTION, strategy="weighted_best_of_n", n=1, budget_tokens=480, max_tokens=150)
        assert [one.score for one in found.candidates] == [None]
        assert not prm._writer.policy.requests
        found = await one.solve(QUESTION, strategy="weighted_best_of_n", n=4, budget_tokens=900, max_tokens=150)
    # what one verdict did not use pays for the next sample, and for its verdict
    assert [one.score is None for one in found.candidates] == [False] * 4
    assert found.spent == found.usage.completion_tokens + found.usage.prm_written_tokens <= 900


async def test_searches_over_steps_have_every_step_judged():
    prm = GenerativeVerifier(Scribe(lambda asked, seed: YES), VerifierSettings(max_tokens=60))
    async with solver(prm) as one:
        found = await one.solve(QUESTION, strategy="dvts", n=4, beam_width=2, budget_tokens=9_000)
    assert found.spent == found.usage.completion_tokens + found.usage.prm_written_tokens
    assert all(one.prefix.scores for one in found.candidates)
    async with solver(GenerativeVerifier(Scribe(honest), VerifierSettings(**JUDGE))) as one:
        with pytest.raises(ConfigError, match="scores finished ones alone"):
            await one.solve(QUESTION, strategy="dvts", n=4, beam_width=2, budget_tokens=9_000)


async def test_a_lost_verdict_is_charged_in_full_and_asked_for_again():
    prm = verifier()
    prm._writer.policy.failures.append(EngineError("the line broke", retryable=True))
    async with solver(prm) as one:
        found = await one.solve(QUESTION, strategy="best_of_n", n=1, budget_tokens=2_000)
    assert len(prm._writer.policy.requests) == 2
    assert found.spent == found.usage.completion_tokens + found.usage.prm_written_tokens + 60


async def test_a_solution_that_leaves_no_room_for_a_verdict_costs_none():
    prm = verifier()
    prm._writer.policy.max_context = 100
    async with solver(prm) as one:
        found = await one.solve(QUESTION, strategy="majority", n=1, budget_tokens=2_000)
        prm._writer.policy.max_context = 420  # the question has room, a solution has not
        found = await one.solve(QUESTION, strategy="best_of_n", n=2, budget_tokens=2_000)
    assert not prm._writer.policy.requests
    assert (found.vote, found.spent) == ("majority", found.usage.completion_tokens)
    assert any("with 60 for its verdict" in event.why for event in found.trace.of(DecisionEvent))


async def test_a_run_that_is_stopped_settles_what_was_asked():
    prm = verifier()
    prm._writer.policy.hold = anyio.Event()
    stop = anyio.Event()

    async def end():
        await prm._writer.policy.arrived.wait()
        stop.set()
        prm._writer.policy.hold.set()

    async with solver(prm) as one, anyio.create_task_group() as tasks:
        tasks.start_soon(end)
        found = await one.solve(QUESTION, strategy="best_of_n", n=3, budget_tokens=2_000, stop=stop)
    assert found.spent == found.usage.completion_tokens + found.usage.prm_written_tokens


def driver_of(prm, ledger, error_rate=0.1):
    policy = FakePolicy.generative(error_rate=error_rate)
    return Driver(Problem.of(QUESTION), policy, ledger, prm=prm, price=price_of("generated", policy, prm))


async def test_a_cancelled_run_leaves_no_reservation_open_and_pays_for_what_was_asked():
    prm, ledger = verifier(), Ledger(2_000)
    prm._writer.policy.hold = anyio.Event()
    driver = driver_of(prm, ledger)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def end():
                await prm._writer.policy.arrived.wait()
                scope.cancel()

            tasks.start_soon(end)
            await driver.run(make_strategy("best_of_n", n=3).search())
    assert scope.cancelled_caught
    known = ledger.statistics()
    assert (known.reserved, known.open_reservations) == (0, 0)
    asked = 60 * len({request.prompt_ids for request in prm._writer.policy.requests})
    assert known.spent >= driver.usage.completion_tokens + asked


@pytest.mark.parametrize("lost", [0, 1, 2])
async def test_every_reservation_is_settled_whatever_is_lost(lost):
    for budget in (90, 260, 700, 5_000):
        prm, ledger = verifier(), Ledger(budget)
        prm._writer.policy.failures += [EngineError("the line broke", retryable=True) for _ in range(lost)]
        driver = driver_of(prm, ledger)
        found = await driver.attempt(make_strategy("weighted_best_of_n", n=5, max_tokens=150).search())
        known = ledger.statistics()
        assert (known.reserved, known.open_reservations) == (0, 0)
        assert known.spent <= budget
        charged = driver.usage.completion_tokens + driver.usage.prm_written_tokens
        assert known.spent - charged in (0, *(60 * (1 + number) for number in range(lost)))
        assert found.candidates


async def test_without_a_readable_verdict_the_majority_decides_and_the_trace_says_so():
    async with solver(verifier(lambda asked, seed: "Well, well.")) as one:
        found = await one.solve(QUESTION, strategy="weighted_best_of_n", n=3, budget_tokens=5_000)
    assert found.vote == "majority"
    assert found.usage.prm_written_tokens == 3 * len("Well, well.x") or found.usage.prm_written_tokens > 0
    assert any("no verdict could be read" in event.why for event in found.trace.of(DecisionEvent))


def preferring(asked, seed):
    first, _, second = asked.partition("[Solution A]")[2].partition("[Solution B]")
    return f"Better: {'A' if '895' in first else 'B' if '895' in second else 'tie'}"


async def test_pairwise_shares_of_wins_decide():
    prm = GenerativeVerifier(Scribe(preferring), VerifierSettings(**{**PAIRWISE, "max_tokens": 20}))
    async with solver(prm, error_rate=0.1) as one:
        found = await one.solve(QUESTION, strategy="best_of_n", n=8, budget_tokens=9_000)
        few = await one.solve(QUESTION, strategy="best_of_n", n=1, budget_tokens=2_000, id="one")
    texts = {one.prefix.text for one in found.candidates}
    assert len(prm._writer.policy.requests) == 2 * 2 * len(texts)
    assert found.answer == "895"
    assert {one.score for one in found.candidates if one.answer == "895"} <= {0.5, 0.75, 1.0}
    assert all(one.score <= 0.5 for one in found.candidates if one.answer != "895")
    assert found.spent == found.usage.completion_tokens + found.usage.prm_written_tokens
    assert ([one.score for one in few.candidates], few.usage.prm_tokens) == ([0.5], 0)


@pytest.mark.parametrize("settings", [{}, PAIRWISE], ids=["verdicts", "pairwise"])
@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")
async def test_a_budget_alone_is_hard_too(settings):
    reply = preferring if settings else honest
    prm = GenerativeVerifier(Scribe(reply), VerifierSettings(**{"finished_only": True, **settings, "max_tokens": 30}))
    async with solver(prm) as one:
        for budget in (150, 700, 3_000):
            found = await one.solve(QUESTION, budget_tokens=budget, max_tokens=100, min_gain=0.0, id=f"{budget}")
            assert found.spent <= budget
            assert found.answer is not None
