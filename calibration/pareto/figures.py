"""What the curves say, as figures for JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from adaptive_ttc.calibration.pareto.curves import EACH, ORACLES, TARGETS, Findings, Groups, Line, accuracy_of
from adaptive_ttc.evaluation.metrics import Interval


def figures_of(found: Findings) -> dict[str, Any]:
    """The figures that ``adaptive-ttc pareto --help`` describes."""
    shares = {f"{100 * share:.0f}": share for share in TARGETS}
    return {
        **_curves(found),
        "targets": {name: float(found.targets(share)[0]) for name, share in shares.items()},
        "cost_to_reach": {
            name: {line.name: found.cost_to_reach(line, share) for line in found.lines}
            for name, share in shares.items()
        },
        "ratio": {
            name: {line.name: asdict(found.ratio(line, share)) for line in found.rivals}
            for name, share in shares.items()
        },
        "ratio_to_fixed_arm": {
            name: {
                "arm": found.arms[share].label or "cross-fitted",
                "cost": float(found.arms[share].cost.mean()),
                "accuracy": float(found.arms[share].accuracy.mean()),
                **asdict(found.ratio_to_arm(share)),
            }
            for name, share in shares.items()
        },
        "equal_accuracy": {
            line.name: {"accuracy": accuracy, **asdict(ratio)}
            for line in found.rivals
            for accuracy, ratio in [found.equal_accuracy(line)]
        },
        "cold_start": {
            name: asdict(ratio) for name, share in shares.items() if (ratio := found.cold_ratio(share)) is not None
        },
        "oracle_gain_kept": found.gain_kept(),
        "log_saving_kept": {
            oracle: {name: asdict(found.log_saving_kept(share, oracle)) for name, share in shares.items()}
            for oracle in ORACLES
        },
        "difference_from_best_fixed": [
            {"budget": budget, **asdict(found.difference(budget))} for budget in found.budgets
        ],
        "significantly_below_best_fixed": found.below_fixed(),
        "each_less_best_fixed": [
            {"budget": budget, **asdict(found.difference(budget, EACH))} for budget in found.budgets
        ],
        "overspent": found.overspent + sum(one.overspent for one in found.live),
        "live": _live(found),
        "reference": found.reference
        and {name: getattr(found.reference, name) for name in ("name", "greedy_cost", "passed_at")},
    }


def _curves(found: Findings) -> dict[str, Any]:
    """The problems, the budgets, and what was measured at each."""
    return {
        "axis": found.axis,
        "problems": found.problems,
        "budgets": list(found.budgets),
        "curves": [
            {"name": line.name, "axis": found.axis, "points": curve_points(found.shown(line), found.groups)}
            for line in found.with_reference
        ],
        "settings": [
            {"name": line.name, "points": curve_points(line, found.groups, labels=True)}
            for line in found.with_reference
            if any(point.label for point in line.points)
        ],
    }


def _live(found: Findings) -> list[dict[str, Any]]:
    """The live runs beside the replays."""
    return [
        {
            "budget": one.budget,
            "cost": one.cost,
            **_spread(one.accuracy),
            "replayed": one.replayed,
            "difference": asdict(one.difference),
            "agrees": one.difference.low <= 0 <= one.difference.high,
        }
        for one in found.live
    ]


def curve_points(line: Line, groups: Groups, labels: bool = False) -> list[dict[str, Any]]:
    """Every point with the interval of its accuracy."""
    return [
        {"budget": point.budget, "cost": float(point.cost.mean()), **_spread(accuracy_of(point, groups))}
        | ({"label": point.label} if labels else {})
        for point in line.points
    ]


def _spread(accuracy: Interval) -> dict[str, float]:
    return {"accuracy": accuracy.mean, "low": accuracy.low, "high": accuracy.high}
