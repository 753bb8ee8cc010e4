"""What a problem is begun with, by what its budget pays for: measured, or replayed on unseen problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.calibration.collect.records import ProblemRecord, Weights, groups_of
from adaptive_ttc.calibration.fit.accuracy import Curves
from adaptive_ttc.calibration.judge.gains import FoldModels
from adaptive_ttc.calibration.judge.held_out import parts_of
from adaptive_ttc.calibration.judge.replay import UnitOrder, replay
from adaptive_ttc.estimate.artefact import Opening
from adaptive_ttc.estimate.table import Vote
from adaptive_ttc.evaluation.metrics import interval, paired_interval
from adaptive_ttc.strategies.adaptive import SECOND

Array = NDArray[np.float64]

SHARES = (0.5, 0.65, 0.8, 1.0, 1.3, 1.6, 2.0, 3.0, 4.0, 6.0)
"""Of the second policy's opening: what a problem's budget pays for, where openings are replayed."""

ORDERS = 2  # of every problem's units
FOLDS = 5  # in which thresholds are chosen and judged


@dataclass(frozen=True, slots=True)
class OpeningReplays:
    """Mean accuracy of replayed runs of unseen problems, by what opened them; of shape [shares]."""

    units: tuple[float, ...]  # of a problem, the second policy's prompt paid
    # first, second, scored: accuracy where the first policy opened, the second, and that scored at once
    first: tuple[float, ...]
    second: tuple[float, ...]
    scored: tuple[float, ...]


def judged_opening(
    records: Sequence[ProblemRecord],
    curves: Curves,
    fold_models: Sequence[FoldModels],
    vote: Vote,
    weights: Weights,
    seed: int,
) -> tuple[Opening, OpeningReplays | None]:
    """What :func:`opening_of` measures and :func:`opened_by_second` replays."""
    return opened_by_second(opening_of(records, curves, weights), fold_models, vote, weights, seed)


def opening_of(records: Sequence[ProblemRecord], curves: Curves, weights: Weights) -> Opening:
    """The greedy solution where it was recorded, else a sample; sized to nine in ten problems.

    Where greedy solutions and searches were recorded, and votes that cost no more than both are surely better than the
    greedy solution, a budget that does not pay for both is opened with votes.
    """
    kind = "greedy" if all(record.units.get("greedy") for record in records) else "sample"
    units = [one.unit for record in records for one in record.units[kind]]
    scored = any(attempt.scores for unit in units for attempt in unit.attempts)
    opening, search = Opening(kind, scored, *_nine_in_ten(records, kind)), _cheapest_search(curves, weights)
    if kind != "greedy" or search is None:
        return opening
    cost, greedy = curves.cost(weights).mean(axis=0), curves.column("greedy")
    able = [
        column
        for column, arm in enumerate(curves.arms)
        if arm.kind == "sample" and arm.n > 1 and cost[column] <= cost[greedy] + cost[search]
    ]
    best = max(able, key=lambda column: float(curves.accuracy[:, column].mean()), default=None)
    if best is None:
        return opening
    votes, one = curves.accuracy[:, best], curves.accuracy[:, greedy]
    if paired_interval(votes, one, groups_of(records), resamples=2_000).low <= 0:
        return opening
    both = [round(float(tokens[:, [greedy, search]].mean(axis=0).sum())) for tokens in (curves.generated, curves.prm)]
    return replace(opening, votes_generated=both[0], votes_prm=both[1])


def _cheapest_search(curves: Curves, weights: Weights) -> int | None:
    """Column of the cheapest arm that is neither greedy nor made of samples; None where there is none."""
    cost = curves.cost(weights).mean(axis=0)
    others = [column for column, arm in enumerate(curves.arms) if arm.kind not in ("greedy", "sample")]
    return min(others, key=lambda column: float(cost[column]), default=None)


def opened_by_second(
    opening: Opening, fold_models: Sequence[FoldModels], vote: Vote, weights: Weights, seed: int
) -> tuple[Opening, OpeningReplays | None]:
    """The opening of a cascade: by the second policy, and that scored, each from the budget on, of :data:`SHARES`, from
    which it gains most over all larger ones together, if that is more than chance, see :func:`_surely_from`; as it is,
    and nothing, for one policy.
    """
    kind = SECOND + opening.kind
    records = [record for one in fold_models for record in one.records]
    if not all(record.units.get(kind) for record in records):
        return opening, None
    generated, prm = _nine_in_ten(records, kind)
    asked = replace(opening, second_generated=generated, second_prm=prm)

    def right(second_from: float = 0.0, second_scored_from: float = 0.0) -> Array:
        begin = replace(asked, second_from=second_from, second_scored_from=second_scored_from)
        return np.stack([_right(begin, share, fold_models, vote, weights, seed) for share in SHARES])

    always = SHARES[0] / 2
    first, second = right(), right(always)
    scored = right(always, always) if opening.scored and weights.prm else second
    scored_from = _surely_from(scored - second, records, seed)
    best = np.where(np.array(SHARES)[:, None] >= (scored_from or np.inf), scored, second)
    found = replace(asked, second_from=_surely_from(best - first, records, seed), second_scored_from=scored_from)
    units = tuple(share * weights.generated * generated for share in SHARES)
    told = OpeningReplays(units, *(tuple(one.mean(axis=1).tolist()) for one in (first, second, scored)))
    return found if found.second_from else opening, told


def _surely_from(gains: Array, records: Sequence[ProblemRecord], seed: int) -> float:
    """The share from which gains, shape [shares, problems], are most in sum, see :func:`_gains_from`; 0 unless there,
    chosen on other problems, they have an interval above 0 over groups of problems: the best of several is better by
    chance.
    """
    parts = parts_of(records, FOLDS, seed)
    if not parts:
        return 0.0
    outside = np.zeros(len(records))
    for learn, judge in parts:
        start = _gains_from(gains[:, learn].mean(axis=1))
        chosen = np.array(SHARES) >= (start or np.inf)
        outside[judge] = gains[chosen][:, judge].sum(axis=0)
    surely = interval(outside, groups_of(records), resamples=2_000, seed=seed).low > 0
    return _gains_from(gains.mean(axis=1)) if surely else 0.0


def _gains_from(gains: Array) -> float:
    """The share from which gains, shape [shares], are most in sum, less what lies between it and where they cross 0; 0
    where they are nowhere above 0.
    """
    above = np.cumsum(gains[::-1])[::-1]
    best = int(np.argmax(above))
    if above[best] <= 0:
        return 0.0
    if best == 0:
        return SHARES[0]
    before, after = gains[best - 1], gains[best]  # not above 0, and above it
    return float(SHARES[best] - (SHARES[best] - SHARES[best - 1]) * after / (after - before))


def _right(
    opening: Opening, share: float, fold_models: Sequence[FoldModels], vote: Vote, weights: Weights, seed: int
) -> Array:
    """Accuracy on each unseen problem, shape [problems], mean over replays of several orders, where the budget pays for
    that share of the second policy's opening.
    """
    found: list[list[float]] = []
    least = opening.least_gain(weights.generated, weights.prm)
    for number in range(ORDERS):
        reached: list[float] = []
        for one in fold_models:
            orders = [UnitOrder(record, f"{seed}/{number}") for record in one.records]
            prompts = weights.second_prompt * sum(record.prompt_tokens for record in one.records)
            budget = int(prompts + share * weights.generated * opening.second_generated * len(orders)) + 1
            runs = replay(orders, one.learned.forecasts, vote, budget, weights, opening, least)
            reached += [run.accuracy for run in runs]
        found.append(reached)
    return np.asarray(np.mean(found, axis=0))


def _nine_in_ten(records: Sequence[ProblemRecord], kind: str) -> tuple[int, int]:
    """Tokens of the policy, and of the PRM, that nine of ten units of a kind take at most."""
    units = [one.unit for record in records for one in record.units[kind]]
    columns = [unit.generated for unit in units], [unit.prm for unit in units]
    generated, prm = (int(np.ceil(np.quantile(tokens, 0.9))) for tokens in columns)
    return max(1, generated), prm
