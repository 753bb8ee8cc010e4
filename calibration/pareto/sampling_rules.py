"""Published rules that decide how many samples a problem gets: Adaptive-Consistency, UAB, IAS; replayed on records.

A rule looks at the samples so far and stops or goes on; that is replayed over random orders of a problem's pool, which
is exact while no more samples are drawn than the pool holds. Every rule is given all settings of a grid, and which
setting stands for it at which cost is chosen on other problems than those it is judged on.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from adaptive_ttc.calibration.collect.records import ProblemRecord, UnitRecord, Weights, groups_of
from adaptive_ttc.calibration.fit.accuracy import vote_accuracy
from adaptive_ttc.calibration.judge.gains import PRICES
from adaptive_ttc.calibration.pareto.curves import Line, Point
from adaptive_ttc.calibration.pareto.inputs import tuning_parts
from adaptive_ttc.estimate.table import Vote
from adaptive_ttc.strategies.adaptive import SAMPLE

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

ORDERS = 12
"""Random orders in which a pool is drawn."""

AGREEMENT = (0.8, 0.9, 0.95, 0.99)
CAPS = (4, 8, 16, 40, 64)
TEMPERATURES = (0.05, 0.2, 1.0)
WORTH = tuple(np.geomspace(1e-6, 0.25, 14).tolist())
QUANTILES = (0.1, 0.25, 0.5)
CONFIDENCE = (0.5, 0.8, 0.9, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A problem's pool in several orders, all of shape [orders, samples]: what is known after 1, 2, ... samples.

    Attributes:
        right: vote -> probability that it is right.
        generated, prm: tokens so far.
        agreement: P(Beta(a + 1, b + 1) > 1/2), a and b being the votes of the two leading answers.
        nll: mean negative log-probability of a token, over the samples so far.
        score: of the first sample, shape [orders]; nan where nothing is scored.
        rate: share of right samples in the pool.
    """

    right: dict[str, Array]
    generated: Array
    prm: Array
    agreement: Array
    nll: Array
    score: Array
    rate: float


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule in one setting.

    Attributes:
        label: of the setting.
        vote: over the samples; all but ``majority`` pay for scores.
        samples: how many are drawn, in every order, shape [orders].
        look: samples that are scored in any case.
    """

    label: str
    vote: str
    samples: Callable[[Drawn], Counts]
    look: int = 0


def draw(records: Sequence[ProblemRecord], vote: Vote, seed: int = 0) -> list[Drawn]:
    """The pools of all problems in random orders."""
    return [_drawn(record, vote, seed) for record in records]


def adaptive_consistency() -> list[Rule]:
    """Stop when the majority is settled (arXiv 2305.11860); its own setting is .95, at most 40 samples."""
    return [
        Rule(f"threshold {level:g}, at most {cap}", "majority", _agreed(level, cap))
        for level in AGREEMENT
        for cap in CAPS
    ]


def uab(scored: bool) -> list[Rule]:
    """The next sample goes where p (1 - p)^c is largest, c being the extra samples so far and p = exp(-NLL / tau).

    Under a shared budget that is a threshold on the worth of a sample: those above it are drawn, whoever they help.
    """
    votes = ("majority", "weighted") if scored else ("majority",)
    return [
        Rule(f"tau {tau:g}, worth {worth:.2g}, {vote}", vote, _worthy(tau, worth))
        for vote in votes
        for tau in TEMPERATURES
        for worth in WORTH
    ]


def ias(drawn: Sequence[Drawn]) -> list[Rule]:
    """N = ceil(ln(1 - q) / ln(1 - p)) samples, p a lower quantile of the pass rate given a score (arXiv 2506.09338).

    The quantiles are learned from ``drawn``.
    """
    scores = np.concatenate([one.score for one in drawn])
    if np.isnan(scores).all():
        return []
    rates = np.concatenate([np.full(len(one.score), one.rate) for one in drawn])
    return [
        Rule(f"quantile {level:g}, q {q:g}, at most {cap}, {vote}", vote, _adapted(curve, q, cap), look=1)
        for level in QUANTILES
        for curve in [lower_quantile(scores, rates, level)]
        for q in CONFIDENCE
        for cap in CAPS
        for vote in ("best", "weighted")
    ]


def sampling_lines(
    records: Sequence[ProblemRecord],
    tuned_on: Sequence[ProblemRecord] | None,
    vote: Vote,
    weights: Weights,
    *,
    scored: bool,
    folds: int,
    seed: int,
) -> list[Line]:
    """Adaptive-Consistency, UAB and IAS, each in the settings that are best on other problems; none without samples.

    Settings are chosen on the problems of ``tuned_on``; where it is None, in folds of the problems to be judged.
    """
    if any(not record.units.get(SAMPLE) for record in records):
        return []
    drawn = draw(records, vote, seed)
    scored = scored and "weighted" in drawn[0].right
    if tuned_on is None:
        apart = tuning_parts(groups_of(records), folds, seed)
        splits = [([drawn[row] for row in learn], rows) for learn, rows in apart]
    else:
        splits = [(draw(tuned_on, vote, seed), np.arange(len(drawn)))]
    rules_of: dict[str, Callable[[Sequence[Drawn]], list[Rule]]] = {
        "adaptive_consistency": lambda _: adaptive_consistency(),
        "uab": lambda _: uab(scored),
        "ias": lambda learned: ias(learned) if scored else [],
    }
    lines = []
    for name, make in rules_of.items():
        made = [make(learn) for learn, _ in splits]
        if made[0]:
            parts = [
                (played(rules, learn, weights), rows, played(rules, [drawn[row] for row in rows], weights))
                for rules, (learn, rows) in zip(made, splits, strict=True)
            ]
            lines.append(tuned(name, made[0], parts))
    return lines


def lower_quantile(scores: Array, rates: Array, level: float, groups: int = 10) -> Callable[[Array], Array]:
    """A quantile of the pass rate as a rising function of the score, by groups of equal size."""
    order = np.argsort(np.nan_to_num(scores), kind="stable")
    parts = [part for part in np.array_split(order, groups) if len(part)]
    x = np.array([np.nan_to_num(scores)[part].mean() for part in parts])
    y = np.maximum.accumulate([np.quantile(rates[part], level) for part in parts])
    return lambda score: np.asarray(np.interp(np.nan_to_num(score), x, y))


def played(rules: Sequence[Rule], drawn: Sequence[Drawn], weights: Weights) -> tuple[Array, Array]:
    """Accuracy and cost of every rule on every problem, both of shape [problems, rules], means over the orders."""
    accuracy, cost = np.zeros((len(drawn), len(rules))), np.zeros((len(drawn), len(rules)))
    for row, one in enumerate(drawn):
        orders = np.arange(len(one.generated))
        for column, rule in enumerate(rules):
            last = rule.samples(one) - 1
            accuracy[row, column] = one.right[rule.vote][orders, last].mean()
            prm = one.prm[orders, last] if rule.vote != "majority" else one.prm[orders, rule.look - 1] * (rule.look > 0)
            cost[row, column] = (weights.generated * one.generated[orders, last] + weights.prm * prm).mean()
    return accuracy, cost


def tuned(
    name: str, rules: Sequence[Rule], parts: Sequence[tuple[tuple[Array, Array], Counts, tuple[Array, Array]]]
) -> Line:
    """At every price the setting that is best where it was tuned, as it does where it is judged.

    Args:
        name: of the curve.
        rules: the settings.
        parts: (accuracy, cost) of the settings where they are tuned, the rows of the problems to be judged, and
            (accuracy, cost) there; together the parts hold every problem once.
    """
    problems = sum(len(rows) for _, rows, _ in parts)
    points: dict[tuple[int, ...], Point] = {}
    for price in PRICES:
        chosen = tuple(int(np.argmax((right - price * paid).mean(axis=0))) for (right, paid), _, _ in parts)
        if chosen in points:
            continue
        accuracy, cost = np.zeros(problems), np.zeros(problems)
        for setting, (_, rows, (right, paid)) in zip(chosen, parts, strict=True):
            accuracy[rows], cost[rows] = right[:, setting], paid[:, setting]
        label = rules[chosen[0]].label if len(set(chosen)) == 1 else "cross-fitted"
        points[chosen] = Point.measured(cost, accuracy, label)
    return Line.of(name, points.values())


def _agreed(level: float, cap: int) -> Callable[[Drawn], Counts]:
    return lambda drawn: _first(drawn.agreement >= level, cap)


def _worthy(tau: float, worth: float) -> Callable[[Drawn], Counts]:
    def samples(drawn: Drawn) -> Counts:
        p = np.exp(-drawn.nll / tau)
        extra = np.arange(p.shape[1])
        return _first(p * (1 - p) ** extra < worth, p.shape[1])

    return samples


def _adapted(curve: Callable[[Array], Array], q: float, cap: int) -> Callable[[Drawn], Counts]:
    def samples(drawn: Drawn) -> Counts:
        p = np.clip(curve(drawn.score), 1e-3, 1 - 1e-6)
        most = min(cap, drawn.generated.shape[1])
        return np.clip(np.ceil(math.log(1 - q) / np.log1p(-p)), 1, most).astype(np.int64)

    return samples


def _first(stop: NDArray[np.bool_], cap: int) -> Counts:
    """Samples until a rule says stop, in every order; ``cap`` where it never does."""
    most = min(cap, stop.shape[1])
    inside = stop[:, :most]
    first: Counts = np.where(inside.any(axis=1), inside.argmax(axis=1) + 1, most)
    return first


def _drawn(record: ProblemRecord, vote: Vote, seed: int) -> Drawn:
    pool = list(record.units[SAMPLE])
    votes = {"majority": Vote("majority")}
    if any(attempt.scores for one in pool for attempt in one.unit.attempts):
        votes |= {"weighted": replace(vote, name="weighted"), "best": replace(vote, name="best")}
    rng = random.Random(f"orders/{seed}/{record.id}")
    shape, first = (ORDERS, len(pool)), np.tri(len(pool), dtype=bool)
    right = {name: np.zeros(shape) for name in votes}
    agreement, nll, score = np.zeros(shape), np.zeros(shape), np.full(ORDERS, math.nan)
    generated, prm = np.zeros(shape), np.zeros(shape)
    for number in range(ORDERS):
        rng.shuffle(pool)
        for name, after in zip(votes, vote_accuracy(pool, first, list(votes.values())), strict=True):
            right[name][number] = after
        agreement[number] = list(_agreement(pool))
        nll[number] = _nll(pool)
        score[number] = vote.score(pool[0].unit.attempts[0])
        generated[number] = np.cumsum([one.unit.generated for one in pool])
        prm[number] = np.cumsum([one.unit.prm for one in pool])
    rate = float(np.mean([all(one.correct) for one in pool]))
    return Drawn(right, generated, prm, agreement, nll, score, rate)


def _agreement(pool: Sequence[UnitRecord]) -> Iterator[float]:
    counts: dict[str, int] = {}
    for one in pool:
        answer = one.unit.attempts[0].answer
        if answer is not None:
            counts[answer] = counts.get(answer, 0) + 1
        first, second, *_ = [*sorted(counts.values(), reverse=True), 0, 0]
        yield settled(first, second)


@cache
def settled(first: int, second: int) -> float:
    """P(Beta(a + 1, b + 1) > 1/2): that the leading answer is the more probable of two."""
    return float(beta.sf(0.5, first + 1, second + 1))


def _nll(pool: Sequence[UnitRecord]) -> Array:
    """Mean over the samples so far of the mean over their tokens; where it is not known, a sample counts as certain."""
    rates = [-one.unit.attempts[0].logprob / max(1, one.unit.attempts[0].tokens) for one in pool]
    return np.cumsum(np.nan_to_num(rates)) / np.arange(1, len(rates) + 1)
