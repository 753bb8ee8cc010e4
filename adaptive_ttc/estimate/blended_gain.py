"""One forecast of two levels: the general one, agreement among votes, and what was learned of the pair.

Agreement needs hardly any problems to be true, and sees nothing but votes; the learned model sees all, and needs many
problems. While a problem holds nothing but votes, its probability of being right is sigmoid(a logit(agreement) + b
logit(learned) + c), and the gain of more samples a mean of both. These weights were chosen by what either level
foretold of problems that it had not seen: stacked generalisation (Wolpert 1992), with weights of at least 0 (Breiman
1996). All other gains are the learned ones, for the probability of being right that both levels tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.agreement import AHEAD, Array, Outlook
from adaptive_ttc.estimate.agreement_gain import AgreementGainModel
from adaptive_ttc.estimate.features import Evidence
from adaptive_ttc.estimate.gain import Forecast, GainModel, LearnedGainModel
from adaptive_ttc.strategies.adaptive import GREEDY, SAMPLE

SCHEMA = 1

_CLIP = 1e-3  # probabilities are kept this far from 0 and 1


@dataclass(frozen=True, slots=True)
class BlendWeights:
    """How far either level is believed."""

    right: tuple[float, float, float]  # of the logits of agreement and of the learned model, and what is added
    gain: float  # of the gains by agreement, between 0 and 1; that of the learned ones is the rest

    def __post_init__(self) -> None:
        if len(self.right) != 3 or not all(map(math.isfinite, self.right)) or not 0 <= self.gain <= 1:
            raise CalibrationError(f"{self.right} and {self.gain} are no weights of a blend: fit anew")

    def of_right(self, agreement: Array, learned: Array) -> Array:
        """Probability of being right, from those of both levels, all of one shape."""
        a, b, c = self.right
        return np.asarray(1 / (1 + np.exp(-(a * logit(agreement) + b * logit(learned) + c))))


class BlendedGainModel(GainModel):
    """Forecasts of both levels.

    Args:
        learned: of the pair.
        agreement: the general level; of the same votes.
        weights: of either.
    """

    def __init__(self, learned: LearnedGainModel, agreement: AgreementGainModel, weights: BlendWeights) -> None:
        self.learned = learned
        self.agreement = agreement
        self.weights = weights

    def around(self, learned: LearnedGainModel) -> BlendedGainModel:
        """The same with another learned model."""
        return BlendedGainModel(learned, self.agreement, self.weights)

    def forecasts(self, states: Sequence[Evidence]) -> list[Forecast]:
        """One for each state."""
        outlooks = [outlook_of(self.agreement, state) if only_votes(state) else None for state in states]
        known = [(row, one.right) for row, one in enumerate(outlooks) if one is not None]

        def revised(right: Array) -> Array:
            rows, agreed = [row for row, _ in known], np.array([one for _, one in known])
            right[rows] = self.weights.of_right(agreed, right[rows])
            return right

        found = self.learned.forecasts(states, revised)
        return [
            one if outlook is None else self._blended(one, outlook)
            for one, outlook in zip(found, outlooks, strict=True)
        ]

    def _blended(self, known: Forecast, outlook: Outlook) -> Forecast:
        now, share = known.right or 0.0, self.weights.gain
        options = []
        for option in known.options:
            if option.action.kind == SAMPLE:
                gain = option.gain + share * (gain_at(outlook, option.action.count) - option.gain)
                option = replace(option, gain=min(max(gain, -now), 1 - now))
            options.append(option)
        return replace(known, options=tuple(options))

    def as_data(self) -> dict[str, Any]:
        """All but the learned model, for JSON."""
        weights = {"right": list(self.weights.right), "gain": self.weights.gain}
        return {"schema": SCHEMA, "agreement": self.agreement.as_data(), **weights}

    @classmethod
    def of_data(cls, learned: LearnedGainModel, data: Mapping[str, Any]) -> Self:
        """From :meth:`as_data`. CalibrationError: damaged, or of another version."""
        try:
            if data["schema"] != SCHEMA:
                raise CalibrationError(f"a blend of forecasts is of schema {data['schema']!r}, not {SCHEMA}: fit anew")
            first, second, added = map(float, data["right"])
            weights = BlendWeights((first, second, added), float(data["gain"]))
            return cls(learned, AgreementGainModel.of_data(data["agreement"]), weights)
        except (KeyError, TypeError, ValueError) as error:
            raise CalibrationError(f"a blend of forecasts is damaged ({error!r}): fit anew") from error


def only_votes(state: Evidence) -> bool:
    """Whether it holds solutions, and none of them from a search."""
    return bool(state.units) and all(unit.kind in (GREEDY, SAMPLE) for unit in state.units)


def outlook_of(agreement: AgreementGainModel, state: Evidence) -> Outlook:
    """What agreement among all solutions of a state lets expect."""
    return agreement.model.outlook(*agreement.answers(agreement.votes(state)))


def gain_at(outlook: Outlook, count: int) -> float:
    """Gain of so many further samples; between two of :data:`AHEAD` it is interpolated, beyond them it stays."""
    return float(np.interp(count, (0, *AHEAD), (0.0, *outlook.gains)))


def logit(probability: Array) -> Array:
    """In nats, within those of 0.001 and 0.999."""
    clipped = np.clip(probability, _CLIP, 1 - _CLIP)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))
