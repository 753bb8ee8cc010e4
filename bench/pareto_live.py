"""Live runs of ours beside their replays, and a larger policy on the same problems; it replays nothing."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import anyio
import numpy as np
from pareto_figures import LivePoint
from pareto_inputs import Tested, collected
from points import RESAMPLES, Line, Point
from rich.console import Console

from adaptive_ttc.calibration.arms import Arm
from adaptive_ttc.calibration.curves import measure
from adaptive_ttc.calibration.decks import Vote
from adaptive_ttc.calibration.records import Weights
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.datasets import Row
from adaptive_ttc.evaluation.metrics import interval, paired_interval
from adaptive_ttc.loading import MINI_POLICY
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Problem

LARGER = {"mini-large": MINI_POLICY.parent / "large"}
"""Policies to compare with, by name; any other name is a folder or a Hub name."""

LARGEST = 16
"""N of its largest majority: 64 samples of a small policy cost no more."""


def live_points(
    load: Callable[[], Solver], tested: Tested, axis: str, replayed: Line, budgets: Sequence[float]
) -> tuple[LivePoint, ...]:
    """Solve all problems under one budget, for each of these.

    Args:
        load: makes a solver with empty caches and the calibration.
        tested: the problems.
        axis: what the budget counts.
        replayed: ours, with a point at every budget.
        budgets: mean units a problem.
    """
    return tuple(
        anyio.run(_live, load, tested, axis, next(p for p in replayed.points if p.budget == budget))
        for budget in budgets
    )


async def _live(load: Callable[[], Solver], tested: Tested, axis: str, replayed: Point) -> LivePoint:
    rows, n = tested.rows, len(tested.rows)
    async with load() as solver:
        unit = 2 * solver.policy.parameters if axis == "flops" else 1
        # a budget in FLOPs bounds the prompts too, which all rules read alike and no curve shows
        prompts = sum(record.prompt_tokens for record in tested.records) if axis == "flops" else 0
        total = unit * (int(replayed.budget * n) + prompts)
        problems = [Problem.of(row["problem"], row["unique_id"]) for row in rows]
        many = solver.solve_many(problems, budget_tokens=total, count=axis)
        solutions = await many
        spent = many.spent
        right = [float(await _right(solver, row, one.answer)) for row, one in zip(rows, solutions, strict=True)]
    return LivePoint(
        budget=replayed.budget,
        cost=(spent / unit - prompts) / n,
        accuracy=interval(right, resamples=RESAMPLES),
        replayed=float(replayed.accuracy.mean()),
        difference=paired_interval(np.array(right), replayed.accuracy, resamples=RESAMPLES),
        overspent=max(0.0, spent - total) / unit,
    )


async def _right(solver: Solver, row: Row, answer: str | None) -> bool:
    return answer is not None and await solver.grader.equal(row["answer"], answer)


def larger_line(options: argparse.Namespace, tested: Tested, console: Console) -> Line:
    """Greedy and majority at every N of a larger policy, in tokens of the small one.

    Args:
        options: of the bench; ``reference_policy`` names the policy.
        tested: the problems, all of which it solves.
        console: where progress is shown.

    Raises:
        ConfigError: its problems are others, since a problem could not be drawn.
    """
    policy = LARGER.get(options.reference_policy, options.reference_policy)
    own = argparse.Namespace(
        **{**vars(options), "policy": str(policy), "prm": None, "recipe": None, "calibration": None}
    )
    sizes = [2**power for power in range(options.most.bit_length()) if 2**power <= min(options.most, LARGEST)]
    arms = [Arm("greedy"), *(Arm("majority", n) for n in sizes)]
    found = collected(own, arms, console, options.dataset, options.limit)
    by_id = {record.id: record for record in found.records}
    missing = [record.id for record in tested.records if record.id not in by_id]
    if missing:
        raise ConfigError(f"{options.reference_policy} has no solutions of {missing[0]}: give the same command again")
    curves = measure([by_id[record.id] for record in tested.records], arms, Vote("majority"))
    cost = curves.cost(Weights(found.parameters / tested.parameters))
    points = [
        Point(float(cost[:, column].mean()), cost[:, column], curves.accuracy[:, column], arm.name)
        for column, arm in enumerate(arms)
    ]
    return Line.of("larger", points)
