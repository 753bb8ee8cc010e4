"""Draws the curves of the Pareto bench for a paper: logarithmic cost, names at the curves, readable without colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter
from pareto_figures import Findings, LivePoint
from plots import MARKERS, NAMES, End, colour_of, name_ends, save, styled
from points import Line, accuracy_of

RULE_NAMES: Mapping[str, str] = {
    **NAMES,
    "best_fixed": "best fixed arm",
    "table_oracle": "bin table, true bins",
    "table_predicted": "bin table, predicted",
    "adaptive_consistency": "Adaptive-Consistency",
    "uab": "UAB",
    "ias": "IAS",
    "rate_oracle": "oracle of pass rates",
    "oracle": "oracle of outcomes",
    "ours": "ours, each problem",
    "ours_pooled": "ours, one budget",
    "larger": "larger policy, majority",
    "larger_greedy": "larger policy, greedy",
}
"""Names for people."""

AXIS_NAMES: Mapping[str, str] = {
    "flops": "compute a problem, in tokens of the policy (logarithmic)",
    "generated+prm": "generated and PRM tokens a problem (logarithmic)",
    "generated": "generated tokens a problem (logarithmic)",
}

_LOOKS: Mapping[str, tuple[str, str, str]] = {
    "best_fixed": ("#555555", "-", ""),
    "table_oracle": ("#E69F00", "--", "D"),
    "table_predicted": ("#D55E00", "-.", "s"),
    "adaptive_consistency": ("#0072B2", ":", "o"),
    "uab": ("#56B4E9", "-.", "v"),
    "ias": ("#CC79A7", "--", "^"),
    "rate_oracle": ("#009E73", "--", ""),
    "oracle": ("#009E73", ":", ""),
    "ours": ("#000000", "--", ""),
    "ours_pooled": ("#000000", "-", "*"),
    "larger": ("#8c564b", "-.", "X"),
    "larger_greedy": ("#8c564b", "", "X"),
}
"""Colour, line and marker of the rules; strategies have those of all figures."""

STRATEGIES = ("greedy", "majority", "best_of_n", "weighted_best_of_n", "beam_search", "dvts", "revision")
_STRATEGY_LINES = ("-", ":", "--", "-.", "--", "-", ":")


def draw(found: Findings, path: Path) -> list[Path]:
    """Strategies above, rules that choose below, ours in both; PNG and SVG."""
    strategies = [line for line in found.lines if line.name in STRATEGIES]
    rules = [line for line in found.lines if line.name not in STRATEGIES]
    ours = [line for line in rules if line.name.startswith("ours")]
    with styled(7.4, 9.2, nrows=2, sharex=True, sharey=True) as (figure, (above, below)):
        for axes, lines, title in (
            (above, [*strategies, *_reference(found), *ours[-1:]], "Ours and every strategy at every N"),
            (below, [line for line in rules if line.name not in STRATEGIES], "Ours and rules that choose"),
        ):
            _curves(axes, found, lines)
            _label(axes, found)
            axes.set_title(f"{title}, {found.problems} problems")
            name_ends(axes, [_end(line) for line in lines])
        _live(below, found.live)
        below.set_xlabel(AXIS_NAMES[found.axis])
        figure.tight_layout()
        return save(figure, path, ".svg")


def name_of_rule(name: str) -> str:
    """A curve's name for people."""
    return RULE_NAMES.get(name, name)


def _reference(found: Findings) -> list[Line]:
    """The larger policy's greedy solution and its majorities, as two curves."""
    if found.reference is None:
        return []
    points = found.reference.line.points
    greedy = [point for point in points if point.label == "greedy"]
    return [Line("larger_greedy", tuple(greedy)), Line("larger", tuple(one for one in points if one.label != "greedy"))]


def _curves(axes: Axes, found: Findings, lines: Sequence[Line]) -> None:
    for line in lines:
        colour, dashes, marker = look_of(line.name)
        mine = line.name.startswith("ours")
        shown = line if line.name in (*STRATEGIES, "larger", "larger_greedy") else found.shown(line)
        cost = shown.costs.mean(axis=1)
        accuracy = shown.accuracies.mean(axis=1)
        style = "None" if len(cost) == 1 else dashes
        axes.plot(
            cost,
            accuracy,
            color=colour,
            linestyle=style,
            marker=marker or ("o" if len(cost) == 1 else None),
            markersize=9 if marker == "*" else 5,
            linewidth=2.4 if mine else 1.5,
            zorder=4 if mine else 3,
        )
        if line.name == "ours_pooled":
            ends = [accuracy_of(point) for point in shown.points]
            axes.fill_between(cost, [one.low for one in ends], [one.high for one in ends], color="#000000", alpha=0.08)


def look_of(name: str) -> tuple[str, str, str]:
    """Colour, line style and marker of a curve."""
    if name in _LOOKS:
        return _LOOKS[name]
    return colour_of(name), _STRATEGY_LINES[STRATEGIES.index(name)], MARKERS.get(name, "")


def _live(axes: Axes, points: Sequence[LivePoint]) -> None:
    """Live runs, with their intervals."""
    if not points:
        return
    cost = [one.cost for one in points]
    middle = [one.accuracy.mean for one in points]
    ends = [
        [max(0.0, one.accuracy.mean - one.accuracy.low) for one in points],
        [max(0.0, one.accuracy.high - one.accuracy.mean) for one in points],
    ]
    axes.errorbar(cost, middle, ends, fmt="o", color="#000000", markerfacecolor="white", capsize=3, zorder=5)
    axes.annotate("live", (cost[0], middle[0]), xytext=(8, -12), textcoords="offset points", fontsize=9)


def _label(axes: Axes, found: Findings) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelbottom=True)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylabel("accuracy (shaded: 95 % interval of ours)")


def _end(line: Line) -> End:
    return End(name_of_rule(line.name), look_of(line.name)[0], float(line.accuracies.mean(axis=1)[-1]))
