"""What a policy may cost beside a lease: reserved first, charged as told, in full where nobody told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adaptive_ttc.driver.driver import Driver
from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.driver.spare import LeaseSpare
from adaptive_ttc.errors import EngineError
from adaptive_ttc.events import RequestEvent
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policy import Sampled, SampleRequest
from adaptive_ttc.strategies.requests import Expand
from adaptive_ttc.types import ROOT, Problem
from tests.doubles import TinyPolicy, in_virtual_time


class Twice(TinyPolicy):
    """Reserves as much again for its first call, of which it says that ``told`` were used; None: the call is lost."""

    def __init__(self, told: int | None = 0) -> None:
        super().__init__()
        self.told, self.granted = told, None

    async def sample(self, request: SampleRequest) -> Sampled:
        if self.granted is not None:
            return await super().sample(request)
        self.granted = request.spare is not None and request.spare.reserve(request.max_tokens)
        if self.told is None:
            raise EngineError("both are lost", retryable=True)
        return replace(await super().sample(request), hedged_tokens=self.told)


def drive(policy: Any, budget: int | None, n: int = 1, max_tokens: int = 100) -> tuple[Driver, Ledger]:
    def search() -> Any:
        return (yield from Expand(prefixes=(ROOT,), n=n, max_tokens=max_tokens))

    ledger = Ledger(budget)
    driver = Driver(Problem.of("how much?"), policy, ledger, config=DriverConfig(loss_share=1.0))
    in_virtual_time(driver.attempt, search())
    statistics = ledger.statistics()
    assert (statistics.reserved, statistics.open_reservations) == (0, 0)
    assert ledger.spent == driver.usage.completion_tokens + driver.usage.lost_tokens
    assert budget is None or ledger.spent <= budget
    return driver, ledger


@pytest.mark.parametrize("told", [0, 7, 100])
def test_what_was_generated_beside_a_sample_is_charged_and_told_as_lost(told):
    policy = Twice(told)
    driver, ledger = drive(policy, 1000)
    assert policy.granted
    assert driver.usage.lost_tokens == told
    assert ledger.spent == policy.delivered + told
    beside = [event for event in driver.trace.of(RequestEvent) if event.finish in ("lost", "refused")]
    assert [event.max_tokens for event in beside] == [told]


def test_a_lost_call_costs_both():
    driver, _ = drive(Twice(None), 1000)
    assert driver.usage.lost_tokens == 200


def test_more_than_was_reserved_is_no_reply():
    policy = Twice(101)
    driver, _ = drive(policy, 1000)
    assert driver.usage.lost_tokens == 200
    assert "hedged_tokens=101" in str(driver.last_error)


@pytest.mark.parametrize(("budget", "granted"), [(None, True), (228, True), (227, False), (100, False)])
def test_nothing_is_reserved_that_a_solution_may_need(budget, granted):
    # a first lease of 64 tokens, as much beside it, and 100 for finishing a solution
    policy = Twice(0)
    drive(policy, budget)
    assert policy.granted == granted


def test_reservations_are_settled_in_order():
    ledger = Ledger(100)
    spare = LeaseSpare(ledger.reserve)
    assert spare.reserve(40)
    assert spare.reserve(50)
    assert not spare.reserve(20)
    assert spare.tokens == 90
    spare.settle(60)
    assert (ledger.spent, ledger.available) == (60, 40)
