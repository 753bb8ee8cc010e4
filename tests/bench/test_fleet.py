"""Balancing and hedging in virtual time: small batches show the same order as large ones."""

from __future__ import annotations

import pytest

from adaptive_ttc.loading import MINI_POLICY
from adaptive_ttc.policies.chat_model import read_chat_model
from tests.bench.toys import load


@pytest.fixture
def fleet(monkeypatch):
    return load(monkeypatch, "fleet")


@pytest.fixture(scope="module")
def model():
    return read_chat_model(MINI_POLICY, system_prompt=None, revision=None)


def test_the_slow_replica_gets_less_by_expected_wait(fleet, model):
    made = fleet.FLEETS["one three times slower, room for all"]
    outcomes = {
        way: fleet.run(made(), model, 150, 1, choose(), max_concurrency=32) for way, choose in fleet.WAYS.items()
    }
    assert all(len(one.latencies) == 150 and one.generated == one.delivered for one in outcomes.values())
    slow = [one.served[0] for one in outcomes.values()]
    assert slow == sorted(slow, reverse=True)
    assert outcomes["expected wait"].wall < outcomes["round robin"].wall


def test_hedging_shortens_the_tail_and_charges_at_least_what_is_generated(fleet, model):
    def outcome(way):
        servers = fleet.fleet_of(*fleet.EQUAL, slots=32, hangs=[[(3.0, 60.0)]])
        return fleet.run(servers, model, 150, 1, None, max_concurrency=24, **fleet.HEDGES[way])

    alone, hedged = outcome("no hedging"), outcome("hedge=0.95, hedge_share=0.2")
    assert alone.hedged == 0
    assert hedged.quantile(0.97) < 0.5 * alone.quantile(0.97)
    assert 0 <= hedged.generated - hedged.delivered <= hedged.hedged <= 0.2 * hedged.delivered
