"""The strategies that must pass the conformance suite; a new strategy is added here."""

from __future__ import annotations

import pytest

from adaptive_ttc.strategies import strategy_names
from tests.conformance.strategy_suite import CASES, CHECKS, StrategyCase, register

register(StrategyCase("greedy"))
register(StrategyCase("majority", {"n": 6}))
register(StrategyCase("best_of_n", {"n": 5, "slice_size": 2}))
register(StrategyCase("weighted_best_of_n", {"n": 6, "agg_strategy": "min"}))
register(StrategyCase("short_m_at_k", {"n": 6, "m": 2}, {"m": 1}))
register(StrategyCase("beam_search", {"n": 8, "beam_width": 2}, {"beam_width": 1}))
register(StrategyCase("dvts", {"n": 8, "beam_width": 2}, {"beam_width": 1}))
register(StrategyCase("revision", {"n": 6, "sequential": 2}, {"sequential": 1}))


def test_every_strategy_is_under_test() -> None:
    assert set(CASES) == set(strategy_names())


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("case", CASES)
def test_conformance(case: str, check: str) -> None:
    CHECKS[check](CASES[case])
