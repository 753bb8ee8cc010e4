"""Forecasts from agreement: how far more independent samples would change the vote, and how sure the present one is.

It needs neither a PRM nor a calibration; either makes it sharper: a calibration fits the prior and the weights of votes
to a pair, scores and log-probabilities make some votes count more. As problems of a pool settle, their agreement and
lengths sharpen the forecasts of those that wait.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Self

from adaptive_ttc.errors import CalibrationError, ConfigError
from adaptive_ttc.estimate.agreement import AHEAD, EDGES, AgreementModel, Answer
from adaptive_ttc.estimate.answer_prior import AnswerPrior, likelihood
from adaptive_ttc.estimate.features import Attempt, Evidence, score_of
from adaptive_ttc.estimate.gain import Action, Forecast, GainModel, Look, Option, unseen
from adaptive_ttc.estimate.lengths import OWN, next_length, pool_length
from adaptive_ttc.stopping.beta import leads
from adaptive_ttc.strategies.adaptive import SAMPLE
from adaptive_ttc.strategies.base import Strategy
from adaptive_ttc.types import Aggregation
from adaptive_ttc.voting import VoteWeights

SCHEMA = 1

_PLAIN = ("tokens", "own", "scale", "center", "agg_strategy", "scored")

UNSETTLED = 0.02
"""Gain of a sample where the lead is as likely wrong as right, over 1 + the samples there are.

It is about what true gains exceeded forecasts by where these promise less than 0.01 of four samples: the lead may be
less settled than the prior believes, and the least settled are drawn where little is expected of any.
"""

SETTLED = 0.0025
"""The same share under which not even that is gained: six votes for one answer and none for others, or 200 samples of
which no one can tell which of two answers leads.
"""

LEAST_POOL = 8  # problems from which on a pool says something of each of them
_REMEMBERED = 512  # problems of a pool whose agreement is kept


UNFITTED = VoteWeights(score=2.0, logprob=2.0)
"""Weights of votes where nothing is fitted. Lengths count only where they were fitted: of answers of equal votes, that
with the shorter solutions is right more often for some pairs and less often for others.
"""

SIGNS = VoteWeights(score=1.0, logprob=1.0)
"""How much rather right than wrong a sample looks, where nothing is fitted."""


class AgreementGainModel(GainModel):
    """Forecasts for independent samples.

    Args:
        prior: over answers.
        weights: of votes.
        signs: the logarithm of this weight, less ``center``, is how many nats a sample looks rather right than wrong.
        center: mean of that logarithm; None where it is not known: that of the problem's own samples, or of the pool's.
        tokens: of a sample on average; a guess until some are seen.
        own: samples that this mean counts for, beside a problem's own.
        scale: by which gains are multiplied; how far forecasts of other problems were off.
        agg_strategy: how the scores of steps become one.
        scored: whether the PRM will score what is drawn.
        edges: pass rates between the bins of difficulty.
    """

    def __init__(
        self,
        prior: AnswerPrior,
        weights: VoteWeights = UNFITTED,
        signs: VoteWeights = SIGNS,
        *,
        tokens: float,
        own: float = OWN,
        scale: float = 1.0,
        center: float | None = None,
        agg_strategy: Aggregation = "last",
        scored: bool = False,
        edges: Sequence[float] = EDGES,
    ) -> None:
        self.prior = prior
        self.weights = weights
        self.signs = signs
        self.tokens = tokens
        self.own = own
        self.scale = scale
        self.center = center
        self.agg_strategy = agg_strategy
        self.scored = scored
        self.edges = tuple(edges)
        self.model = AgreementModel(prior.weights, self.edges)

    def forecasts(self, states: Sequence[Evidence]) -> list[Forecast]:
        """One for each state."""
        return [self._forecast(state) for state in states]

    def pool(self, vote: Strategy | None = None, look: Look | None = None) -> PoolGainModel:
        """The same for one pool of problems, from which it learns; it does not look at the budget."""
        return PoolGainModel(self)

    @property
    def plain(self) -> dict[str, Any]:
        """Arguments that are numbers or words."""
        return {name: getattr(self, name) for name in _PLAIN}

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "schema": SCHEMA,
            "prior": self.prior.as_data(),
            "weights": asdict(self.weights),
            "signs": asdict(self.signs),
            **self.plain,
            "edges": list(self.edges),
        }

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> Self:
        """From :meth:`as_data`. CalibrationError: damaged, or of another version."""
        try:
            if data["schema"] != SCHEMA:
                raise CalibrationError(f"forecasts from agreement are of schema {data['schema']!r}, not {SCHEMA}")
            plain = {name: data[name] for name in _PLAIN}
            weights, signs = VoteWeights(**data["weights"]), VoteWeights(**data["signs"])
            model = cls(AnswerPrior.of_data(data["prior"]), weights, signs, **plain, edges=data["edges"])
            model.forecasts([Evidence("1 + 1", 8)])  # whatever does not fit together says so here
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise CalibrationError(f"forecasts from agreement are damaged ({error!r}): fit anew") from error
        return model

    def answers(self, attempts: Sequence[Attempt]) -> tuple[list[Answer], int]:
        """(votes, tilt) of every answer, the leading one first, and the number of attempts without an answer."""
        heard = [one for one in attempts if one.answer is not None]
        signs = [self.sign(one) for one in heard]
        center = self.center if self.center is not None else math.fsum(signs) / len(signs) if signs else 0.0
        totals: dict[str, tuple[float, float, float]] = {}
        for one, sign in zip(heard, signs, strict=True):
            weight, votes, tilt = totals.get(str(one.answer), (0.0, 0.0, 0.0))
            totals[str(one.answer)] = (weight + self.weight(one), votes + 1.0, tilt + sign - center)
        ranked = sorted(totals.values(), reverse=True)
        return [(votes, tilt) for _, votes, tilt in ranked], len(attempts) - len(heard)

    def votes(self, state: Evidence) -> list[Attempt]:
        """Attempts that count as independent: every sample, and of a search the best attempt at its leading answer.

        Solutions of one tree share their beginning: that they agree says little more than one of them does.
        """
        return [one for unit in state.units for one in self._independent(unit.attempts)]

    def _independent(self, attempts: Sequence[Attempt]) -> Sequence[Attempt]:
        if len(attempts) < 2:
            return attempts
        weights: dict[str, float] = {}
        for one in attempts:
            if one.answer is not None:
                weights[one.answer] = weights.get(one.answer, 0.0) + self.weight(one)
        if not weights:
            return attempts[:1]
        leading = max(weights, key=weights.__getitem__)
        return [max((one for one in attempts if one.answer == leading), key=self.weight)]

    def weight(self, attempt: Attempt) -> float:
        """Of its vote."""
        return self._weight(attempt, self.weights)

    def sign(self, attempt: Attempt) -> float:
        """How right it looks, in nats, before the mean is taken off."""
        return math.log(self._weight(attempt, self.signs))

    def _weight(self, attempt: Attempt, weights: VoteWeights) -> float:
        score = score_of(attempt, self.agg_strategy)
        known = None if math.isnan(score) else score
        return weights.of(known, attempt.logprob, attempt.tokens, attempt.answer_logprob)

    def length(self, state: Evidence) -> float:
        """Tokens that the next sample is expected to take, at least 1."""
        lengths = [one.tokens for unit in state.units for one in unit.attempts]
        return next_length(lengths, self.tokens, self.own)

    def _forecast(self, state: Evidence) -> Forecast:
        attempts = self.votes(state)
        answers, silent = self.answers(attempts)
        outlook = self.model.outlook(answers, silent)
        first, second, *_ = (*sorted((votes for votes, _ in answers), reverse=True), 0.0, 0.0)
        unsettled = leads(second, first) / (1 + len(attempts))
        unsettled = UNSETTLED * unsettled if unsettled >= SETTLED else 0.0
        length = self.length(state)
        scoring = state.prompt_tokens + length if self.scored else 0.0
        unscored = unseen(state) if self.scored else 0
        options = (
            replace(
                Option.in_tokens(
                    Action(SAMPLE, count),
                    self.scale * max(gain, 0.0) + count * unsettled,
                    count * length,
                    count * scoring + unscored,
                ),
                look=1,  # where two that agree are enough, a third would be wasted
            )
            for count, gain in zip(AHEAD, outlook.gains, strict=True)
        )
        return Forecast(outlook.right, tuple(options), outlook.difficulty)


class PoolGainModel(AgreementGainModel):
    """Forecasts for problems that share a budget: what all of them showed so far sharpens the forecast of each."""

    learns = True

    def __init__(self, base: AgreementGainModel) -> None:
        super().__init__(base.prior, base.weights, base.signs, **base.plain, edges=base.edges)
        self._base = base

    def pool(self, vote: Strategy | None = None, look: Look | None = None) -> PoolGainModel:
        """Another one that begins anew."""
        return self._base.pool()

    def learn(self, states: Sequence[Evidence]) -> None:
        """Take in how the problems of the pool stand, in place of what was learned before.

        Of a verified problem it is known which answer is right; of the others it follows from their agreement.
        """
        drawn = [self.votes(state) for state in states]
        if len(drawn) < LEAST_POOL:
            return
        first = [attempts[0] for attempts in drawn if attempts]  # those of hard problems would count more often
        if not first:
            return
        self.tokens = pool_length(math.fsum(one.tokens for one in first), len(first), self._base.tokens)
        signs = [self.sign(one) for one in first if one.answer is not None]
        if self._base.center is None and signs:
            self.center = math.fsum(signs) / len(signs)
        seen = []
        for state, attempts in list(zip(states, drawn, strict=True))[-_REMEMBERED:]:
            answers, silent = self.answers(attempts)
            right = None
            if state.verified is not None:
                right = float(sum(one.answer == state.verified for one in attempts))
            if len(attempts) > 1 or right:  # a single vote tells nothing of agreement
                seen.append(likelihood([votes for votes, _ in answers], silent, right))
        self.prior = self._base.prior.sharpened(seen)
        self.model = AgreementModel(self.prior.weights, self.edges)
