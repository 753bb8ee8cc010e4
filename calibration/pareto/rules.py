"""Rules that choose for every problem: a strategy at every N, the bin table, oracles, and ours, replayed and live.

What a rule knows when it chooses comes from calibration; what its choice reaches is what was measured on the problems
under test (:class:`adaptive_ttc.calibration.fit.accuracy.Curves`). The oracles alone choose by that very measurement.
Replays of ours make the decisions of live runs on recorded units, over several random orders of every problem's units.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy.stats import rankdata

from adaptive_ttc.calibration.collect.arms import Arm
from adaptive_ttc.calibration.collect.records import ProblemRecord, Weights, groups_of
from adaptive_ttc.calibration.fit.accuracy import Curves, measure
from adaptive_ttc.calibration.fit.difficulty import counts_of, stage_evidence
from adaptive_ttc.calibration.judge.gains import PRICES, probe_costs
from adaptive_ttc.calibration.judge.replay import Replayed, UnitOrder, replay, replay_each
from adaptive_ttc.calibration.pareto.curves import RESAMPLES, Line, LivePoint, Point
from adaptive_ttc.calibration.pareto.inputs import Guide, Tested, collected
from adaptive_ttc.cli import interruption
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.estimate.difficulty import STAGES
from adaptive_ttc.estimate.gain import Posteriors
from adaptive_ttc.estimate.table import ComputeOptimalTable, Vote
from adaptive_ttc.evaluation.datasets import problem_of
from adaptive_ttc.evaluation.evaluate import grader_of
from adaptive_ttc.evaluation.metrics import interval, paired_interval
from adaptive_ttc.loading import MINI_POLICY
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies.adaptive import SAMPLE

Array = NDArray[np.float64]

PROBES = next(stage for stage in STAGES if stage.name == "first_steps_4")
"""What the table of arXiv 2408.03314 sees of a problem before it chooses, once."""

NEAR = 0.05
"""Standard deviation, in ranks of pass rate from 0 to 1, of what :func:`oracle_rates` takes for alike."""

ORDERS = 8
"""Random orders of a problem's samples from which the probes are taken."""

LARGER = {"mini-large": MINI_POLICY.parent / "large"}
"""Policies to compare with, by name; any other name is a folder or a Hub name."""

LARGEST = 16
"""N of its largest majority: 64 samples of a small policy cost no more."""


def strategy_lines(curves: Curves, weights: Weights) -> list[Line]:
    """Every strategy at every N that was measured, each with no knowledge of the problem."""
    lines: dict[str, list[Point]] = {}
    for arm, point in zip(curves.arms, arm_points(curves, weights), strict=True):
        lines.setdefault(arm.strategy, []).append(point)
    return [Line.of(name, points) for name, points in lines.items()]


def arm_points(curves: Curves, weights: Weights) -> list[Point]:
    """A point for every arm."""
    columns = zip(curves.cost(weights).T, curves.accuracy.T, curves.arms, strict=True)
    return [Point.measured(cost, accuracy, arm.name) for cost, accuracy, arm in columns]


def best_fixed(curves: Curves, table: ComputeOptimalTable, weights: Weights) -> Line:
    """At every price the arm that calibration found the best, the same for all problems."""
    accuracy, cost = on_calibration(curves, table, weights)
    shape = curves.accuracy.shape
    values, expected = np.broadcast_to(accuracy, shape), np.broadcast_to(cost, shape)
    return by_price("best_fixed", values, expected, curves, curves.cost(weights))


def cheapest_arm(curves: Curves, table: ComputeOptimalTable, weights: Weights, share: float) -> Point:
    """The cheapest arm that reaches so much of the rise of the best one on calibration problems, as measured here."""
    accuracy, cost = on_calibration(curves, table, weights)
    least = accuracy[int(np.argmin(cost))]
    able = np.flatnonzero(accuracy >= least + share * (accuracy.max() - least) - 1e-12)
    return arm_points(curves, weights)[int(able[np.argmin(cost[able])])]


def on_calibration(curves: Curves, table: ComputeOptimalTable, weights: Weights) -> tuple[Array, Array]:
    """Mean accuracy and cost of the arms among the calibration's problems, both of shape [arms]."""
    accuracy, _, cost = _cells(curves, table, weights)
    share = np.array(table.share)
    return share @ accuracy, share @ cost


def known_arms(curves: Curves, table: ComputeOptimalTable) -> Curves:
    """The arms that the calibration knows."""
    names = {arm.name for arm in table.arms}
    kept = [column for column, arm in enumerate(curves.arms) if arm.name in names]
    arms = tuple(curves.arms[column] for column in kept)
    accuracy, generated, prm = (values[:, kept] for values in (curves.accuracy, curves.generated, curves.prm))
    return Curves(arms, curves.ids, accuracy, generated, prm, curves.groups)


def oracle_bins(curves: Curves, table: ComputeOptimalTable, records: Sequence[ProblemRecord], weights: Weights) -> Line:
    """The table's best arm for the bin of every problem's own measured pass rate, which costs nothing here."""
    _, values, expected = _cells(curves, table, weights)
    counts = counts_of(records)
    number = ((counts.right / np.maximum(counts.drawn, 1))[:, None] < np.array(table.edges)).sum(axis=1)
    return by_price("table_oracle", values[number], expected[number], curves, curves.cost(weights))


def predicted_bins(
    curves: Curves,
    table: ComputeOptimalTable,
    posteriors: Posteriors,
    records: Sequence[ProblemRecord],
    weights: Weights,
    seed: int = 0,
) -> Line | None:
    """The table's best arm for what four first steps tell of the difficulty; they are paid for, by all problems.

    An arm that samples begins with them; greedy and narrower arms pay for what they do not use.
    None where no first steps were recorded.
    """
    _, values, expected = _cells(curves, table, weights)
    probes = probe_costs(records, weights, PROBES.steps)
    unused = np.array([1 - min(1.0, arm.n / PROBES.steps) if arm.strategy != "greedy" else 1.0 for arm in curves.arms])
    paid = curves.cost(weights) + probes[:, None] * unused
    lines = []
    for number in range(ORDERS):
        evidence = [stage_evidence(record, PROBES, _order(record, f"{seed}/{number}")) for record in records]
        known = [one for one in evidence if one is not None]
        if len(known) < len(records):
            return None
        belief = np.array(posteriors(known))
        wanted = belief @ expected + probes.mean() * unused
        lines.append(by_price("table_predicted", belief @ values, wanted, curves, paid))
    cost, accuracy = (np.mean([getattr(line, name) for line in lines], axis=0) for name in ("costs", "accuracies"))
    return Line("table_predicted", tuple(map(Point.measured, cost, accuracy)))


def oracle_rates(curves: Curves, records: Sequence[ProblemRecord], weights: Weights) -> Line:
    """Knows every problem's pass rate, which costs nothing here, and what problems of such a rate reach on average.

    Accuracy and cost of an arm are the means over the other problems, those of near rank in pass rate weighing most:
    what luck the problem itself had, this oracle does not know.
    """
    rank = rankdata(counts_of(records).rates) / len(records)
    near = np.exp(-0.5 * ((rank[:, None] - rank) / NEAR) ** 2)
    np.fill_diagonal(near, 0.0)
    near /= near.sum(axis=1, keepdims=True)
    cost = curves.cost(weights)
    return by_price("rate_oracle", near @ curves.accuracy, near @ cost, curves, cost)


def oracle(curves: Curves, weights: Weights) -> Line:
    """Knows what every arm reached on this very problem and what it cost, by luck or not; nothing else can follow."""
    cost = curves.cost(weights)
    return by_price("oracle", curves.accuracy, cost, curves, cost)


def by_price(name: str, predicted: Array, expected: Array, curves: Curves, cost: Array) -> Line:
    """The arm of largest predicted accuracy less its predicted price, as measured: a point for every price, in order.

    Args:
        name: of the curve.
        predicted, expected: shape [problems, arms]: accuracy and cost as they are foreseen.
        curves: with what was measured.
        cost: shape [problems, arms]: what is paid.
    """
    rows, points = np.arange(len(cost)), []
    for price in PRICES:
        chosen = np.argmax(predicted - price * expected, axis=1)
        paid = cost[rows, chosen]
        label = curves.arms[chosen[0]].name if (chosen == chosen[0]).all() else ""
        points.append(Point.measured(paid, curves.accuracy[rows, chosen], label))
    return Line(name, tuple(points))


def joined(parts: Sequence[tuple[NDArray[np.int64], Line]]) -> Line:
    """One curve of curves over the same prices, each of other problems.

    Args:
        parts: numbers of problems, which are together all of them, and their curve.
    """
    points: dict[bytes, Point] = {}
    for of_parts in zip(*(line.points for _, line in parts), strict=True):
        one = joined_points([(rows, point) for (rows, _), point in zip(parts, of_parts, strict=True)])
        points.setdefault(one.cost.tobytes() + one.accuracy.tobytes(), one)
    return Line.of(parts[0][1].name, points.values())


def joined_points(parts: Sequence[tuple[NDArray[np.int64], Point]]) -> Point:
    """One point of points, each of other problems."""
    problems = sum(len(rows) for rows, _ in parts)
    cost, accuracy = np.zeros(problems), np.zeros(problems)
    for rows, point in parts:
        cost[rows], accuracy[rows] = point.cost, point.accuracy
    labels = {point.label for _, point in parts}
    return Point.measured(cost, accuracy, labels.pop() if len(labels) == 1 else "")


def _order(record: ProblemRecord, seed: str) -> list[int]:
    """The samples whose first step was scored, in a random order; a step without text has no score."""
    steps = [one.unit.first_steps for one in record.units.get(SAMPLE, ())]
    order = [number for number, first in enumerate(steps) if first and not math.isnan(first[0].score)]
    random.Random(f"{seed}/{record.id}").shuffle(order)
    return order


def _cells(curves: Curves, table: ComputeOptimalTable, weights: Weights) -> tuple[Array, Array, Array]:
    """What the table has measured and promises of the arms, and their cost, all of shape [bins, arms]."""
    place = {arm.name: column for column, arm in enumerate(table.arms)}
    columns, cells = [place[arm.name] for arm in curves.arms], table.cells
    cost = weights.generated * np.array(cells.generated) + weights.prm * np.array(cells.prm)
    return np.array(cells.accuracy)[:, columns], np.array(cells.shrunk)[:, columns], cost[:, columns]


@dataclass(frozen=True, slots=True)
class Replays:
    """Ours at all budgets: its curve, and the units beyond a budget over all runs."""

    line: Line
    overspent: int


def replays(
    name: str,
    run: Callable[[Sequence[UnitOrder], Guide, float, Weights], tuple[list[Replayed], int]],
    records: Sequence[ProblemRecord],
    guides: Sequence[Guide],
    weights: Weights,
    budgets: Sequence[float],
    seeds: int,
    tell: Callable[[str], None],
) -> Replays:
    """Ours at budgets of mean units a problem, by :func:`shared` or :func:`alone`, over orders of the units."""
    points, overspent = [], 0
    orders = [[UnitOrder(record, seed) for record in records] for seed in range(seeds)]
    for number, budget in enumerate(budgets, 1):
        tell(f"{name}: budget {number} of {len(budgets)}")
        accuracy, cost = np.zeros(len(records)), np.zeros(len(records))
        for of_seed in orders:
            for guide in guides:
                runs, over = run([of_seed[row] for row in guide.rows], guide, budget, weights)
                overspent += over
                accuracy[guide.rows] += [one.accuracy / seeds for one in runs]
                cost[guide.rows] += [one.cost / seeds for one in runs]
        points.append(Point(budget, cost, accuracy))
    return Replays(Line(name, tuple(points)), overspent)


def shared(orders: Sequence[UnitOrder], guide: Guide, budget: float, weights: Weights) -> tuple[list[Replayed], int]:
    """One budget over all problems: the runs, and the units beyond it."""
    total = int(budget * len(orders))
    least = guide.opening.least_gain(weights.generated, weights.prm) if guide.measured else 0.0
    forecast = guide.forecast if guide.begin is None else guide.begin(total, len(orders), weights)
    runs = replay(orders, forecast, guide.vote, total, weights, guide.opening, least)
    return runs, max(0, sum(one.cost for one in runs) - total)


def alone(orders: Sequence[UnitOrder], guide: Guide, budget: float, weights: Weights) -> tuple[list[Replayed], int]:
    """The same budget for every problem, none of which knows of the others."""
    least = guide.opening.least_gain(weights.generated, weights.prm)
    runs = replay_each(orders, guide.forecast, guide.vote, int(budget), weights, guide.opening, least)
    return runs, sum(max(0, one.cost - int(budget)) for one in runs)


def live_points(
    load: Callable[[], Solver], tested: Tested, axis: str, replayed: Line, budgets: Sequence[float]
) -> tuple[LivePoint, ...]:
    """Solve all problems under one budget, for each of these, beside the replays at it.

    ``load`` makes a solver with empty caches and the calibration; ``axis`` is what budgets count.
    """
    return tuple(
        interruption.run(_live, load, tested, axis, next(p for p in replayed.points if p.budget == budget))
        for budget in budgets
    )


async def _live(load: Callable[[], Solver], tested: Tested, axis: str, replayed: Point) -> LivePoint:
    rows, n, groups = tested.rows, len(tested.rows), groups_of(tested.records)
    async with load() as solver:
        unit = 2 * solver.policy.parameters if axis == "flops" else 1
        # a budget in FLOPs bounds the prompts too, which all rules read alike and no curve shows
        prompts = sum(record.prompt_tokens for record in tested.records) if axis == "flops" else 0
        total = unit * (int(replayed.budget * n) + prompts)
        problems = [problem_of(row) for row in rows]
        many = solver.solve_many(problems, budget_tokens=total, count=axis)
        solutions = await many
        spent = many.spent
        right = [
            float(await grader_of(solver, row).equal(row["answer"], one.answer))
            for row, one in zip(rows, solutions, strict=True)
        ]
    return LivePoint(
        budget=replayed.budget,
        cost=(spent / unit - prompts) / n,
        accuracy=interval(right, groups, resamples=RESAMPLES),
        replayed=float(replayed.accuracy.mean()),
        difference=paired_interval(np.array(right), replayed.accuracy, groups, resamples=RESAMPLES),
        overspent=max(0.0, spent - total) / unit,
    )


def larger_line(options: argparse.Namespace, tested: Tested, console: Console) -> Line:
    """Greedy and majority at every N of ``--reference-policy`` on the same problems, in tokens of the small one.

    Raises:
        ConfigError: its problems are others, since a problem could not be drawn.
    """
    policy = str(LARGER.get(options.reference_policy, options.reference_policy))
    own = argparse.Namespace(**{**vars(options), "policy": policy, "prm": None, "recipe": None, "calibration": None})
    sizes = [2**power for power in range(options.most.bit_length()) if 2**power <= min(options.most, LARGEST)]
    arms = [Arm("greedy"), *(Arm("majority", n) for n in sizes)]
    found = collected(own, arms, console)
    by_id = {record.id: record for record in found.records}
    missing = [record.id for record in tested.records if record.id not in by_id]
    if missing:
        raise ConfigError(f"{options.reference_policy} has no solutions of {missing[0]}: give the same command again")
    curves = measure([by_id[record.id] for record in tested.records], arms, Vote("majority"))
    return Line.of("larger", arm_points(curves, Weights(found.parameters / tested.parameters)))
