"""What ships, on problems of which all is known: options as agreement among votes offers them.

`allocator.py` prints the figures. In the known model all wrong answers are one; of those that agreement knows, the
narrowest is taken, by which 87 of 100 pairs of wrong answers are alike, so that its forecasts are off by that as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from allocator_known_model import Action, KnownModel, State

from adaptive_ttc.allocation.options import Pace, priced, within_record
from adaptive_ttc.estimate.agreement import RATES, SHAPE, SILENT, SPREADS
from adaptive_ttc.estimate.agreement_gain import AgreementGainModel
from adaptive_ttc.estimate.answer_prior import AnswerPrior, Component
from adaptive_ttc.estimate.features import Attempt, Evidence, Unit
from adaptive_ttc.estimate.gain import Forecast, Option
from adaptive_ttc.strategies.adaptive import SAMPLE
from adaptive_ttc.voting import VoteWeights

_EVEN = VoteWeights()
_ANSWERS = ("first", "second")


def on_grid(model: KnownModel) -> KnownModel:
    """The same with every rate the nearest of those that agreement knows."""
    near = tuple(tuple(float(RATES[np.abs(RATES - p).argmin()]) for p in rates) for rates in model.right)
    return replace(model, right=near)


def agreement_of(model: KnownModel) -> AgreementGainModel:
    """Forecasts by the prior of a model :func:`on_grid`; a sample takes one token."""
    weights = np.zeros(SHAPE)
    spread, silent = int(SPREADS.argmin()), int(SILENT.argmin())
    for weight, (p,) in zip(model.weights, model.right, strict=True):
        weights[int(np.abs(RATES - p).argmin()), spread, silent] += weight
    prior = AnswerPrior.of([Component("known", "", "", 1, weights, 1.0)])
    return AgreementGainModel(prior, _EVEN, _EVEN, tokens=1.0)


@dataclass
class AgreementOffers:
    """Options of states of a model :func:`on_grid` as a scheduler offers them, at most ``at_once`` side by side."""

    model: KnownModel
    at_once: int = 1
    _forecasts: dict[State, Forecast] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._agreement = agreement_of(self.model)

    def __call__(self, state: State) -> list[Option]:
        """In the actions of the known model, of which one is done side by side."""
        evidence = evidence_of(state)
        if state not in self._forecasts:
            (self._forecasts[state],) = self._agreement.forecasts([evidence])
        options = within_record(self._forecasts[state].options, self.model.cap - self.model.spent(state))
        offered = priced(options, evidence, 1.0, 0.0, Pace(self.at_once))
        return [replace(one, action=Action(0, one.at_once)) for one in offered]


def evidence_of(state: State) -> Evidence:
    """Samples of one token that gave either answer."""
    ((first, second),) = state
    said = (_ANSWERS[0],) * first + (_ANSWERS[1],) * second
    return Evidence("", 0, tuple(Unit(SAMPLE, (Attempt(one, (), 1),), generated=1) for one in said))
