"""A published rule of stopping as a gain model: budgets allocated without a calibration.

The one option of a problem is what the rule would draw next, and its gain is what the rule says that this is worth,
times the tokens that it takes: so the allocator, which ranks options by gain per unit, ranks problems as the rule does.
Such gains are no probabilities; none is told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from adaptive_ttc.estimate.features import LOOKS, Attempt, Evidence, score_of
from adaptive_ttc.estimate.gain import Action, Forecast, GainModel, Look, Option, answered, unseen
from adaptive_ttc.estimate.lengths import next_length, pool_length
from adaptive_ttc.stopping.base import Draw, StoppingRule
from adaptive_ttc.stopping.registry import told
from adaptive_ttc.strategies.adaptive import SAMPLE
from adaptive_ttc.strategies.base import Strategy
from adaptive_ttc.types import Aggregation
from adaptive_ttc.voting import weight_of

LEAST = 1e-3  # weight of one vote, in mean votes of the problem


class RuleGainModel(GainModel):
    """Forecasts by a rule, which sees the independent samples of a problem in the order in which they came.

    Args:
        rule: what to follow.
        guess: tokens of a sample, until some are seen.
        scored: whether the PRM will score what is drawn.
        vote: whose weights the rule's votes have, in those of a mean one; None: they count alike.
        look: how the budget stands; None where it is not known.
    """

    probable = False

    def __init__(
        self,
        rule: StoppingRule,
        guess: float,
        *,
        scored: bool = False,
        vote: Strategy | None = None,
        look: Look | None = None,
    ) -> None:
        self.rule = rule
        self._guess = guess
        self._scored = scored
        self._agg: Aggregation = vote.agg_strategy if vote else "last"
        self._vote = vote
        self._look = look
        self._first: dict[str, int] = {}  # question -> tokens of its first sample; later ones are of hard problems
        self._sum = 0

    def pool(self, vote: Strategy | None = None, look: Look | None = None) -> RuleGainModel:
        """The same for the problems of one budget, of whose lengths it learns."""
        return RuleGainModel(self.rule, self._guess, scored=self._scored, vote=vote, look=look)

    def forecasts(self, states: Sequence[Evidence]) -> list[Forecast]:
        """One for each state."""
        drawn = [self._draws(state) for state in states]
        for state, draws in zip(states, drawn, strict=True):
            if draws and state.question not in self._first:
                self._first[state.question] = draws[0].tokens
                self._sum += draws[0].tokens
        return [self._forecast(state, draws) for state, draws in zip(states, drawn, strict=True)]

    def _forecast(self, state: Evidence, draws: Sequence[Draw]) -> Forecast:
        typical = pool_length(self._sum, len(self._first), self._guess)
        length = next_length([one.tokens for one in draws], typical)
        left = math.inf if (most := getattr(self.rule, "most", None)) is None else most - len(draws)
        count = max(self.rule.samples(draws), int(min(len(draws) // LOOKS, left)))
        worth = self.rule.worth(draws, self._look(typical) if self._look else None)
        scoring = count * (state.prompt_tokens + length) + unseen(state) if self._scored else 0.0
        option = Option.in_tokens(Action(SAMPLE, count), worth * count * length, count * length, scoring)
        return Forecast(None if answered(state) else 0.0, (option,), note=self._note(draws, worth))

    def _draws(self, state: Evidence) -> list[Draw]:
        """Samples of the one distribution from which they are drawn independently."""
        samples = [one for unit in state.units if unit.kind == SAMPLE for one in unit.attempts]
        scores = [score_of(one, self._agg) if one.scores else None for one in samples]
        weights = [self._weight(score, one) for one, score in zip(samples, scores, strict=True)]
        known = [weight for weight in weights if weight is not None]
        mean = math.fsum(known) / len(known) if known else 0.0
        if getattr(self.rule, "weighted", False):  # what certifies by weights needs those of a sample alone
            mean = self._weight(0.5) or 0.0
        return [
            Draw(one.answer, one.tokens, max(weight / mean, LEAST) if mean and weight is not None else 1.0, score)
            for one, score, weight in zip(samples, scores, weights, strict=True)
        ]

    def _weight(self, score: float | None, of: Attempt | None = None) -> float | None:
        """Of a vote that counts by a sum of weights; None where it needs a score and has none, or counts alike."""
        vote = self._vote
        if vote is None or vote.vote not in ("majority", "weighted") or (vote.scored and score is None):
            return None
        known = (of.logprob, of.tokens, of.answer_logprob) if of else ()
        return weight_of(score, vote.vote, vote.vote_b, vote.vote_weights, *known)

    def _note(self, draws: Sequence[Draw], worth: float) -> str:
        said = f"by the rule {told(self.rule)}" + ("" if worth else ", which asks for no more")
        certificate = self.rule.certificate(draws)
        return said if certificate is None else f"{said}; {certificate.answer}: {certificate}"
