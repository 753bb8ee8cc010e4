"""Chooses how far agreement among votes is believed beside the learned model, see `estimate/blended_gain.py`.

Both levels foretell states of problems that they were not fitted to. The weights are those that fit what happened best,
where the general level counts as what happened in :data:`PRIOR` further problems: of 30 problems the weights lean
towards agreement, of 400 they are what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from adaptive_ttc.calibration.collect.records import ProblemRecord
from adaptive_ttc.calibration.fit.agreement import graded_likelihood, maximised
from adaptive_ttc.calibration.fit.rows import TrainingRows
from adaptive_ttc.calibration.judge.sampling import mean_tokens
from adaptive_ttc.estimate.agreement_gain import AgreementGainModel
from adaptive_ttc.estimate.answer_prior import AnswerPrior, Component, shipped_prior
from adaptive_ttc.estimate.blended_gain import BlendWeights, gain_at, logit, only_votes, outlook_of
from adaptive_ttc.estimate.gain import Action, Array, answered
from adaptive_ttc.estimate.table import Vote
from adaptive_ttc.strategies.adaptive import SAMPLE

PRIOR = 10.0  # problems
STATES = 2_000  # by which weights are chosen, at most
LEAST = 0.1  # weight of agreement that is worth the time it takes
STRENGTH = 20.0  # problems that the prior of other pairs counts for in that of a pair


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """What a learned model foretells of problems that it was not fitted to."""

    right: Array  # shape [states]: probability that the answer in hand is right
    gains: Array  # shape [trials]: rise of that


@dataclass(frozen=True, slots=True)
class VoteLevel:
    """Fits the general level to any of the problems."""

    records: tuple[ProblemRecord, ...]  # of all problems
    seen: Array  # likelihoods of their samples, see :func:`graded_likelihood`; shape [problems, *SHAPE]
    vote: Vote  # whose weights the votes have

    @classmethod
    def of(cls, records: Sequence[ProblemRecord], vote: Vote) -> Self | None:
        """None where samples are missing."""
        if not all(record.units.get(SAMPLE) for record in records):
            return None
        return cls(tuple(records), np.stack([graded_likelihood(record) for record in records]), vote)

    def fitted(self, problems: Sequence[int]) -> AgreementGainModel:
        """With the prior of other pairs, sharpened by these problems, by their numbers."""
        some, seen = [self.records[number] for number in problems], self.seen[list(problems)]
        tokens = mean_tokens(some)
        weights = maximised(seen, shipped_prior().sharpened(list(seen)).weights, STRENGTH)
        model = AgreementGainModel(
            AnswerPrior.of([Component("this pair", "", "", len(some), weights, tokens)]),
            self.vote.weights,
            tokens=tokens,
            agg_strategy=self.vote.agg_strategy,
        )
        attempts = [one.unit.attempts[0] for record in some for one in record.units[SAMPLE]]
        model.center = float(np.mean([model.sign(one) for one in attempts if one.answer is not None] or [0.0]))
        return model


def fit_weights(
    level: VoteLevel, rows: TrainingRows, actions: Sequence[Action], learned: OutOfFold
) -> BlendWeights | None:
    """Weights of both levels; ``learned`` is of all rows.

    None where no state holds votes alone, or agreement adds next to nothing.
    """
    looked, right, gains = _foretold(level, rows, actions)
    problems = len(np.unique(rows.group))
    able = np.array([answered(rows.seen[row]) for row in looked.tolist()], dtype=bool)
    trials = ~np.isnan(gains)
    if not able.any() or not trials.any():
        return None
    states = looked[able]
    of_right = _logistic(right[able], learned.right[states], rows.right[states], problems)
    gained = (rows.after - rows.right[rows.owner])[trials]
    apart = gains[trials] - learned.gains[trials]
    missed = problems * float((gained - learned.gains[trials]) @ apart) + PRIOR * float(apart @ apart)
    share = min(1.0, max(0.0, missed / max((problems + PRIOR) * float(apart @ apart), 1e-12)))
    return BlendWeights(of_right, share) if max(share, of_right[0]) >= LEAST else None


def _foretold(
    level: VoteLevel, rows: TrainingRows, actions: Sequence[Action]
) -> tuple[NDArray[np.int64], Array, Array]:
    """What agreement foretells of problems that it was not fitted to: some states that hold votes alone, the
    probability that their answers are right, and gains of all trials, nan but for samples from these states.
    """
    votes = np.flatnonzero([only_votes(state) for state in rows.seen])
    looked = votes[:: max(1, -(-len(votes) // STATES))]
    fold, right, gains = rows.fold(), np.zeros(len(rows.right)), np.full(len(rows.after), np.nan)
    sampled = np.array([action.kind == SAMPLE for action in actions])[rows.tried]
    trials_of: dict[int, list[int]] = {row: [] for row in looked.tolist()}
    for trial in np.flatnonzero(sampled & np.isin(rows.owner, looked)).tolist():
        trials_of[int(rows.owner[trial])].append(trial)
    for out in np.unique(fold).tolist():
        model = level.fitted(np.unique(rows.problem[fold != out]).tolist())
        for row in looked[fold[looked] == out].tolist():
            outlook = outlook_of(model, rows.seen[row])
            right[row] = outlook.right
            for trial in trials_of[row]:
                gains[trial] = gain_at(outlook, actions[rows.tried[trial]].count)
    return looked, right[looked], gains


def _logistic(general: Array, own: Array, happened: Array, problems: int) -> tuple[float, float, float]:
    """Weights of the logits of two probabilities, and what is added: of most likelihood, the first two at least 0."""
    columns = np.stack([logit(general), logit(own), np.ones(len(own))], axis=1)
    target = (problems * happened + PRIOR * general) / (problems + PRIOR)

    def loss(weights: Array) -> tuple[float, Array]:
        raw = columns @ weights
        slope = (1 / (1 + np.exp(-raw)) - target) @ columns / len(target)
        return float((np.logaddexp(0, raw) - target * raw).mean()), slope

    bounds = [(0, None), (0, None), (None, None)]
    found = optimize.minimize(loss, np.array([0.5, 0.5, 0.0]), jac=True, method="L-BFGS-B", bounds=bounds)
    first, second, added = found.x.tolist()
    return first, second, added
