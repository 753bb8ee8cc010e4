"""How far true gains follow forecast ones, on problems that forecasts were not fitted to.

Looked at are the states that a pool of problems passes through while the forecasts themselves decide which is sampled
next. A slope of 1 means that forecasts may be taken at their word, one below 1 that they promise too much where they
promise most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from adaptive_ttc.calibration.collect.records import ProblemRecord, groups_of
from adaptive_ttc.calibration.judge.sampling import Array, Order, Rule, curve, worth_of
from adaptive_ttc.estimate.agreement_gain import PoolGainModel

AHEAD = 4  # samples over which a gain is forecast
MOST = 16  # samples of a problem that are replayed

_Seen = dict[tuple[int, int], float]


@dataclass(frozen=True, slots=True)
class Slope:
    """Of true on forecast gains, by least squares."""

    slope: float  # nan where all forecasts are alike
    low: float  # of its 95 % interval, by bootstrap over groups of problems
    high: float
    states: int  # looked at, of all problems and orders
    forecast: float  # mean gain
    true: float  # mean gain


def slope_on(
    records: Sequence[ProblemRecord],
    model_of: Callable[[ProblemRecord], PoolGainModel],
    *,
    orders: int = 3,
    resamples: int = 2_000,
    seed: int = 0,
) -> Slope:
    """Forecasts of ``model_of``, which was not fitted to the record's group, on all states that they pass through.

    A state counts if :data:`AHEAD` more samples were recorded.
    """
    sums: dict[str, Array] = {group: np.zeros(5) for group in groups_of(records)}
    for number in range(orders):
        drawn = [Order.of(record, number, MOST) for record in records]
        models = [model_of(record) for record in records]
        seen: _Seen = {}
        watched = {id(model): _watched(model, seen) for model in models}
        curve(drawn, [watched[id(model)] for model in models], [math.inf])
        right = {id(order): order.accuracy(model.weight) for order, model in zip(drawn, models, strict=True)}
        group = {id(order): order.record.own_group for order in drawn}
        for (key, n), forecast in seen.items():
            if n + AHEAD < len(right[key]):
                true = float(right[key][n + AHEAD] - right[key][n])
                sums[group[key]] += (1.0, forecast, true, forecast * forecast, forecast * true)
    return _slope(np.stack(list(sums.values())), resamples, seed)


def _watched(model: PoolGainModel, seen: _Seen) -> Rule:
    """The rule that follows a model, and writes down its latest forecast of every state of an order."""

    def worth(order: Order, n: int) -> float:
        (forecast,) = model.forecasts([order.evidence(n)])
        seen[id(order), n] = next(one.gain for one in forecast.options if one.action.count == AHEAD)
        return worth_of(forecast)

    def learn(orders: Sequence[Order], taken: Sequence[int]) -> None:
        model.learn([order.evidence(n) for order, n in zip(orders, taken, strict=True)])

    return Rule("watched", worth, model.weight, learn)


def _slope(sums: Array, resamples: int, seed: int) -> Slope:
    """From count and sums of forecast, true, forecast^2 and forecast * true of every group, shape [groups, 5]."""
    counts = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=resamples)
    n, forecast, true, square, product = (np.vstack([sums.sum(axis=0), counts @ sums])).T
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (n * product - forecast * true) / (n * square - forecast**2)
    low, high = np.nanquantile(found[1:], (0.025, 0.975)) if np.isfinite(found[1:]).any() else (math.nan, math.nan)
    states = int(n[0])
    return Slope(
        float(found[0]), float(low), float(high), states, *(float(one[0]) / max(1, states) for one in (forecast, true))
    )
