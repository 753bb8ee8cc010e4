"""Shows what the Pareto bench found to people: a terminal, Markdown, a page of its own, CSV; it measures nothing."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from io import StringIO
from pathlib import Path

from measuring import command, markdown_table
from pareto_figures import FIXED, ORACLES, OURS, TARGETS, Findings, curve_points
from pareto_picture import AXIS_NAMES, name_of_rule
from points import Ratio
from rich.table import Table
from rich.text import Text

from adaptive_ttc.evaluation.result_file import git_state, machine

Cells = Sequence[str]

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
        reached = [float(found.line(name).at(budget).mean()) for name in (OURS, "ours", "best_fixed", "oracle")]
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
            lines.append((f"**{name_of_rule(line.name)}**", *costs, "", "", "", ""))
            continue
        ratios = [_ratio(found.ratio(line, share)) for share in TARGETS]
        accuracy, ratio = found.equal_accuracy(line)
        lines.append((name_of_rule(line.name), *costs, *ratios, f"{accuracy:.3f}", _ratio(ratio)))
    return lines


def verdicts(found: Findings) -> list[str]:
    """What was found, in sentences."""
    said = [_target_in_words(found, share) for share in TARGETS]
    below = ", ".join(f"{one:,.0f}" for one in found.below_fixed()) or "none"
    said.append(
        f"Budgets at which ours is significantly below the best fixed arm: {below}. Of the oracle's gain in accuracy "
        f"it keeps {found.gain_kept():.0%}. Units spent beyond a budget: {found.overspent:g}."
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
    kept = ", ".join(f"{name_of_rule(oracle)} {_kept(found, share, oracle)}" for oracle in ORACLES)
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
    facts = machine()
    links = [
        f"![{path.stem}]({Path(os.path.relpath(path, results.parent)).as_posix()})"
        for path in pictures
        if path.suffix == ".png"
    ]
    parts = [
        f"`{command()}`, {datetime.now(UTC):%Y-%m-%d}, commit {git_state()[:12]}, {facts['processor']}, "
        f"{facts['cpus']} cores.",
        *found.notes,
        f"{found.problems} problems; cost: {AXIS_NAMES[found.axis].replace(' (logarithmic)', '')}; brackets hold 95 % "
        "intervals of paired bootstraps over problems.",
        *links,
        *(f"- {one}" for one in verdicts(found)),
        markdown_table(_TARGET_HEAD, target_lines(found)),
        markdown_table(_BUDGET_HEAD, budget_lines(found)),
    ]
    return "\n\n".join(parts)


def page(found: Findings, svg: Path) -> str:
    """A page that holds everything it shows."""
    drawn = svg.read_text(encoding="utf-8")
    drawn = drawn[drawn.index("<svg") :]
    points = [(name_of_rule(row[0]), *row[2:]) for row in csv_lines(found)]
    style = (
        "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .6rem;border-bottom:1px solid #ddd;"
        "text-align:right}td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}"
    )
    return "\n".join(
        (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>Accuracy against compute</title>',
            f"<style>{style}</style>",
            "<h1>Accuracy against compute</h1>",
            f"<p><code>{escape(command())}</code>, commit {escape(git_state()[:12])}, {found.problems} problems.</p>",
            *(f"<p>{escape(note)}</p>" for note in found.notes),
            drawn,
            "<ul>",
            *(f"<li>{escape(one)}</li>" for one in verdicts(found)),
            "</ul>",
            "<h2>Costs of equal accuracy</h2>",
            _html_table(_TARGET_HEAD, target_lines(found)),
            "<h2>Accuracy at equal cost</h2>",
            _html_table(_BUDGET_HEAD, budget_lines(found)),
            "<h2>All points</h2>",
            _html_table(CSV_HEAD[:1] + CSV_HEAD[2:], points),
            "</html>",
        )
    )


CSV_HEAD = ("curve", "axis", "budget", "cost", "accuracy", "low", "high", "label")


def csv_lines(found: Findings) -> list[Cells]:
    """Every point of every curve as it was measured."""
    lines = [*found.lines, *([] if found.reference is None else [found.reference.line])]
    rows = []
    for line in map(found.native, lines):
        for point, one in zip(line.points, curve_points(line), strict=True):
            numbers = (f"{one[name]:.6g}" for name in ("budget", "cost", "accuracy", "low", "high"))
            rows.append((line.name, found.axis, *numbers, point.label))
    return rows


def csv_text(found: Findings) -> str:
    """The points as a table for other programs."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([CSV_HEAD, *csv_lines(found)])
    return text.getvalue()


def _html_table(head: Cells, rows: Iterable[Cells]) -> str:
    def row(cells: Cells, tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell.replace('**', ''))}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + row(head, "th") + "".join(row(cells, "td") for cells in rows) + "</table>"


def _cost(cost: float) -> str:
    return "never" if math.isinf(cost) else f"{cost:,.0f}"


def _ratio(ratio: Ratio) -> str:
    if math.isnan(ratio.value):
        return "neither reaches it"
    return f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
