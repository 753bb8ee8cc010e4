"""Chooses, for a pair of models, how scored solutions become one answer; it runs nothing.

Every vote with every reduction of step scores is tried on the same random draws from the pools of all problems. The
choice is made on some problems and judged on others (:func:`crossfitted`), since the best of many looks better than it
is where it was chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.calibration.decks import CLIP, Vote
from adaptive_ttc.calibration.records import ProblemRecord, UnitRecord
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.features import Attempt, Reading, family_of
from adaptive_ttc.strategies.base import AGGREGATIONS
from adaptive_ttc.types import Aggregation
from adaptive_ttc.voting import VoteName

B = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Values of b that are tried for the logit-weighted vote."""

Array = NDArray[np.float64]

_TIE = 1e-9

SIZES = (4, 16, 64)
"""Solutions drawn, of each kind of unit."""


@dataclass(frozen=True, slots=True)
class VoteChoice:
    """The vote chosen and what the others reach.

    Attributes:
        vote: the best on all problems.
        names: of all votes tried.
        accuracy: shape [problems, votes]: mean over kinds and sizes.
        crossfitted: accuracy of the vote that was chosen without the problem, mean over problems.
        optimism: how much better the best looks where it was chosen.
    """

    vote: Vote
    names: tuple[str, ...]
    accuracy: NDArray[np.float64]
    crossfitted: float
    optimism: float


def possible_votes(scored: bool, aggregations: Sequence[str] = AGGREGATIONS) -> tuple[Vote, ...]:
    """All that are tried; without scores there is only the majority."""
    if not scored:
        return (Vote("majority"),)
    votes = [Vote("majority")]
    for how in aggregations:
        reading = Reading(agg_strategy=_aggregation(how))
        votes += [Vote("best", reading=reading), Vote("weighted", reading=reading)]
        votes += [Vote("logit_weighted", b, reading) for b in B]
    return tuple(votes)


def name_of(vote: Vote) -> str:
    """How a person calls it."""
    b = f", b={vote.b:g}" if vote.name == "logit_weighted" else ""
    return "majority" if vote.name == "majority" else f"{vote.name} ({vote.reading.agg_strategy}{b})"


def choose_vote(
    records: Sequence[ProblemRecord],
    folds: NDArray[np.int64],
    *,
    draws: int = 8,
    seed: int = 0,
    aggregations: Sequence[str] = AGGREGATIONS,
) -> VoteChoice:
    """Try all votes.

    Args:
        records: the problems.
        folds: shape [problems]: the fold of every problem.
        draws: from every pool, at every size.
        seed: of the draws.
        aggregations: by which step scores are reduced, of :data:`adaptive_ttc.strategies.base.AGGREGATIONS`.

    Raises:
        CalibrationError: no solutions to vote on.
    """
    scored = any(
        attempt.scores for record in records for units in record.units.values() for one in units[:1]
        for attempt in one.unit.attempts
    )  # fmt: skip
    votes = possible_votes(scored, aggregations)
    accuracy = np.stack([_tried(record, votes, draws, seed) for record in records])
    if np.isnan(accuracy).all():
        raise CalibrationError(
            f"no problem has {SIZES[0]} samples, or trees, to vote on: collect more, such as with --arms majority:1,4"
        )
    accuracy = np.nan_to_num(accuracy)
    means = accuracy.mean(axis=0)
    outside = [
        accuracy[folds == fold, int(np.argmax(accuracy[folds != fold].mean(axis=0)))]
        for fold in np.unique(folds)
        if (folds != fold).any()
    ]
    honest = float(np.concatenate(outside).mean()) if outside else float(means.max())
    best = int(np.argmax(means))
    return VoteChoice(votes[best], tuple(map(name_of, votes)), accuracy, honest, float(means[best]) - honest)


def _tried(record: ProblemRecord, votes: Sequence[Vote], draws: int, seed: int) -> NDArray[np.float64]:
    """Accuracy of every vote on one problem, mean over kinds, sizes and draws."""
    results = []
    rng = np.random.default_rng([seed, *record.id.encode()])
    for kind, units in record.units.items():
        if family_of(kind) in ("sample", "dvts"):
            width = int(kind.partition("-")[2] or 1)
            sizes = [size // width for size in SIZES if 0 < size // width <= len(units)]
            if sizes:
                drawn = np.concatenate([subsets(len(units), size, draws, rng) for size in sizes])
                results.append(judged(units, drawn, votes).mean(axis=1))
    return np.mean(results, axis=0) if results else np.full(len(votes), np.nan)


def subsets(n: int, k: int, draws: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Random subsets of ``k`` of ``n`` units, as membership of shape [draws, n]; one, where there is but one."""
    if k == n:
        return np.ones((1, n), dtype=bool)
    drawn = np.zeros((draws, n), dtype=bool)
    np.put_along_axis(drawn, rng.random((draws, n)).argpartition(k, axis=1)[:, :k], True, axis=1)
    return drawn


def judged(units: Sequence[UnitRecord], drawn: NDArray[np.bool_], votes: Sequence[Vote]) -> NDArray[np.float64]:
    """Probability that pools of units are voted right; answers that tie share the win.

    Args:
        units: of one kind and problem.
        drawn: shape [pools, units]: which of them are in a pool.
        votes: to be taken.

    Returns:
        Shape [votes, pools].
    """
    able = [
        (index, attempt, correct)
        for index, one in enumerate(units)
        for attempt, correct in zip(one.unit.attempts, one.correct, strict=True)
        if attempt.answer is not None
    ]
    if not able:
        return np.zeros((len(votes), len(drawn)))
    names = {answer: place for place, answer in enumerate(sorted({str(attempt.answer) for _, attempt, _ in able}))}
    member = np.zeros((len(able), len(names)))
    member[np.arange(len(able)), [names[str(attempt.answer)] for _, attempt, _ in able]] = 1.0
    right = member.T @ np.array([correct for *_, correct in able], dtype=float) > 0
    held = drawn[:, [index for index, *_ in able]]
    weights = _weights([attempt for _, attempt, _ in able], votes)
    results = np.zeros((len(votes), len(drawn)))
    summed = [row for row, vote in enumerate(votes) if vote.name != "best"]
    if summed:
        results[summed] = _summed(held, member, right, weights[summed])
    for row, vote in enumerate(votes):
        if vote.name == "best":
            known = np.where(held, weights[row], -np.inf)
            top = (held & (known >= known.max(axis=1, keepdims=True) - _TIE)).astype(float) @ member > 0
            results[row] = (top @ right) / np.maximum(top.sum(axis=1), 1)
    return results


def _summed(held: NDArray[np.bool_], member: Array, right: NDArray[np.bool_], weights: Array) -> Array:
    """Votes whose weights add up, shape [votes, pools]; all in one product of matrices."""
    pools, names = held.astype(float), member.shape[1]
    columns = (weights.T[:, :, None] * member[:, None, :]).reshape(len(member), -1)
    totals = (pools @ columns).reshape(len(pools), len(weights), names)
    there = (pools @ member > 0)[:, None, :]
    totals = np.where(there, totals, -np.inf)
    winners = there & (totals >= totals.max(axis=2, keepdims=True) - _TIE)
    return np.asarray(((winners @ right) / np.maximum(winners.sum(axis=2), 1)).T)


def _weights(attempts: Sequence[Attempt], votes: Sequence[Vote]) -> Array:
    """What every attempt adds to its answer under every vote, shape [votes, attempts]; see :meth:`Vote.weight`."""
    scores: dict[str, Array] = {}
    rows = []
    for vote in votes:
        how = vote.reading.agg_strategy
        if vote.name == "majority":
            rows.append(np.ones(len(attempts)))
            continue
        if how not in scores:
            scores[how] = np.array([vote.reading.score(attempt) for attempt in attempts])
        known = ~np.isnan(scores[how])
        score = np.where(known, scores[how], 0.5)
        if vote.name == "logit_weighted":
            clipped = np.clip(score, CLIP, 1 - CLIP)
            score = np.log(clipped / (1 - clipped)) - np.log(vote.b / (1 - vote.b))
        rows.append(np.where(known, score, 0.0))
    return np.stack(rows)


def _aggregation(name: str) -> Aggregation:
    return name  # type: ignore[return-value]


def default_vote(scored: bool) -> Vote:
    """What is used where nothing was calibrated."""
    names: dict[bool, VoteName] = {True: "weighted", False: "majority"}
    return Vote(names[scored])
