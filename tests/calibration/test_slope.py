"""How far true gains follow forecast ones."""

import math

import numpy as np
import pytest

from adaptive_ttc.calibration.judge.slope import _slope, slope_on
from adaptive_ttc.estimate.agreement_gain import AgreementGainModel
from adaptive_ttc.estimate.answer_prior import shipped_prior

from .test_agreement import records


def sums(forecast, true):
    return np.array([[1.0, f, t, f * f, f * t] for f, t in zip(forecast, true, strict=True)])


def test_it_is_the_slope_of_least_squares_and_its_interval_holds_it():
    rng = np.random.default_rng(0)
    forecast = rng.uniform(0, 0.3, 200)
    true = 0.02 + 0.7 * forecast + rng.normal(0, 0.1, 200)
    found = _slope(sums(forecast, true), 500, 0)
    assert found.slope == pytest.approx(np.polyfit(forecast, true, 1)[0])
    assert found.low < 0.7 < found.high
    assert (found.states, found.forecast, found.true) == (
        200,
        pytest.approx(forecast.mean()),
        pytest.approx(true.mean()),
    )


def test_forecasts_that_are_all_alike_have_no_slope():
    assert math.isnan(_slope(sums([0.5] * 4, [0.0, 1.0, 0.0, 1.0]), 50, 0).slope)


def test_states_that_a_pool_passes_through_are_looked_at():
    held = records(24, samples=8)
    model = AgreementGainModel(shipped_prior(), tokens=100.0).pool()
    found = slope_on(held, lambda _: model, orders=1, resamples=100)
    assert 24 <= found.states <= 24 * 4, "after one to four of eight samples, four more were recorded"
    doubled = AgreementGainModel(shipped_prior(), tokens=100.0, scale=2.0).pool()
    again = slope_on(held, lambda _: doubled, orders=1, resamples=100)
    assert again.forecast > 1.3 * found.forecast
    assert again.slope < 0.8 * found.slope
