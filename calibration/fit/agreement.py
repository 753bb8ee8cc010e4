"""Fits the model of agreement to graded samples: its prior, the weights of votes, and how far to trust either.

The prior of a pair is that of other pairs, as far as they are like it, sharpened by the pair's own problems by
expectation maximisation; how many problems the former counts for is chosen by the likelihood of problems that were left
out, of the sharpening too. A weighting of votes is taken where its votes were right more often, what a sample's score,
log-probabilities and length tell where it foretold right answers better, both by more than half the standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np

from adaptive_ttc.calibration.collect.records import ProblemRecord, groups_of
from adaptive_ttc.calibration.judge.held_out import at_most, parts_of
from adaptive_ttc.calibration.judge.sampling import Order, mean_tokens
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.agreement import AHEAD, EDGES, SHAPE, Array
from adaptive_ttc.estimate.agreement_gain import SIGNS, UNFITTED, AgreementGainModel
from adaptive_ttc.estimate.answer_prior import AnswerPrior, Component, likelihood, shipped_prior
from adaptive_ttc.estimate.features import Attempt
from adaptive_ttc.estimate.lengths import OWN
from adaptive_ttc.strategies.adaptive import SAMPLE
from adaptive_ttc.types import Aggregation
from adaptive_ttc.voting import VoteWeights

STRENGTHS = (10.0, 30.0, 100.0, 300.0)
"""Problems that the general prior may count for."""

SURENESSES = (0.5, 2.0, 8.0)  # exponents of how sure the policy was of its answer
_LOOKS = (1, 2, 3, 4, 6, 8, 12, 16)  # numbers of samples at which votes and forecasts are compared
_ORDERS = 4
_JUDGED = 40  # problems of a fold by which signs and the scale of gains are chosen, at most
_SCALED = (1, 3, 6, 12)  # numbers of samples from which the scale of gains is measured
_SLOPES = 0.15  # standard deviation of slopes between pairs
_STEEPEST = 2.0  # slope, and its inverse the flattest


@dataclass(frozen=True, slots=True)
class FittedAgreement:
    """What was fitted, and how it was chosen."""

    model: AgreementGainModel
    strength: float  # problems that the general prior counts for
    held_out: float  # mean log-likelihood of a problem that was left out, in nats


def model_of(
    records: Sequence[ProblemRecord],
    *,
    general: AnswerPrior | None = None,
    agg_strategy: Aggregation = "last",
    scored: bool = False,
    edges: Sequence[float] = EDGES,
    folds: int = 5,
) -> FittedAgreement:
    """Fit all of it to these problems. CalibrationError: they hold no samples."""
    usable = [record for record in records if record.units.get(SAMPLE)]
    if not usable:
        raise CalibrationError("agreement is fitted to independent samples, and none were recorded: draw some")
    seen, known = np.stack([graded_likelihood(record) for record in usable]), general or shipped_prior()
    scores = _held_out(usable, seen, known, folds)
    strength = max(STRENGTHS, key=lambda one: scores[one])
    tokens = mean_tokens(usable)

    weights, own = choose_weights(usable, agg_strategy), own_length(usable)

    @cache
    def weights_of(rows: tuple[int, ...]) -> Array:
        part = seen[list(rows)]
        return maximised(part, known.sharpened(list(part)).weights, strength)

    def fitted(rows: Sequence[int], signs: VoteWeights, scale: float = 1.0) -> AgreementGainModel:
        found = weights_of(tuple(rows))
        prior = AnswerPrior((Component("this pair", "", "", len(rows), found, tokens),), (1.0,))
        model = AgreementGainModel(
            prior,
            weights,
            signs,
            tokens=tokens,
            own=own,
            scale=scale,
            agg_strategy=agg_strategy,
            scored=scored,
            edges=edges,
        )
        looks = [model.sign(one) for row in rows for one in _attempts([usable[row]]) if one.answer is not None]
        model.center = float(np.mean(looks or [0.0]))
        return model

    signs = choose_signs(usable, fitted)
    scale = gain_scale(usable, lambda rows: fitted(rows, signs))
    return FittedAgreement(fitted(range(len(usable)), signs, scale), strength, scores[strength])


def component_of(records: Sequence[ProblemRecord], name: str, model: str, dataset: str) -> Component:
    """A component of the general prior."""
    usable = [record for record in records if record.units.get(SAMPLE)]
    seen = np.stack([graded_likelihood(record) for record in usable])
    flat = np.full(SHAPE, 1 / math.prod(SHAPE))
    return Component(name, model, dataset, len(usable), maximised(seen, flat, 2.0), mean_tokens(usable))


def graded_likelihood(record: ProblemRecord) -> Array:
    """P(the problem's samples | p, theta, q) with the right answer known, up to a factor; shape SHAPE, at most 1."""
    right, silent = 0.0, 0
    wrong: dict[str, float] = {}
    for one in record.units[SAMPLE]:
        answer = one.unit.attempts[0].answer
        if answer is None:
            silent += 1
        elif one.correct[0]:
            right += 1
        else:
            wrong[answer] = wrong.get(answer, 0.0) + 1
    return likelihood([*([right] if right else []), *wrong.values()], silent, right)


def maximised(seen: Array, base: Array, strength: float, rounds: int = 60) -> Array:
    """Weights by expectation maximisation, ``base`` counting for ``strength`` problems; shape SHAPE."""
    flat, start = seen.reshape(len(seen), -1), base.ravel() / base.sum()
    weights = start
    for _ in range(rounds):
        posterior = flat * weights
        posterior /= np.maximum(posterior.sum(axis=1, keepdims=True), 1e-300)
        weights = posterior.sum(axis=0) + strength * start
        weights = weights / weights.sum()
    return np.asarray(weights.reshape(SHAPE))


def choose_weights(records: Sequence[ProblemRecord], agg_strategy: Aggregation = "last") -> VoteWeights:
    """The weighting whose votes are right most often; another than the unfitted one by more than half its error.

    Nothing is fitted but the choice of one of a few, so that it is made on all problems.
    """
    orders = [[Order.of(record, seed, _LOOKS[-1]) for record in records] for seed in range(_ORDERS)]

    def right(one: VoteWeights) -> Array:
        weigh = AgreementGainModel(_flat(), one, tokens=1.0, agg_strategy=agg_strategy).weight
        return np.asarray(np.mean([[_seen_right(one.accuracy(weigh)) for one in part] for part in orders], axis=0))

    return _best(_surenesses(_best(list(_candidates(records)), right), records), right)


def choose_signs(
    records: Sequence[ProblemRecord], fitted: Callable[[Sequence[int], VoteWeights], AgreementGainModel]
) -> VoteWeights:
    """What samples' looks tell of their being right: by the log-probability of outcomes of the leading answer, each of
    half of the problems by what was ``fitted`` to the other half.
    """
    parts = parts_of(records, 2)
    if not parts:
        return SIGNS

    def foretold(signs: VoteWeights) -> Array:
        found = np.full(len(records), np.nan)
        for learn, judge in parts:
            model = fitted(learn, signs)
            for row in _judged(records, judge):
                found[row] = _foretold(model, Order.of(records[row], 0))
        return np.asarray(found[~np.isnan(found)])

    told, scored = _known(records)
    rates = (SIGNS.logprob, 0.0, 4.0) if told else (0.0,)
    powers = (SIGNS.score, 0.0, 4.0) if scored else (0.0,)
    found = _best([VoteWeights(*one) for one in product(powers, rates, (SIGNS.length, 0.25, 1.0))], foretold)
    return _best(_surenesses(found, records), foretold)


def gain_scale(records: Sequence[ProblemRecord], fitted: Callable[[Sequence[int]], AgreementGainModel]) -> float:
    """Slope of true on forecast gains, four samples ahead, of problems under what was ``fitted`` to others, shrunk
    toward 1 by its standard error (problems of a group err together).
    """
    square, product = (dict.fromkeys(groups_of(records), 0.0) for _ in range(2))
    for learn, judge in parts_of(records):
        model = fitted(learn)
        for row in _judged(records, judge):
            for seed in range(2):
                order = Order.of(records[row], seed)
                right = order.accuracy(model.weight)
                for look in _SCALED:
                    if look + AHEAD[3] < len(right):
                        forecast = model.model.outlook(*model.answers(order.attempts[:look])).gains[3]
                        square[records[row].own_group] += forecast**2
                        product[records[row].own_group] += forecast * float(right[look + AHEAD[3]] - right[look])
    total = math.fsum(square.values())
    if not total:
        return 1.0
    slope = math.fsum(product.values()) / total
    error = math.fsum((product[group] - slope * square[group]) ** 2 for group in square) / total**2
    return min(_STEEPEST, max(1 / _STEEPEST, 1 + (slope - 1) * _SLOPES**2 / (_SLOPES**2 + error)))


def own_length(records: Sequence[ProblemRecord]) -> float:
    """Samples that the mean length of all counts for in estimating a problem's own: the variance of lengths within
    problems over that between them (James and Stein), between 0.1 and 4.
    """
    lengths = [np.array([one.tokens for one in _attempts([record])], dtype=float) for record in records]
    several = [one for one in lengths if len(one) > 1]
    if len(several) < 2:
        return OWN
    within = float(np.mean([one.var(ddof=1) for one in several]))
    noise = float(np.mean([one.var(ddof=1) / len(one) for one in several]))
    between = float(np.var([one.mean() for one in several], ddof=1)) - noise
    return min(4.0, max(0.1, within / between)) if between > 0 else 4.0


def _judged(records: Sequence[ProblemRecord], rows: Sequence[int]) -> list[int]:
    """At most :data:`_JUDGED` of the rows."""
    kept = {record.id for record in at_most([records[row] for row in rows], _JUDGED, 0)}
    return [row for row in rows if records[row].id in kept]


def _best(candidates: Sequence[VoteWeights], worth: Callable[[VoteWeights], Array]) -> VoteWeights:
    """The candidate of largest mean worth over problems; another than the first by more than half its error."""
    first = worth(candidates[0])

    def surplus(one: VoteWeights) -> float:
        difference = worth(one) - first
        return float(difference.mean()) - 0.5 * float(difference.std()) / math.sqrt(max(1, len(difference)))

    return max(candidates, key=surplus)


def _foretold(model: AgreementGainModel, order: Order) -> float:
    """Mean log-probability of what became of the leading answer, at several numbers of samples."""
    right, found = order.accuracy(model.weight), []
    for look in (1, 2, 4, 8):
        if look <= len(order.attempts):
            p = min(max(model.model.outlook(*model.answers(order.attempts[:look])).right, 1e-3), 1 - 1e-3)
            found.append(right[look] * math.log(p) + (1 - right[look]) * math.log1p(-p))
    return float(np.mean(found))


def _seen_right(accuracy: Array) -> float:
    return float(np.mean([accuracy[look] for look in _LOOKS if look < len(accuracy)] or [accuracy[-1]]))


def _candidates(records: Sequence[ProblemRecord]) -> Iterator[VoteWeights]:
    """The unfitted weighting first."""
    told, scored = _known(records)
    rates = (UNFITTED.logprob, 0.05, 4.0, 8.0) if told else (0.0,)
    powers = (UNFITTED.score, 1.0, 4.0, 0.0) if scored else (0.0,)
    for power, rate, length in product(powers, rates, (UNFITTED.length, 0.02, 0.25, 0.5)):
        yield VoteWeights(power, rate, length)


def _surenesses(weights: VoteWeights, records: Sequence[ProblemRecord]) -> list[VoteWeights]:
    """These weights, and where the log-probabilities of answers are known, the same with a weight of these too."""
    known = any(not math.isnan(one.answer_logprob) for one in _attempts(records))
    return [weights, *(replace(weights, answer=rate) for rate in SURENESSES if known)]


def _known(records: Sequence[ProblemRecord]) -> tuple[bool, bool]:
    """Whether some log-probability is known, and some score."""
    attempts = list(_attempts(records))
    return any(not math.isnan(one.logprob) for one in attempts), any(one.scores for one in attempts)


def _held_out(records: Sequence[ProblemRecord], seen: Array, general: AnswerPrior, folds: int) -> dict[float, float]:
    """Strength -> mean log-likelihood of problems under what was fitted to other groups, the general prior's share of
    each component included; of -inf where there are too few groups.
    """
    found: dict[float, list[float]] = {strength: [] for strength in STRENGTHS}
    for learn, judge in parts_of(records, folds):
        base = general.sharpened(list(seen[learn])).weights
        for strength, known in found.items():
            weights = maximised(seen[learn], base, strength, rounds=30)
            known += np.log(np.maximum((seen[judge] * weights).sum(axis=(1, 2, 3)), 1e-300)).tolist()
    return {strength: float(np.mean(known)) if known else -math.inf for strength, known in found.items()}


def _attempts(records: Sequence[ProblemRecord]) -> Iterator[Attempt]:
    return (one.unit.attempts[0] for record in records for one in record.units[SAMPLE])


def _flat() -> AnswerPrior:
    flat = Component("flat", "", "", 0, np.full(SHAPE, 1 / math.prod(SHAPE)))
    return AnswerPrior((flat,), (1.0,))
