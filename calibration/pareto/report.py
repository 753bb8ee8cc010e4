"""Shows what the curves say: a table for the terminal, Markdown, a page, CSV, and the pictures."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator
from rich.table import Table
from rich.text import Text

from adaptive_ttc.calibration.pareto.curves import (
    COLD,
    EACH,
    FIXED,
    ORACLES,
    OURS,
    TARGETS,
    Findings,
    Line,
    LivePoint,
    Ratio,
    accuracy_of,
)
from adaptive_ttc.calibration.pareto.figures import curve_points
from adaptive_ttc.calibration.pareto.looks import LOOKS, STRATEGY_LINES
from adaptive_ttc.calibration.pareto.plots import Curve, End, label_axes, name_ends, save, styled, whiskers
from adaptive_ttc.calibration.pareto.pooled import PUBLISHED
from adaptive_ttc.evaluation.markdown import command, markdown_table, picture_links, provenance
from adaptive_ttc.evaluation.result_file import git_state

Cells = tuple[str, ...]

_TARGET_HEAD = (
    "curve",
    *(f"cost of {share:.0%} of the rise" for share in TARGETS),
    *(f"ours to it, {share:.0%}" for share in TARGETS),
    "95 % of its own rise",
    "ours to it there",
)
_BUDGET_HEAD = (
    "budget",
    "ours, one budget",
    "ours, each problem",
    "best fixed arm",
    "oracle of outcomes",
    "less best fixed",
)

_CSV_HEAD = ("curve", "axis", "budget", "cost", "accuracy", "low", "high", "label")

AXIS_NAMES: Mapping[str, str] = {
    "flops": "compute a problem, in tokens of the policy (logarithmic)",
    "generated+prm": "generated and PRM tokens a problem (logarithmic)",
    "generated": "generated tokens a problem (logarithmic)",
}


def overview(found: Findings) -> Table:
    """Ours beside the best fixed arm at every budget, for a terminal of 80 columns."""
    table = Table("budget", title=f"{found.problems} problems, {AXIS_NAMES[found.axis]}, % right", title_justify="left")
    for name in _BUDGET_HEAD[1:]:
        table.add_column(name, justify="right")
    for cells in budget_lines(found):
        table.add_row(*map(Text, cells))
    return table


def budget_lines(found: Findings) -> list[Cells]:
    """One a budget."""
    lines = []
    for budget in found.budgets:
        less = found.difference(budget)
        reached = [float(found.line(name).at(budget).mean()) for name in (OURS, EACH, "best_fixed", "oracle")]
        lines.append(
            (
                f"{budget:,.0f}",
                *(f"{100 * one:.1f}" for one in reached),
                f"{100 * less.mean:+.1f} [{100 * less.low:+.1f}, {100 * less.high:+.1f}]",
            )
        )
    return lines


def target_lines(found: Findings) -> list[Cells]:
    """One a curve: what the targets cost it, and our cost to its."""
    lines = []
    for line in found.lines:
        costs = [_cost(found.cost_to_reach(line, share)) for share in TARGETS]
        if line.name == OURS:
            lines.append((f"**{LOOKS[line.name].name}**", *costs, "", "", "", ""))
            continue
        ratios = [_ratio(found.ratio(line, share)) for share in TARGETS]
        accuracy, ratio = found.equal_accuracy(line)
        lines.append((LOOKS[line.name].name, *costs, *ratios, f"{accuracy:.3f}", _ratio(ratio)))
    return lines


def sentences(found: Findings) -> list[str]:
    """What was found, in sentences."""
    said = [_target_in_words(found, share) for share in TARGETS]
    for name, ours in (("one budget", OURS), ("a budget for each problem", EACH)):
        below, above = (
            ", ".join(f"{one:,.0f}" for one in budgets) or "none"
            for budgets in (found.below_fixed(ours), found.above_fixed(ours))
        )
        said.append(f"With {name}, significantly below the best fixed arm at: {below}; above it at: {above}.")
    said.append(
        f"Of the oracle's gain in accuracy it keeps {found.gain_kept():.0%}. Units spent beyond a budget: "
        f"{found.overspent:g}."
    )
    cold = found.cold_ratio(TARGETS[0])
    if cold is not None:
        said.append(
            f"Without a calibration {TARGETS[0]:.0%} of the rise costs {_ratio(cold)} of what it costs with it."
        )
    if found.reference is not None:
        one = found.reference
        said.append(
            f"{one.name}'s greedy solution takes {one.greedy_cost:,.0f} units a problem; ours is as right from "
            f"{_cost(one.passed_at)} on."
        )
    for live in found.live:
        reached, less = live.accuracy, live.difference
        said.append(
            f"Live at {live.budget:,.0f}: {reached.mean:.3f} [{reached.low:.3f}, {reached.high:.3f}] for "
            f"{live.cost:,.0f}, replayed {live.replayed:.3f}; difference {less.mean:+.3f} "
            f"[{less.low:+.3f}, {less.high:+.3f}]."
        )
    return said


def _target_in_words(found: Findings, share: float) -> str:
    arm, cost = found.arms[share], found.cost_to_reach(found.line(OURS), share)
    aim = (
        f"{share:.0%} of the rise of the best fixed arm is {found.targets(share)[0]:.3f}. The cheapest arm that "
        f"reached it on calibration problems is {arm.label or 'another in each fold'}: {arm.cost.mean():,.0f} units, "
        f"{arm.accuracy.mean():.3f} here."
    )
    if math.isinf(cost):
        return f"{aim} Ours does not reach it."
    kept = ", ".join(f"{LOOKS[oracle].name} {_kept(found, share, oracle)}" for oracle in ORACLES)
    return (
        f"{aim} Ours takes {_cost(cost)}, {_ratio(found.ratio_to_arm(share))} of that. Its log-saving over the best "
        f"fixed curve, as a share of what an oracle saves: {kept}."
    )


def _kept(found: Findings, share: float, oracle: str) -> str:
    """Of an oracle's log-saving; one that is no cheaper than the best fixed arm saves none."""
    saves = found.cost_to_reach(found.line(oracle), share) < found.cost_to_reach(found.line(FIXED), share)
    return _ratio(found.log_saving_kept(share, oracle)) if saves else "(saves nothing)"


def section(found: Findings, pictures: Sequence[Path], results: Path) -> str:
    """Markdown with what made it."""
    parts = [
        provenance(),
        *found.notes,
        f"{found.problems} problems; cost: {AXIS_NAMES[found.axis].replace(' (logarithmic)', '')}; brackets hold 95 % "
        "intervals of paired bootstraps over problems.",
        *picture_links(pictures, results),
        *(f"- {one}" for one in sentences(found)),
        markdown_table(_TARGET_HEAD, target_lines(found)),
        markdown_table(_BUDGET_HEAD, budget_lines(found)),
    ]
    return "\n\n".join(parts)


def page(found: Findings, svg: Path) -> str:
    """A page that holds everything it shows."""
    drawn = svg.read_text(encoding="utf-8")
    drawn = drawn[drawn.index("<svg") :]
    points = [(LOOKS[row[0]].name, *row[2:]) for row in csv_lines(found)]
    style = (
        "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .6rem;border-bottom:1px solid #ddd;"
        "text-align:right}td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}"
    )
    body = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Accuracy against compute</title>',
        f"<style>{style}</style>",
        "<h1>Accuracy against compute</h1>",
        f"<p><code>{escape(command())}</code>, commit {escape(git_state()[:12])}, {found.problems} problems.</p>",
        *(f"<p>{escape(note)}</p>" for note in found.notes),
        drawn,
        "<ul>",
        *(f"<li>{escape(one)}</li>" for one in sentences(found)),
        "</ul>",
        _html_table("Costs of equal accuracy", _TARGET_HEAD, target_lines(found)),
        _html_table("Accuracy at equal cost", _BUDGET_HEAD, budget_lines(found)),
        _html_table("All points", _CSV_HEAD[:1] + _CSV_HEAD[2:], points),
        "</html>",
    )
    return "\n".join(body)


def csv_lines(found: Findings) -> list[Cells]:
    """Every point of every curve as it was measured."""
    rows = []
    for line in map(found.native, found.with_reference):
        for point in curve_points(line, found.groups, labels=True):
            label = point.pop("label")
            rows.append((line.name, found.axis, *(f"{number:.6g}" for number in point.values()), label))
    return rows


def csv_text(found: Findings) -> str:
    """The points as a table for other programs."""
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([_CSV_HEAD, *csv_lines(found)])
    return text.getvalue()


def _html_table(title: str, head: Cells, rows: Iterable[Cells]) -> str:
    def row(cells: Cells, tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell.replace('**', ''))}</{tag}>" for cell in cells) + "</tr>"

    return f"<h2>{title}</h2>\n<table>" + row(head, "th") + "".join(row(cells, "td") for cells in rows) + "</table>"


def _cost(cost: float) -> str:
    return "never" if math.isinf(cost) else f"{cost:,.0f}"


def _ratio(ratio: Ratio) -> str:
    if math.isnan(ratio.value):
        return "neither reaches it"
    return f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def draw(found: Findings, path: Path) -> list[Path]:
    """Strategies, rules that choose, and rules of one budget without a calibration, ours in all; PNG and SVG."""
    strategies = [line for line in found.lines if line.name in STRATEGY_LINES]
    pooled = [line for line in found.lines if line.name in (*PUBLISHED, COLD)]
    rules = [line for line in found.lines if line.name not in STRATEGY_LINES and line not in pooled]
    ours = found.line(OURS)
    with styled(7.4, 13.6, nrows=3, sharex=True, sharey=True) as (figure, (above, below, last)):
        for axes, lines, title in (
            (above, [*strategies, *_larger_lines(found), ours], "Ours and every strategy at every N"),
            (below, rules, "Ours and rules that choose"),
            (last, [*pooled, ours], "One budget without a calibration, and ours"),
        ):
            _draw_curves(axes, found, lines)
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            axes.tick_params(labelbottom=True)
            label_axes(axes, "", "accuracy (shaded: 95 % interval of ours)")
            axes.set_title(f"{title}, {found.problems} problems")
            name_ends(axes, [_end(line) for line in lines])
        _draw_live(below, found.live)
        last.set_xlabel(AXIS_NAMES[found.axis])
        figure.tight_layout()
        return save(figure, path, ".svg")


def _larger_lines(found: Findings) -> list[Line]:
    """The larger policy's greedy solution and its majorities, as two curves."""
    if found.reference is None:
        return []
    points = found.reference.line.points
    greedy = [point for point in points if point.label == "greedy"]
    return [Line("larger_greedy", tuple(greedy)), Line("larger", tuple(one for one in points if one.label != "greedy"))]


def _draw_curves(axes: Axes, found: Findings, lines: Sequence[Line]) -> None:
    for line in lines:
        look, mine = LOOKS[line.name], line.name.startswith("ours")
        as_measured = line.name in STRATEGY_LINES or line.name.startswith("larger")
        shown = line if as_measured else found.shown(line)
        cost, accuracy = shown.costs.mean(axis=1), shown.accuracies.mean(axis=1)
        single = len(cost) == 1
        axes.plot(
            cost,
            accuracy,
            color=look.colour,
            linestyle="None" if single else look.line,
            marker=look.marker or ("o" if single else None),
            markersize=9 if look.marker == "*" else 5,
            linewidth=2.4 if mine else 1.5,
            zorder=4 if mine else 3,
        )
        if line.name == OURS:
            ends = [accuracy_of(point, found.groups) for point in shown.points]
            axes.fill_between(cost, [one.low for one in ends], [one.high for one in ends], color="#000000", alpha=0.08)


def _draw_live(axes: Axes, points: Sequence[LivePoint]) -> None:
    """Live runs, with their intervals."""
    if not points:
        return
    live = Curve.of("live", [one.cost for one in points], [one.accuracy for one in points])
    look: dict[str, Any] = {"color": "#000000", "markerfacecolor": "white", "capsize": 3}
    axes.errorbar(live.cost, live.accuracy, whiskers(live), fmt="o", zorder=5, **look)
    place = (live.cost[0], live.accuracy[0])
    axes.annotate("live", place, xytext=(8, -12), textcoords="offset points", fontsize=9)


def _end(line: Line) -> End:
    return End(LOOKS[line.name].name, LOOKS[line.name].colour, float(line.accuracies.mean(axis=1)[-1]))
