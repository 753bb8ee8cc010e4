import anyio
import pytest

from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.driver.health import FAILURES_IN_A_ROW, FEWEST_TRIES, Breaker
from adaptive_ttc.errors import EngineError, OutageError
from adaptive_ttc.ledger import Ledger
from tests.doubles import virtually

HUNG = EngineError("it hangs", retryable=True)


@virtually
async def test_one_try_that_hangs_beyond_all_patience_does_not_end_a_run():
    breaker = Breaker(patience=60.0)
    for _ in range(FAILURES_IN_A_ROW):
        breaker.failed(HUNG)
    for _ in range(FEWEST_TRIES - 1):
        await breaker.wait()
        assert breaker.admits()
        await anyio.sleep(100.0)
        breaker.failed(HUNG)
    with pytest.raises(OutageError, match="gone for 20"):
        await breaker.wait()


@virtually
async def test_an_engine_that_is_back_has_all_its_tries_again():
    breaker = Breaker(patience=0.0)
    for _ in range(2):
        for _ in range(FAILURES_IN_A_ROW):
            breaker.failed(HUNG)
        await breaker.wait()
        assert breaker.gone
        assert breaker.admits()
        breaker.succeeded()
        assert not breaker.gone


def test_each_policy_of_a_cascade_has_its_share_of_losses():
    config, budget = DriverConfig(loss_share=0.1), Ledger(1000)
    first = config.health()
    second = config.second_health(first)
    assert second.prm is first.prm
    for _ in range(6):
        first.losses.lost(15, HUNG, first.losses.incidents)
    second.losses.lost(15, HUNG, second.losses.incidents)
    first.losses.check(budget)
    second.losses.check(budget)  # 105 of 1,000 together, and each has lost less than a tenth
    first.losses.lost(15, HUNG, first.losses.incidents)
    with pytest.raises(OutageError, match="105 of 1,000 units were charged for 7 calls"):
        first.losses.check(budget)
    second.losses.check(budget)
