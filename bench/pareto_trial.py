"""One trial of the Pareto bench: ours and all rivals on the same problems, on one axis; it shows nothing."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from adaptive_rule import Replays, pooled, single
from pareto_figures import OURS, TARGETS, Findings, Reference, grid
from pareto_inputs import Guide, Tested, calibration_of, crossfitted, shipped, tuning_records
from pareto_live import larger_line, live_points
from pareto_rivals import Measured, cheapest_arms, measured_arms, rival_lines
from points import cost_to_reach
from rich.console import Console

from adaptive_ttc.calibration.arms import Arm
from adaptive_ttc.calibration.curves import Curves
from adaptive_ttc.calibration.records import Weights
from adaptive_ttc.cli.request import load_solver

Tell = Callable[[str], None]

LIVE = (0.25, 0.6)
"""Where on the grid of budgets live runs lie: where ours differs from its rivals, and engines are done in minutes."""


def judged(options: argparse.Namespace, tested: Tested, arms: Sequence[Arm], console: Console, tell: Tell) -> Findings:
    """Judge everything on one axis.

    Raises:
        AdaptiveTTCError: what is asked for is impossible, or an engine failed.
    """
    weights, seed = tested.weights(options.axis), options.seed or 0
    guides, notes = known(options, tested, arms, tell)
    curves = measured_arms(tested, guides, arms, seed)
    tuned_on = tuning_records(options)
    measured = Measured(tested, guides, curves, weights, tuned_on, options.folds, seed)
    where = "on calibration problems" if tuned_on is not None else f"in {options.folds} folds of these problems"
    notes.append(f"Settings of published rules were chosen {where}.")
    lines = rival_lines(measured, tell)
    budgets = budget_grid(curves, weights, options.budgets)
    together = pooled(tested.records, guides, weights, budgets, options.decks, tell)
    alone = single(tested.records, guides, weights, budgets, max(1, options.decks // 2), tell)
    found = Findings(
        axis=options.axis,
        budgets=budgets,
        lines=(*lines, alone.line, together.line),
        arms=cheapest_arms(measured, TARGETS),
        overspent=together.overspent + alone.overspent,
        notes=tuple(notes),
    )
    return with_runs(found, options, tested, together, console, tell)


def known(
    options: argparse.Namespace, tested: Tested, arms: Sequence[Arm], tell: Tell
) -> tuple[list[Guide], list[str]]:
    """What calibration knows, and what must be said of it."""
    folder = calibration_of(options)
    if folder is None:
        note = f"Calibration was cross-fitted in {options.folds} folds of these problems."
        return crossfitted(tested, arms, options.axis, options.folds, options.seed or 0, tell), [note]
    guides, label = shipped(folder, tested, options.allow_overlap)
    return guides, [label] if label else []


def with_runs(
    found: Findings, options: argparse.Namespace, tested: Tested, ours: Replays, console: Console, tell: Tell
) -> Findings:
    """With what has to be run: ours live, and the larger policy."""
    live, reference = found.live, found.reference
    if options.live and calibration_of(options) is not None:
        tell("live")
        places = np.unique((np.linspace(*LIVE, options.live) * (len(found.budgets) - 1)).round().astype(int))
        budgets = [found.budgets[place] for place in places]
        load = partial(load_solver, options, options.seed or 0)
        live = live_points(load, tested, options.axis, ours.line, budgets)
    if options.reference_policy and options.axis == "flops" and not options.replay:
        tell("the larger policy")
        line = larger_line(options, tested, console)
        greedy = next(point for point in line.points if point.label == "greedy")
        own = found.line(OURS)
        passed = cost_to_reach(own.costs.mean(axis=1), own.accuracies.mean(axis=1), float(greedy.accuracy.mean()))
        reference = Reference(options.reference_policy, line, passed, float(greedy.cost.mean()))
    return Findings(found.axis, found.budgets, found.lines, found.arms, found.overspent, live, reference, found.notes)


def budget_grid(curves: Curves, weights: Weights, points: int) -> tuple[float, ...]:
    """From one sample to 64 scored ones, or what the dearest arm costs where there are none."""
    cost = curves.cost(weights).mean(axis=0)
    return grid(float(cost.min()), float(cost.max()), points)
