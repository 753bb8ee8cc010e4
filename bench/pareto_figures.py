"""What the curves say: costs to reach targets, ratios, differences from the best fixed arm, what of the oracle is kept.

It draws no unit and no picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from points import RESAMPLES, Line, Point, Ratio, Resampled, accuracy_of, mixed, ratio_of

from adaptive_ttc.evaluation.metrics import Interval, paired_interval

Array = NDArray[np.float64]

TARGETS = (0.90, 0.95)
"""Shares of the best fixed curve's rise from one sample to its maximum: plateaus are noise."""

LEAST_GAIN = 0.05
"""Gain of the oracle over the best fixed arm from which on the share that is kept says something."""

MANY = 40
"""Points from which on a curve is shown at the budgets alone."""

OURS = "ours_pooled"
FIXED = "best_fixed"
ORACLE = "oracle"
ORACLES = ("table_oracle", "rate_oracle", ORACLE)
"""Of the bin of a problem's pass rate, of that rate, and of what every arm reached on the very problem."""


@dataclass(frozen=True, slots=True)
class LivePoint:
    """A live run beside its replay.

    Attributes:
        budget: mean units a problem.
        cost: what was spent, a problem.
        accuracy: of the live run.
        replayed: mean accuracy of the replays at that budget.
        difference: live less replayed, paired by problem.
        overspent: units beyond the budget.
    """

    budget: float
    cost: float
    accuracy: Interval
    replayed: float
    difference: Interval
    overspent: float


@dataclass(frozen=True, slots=True)
class Reference:
    """A larger policy, in tokens of the small one.

    Attributes:
        name: of the policy.
        line: greedy and majority at every N.
        passed_at: least mean cost at which ours is as right as its greedy solution; inf where it never is.
        greedy_cost: of that solution.
    """

    name: str
    line: Line
    passed_at: float
    greedy_cost: float


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was measured on one axis.

    Attributes:
        axis: what cost counts.
        budgets: mean units a problem.
        lines: every curve, ours and the best fixed arm among them.
        arms: target -> the cheapest arm that reaches it on calibration problems, as measured on these.
        overspent: units beyond a budget, over all runs.
        live: live runs, where there were any.
        reference: a larger policy, where one was asked for.
        notes: what a reader must know.
    """

    axis: str
    budgets: tuple[float, ...]
    lines: tuple[Line, ...]
    arms: dict[float, Point]
    overspent: float
    live: tuple[LivePoint, ...] = ()
    reference: Reference | None = None
    notes: tuple[str, ...] = ()
    resampled: Resampled = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "resampled", Resampled(self.problems))

    @property
    def problems(self) -> int:
        """How many problems every curve is a mean over."""
        return len(self.lines[0].points[0].accuracy)

    def line(self, name: str) -> Line:
        """A curve by its name."""
        return next(line for line in self.lines if line.name == name)

    @property
    def rivals(self) -> list[Line]:
        """All curves but our own."""
        return [line for line in self.lines if not line.name.startswith("ours")]

    def targets(self, share: float) -> Array:
        """Accuracy aimed at, among the problems and among each draw of them."""
        return self.resampled.targets(self.line(FIXED), share)

    def cost_to_reach(self, line: Line, share: float) -> float:
        """Least mean cost of a target; inf where it is never reached."""
        return float(self.resampled.costs_to_reach(line, self.targets(share))[0])

    def ratio(self, rival: Line, share: float, ours: str = OURS) -> Ratio:
        """Our cost of a target to a rival's."""
        return self.resampled.ratio(self.line(ours), rival, self.targets(share))

    def ratio_to_arm(self, share: float, ours: str = OURS) -> Ratio:
        """Our cost of a target to that of the arm which calibration found the cheapest to reach it."""
        paid = self.resampled.means(Line("arm", (self.arms[share],)))[0][:, 0]
        return ratio_of(self.resampled.costs_to_reach(self.line(ours), self.targets(share)), paid)

    def equal_accuracy(self, rival: Line, ours: str = OURS) -> tuple[float, Ratio]:
        """What a rival reaches at 95 % of its own rise, and our cost of that to its own."""
        targets = self.resampled.targets(rival, TARGETS[-1])
        return float(targets[0]), self.resampled.ratio(self.line(ours), rival, targets)

    def difference(self, budget: float, ours: str = OURS) -> Interval:
        """Our accuracy less that of the best fixed arm at a budget, paired by problem."""
        return paired_interval(self.line(ours).at(budget), self.line(FIXED).at(budget), resamples=RESAMPLES)

    def below_fixed(self, ours: str = OURS) -> list[float]:
        """Budgets at which ours is significantly below the best fixed arm."""
        return [budget for budget in self.budgets if self.difference(budget, ours).high < 0]

    def log_saving_kept(self, share: float, oracle: str = ORACLE, ours: str = OURS) -> Ratio:
        """Our log-saving over the best fixed curve at a target, as a share of an oracle's."""
        targets = self.targets(share)
        costs = [self.resampled.costs_to_reach(self.line(name), targets) for name in (FIXED, ours, oracle)]
        with np.errstate(invalid="ignore", divide="ignore"):
            fixed, own, best = (np.log(cost) for cost in costs)
        return ratio_of(np.where(np.isinf(own), -np.inf, fixed - own), fixed - best)

    def gain_kept(self, ours: str = OURS) -> float:
        """(ours - fixed) / (oracle - fixed) in accuracy, over the budgets at which the oracle gains enough."""
        own, fixed, best = (
            np.array([self.line(name).at(budget).mean() for budget in self.budgets]) for name in (ours, FIXED, ORACLE)
        )
        telling = best - fixed >= LEAST_GAIN
        return float((own - fixed)[telling].sum() / (best - fixed)[telling].sum()) if telling.any() else math.nan

    def shown(self, line: Line) -> Line:
        """A curve at the grid of budgets, from its cheapest point on; our own as it was run."""
        if line.name.startswith("ours"):
            return line
        cheapest = float(line.costs.mean(axis=1).min())
        return mixed(line.name, line, [budget for budget in self.budgets if budget >= cheapest * 0.999])

    def native(self, line: Line) -> Line:
        """The settings of a rule that has few; curves over hundreds of prices at the budgets."""
        few = len(line.points) <= MANY
        return line if few else self.shown(line)


def figures_of(found: Findings) -> dict[str, Any]:
    """The figures that ``pareto.py`` describes."""
    shares = {f"{share:.0%}".replace("%", ""): share for share in TARGETS}
    everybody = [*found.lines, *([] if found.reference is None else [found.reference.line])]
    return {
        "axis": found.axis,
        "problems": found.problems,
        "budgets": list(found.budgets),
        "curves": [_curve(line.name, found, line) for line in everybody],
        "settings": [_settings(line) for line in everybody if any(point.label for point in line.points)],
        "targets": {name: float(found.targets(share)[0]) for name, share in shares.items()},
        "cost_to_reach": {
            name: {line.name: found.cost_to_reach(line, share) for line in found.lines}
            for name, share in shares.items()
        },
        "ratio": {
            name: {line.name: _ratio(found.ratio(line, share)) for line in found.rivals}
            for name, share in shares.items()
        },
        "ratio_to_fixed_arm": {
            name: {
                "arm": found.arms[share].label or "cross-fitted",
                "cost": float(found.arms[share].cost.mean()),
                "accuracy": float(found.arms[share].accuracy.mean()),
                **_ratio(found.ratio_to_arm(share)),
            }
            for name, share in shares.items()
        },
        "equal_accuracy": {line.name: _equal(*found.equal_accuracy(line)) for line in found.rivals},
        "oracle_gain_kept": found.gain_kept(),
        "log_saving_kept": {
            oracle: {name: _ratio(found.log_saving_kept(share, oracle)) for name, share in shares.items()}
            for oracle in ORACLES
        },
        "difference_from_best_fixed": [
            {"budget": budget, **_interval(found.difference(budget))} for budget in found.budgets
        ],
        "significantly_below_best_fixed": found.below_fixed(),
        "overspent": found.overspent + sum(one.overspent for one in found.live),
        "live": [_live(one) for one in found.live],
        "reference": _reference(found.reference),
    }


def curve_points(line: Line) -> list[dict[str, Any]]:
    """Every point with the interval of its accuracy."""
    points = []
    for point in line.points:
        found = accuracy_of(point)
        cost = float(point.cost.mean())
        points.append(
            {"budget": point.budget, "cost": cost, "accuracy": found.mean, "low": found.low, "high": found.high}
        )
    return points


def _curve(name: str, found: Findings, line: Line) -> dict[str, Any]:
    shown = line if found.reference is not None and line is found.reference.line else found.shown(line)
    return {"name": name, "axis": found.axis, "points": curve_points(shown)}


def _settings(line: Line) -> dict[str, Any]:
    points = curve_points(line)
    return {"name": line.name, "points": [one | {"label": p.label} for one, p in zip(points, line.points, strict=True)]}


def _ratio(ratio: Ratio) -> dict[str, float]:
    return {"value": ratio.value, "low": ratio.low, "high": ratio.high}


def _equal(accuracy: float, ratio: Ratio) -> dict[str, float]:
    return {"accuracy": accuracy, **_ratio(ratio)}


def _interval(one: Interval) -> dict[str, float]:
    return {"mean": one.mean, "low": one.low, "high": one.high}


def _live(one: LivePoint) -> dict[str, Any]:
    return {
        "budget": one.budget,
        "cost": one.cost,
        "accuracy": one.accuracy.mean,
        "low": one.accuracy.low,
        "high": one.accuracy.high,
        "replayed": one.replayed,
        "difference": _interval(one.difference),
        "agrees": one.difference.low <= 0 <= one.difference.high,
    }


def _reference(one: Reference | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {"name": one.name, "greedy_cost": one.greedy_cost, "passed_at": one.passed_at}


def grid(lowest: float, highest: float, points: int) -> tuple[float, ...]:
    """Budgets in equal ratios."""
    return tuple(float(budget) for budget in np.geomspace(lowest, highest, points))


def names(lines: Sequence[Line]) -> list[str]:
    """Of the curves."""
    return [line.name for line in lines]
