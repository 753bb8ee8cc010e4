"""Curves of accuracy against cost, one number a problem at every point, and what is read off them.

All intervals are bootstraps over problems (over groups of them where records have such), in which every curve is drawn
anew with the same problems: differences and ratios are paired, and so are the targets, which are shares of what one
curve reaches among the problems drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.evaluation.metrics import Interval, interval, paired_interval, rows_by_group

Array = NDArray[np.float64]
Groups = tuple[str, ...] | None

LEVEL = 0.95
RESAMPLES = 1_000

TARGETS = (0.90, 0.95)
"""Shares of the best fixed curve's rise from one sample to its maximum: plateaus are noise."""

LEAST_GAIN = 0.05
"""Gain of the oracle over the best fixed arm from which on the share that is kept says something."""

MANY = 40
"""Points from which on a curve is shown at the budgets alone."""

OURS = "ours_pooled"
EACH = "ours"
COLD = "ours_cold"
FIXED = "best_fixed"
ORACLE = "oracle"
ORACLES = ("table_oracle", "rate_oracle", ORACLE)
"""Of the bin of a problem's pass rate, of that rate, and of what every arm reached on the very problem."""


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of a rule.

    Attributes:
        budget: mean units a problem that were allowed; for a rule that knows no budget, what it took.
        cost: shape [problems]: expected units.
        accuracy: shape [problems]: probability that the answer is right.
        label: of the setting, such as an arm's name.
    """

    budget: float
    cost: Array
    accuracy: Array
    label: str = ""

    @classmethod
    def measured(cls, cost: Array, accuracy: Array, label: str = "") -> Point:
        """Of a rule that knows no budget."""
        return cls(float(cost.mean()), cost, accuracy, label)


@dataclass(frozen=True, slots=True)
class Line:
    """A rule at several settings, by rising mean cost."""

    name: str
    points: tuple[Point, ...]

    @classmethod
    def of(cls, name: str, points: Iterable[Point]) -> Line:
        """In order of cost."""
        return cls(name, tuple(sorted(points, key=lambda point: (float(point.cost.mean()), point.label))))

    @property
    def costs(self) -> Array:
        """Shape [points, problems]."""
        return np.stack([point.cost for point in self.points])

    @property
    def accuracies(self) -> Array:
        """Shape [points, problems]."""
        return np.stack([point.accuracy for point in self.points])

    def at(self, budget: float) -> Array:
        """Accuracy of every problem at a mean cost of ``budget``, shape [problems], see :func:`at_cost`."""
        return at_cost(self.costs.mean(axis=1), self.accuracies, budget)


@dataclass(frozen=True, slots=True)
class Ratio:
    """Cost of one curve to that of another, at the same accuracy.

    Attributes:
        value: below 1 where the first is cheaper; 0 where only the first gets there, inf where only the second does,
            nan where neither does.
        low, high: ends of the 95 % interval.
    """

    value: float
    low: float
    high: float


class Resampled:
    """The same problems, or groups of them, drawn with replacement for every curve; the first row is the problems
    themselves.
    """

    def __init__(self, problems: int, resamples: int = RESAMPLES, seed: int = 0, groups: Groups = None) -> None:
        number = rows_by_group(groups, problems)
        n = int(number.max()) + 1
        drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)[:, number]
        counts = np.vstack([np.ones(problems), drawn])
        self._shares = counts / counts.sum(axis=1, keepdims=True)

    def means(self, line: Line) -> tuple[Array, Array]:
        """Mean cost and accuracy, both of shape [1 + resamples, points]."""
        return self._shares @ line.costs.T, self._shares @ line.accuracies.T

    def targets(self, line: Line, share: float) -> Array:
        """So much of a curve's rise from its cheapest point to its maximum, shape [1 + resamples]."""
        _, accuracy = self.means(line)
        lowest: Array = accuracy[:, 0]
        wanted: Array = lowest + share * (accuracy.max(axis=1) - lowest)
        return wanted

    def costs_to_reach(self, line: Line, targets: Array) -> Array:
        """Shape [1 + resamples]: least mean cost at which the targets are reached; inf where they are not."""
        return costs_to_reach(*self.means(line), targets)

    def ratio(self, first: Line, second: Line, targets: Array) -> Ratio:
        """Cost of the first to that of the second at the same targets."""
        return ratio_of(self.costs_to_reach(first, targets), self.costs_to_reach(second, targets))


@cache
def resampled(problems: int, groups: Groups = None) -> Resampled:
    """So many problems, drawn anew by the one seed of all figures."""
    return Resampled(problems, groups=groups)


def ratio_of(first: Array, second: Array) -> Ratio:
    """The ratio of costs whose first entries are measured and whose others are drawn anew, shape [1 + resamples]."""
    with np.errstate(invalid="ignore"):
        ratios = np.where(np.isinf(first) & np.isinf(second), np.nan, first / second)
    known = ratios[1:][~np.isnan(ratios[1:])]
    if not len(known):
        return Ratio(float(ratios[0]), math.nan, math.nan)
    ordered = np.sort(known)
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]  # between two draws one is taken: there is no mean with an infinite one
    low, high = (float(ordered[min(len(ordered) - 1, int(end * len(ordered)))]) for end in ends)
    return Ratio(float(ratios[0]), low, high)


def cost_to_reach(cost: Array, accuracy: Array, target: float) -> float:
    """Least mean cost at which one curve of these means, of shape [points], reaches an accuracy."""
    return float(costs_to_reach(cost[None], accuracy[None], np.array([target]))[0])


def costs_to_reach(cost: Array, accuracy: Array, target: Array) -> Array:
    """Least mean cost at which curves reach an accuracy, shape [curves]; inf where one never does.

    Between two points a share of the problems is given the dearer one, so that cost and accuracy rise in a line; points
    that cost more than another and reach no more are passed over.

    Args:
        cost, accuracy: shape [curves, points]: means over problems.
        target: shape [curves].
    """
    rows = np.arange(len(cost))
    order = np.argsort(cost, axis=1, kind="stable")
    cost, accuracy = np.take_along_axis(cost, order, axis=1), np.take_along_axis(accuracy, order, axis=1)
    best = np.maximum.accumulate(accuracy, axis=1)
    rises = np.hstack([np.ones((len(cost), 1), dtype=bool), accuracy[:, 1:] > best[:, :-1]])
    since = np.maximum.accumulate(np.where(rises, np.arange(cost.shape[1]), 0), axis=1)
    there = best >= target[:, None] - 1e-12
    place = there.argmax(axis=1)
    before = since[rows, np.maximum(place - 1, 0)]
    low, high = accuracy[rows, before], accuracy[rows, place]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(place > 0, np.clip((target - low) / (high - low), 0.0, 1.0), 1.0)
    found = cost[rows, before] + share * (cost[rows, place] - cost[rows, before])
    return np.where(there.any(axis=1), found, math.inf)


def at_cost(cost: Array, accuracy: Array, budget: float) -> Array:
    """Accuracy of every problem at a mean cost of at most ``budget``.

    Between two points a share of the problems is given the dearer one, below the cheapest the others are given nothing.
    No point is passed over for reaching no more than a cheaper one: that would choose by what is measured here.

    Args:
        cost: shape [points]: mean over problems.
        accuracy: shape [points, problems].
        budget: mean units a problem.
    """
    order = np.argsort(cost, kind="stable")
    costs, reached = np.array([0.0, *cost[order]]), np.vstack([np.zeros(accuracy.shape[1]), accuracy[order]])
    above = int(np.searchsorted(costs, budget, side="right"))
    if above == len(costs):
        return np.asarray(reached[-1])
    share = (budget - costs[above - 1]) / (costs[above] - costs[above - 1])
    return np.asarray((1 - share) * reached[above - 1] + share * reached[above])


def accuracy_of(point: Point, groups: Groups = None) -> Interval:
    """Mean over problems, with its interval over ``groups`` of them."""
    return interval(point.accuracy, groups, resamples=RESAMPLES)


@dataclass(frozen=True, slots=True)
class LivePoint:
    """A live run beside the replays at its budget: units a problem, live less replayed, units beyond the budget."""

    budget: float
    cost: float
    accuracy: Interval
    replayed: float
    difference: Interval
    overspent: float


@dataclass(frozen=True, slots=True)
class Reference:
    """A larger policy, greedy and majority at every N, in tokens of the small one.

    ``passed_at`` is the least mean cost at which ours is as right as its greedy solution; inf where it never is.
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
        ablations: ours (one budget) without a part of what it knows, by the part's name.
        groups: of the problems, members of which err together; None: each is by itself.
    """

    axis: str
    budgets: tuple[float, ...]
    lines: tuple[Line, ...]
    arms: dict[float, Point]
    overspent: float
    live: tuple[LivePoint, ...] = ()
    reference: Reference | None = None
    notes: tuple[str, ...] = ()
    ablations: Mapping[str, Line] = field(default_factory=dict)
    groups: Groups = None

    @property
    def problems(self) -> int:
        """How many problems every curve is a mean over."""
        return len(self.lines[0].points[0].accuracy)

    @property
    def resampled(self) -> Resampled:
        """The problems drawn anew, the same for all curves."""
        return resampled(self.problems, self.groups)

    def line(self, name: str) -> Line:
        """A curve by its name."""
        return next(line for line in self.lines if line.name == name)

    @property
    def with_reference(self) -> list[Line]:
        """All curves, that of the larger policy last."""
        return [*self.lines, *([] if self.reference is None else [self.reference.line])]

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

    def ratio(self, rival: Line, share: float) -> Ratio:
        """Our cost of a target to a rival's."""
        return self.resampled.ratio(self.line(OURS), rival, self.targets(share))

    def ratio_to_arm(self, share: float) -> Ratio:
        """Our cost of a target to that of the arm which calibration found the cheapest to reach it."""
        paid = self.resampled.means(Line("arm", (self.arms[share],)))[0][:, 0]
        return ratio_of(self.resampled.costs_to_reach(self.line(OURS), self.targets(share)), paid)

    def cold_ratio(self, share: float) -> Ratio | None:
        """Cost of a target without a calibration to that with one; None where the former was not replayed."""
        cold = [line for line in self.lines if line.name == COLD]
        return self.resampled.ratio(cold[0], self.line(OURS), self.targets(share)) if cold else None

    def equal_accuracy(self, rival: Line) -> tuple[float, Ratio]:
        """What a rival reaches at 95 % of its own rise, and our cost of that to its own."""
        targets = self.resampled.targets(rival, TARGETS[-1])
        return float(targets[0]), self.resampled.ratio(self.line(OURS), rival, targets)

    def difference(self, budget: float, ours: str = OURS) -> Interval:
        """Our accuracy less that of the best fixed arm at a budget, paired by problem."""
        own, fixed = self.line(ours).at(budget), self.line(FIXED).at(budget)
        return paired_interval(own, fixed, self.groups, resamples=RESAMPLES)

    def below_fixed(self, ours: str = OURS) -> list[float]:
        """Budgets at which ours is significantly below the best fixed arm."""
        return [budget for budget in self.budgets if self.difference(budget, ours).high < 0]

    def above_fixed(self, ours: str = OURS) -> list[float]:
        """Budgets at which ours is significantly above the best fixed arm."""
        return [budget for budget in self.budgets if self.difference(budget, ours).low > 0]

    def log_saving_kept(self, share: float, oracle: str = ORACLE) -> Ratio:
        """Our log-saving over the best fixed curve at a target, as a share of an oracle's."""
        targets = self.targets(share)
        costs = [self.resampled.costs_to_reach(self.line(name), targets) for name in (FIXED, OURS, oracle)]
        with np.errstate(invalid="ignore", divide="ignore"):
            fixed, own, best = (np.log(cost) for cost in costs)
        return ratio_of(np.where(np.isinf(own), -np.inf, fixed - own), fixed - best)

    def gain_kept(self) -> float:
        """(ours - fixed) / (oracle - fixed) in accuracy, over the budgets at which the oracle gains enough."""
        own, fixed, best = (
            np.array([self.line(name).at(budget).mean() for budget in self.budgets]) for name in (OURS, FIXED, ORACLE)
        )
        telling = best - fixed >= LEAST_GAIN
        return float((own - fixed)[telling].sum() / (best - fixed)[telling].sum()) if telling.any() else math.nan

    def shown(self, line: Line) -> Line:
        """A curve at the grid of budgets, from its cheapest point on; ours and the larger policy's as they were run."""
        if line.name.startswith(("ours", "larger")):
            return line
        cheapest = float(line.costs.mean(axis=1).min())
        budgets = [budget for budget in self.budgets if budget >= cheapest * 0.999]
        return Line.of(line.name, [Point(one, np.full(self.problems, one), line.at(one)) for one in budgets])

    def native(self, line: Line) -> Line:
        """The settings of a rule that has few; curves over hundreds of prices at the budgets."""
        return line if len(line.points) <= MANY else self.shown(line)
