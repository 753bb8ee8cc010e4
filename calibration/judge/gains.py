"""Gain of choices by difficulty and of adaptive runs over one arm for all, on unseen problems.

Every figure is cross-fitted by problem. At a price per token every problem takes the arm of largest predicted accuracy
less its predicted price; over falling prices this draws the curve of the best that such predictions allow. What is
measured is read off the curve and chooses none of its points. Between two of these a share of the problems gets the
dearer choice, so that curves are compared at equal cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.calibration.collect.records import ProblemRecord, Weights, groups_of
from adaptive_ttc.calibration.fit.accuracy import BinCurves, Curves
from adaptive_ttc.calibration.judge.replay import UnitOrder, replay
from adaptive_ttc.estimate.artefact import Opening
from adaptive_ttc.estimate.gain import GainModel, TableGainModel
from adaptive_ttc.estimate.table import Vote
from adaptive_ttc.evaluation.metrics import Interval, paired_interval

Array = NDArray[np.float64]

LEAST_GAIN = 0.05  # gain of the oracle over the best fixed arm from which on the share that is kept says something


@dataclass(frozen=True, slots=True)
class Fold:
    """Held-out problems, and what was fitted on the others."""

    held_out: NDArray[np.int64]  # rows of the curves
    train: NDArray[np.int64]  # the other rows
    bins: BinCurves  # curves by bin of the others
    oracle: NDArray[np.int64]  # shape [held out]: bin of each problem by its own measured rate
    # shape [held out, bins]: of each after four first steps; None where these were not recorded
    posterior: Array | None


@dataclass(frozen=True, slots=True)
class DifficultyGain:
    """Value of knowing the difficulty, at budgets of equal mean cost."""

    budgets: tuple[float, ...]  # mean units a problem
    # fixed, oracle, predicted: mean accuracy of the best fixed arm, and of the best arm by true and by predicted bin
    fixed: tuple[float, ...]
    oracle: tuple[float, ...]
    predicted: tuple[float, ...]
    # (predicted - fixed) / (oracle - fixed), mean over the budgets at which the oracle gains at least
    # :data:`LEAST_GAIN`, weighted by its gain; None where there is none
    kept: float | None
    kept_at_best: float | None  # the same at the one budget where the oracle gains most
    # accuracy that the table promises of its choices less what they reach on unseen problems, mean over budgets
    optimism: float


def difficulty_gain(
    curves: Curves, folds: Sequence[Fold], weights: Weights, budgets: Sequence[float], probes: Array
) -> DifficultyGain:
    """Choose one arm for each held-out problem by its bin; ``budgets``: mean units a problem.

    ``probes``: units of the four first steps that predict difficulty, shape [problems]. An arm that samples begins with
    them; greedy and narrower arms pay for those that they do not use.
    """
    cost = curves.cost(weights)
    n = len(cost)
    results = {name: np.zeros((len(budgets), n)) for name in ("fixed", "oracle", "predicted")}
    optimism = []
    begun = [arm.strategy != "greedy" and not arm.second for arm in curves.arms]
    used = np.array([min(1.0, arm.n / 4) if own else 0.0 for arm, own in zip(curves.arms, begun, strict=True)])
    for fold in folds:
        rows, train = fold.held_out, fold.train
        accuracy, paid = curves.accuracy[rows], cost[rows]
        probed = paid + probes[rows, None] * (1 - used)
        bins, bin_cost = fold.bins.shrunk, fold.bins.cost(weights)
        fixed = best_fixed(curves.accuracy[train], cost[train], accuracy, paid)
        oracle = frontier(bins[fold.oracle], bin_cost[fold.oracle], accuracy, paid)
        drawn = {"fixed": fixed, "oracle": oracle}
        if fold.posterior is not None:
            values, expected = fold.posterior @ bins, fold.posterior @ bin_cost
            drawn["predicted"] = frontier(values, expected + probes[train].mean() * (1 - used), accuracy, probed)
        for name, curve in drawn.items():
            for row, budget in enumerate(budgets):
                # a budget that does not cover the probes of all problems buys none
                able = curve if budget >= curve.cost[0] else fixed
                results[name][row, rows] = able.at(budget)
        chosen = np.argmax(np.where(bin_cost <= np.median(budgets), bins, -1.0), axis=1)
        promised = bins[np.arange(len(bins)), chosen][fold.oracle].mean()
        optimism.append(promised - accuracy[np.arange(len(rows)), chosen[fold.oracle]].mean())
    fixed_mean, oracle_mean, predicted_mean = (results[name].mean(axis=1) for name in results)
    gain = oracle_mean - fixed_mean
    telling = gain >= LEAST_GAIN
    best = int(np.argmax(gain))
    probed_all = all(fold.posterior is not None for fold in folds)

    def kept(where: NDArray[np.bool_]) -> float | None:
        able = probed_all and where.any() and gain[where].sum() > 0
        return float((predicted_mean - fixed_mean)[where].sum() / gain[where].sum()) if able else None

    return DifficultyGain(
        budgets=tuple(map(float, budgets)),
        fixed=tuple(fixed_mean.tolist()),
        oracle=tuple(oracle_mean.tolist()),
        predicted=tuple(predicted_mean.tolist()),
        kept=kept(telling),
        kept_at_best=kept(np.arange(len(gain)) == best),
        optimism=float(np.mean(optimism)),
    )


@dataclass(frozen=True, slots=True)
class AdaptiveComparison:
    """Replayed adaptive runs on held-out problems, one budget shared by the problems of a fold."""

    budgets: tuple[float, ...]  # mean units a problem
    # table, learned: mean accuracy when the table's forecasts decide, and when the learned ones do
    table: tuple[float, ...]
    learned: tuple[float, ...]
    unscored: tuple[float, ...]  # the learned ones, where the opening is not scored at once
    difference: Interval  # learned less table, mean over budgets, over groups of problems

    @property
    def keeps_learned(self) -> bool:
        """Whether what was learned is better than the table, on average."""
        return self.difference.mean > 0


@dataclass(frozen=True, slots=True)
class FoldModels:
    """Held-out problems of a fold, and the gain models fitted on the others."""

    records: Sequence[ProblemRecord]
    table: TableGainModel
    learned: GainModel


def compare_adaptive(
    fold_models: Sequence[FoldModels],
    vote: Vote,
    weights: Weights,
    budgets: Sequence[float],
    opening: Opening,
    seed: int,
) -> AdaptiveComparison:
    """Replay adaptive runs under the table and under the learned gain model."""
    rows: dict[str, list[list[float]]] = {"table": [], "learned": [], "unscored": []}
    for budget in budgets:
        found: dict[str, list[float]] = {name: [] for name in rows}
        for one in fold_models:
            orders = [UnitOrder(record, seed) for record in one.records]
            for name in rows:
                forecast = one.table.forecasts if name == "table" else one.learned.forecasts
                begin = replace(opening, scored=False) if name == "unscored" else opening
                least = begin.least_gain(weights.generated, weights.prm)
                runs = replay(orders, forecast, vote, int(budget * len(orders)), weights, begin, least)
                found[name] += [run.accuracy for run in runs]
        for name, values in found.items():
            rows[name].append(values)
    table, learned = np.array(rows["table"]), np.array(rows["learned"])
    groups = groups_of([record for one in fold_models for record in one.records])
    return AdaptiveComparison(
        budgets=tuple(map(float, budgets)),
        table=tuple(table.mean(axis=1).tolist()),
        learned=tuple(learned.mean(axis=1).tolist()),
        unscored=tuple(np.array(rows["unscored"]).mean(axis=1).tolist()),
        difference=paired_interval(learned.mean(axis=0), table.mean(axis=0), groups, resamples=2_000, seed=seed),
    )


def probe_costs(records: Sequence[ProblemRecord], weights: Weights, probes: int = 4) -> Array:
    """Mean units of the first steps of ``probes`` samples, shape [problems]; scoring one takes the question and it."""
    return np.array([_probe_cost(record, weights, probes) for record in records])


def _probe_cost(record: ProblemRecord, weights: Weights, probes: int) -> float:
    steps = [step for one in record.units.get("sample", ()) for step in one.unit.first_steps]
    if not steps:
        return 0.0
    tokens = float(np.mean([step.tokens for step in steps]))
    return probes * (weights.generated * tokens + weights.prm * (record.prompt_tokens + tokens))


def budget_grid(curves: Curves, weights: Weights, points: int) -> list[float]:
    """Mean units a problem, in equal ratios from one sample to the dearest arm."""
    costs = curves.cost(weights).mean(axis=0)
    return [float(budget) for budget in np.geomspace(max(1.0, costs.min()), costs.max(), points)]


PRICES = np.concatenate([[0.0], np.geomspace(1e-8, 1.0, 400)])


@dataclass(frozen=True, slots=True)
class Frontier:
    """Points of rising mean cost."""

    cost: Array  # shape [points]: mean over problems
    accuracy: Array  # shape [points, problems]

    def at(self, budget: float) -> Array:
        """Accuracy of every problem at a mean cost, shape [problems]; below the cheapest point, in proportion."""
        if budget <= self.cost[0]:
            return np.asarray(self.accuracy[0] * (budget / self.cost[0]))
        place = int(np.searchsorted(self.cost, budget, side="right")) - 1
        if place == len(self.cost) - 1:
            return np.asarray(self.accuracy[-1])
        share = (budget - self.cost[place]) / (self.cost[place + 1] - self.cost[place])
        return np.asarray((1 - share) * self.accuracy[place] + share * self.accuracy[place + 1])


def frontier(predicted: Array, expected: Array, accuracy: Array, cost: Array) -> Frontier:
    """Choices by predicted accuracy and cost, judged by measured accuracy and cost; all of shape [problems, arms]."""
    rows = np.arange(len(accuracy))
    points: dict[float, Array] = {}
    for price in PRICES:
        chosen = np.argmax(predicted - price * expected, axis=1)
        points[float(cost[rows, chosen].mean())] = accuracy[rows, chosen]
    return _by_cost(points)


def best_fixed(train_accuracy: Array, train_cost: Array, accuracy: Array, cost: Array) -> Frontier:
    """The same arm for all problems, chosen where ``train`` was measured, or a mixture of two."""
    means, costs = train_accuracy.mean(axis=0), train_cost.mean(axis=0)
    points: dict[float, Array] = {}
    for price in PRICES:
        arm = int(np.argmax(means - price * costs))
        points[float(cost[:, arm].mean())] = accuracy[:, arm]
    return _by_cost(points)


def _by_cost(points: dict[float, Array]) -> Frontier:
    """Points by rising cost, all of them: to drop those that reach no more would be to choose by what was measured."""
    return Frontier(np.array(sorted(points)), np.stack([points[cost] for cost in sorted(points)]))
