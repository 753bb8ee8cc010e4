"""Quality of posteriors over difficulty on unseen problems, and the importance of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from adaptive_ttc.calibration.collect.records import ProblemRecord
from adaptive_ttc.calibration.fit.classifier import log_loss
from adaptive_ttc.calibration.fit.difficulty import Bins, Difficulty, DifficultyTrainer, counts_of
from adaptive_ttc.calibration.judge.held_out import CrossFitted
from adaptive_ttc.estimate.difficulty import BINS

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reliability:
    """One point of a reliability diagram: rows of like prediction of "harder than an edge"."""

    edge: int  # its number
    # predicted, observed: means over the rows
    predicted: float
    observed: float
    weight: float  # of the rows, in problems


@dataclass(frozen=True, slots=True)
class StageMetrics:
    """Metrics of a stage's classifier on held-out problems."""

    problems: int  # that were held out
    log_loss: float  # cross entropy with the soft labels, in nats
    log_loss_of_shares: float  # the same for a classifier that always answers the shares of the bins
    log_loss_floor: float  # the entropy of the soft labels: no classifier is below
    brier: float  # squared distance from the soft labels, summed over bins
    ece: float  # mean distance of observed from predicted P(harder than an edge) over bins of equal mass and all edges
    spearman: float  # rank correlation of expected easiness with measured pass@1, mean over the orders of the samples
    spearman_ceiling: float  # the same for the true rate, see :func:`spearman_ceiling`
    # shape [5, 5]: problems by their bin (its probability counts) and the most probable predicted one
    confusion: tuple[tuple[float, ...], ...]
    reliability: tuple[Reliability, ...]  # points of the diagram


@dataclass(frozen=True, slots=True)
class Predictions:
    """Held-out predictions of one stage."""

    posterior: Array  # shape [rows, 5]
    soft: Array  # shape [rows, 5], the labels
    problem: NDArray[np.str_]  # shape [rows], ids; a problem has a row for every order of its samples, in order
    # right, drawn: shape [rows]: samples that the row does not show
    right: Array
    drawn: Array
    weight: Array  # shape [rows]: those of a problem sum to 1


def measure(found: Predictions, bins: Bins, masses: int = 10) -> StageMetrics:
    """All metrics of a stage; ``bins`` holds the prior of the true rates.

    ``masses``: bins of the calibration error, of equal mass; fewer where they would hold fewer than 10 problems.
    """
    problems = len(set(found.problem.tolist()))
    shares = np.average(found.soft, axis=0, weights=found.weight)
    points = reliability(found, max(2, min(masses, problems // 10)))
    return StageMetrics(
        problems,
        log_loss(found.posterior, found.soft, found.weight),
        log_loss(np.tile(shares, (len(found.soft), 1)), found.soft, found.weight),
        log_loss(found.soft, found.soft, found.weight),
        float(np.average(((found.posterior - found.soft) ** 2).sum(axis=1), weights=found.weight)),
        calibration_error(points),
        _spearman(found),
        spearman_ceiling(found, bins),
        tuple(tuple(row) for row in confusion(found).tolist()),
        points,
    )


def reliability(found: Predictions, masses: int) -> tuple[Reliability, ...]:
    """Points of equal mass for every edge, by rising prediction."""
    points = []
    for edge in range(BINS - 1):
        predicted = 1 - np.cumsum(found.posterior, axis=1)[:, edge]
        observed = 1 - np.cumsum(found.soft, axis=1)[:, edge]
        order = np.argsort(predicted, kind="stable")
        for group in np.array_split(order, masses):
            weight = found.weight[group]
            said, seen = (float(np.average(values[group], weights=weight)) for values in (predicted, observed))
            points.append(Reliability(edge, said, seen, float(weight.sum())))
    return tuple(points)


def calibration_error(points: Sequence[Reliability]) -> float:
    """Expected calibration error: the mean distance of observed from predicted, weighted by mass."""
    weights = [point.weight for point in points]
    return float(np.average([abs(point.observed - point.predicted) for point in points], weights=weights))


def confusion(found: Predictions) -> Array:
    """Shape [5, 5], rows: the bin (a problem counts in each with its probability), columns: the predicted one."""
    table = np.zeros((BINS, BINS))
    for column in range(BINS):
        chosen = found.posterior.argmax(axis=1) == column
        table[:, column] = (found.soft[chosen] * found.weight[chosen, None]).sum(axis=0)
    return table


def spearman_ceiling(found: Predictions, bins: Bins, draws: int = 200, seed: int = 0) -> float:
    """Spearman correlation that the true rates would have with the noisy measured ones, by posterior simulation.

    True rates are drawn from every problem's Beta posterior and counts anew from these rates; the mean over the draws.
    """
    rng = np.random.default_rng(seed)
    _, first = np.unique(found.problem, return_index=True)
    right, drawn = found.right[first], np.maximum(np.rint(found.drawn[first]), 1).astype(int)
    results = []
    for _ in range(draws):
        rate = rng.beta(bins.prior.a + right, bins.prior.b + np.maximum(found.drawn[first] - right, 0))
        results.append(_rank_correlation(rate, rng.binomial(drawn, rate) / drawn))
    return float(np.mean(results))


def _spearman(found: Predictions) -> float:
    place: dict[str, int] = {}
    order = []
    for id in found.problem.tolist():
        place[id] = place.get(id, -1) + 1
        order.append(place[id])
    easiness, rate = -(found.posterior @ np.arange(BINS)), found.right / found.drawn  # less the mean bin
    turn = np.array(order)
    return float(np.mean([_rank_correlation(easiness[turn == one], rate[turn == one]) for one in sorted(set(order))]))


def _rank_correlation(one: Array, other: Array) -> float:
    """Spearman's; 0 where all are equal."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(stats.rankdata(one), stats.rankdata(other))[0, 1])


def group_of(feature: str) -> str:
    """Group of a feature: like features are shuffled together, as one alone would be replaced by the others."""
    part, _, name = feature.partition(".")
    about = {"prompt": "prompt", "votes": "agreement", "weights": "weighted agreement", "answers": "leading answer"}
    if part in about:
        return about[part]
    if part == "greedy":
        return "greedy solution"
    if part == "units":
        return "units"
    of = "first-step" if part == "first_steps" else "solution"
    if name.startswith("score"):
        return f"{of} scores"
    return f"{of} log-probability" if name.startswith("logprob") else f"{of} lengths"


def importances(
    fitted: CrossFitted[Difficulty], records: Sequence[ProblemRecord], trainer: DifficultyTrainer, seed: int = 0
) -> Mapping[str, Mapping[str, float]]:
    """Stage -> group -> rise of the log-loss in nats when the group is shuffled among held-out problems.

    Groups without values at a stage are left out.
    """
    rng = np.random.default_rng(seed)
    names = trainer.reading.names
    groups = {group: [i for i, name in enumerate(names) if group_of(name) == group] for group in map(group_of, names)}
    found: dict[str, dict[str, float]] = {}
    for stage, all_rows in trainer.rows.items():
        varies = np.ptp(np.nan_to_num(all_rows.features, nan=-1e9), axis=0) > 0
        known = {group: columns for group, columns in groups.items() if varies[columns].any()}
        rises = dict.fromkeys(known, 0.0)
        for difficulty, part in fitted.held_out(records):
            rows = all_rows.of([record.id for record in part])
            if not len(rows):
                continue
            model, soft = difficulty.model.stages[stage], difficulty.bins.soft(rows.right, rows.drawn)
            before = log_loss(model.predict_proba(rows.features), soft, rows.weight)
            for group, columns in known.items():
                shuffled = rows.features.copy()
                shuffled[:, columns] = shuffled[rng.permutation(len(rows))][:, columns]
                after = log_loss(model.predict_proba(shuffled), soft, rows.weight)
                rises[group] += (after - before) * rows.weight.sum() / all_rows.weight.sum()
        found[stage] = {group: float(rise) for group, rise in rises.items()}
    return found


def held_out_predictions(
    fitted: CrossFitted[Difficulty], records: Sequence[ProblemRecord], trainer: DifficultyTrainer
) -> dict[str, Predictions]:
    """Stage -> predictions of every problem by the model that has not seen it."""
    found: dict[str, list[Predictions]] = {name: [] for name in trainer.rows}
    for difficulty, part in fitted.held_out(records):
        for name, parts in found.items():
            rows = trainer.rows[name].of([record.id for record in part])
            posterior = difficulty.model.stages[name].predict_proba(rows.features)
            soft = difficulty.bins.soft(rows.right, rows.drawn)
            parts.append(Predictions(posterior, soft, rows.problem, rows.right, rows.drawn, rows.weight))
    names = [one.name for one in fields(Predictions)]
    return {
        stage: Predictions(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
        for stage, parts in found.items()
    }


def measured_difficulty(
    records: Sequence[ProblemRecord], fitted: CrossFitted[Difficulty], trainer: DifficultyTrainer
) -> dict[str, StageMetrics]:
    """Stage -> metrics on held-out problems."""
    bins = Bins.fit(counts_of(records))
    return {name: measure(found, bins) for name, found in held_out_predictions(fitted, records, trainer).items()}
