"""A driver beside another: a second policy on the same account, in the same trace, under the same numbers."""

from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_ttc.cost import price_of, price_of_second
from adaptive_ttc.driver.driver import Driver
from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.events import ExpandEvent, SampledEvent
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policies.cascade import Cascade
from adaptive_ttc.prm.base import Traits
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.strategies.requests import Expand, Score
from adaptive_ttc.types import ROOT, Problem
from tests.doubles import Shifted, TinyPolicy, in_virtual_time

PROBLEM = Problem.of("how much?", id="p")
PROMPT = len(PROBLEM.question)


def whole(n, **options):
    return (yield from Expand(prefixes=(ROOT,), n=n, **options))


def drivers(budget=None, *, count="generated", weight=None, prm=None, first=None, **of_second):
    first, second = first or TinyPolicy(), Shifted(**of_second)
    cascade, ledger = Cascade(first, second, weight), Ledger(budget)
    price, config = price_of(count, cascade, prm), DriverConfig()
    health = config.health()
    driver = Driver(PROBLEM, cascade, ledger, prm=prm, price=price, health=health, config=config)
    own = price_of_second(count, cascade, second, price)
    return driver, driver.beside(second, own, config.second_health(health)), first, second.inner, ledger


def run(one, other, times=2, n=3):
    async def both():
        found = []
        for _ in range(times):
            for driver in (one, other):
                found += await driver.run(whole(n))
        return found

    return in_virtual_time(both)


@pytest.mark.parametrize("count", ["generated", "flops"])
def test_both_are_charged_to_one_account_each_at_its_own_price(count):
    driver, beside, first, second, ledger = drivers(count=count)
    found = run(driver, beside)
    assert len({one.path for one in found}) == len(found) == 12
    token = {"generated": (1, 4), "flops": (20, 80)}[count]
    prompts = {"generated": (0, 0), "flops": (PROMPT, PROMPT + 1)}[count]
    by_hand = token[0] * (first.delivered + prompts[0]) + token[1] * (second.delivered + prompts[1])
    assert ledger.statistics().spent == by_hand
    assert ledger.statistics().reserved == 0
    usage = driver.usage
    assert usage.completion_tokens == first.delivered + second.delivered
    read = sum(len(one.prompt_ids) for one in second.requests)
    assert usage.second_tokens == second.delivered + read
    assert usage.prompt_tokens == read + sum(len(one.prompt_ids) for one in first.requests)
    own = usage.completion_tokens + usage.prompt_tokens - usage.second_tokens
    assert usage.flops == 2 * 10 * own + 2 * 40 * usage.second_tokens
    asked = driver.trace.of(ExpandEvent)
    assert [event.number for event in asked] == list(range(4)), "requests are numbered through"
    assert len(driver.trace.of(SampledEvent)) == 12


def test_each_writes_with_its_own_tokenizer():
    driver, beside, *_ = drivers()
    ours, theirs = in_virtual_time(driver.run, whole(2)), in_virtual_time(beside.run, whole(2))
    assert all(max(one.token_ids) < 10 for one in ours)
    assert all(min(one.token_ids) >= 50 for one in theirs)
    assert all("\\boxed" in one.text for one in (*ours, *theirs))


@settings(max_examples=40)
@given(
    budget=st.integers(0, 4000),
    count=st.sampled_from(["generated", "generated+prm", "flops"]),
    weight=st.sampled_from([None, 1.0, 2.5, 7.0]),
    chaos=st.integers(0, 50),
    failure=st.sampled_from([0.0, 0.1]),
)
def test_no_token_is_overspent_whoever_draws(budget, count, weight, chaos, failure):
    prm = FakePRM(lambda question, steps: 0.5)
    budget *= 40 if count == "flops" else 1
    driver, beside, _, second, ledger = drivers(
        budget, count=count, weight=weight, prm=prm, first=TinyPolicy(chaos=chaos), chaos=chaos, failure=failure
    )

    async def both():
        for one in (driver, beside, driver, beside):
            part = ledger.child(min(ledger.available, budget // 3))
            await one.attempt(whole(3, score=True, max_tokens=60), part)

    in_virtual_time(both)
    told = ledger.statistics()
    assert told.spent <= budget
    assert (told.reserved, told.open_reservations, told.open_children) == (0, 0, 0)
    assert not second.in_flight
    usage = driver.usage
    price = beside._engines.price
    if count == "generated" and usage.lost_tokens == 0:
        own = usage.completion_tokens - second.delivered
        assert told.spent == own + price.decode * second.delivered


def test_a_weight_is_charged_in_whole_tokens():
    driver, beside, _, second, ledger = drivers(weight=2.5)
    in_virtual_time(beside.run, whole(2))
    assert ledger.spent == 3 * second.delivered
    assert driver.usage.second_tokens > 0


def test_what_the_other_wrote_is_scored_with_the_tokens_of_its_own_tokenizer():
    """A PRM that reads log-probabilities is told where steps end among the tokens, which only the writer can decode."""

    class Reading(FakePRM):
        traits = Traits(logprobs=True)
        asked: ClassVar = []

        async def score(self, request):
            self.asked.append(request.tokens)
            return await super().score(request)

    prm = Reading(lambda question, steps: 0.5)
    driver, beside, *_ = drivers(prm=prm)
    ours, theirs = in_virtual_time(driver.run, whole(2)), in_virtual_time(beside.run, whole(2))

    def scored(prefixes):
        return (yield from Score(prefixes=prefixes))

    for other, held in ((beside, ours), (driver, theirs)):
        found = in_virtual_time(other.run, scored(held))
        assert all(one.scores for one in found)
    assert len(prm.asked) == len({one.steps for one in (*ours, *theirs)})
    lengths = {len(one.token_ids) for one in (*ours, *theirs)}
    assert all(one.ends[-1] == len(one.chosen) in lengths for one in prm.asked)


def test_equal_solutions_are_scored_once_whoever_wrote_them():
    prm = FakePRM(lambda question, steps: 0.5)
    driver, beside, *_ = drivers(prm=prm)
    in_virtual_time(driver.run, whole(3, score=True))
    assert beside._account.scores is driver._account.scores
    assert driver._account.scores
