"""Asks a calibration about many problems at once, in the event loop where that is quick; it decides nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from anyio import to_thread

from adaptive_ttc.allocation.envelope import Option
from adaptive_ttc.allocation.options import options_of
from adaptive_ttc.cost import Price
from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.estimate.features import Evidence, family_of
from adaptive_ttc.estimate.gain import Forecast

QUICK = 0.01
"""Seconds for which an event loop may be held up; what is expected to take longer runs in a thread."""

FIRST_GUESS = 0.002
"""Seconds that the prediction for one state takes, until one was seen."""


@dataclass(frozen=True, slots=True)
class View:
    """What is thought of a problem.

    Attributes:
        forecast: from its evidence.
        difficulty: probabilities of the bins, the easiest first; None where the calibration knows no features.
        options: of the forecast, in units.
    """

    forecast: Forecast
    difficulty: tuple[float, ...] | None
    options: tuple[Option, ...]

    @property
    def considered(self) -> tuple[tuple[str, float, float], ...]:
        """Every action with its expected gain and cost."""
        return tuple((str(option.key), option.gain, option.cost) for option in self.options)


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

    async def look(self, states: Sequence[Evidence]) -> list[View]:
        """A view of each."""
        if not states:
            return []
        if self._seconds * len(states) > QUICK:
            return await to_thread.run_sync(self._look, states)
        return self._look(states)

    def _look(self, states: Sequence[Evidence]) -> list[View]:
        started = time.perf_counter()
        forecasts = self._calibrated.outlook.forecasts(states)
        model = self._calibrated.difficulty
        posteriors: Sequence[tuple[float, ...] | None] = [None] * len(states)
        if model is not None:
            posteriors = model.posteriors(states)
        views = [
            View(possible, posterior, tuple(options_of(possible, state, self._price.decode, self._price.score)))
            for state, posterior, possible in zip(states, posteriors, map(self._possible, forecasts), strict=True)
        ]
        self._seconds = (time.perf_counter() - started) / len(states)
        return views

    def _possible(self, forecast: Forecast) -> Forecast:
        able = tuple(one for one in forecast.prospects if family_of(one.action.kind) in self._families)
        return Forecast(forecast.right, able)
