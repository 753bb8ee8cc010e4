"""Asks a calibration about many problems at once, in the event loop where that is quick; it decides nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence

from anyio import to_thread

from adaptive_ttc.allocation.options import priced
from adaptive_ttc.cost import Price
from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.estimate.features import Evidence, family_of
from adaptive_ttc.estimate.gain import Forecast, Option

QUICK = 0.01
"""Seconds for which an event loop may be held up; what is expected to take longer runs in a thread."""

FIRST_GUESS = 0.002
"""Seconds that the prediction for one state takes, until one was seen."""


class Foresight:
    """Looks ahead.

    Args:
        calibrated: what was learned of the pair, or a prior.
        price: units a token costs.
        scores: whether there is a PRM; without one, only whole samples can be drawn.
        revises: whether the policy was trained to revise its solutions.
    """

    def __init__(self, calibrated: Calibrated, price: Price, *, scores: bool, revises: bool) -> None:
        self._calibrated = calibrated
        self._price = price
        families = ["greedy", "sample"]
        families += ["dvts", "beam_search"] if scores else []
        families += ["revision"] if revises else []
        self._families = frozenset(families)
        self._seconds = FIRST_GUESS  # for one state

    async def look(self, states: Sequence[Evidence]) -> list[Forecast]:
        """One for each, its options in units."""
        if not states:
            return []
        if self._seconds * len(states) > QUICK:
            return await to_thread.run_sync(self._look, states)
        return self._look(states)

    def _look(self, states: Sequence[Evidence]) -> list[Forecast]:
        started = time.perf_counter()
        forecasts = self._calibrated.outlook.forecasts(states)
        model = self._calibrated.difficulty
        posteriors: Sequence[tuple[float, ...] | None] = [None] * len(states)
        if model is not None:
            posteriors = model.posteriors(states)
        found = [
            Forecast(forecast.right, self._options(forecast, state), posterior)
            for state, posterior, forecast in zip(states, posteriors, forecasts, strict=True)
        ]
        self._seconds = (time.perf_counter() - started) / len(states)
        return found

    def _options(self, forecast: Forecast, state: Evidence) -> tuple[Option, ...]:
        able = (one for one in forecast.options if family_of(one.action.kind) in self._families)
        return tuple(priced(able, state, self._price.decode, self._price.score))
