"""The report as one HTML page with SVG figures, which needs no network; matplotlib is imported for the first figure."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptive_ttc.calibration.collect.records import Weights
from adaptive_ttc.calibration.fit.pipeline import Calibration
from adaptive_ttc.calibration.judge.difficulty import StageMetrics
from adaptive_ttc.calibration.report.tables import Grid, bin_name
from adaptive_ttc.errors import install_command
from adaptive_ttc.estimate.table import ComputeOptimalTable
from adaptive_ttc.evaluation.plot_style import colour_of, styled
from adaptive_ttc.strategies.adaptive import is_second

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_EDGES = ("#56B4E9", "#009E73", "#E69F00", "#D55E00")
_STYLE: dict[Any, Any] = {"font.size": 9, "axes.titlesize": 10, "lines.linewidth": 1.8, "lines.markersize": 4}
_ACROSS = 3


def curves(table: ComputeOptimalTable, weights: Weights) -> str:
    """Accuracy against cost, a panel for each bin, a line for each strategy; bands are 95 % intervals."""
    bins = len(table.share)
    with _panels(bins, 3.4, 2.7) as (figure, panels):
        for number, axes in zip(range(bins), panels, strict=False):
            _draw_bin(axes, table, weights, number)
            axes.set_title(bin_name(table, number))
        _outside(figure, panels, bins)
        _label(figure, "units a problem (logarithmic)", "right, in %")
        return _svg(figure)


def _draw_bin(axes: Axes, table: ComputeOptimalTable, weights: Weights, number: int) -> None:
    cells = table.cells
    for strategy, second in dict.fromkeys((arm.strategy, is_second(arm.kind)) for arm in table.arms):
        own = (strategy, second)
        columns = [column for column, arm in enumerate(table.arms) if (arm.strategy, is_second(arm.kind)) == own]
        cost = weights.generated * _row(cells.generated, number) + weights.prm * _row(cells.prm, number)
        columns.sort(key=lambda column: float(cost[column]))
        values = [100 * _row(rows, number)[columns] for rows in (cells.accuracy, cells.low, cells.high)]
        colour = colour_of(strategy)
        axes.fill_between(cost[columns], values[1], values[2], color=colour, alpha=0.13, linewidth=0)
        label = strategy.replace("_", " ") + (" (second policy)" if second else "")
        axes.plot(cost[columns], values[0], "--" if second else "-", color=colour, marker="o", label=label)
    axes.set_xscale("log")
    axes.set_ylim(-3, 103)


def arm_heat_map(table: ComputeOptimalTable, weights: Weights) -> str:
    """Accuracy of every arm in every bin, arms by rising mean cost."""
    share = np.array(table.share)
    cells = table.cells
    cost = share @ (weights.generated * np.array(cells.generated) + weights.prm * np.array(cells.prm))
    order = np.argsort(cost, kind="stable")
    values = 100 * np.array(cells.accuracy)[:, order]
    names = [f"{table.arms[column].name} · {cost[column]:,.0f}" for column in order]
    with _styled(max(5.0, 0.31 * len(names) + 1.6), 3.6) as (figure, axes):
        _heat(axes, values, [f"{value:.0f}" for value in values.ravel()], "viridis", (0, 100))
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(share)), [bin_name(table, number) for number in range(len(share))])
        axes.set_xlabel("arm · mean units a problem")
        return _svg(figure)


def gains(calibration: Calibration) -> str:
    """Accuracy on unseen problems against mean cost: one arm for all, by difficulty, adaptive."""
    gain, met = calibration.gain, calibration.adaptive
    lines = (
        ("one arm for all", gain.budgets, gain.fixed, "#7f7f7f", "-"),
        ("arm by true bin (oracle)", gain.budgets, gain.oracle, "#009E73", "--"),
        ("arm by predicted bin", gain.budgets, gain.predicted, "#0072B2", "-"),
        ("adaptive, table's forecasts", met.budgets, met.table, "#E69F00", "-"),
        ("adaptive, learned outlook", met.budgets, met.learned, "#D55E00", "-"),
        ("the same, opening not scored", met.budgets, met.unscored, "#D55E00", ":"),
    )
    with _styled(6.6, 3.8) as (figure, axes):
        for name, budgets, accuracy, colour, dashes in lines:
            if any(accuracy):
                axes.plot(budgets, 100 * np.array(accuracy), dashes, color=colour, marker="o", label=name)
        axes.set_xscale("log")
        axes.set_xlabel("mean units a problem (logarithmic)")
        axes.set_ylabel("right, in % of unseen problems")
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
        return _svg(figure)


def reliability(stages: Mapping[str, StageMetrics]) -> str:
    """Observed against predicted probability of being harder than an edge, a panel for each stage."""
    with _panels(len(stages), 2.9, 2.7) as (figure, panels):
        for (name, found), axes in zip(stages.items(), panels, strict=False):
            axes.plot([0, 1], [0, 1], color="#999999", linewidth=1)
            for edge, colour in enumerate(_EDGES):
                points = [point for point in found.reliability if point.edge == edge]
                x, y = [one.predicted for one in points], [one.observed for one in points]
                axes.plot(x, y, color=colour, marker="o", linewidth=1, label=f"harder than bin {edge}")
            axes.set_title(f"{name}: ECE {found.ece:.3f}")
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1)
        _outside(figure, panels, len(stages))
        _label(figure, "predicted probability", "share observed")
        return _svg(figure)


def confusion(stages: Mapping[str, StageMetrics]) -> str:
    """Problems by their bin and the most probable predicted one, a panel for each stage."""
    with _panels(len(stages), 2.7, 2.6) as (figure, panels):
        for (name, found), axes in zip(stages.items(), panels, strict=False):
            table = np.array(found.confusion)
            shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1e-9)
            _heat(axes, shares, [f"{value:.0f}" for value in table.ravel()], "Blues", (0, 1))
            axes.set_title(name)
            axes.set_xticks(range(len(table)))
            axes.set_yticks(range(len(table)))
        for axes in panels[len(stages) :]:
            axes.set_visible(False)
        _label(figure, "predicted bin", "bin by pass@1")
        return _svg(figure)


def importances(found: Mapping[str, Mapping[str, float]]) -> str:
    """Rise of the log-loss on unseen problems when a group of features is shuffled, stages x groups."""
    groups = list(dict.fromkeys(group for stage in found.values() for group in stage))
    values = np.array([[stage.get(group, np.nan) for group in groups] for stage in found.values()])
    words = ["" if np.isnan(value) else f"{value:.3f}" for value in values.ravel()]
    top = max(0.01, float(np.nanmax(values))) if values.size else 1.0
    with _styled(0.95 * len(groups) + 1.4, 0.42 * len(found) + 1.1) as (figure, axes):
        _heat(axes, np.nan_to_num(values), words, "Oranges", (0, top))
        axes.set_xticks(range(len(groups)), [group.replace(" ", "\n") for group in groups])
        axes.set_yticks(range(len(found)), list(found))
        return _svg(figure)


def _heat(axes: Axes, values: Any, words: Sequence[str], colours: str, span: tuple[float, float]) -> None:
    axes.imshow(values, cmap=colours, vmin=span[0], vmax=span[1], aspect="auto")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    dark_is_low = colours == "viridis"
    for place, word in enumerate(words):
        row, column = divmod(place, values.shape[1])
        share = (values[row, column] - span[0]) / (span[1] - span[0])
        light = share < 0.6 if dark_is_low else share > 0.6
        axes.text(column, row, word, ha="center", va="center", fontsize=7.5, color="white" if light else "black")


def _row(rows: Sequence[Sequence[float]], number: int) -> Any:
    return np.array(rows[number])


def _outside(figure: Figure, panels: Any, used: int) -> None:
    """Put the legend in the place of the first unused panel, or above."""
    handles, labels = panels[0].get_legend_handles_labels()
    for axes in panels[used:]:
        axes.set_axis_off()
    if used < len(panels):
        panels[used].legend(handles, labels, loc="center", frameon=False)
    else:
        figure.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)


def _label(figure: Figure, x: str, y: str) -> None:
    figure.supxlabel(x, fontsize=9)
    figure.supylabel(y, fontsize=9)


@contextmanager
def _panels(number: int, width: float, height: float) -> Iterator[tuple[Figure, Any]]:
    """So many panels of that size in inches, three across."""
    down = -(-number // _ACROSS)
    across = min(number, _ACROSS)
    with _styled(width * across, height * down, nrows=down, ncols=across, squeeze=False) as (figure, panels):
        yield figure, panels.ravel()


def _styled(width: float, height: float, **subplots: Any) -> AbstractContextManager[tuple[Figure, Any]]:
    return styled(_STYLE, width, height, layout="constrained", **subplots)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    return text.getvalue()


_CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; max-width: 70rem;
  margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.4rem; }
p, li { max-width: 50rem; } code { font-size: .9em; overflow-wrap: anywhere; }
figure { margin: 0; overflow-x: auto; } img { max-width: 100%; }
figcaption { color: #555; font-size: .9em; max-width: 50rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .6rem; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { border-bottom: 1.5px solid #333; } tr.end td { border-bottom: 1px solid #bbb; }
.number { text-align: right; white-space: nowrap; }
details > summary { cursor: pointer; font-weight: 600; margin-top: 2.4rem; }
"""


def page(title: str, command: str, sentences: list[str], grids: Mapping[str, Grid], calibration: Calibration) -> str:
    """The whole page; ``grids``: ``choices``, ``stages``, ``gains``, ``origin`` and, of a cascade, ``openings``."""
    table, weights = calibration.table, calibration.settings.weights
    unit = f"A unit is a generated token; a token scored by the PRM costs {weights.prm:g} of them."
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p><code>{escape(command)}</code></p>",
        "<ul>" + "".join(f"<li>{escape(one)}</li>" for one in sentences) + "</ul>",
        f"<h2>{escape(grids['choices'].title)}</h2>",
        f"<p>{escape(unit)} Arms are chosen by expected accuracies: measured ones, shrunk towards "
        "what bin and arm alone predict.</p>",
        _table(grids["choices"]),
        "<h2>What every strategy reaches, by difficulty</h2>",
        _figure(lambda: curves(table, weights), "Measured accuracy; bands are 95 % intervals over problems."),
        "<h2>All arms</h2>",
        _figure(lambda: arm_heat_map(table, weights), "Right, in %, of the problems of each bin."),
        f"<h2>{escape(grids['gains'].title)}</h2>",
        _figure(lambda: gains(calibration), "All choices are made by what was fitted without the problem."),
        _table(grids["gains"]),
        *(f"<h2>{escape(one.title)}</h2>{_table(one)}" for name, one in grids.items() if name == "openings"),
        f"<h2>{escape(grids['stages'].title)}</h2>",
        _table(grids["stages"]),
        "<p>Log-loss in nats: “of shares” is that of a classifier that always answers how common the bins are, "
        "“floor” the entropy of the labels, below which none is. “Ceiling” is the rank correlation that the true "
        "rates would have with the measured ones.</p>",
        "<h2>Reliability</h2>",
        _figure(lambda: reliability(calibration.stages), "On unseen problems; groups of equal mass."),
        "<h2>Confusion</h2>",
        _figure(
            lambda: confusion(calibration.stages),
            "Unseen problems; one counts in each bin with the probability that its rate lies there. Bin 0 is the "
            "easiest. Colours are shares of a row.",
        ),
        "<h2>What the classifiers live on</h2>",
        _figure(
            lambda: importances(calibration.importances),
            "Rise of the log-loss (nats) on unseen problems when a group of features is shuffled among them.",
        ),
        f"<details><summary>{escape(grids['origin'].title)}</summary>{_table(grids['origin'])}</details>",
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{_CSS}</style></head>\n<body>\n' + "\n".join(
        [*parts, "</body></html>\n"]
    )


def _figure(draw: Callable[[], str], caption: str) -> str:
    """A figure as an image of its own, so that its names do not meet those of the page; words without matplotlib."""
    try:
        svg = draw()
    except ImportError:
        return f"<p>No figure: matplotlib is not installed ({escape(install_command('plot'))}).</p>"
    data = base64.b64encode(svg.encode()).decode()
    text = escape(caption)
    return f'<figure><img alt="{text}" src="data:image/svg+xml;base64,{data}"><figcaption>{text}</figcaption></figure>'


def _table(grid: Grid) -> str:
    def line(cells: tuple[str, ...], tag: str, end: bool = False) -> str:
        classes = [' class="number"' if index >= grid.numbers else "" for index in range(len(cells))]
        inner = "".join(f"<{tag}{one}>{escape(cell)}</{tag}>" for cell, one in zip(cells, classes, strict=True))
        return f"<tr class='end'>{inner}</tr>" if end else f"<tr>{inner}</tr>"

    body = "".join(line(row, "td", number in grid.sections) for number, row in enumerate(grid.rows))
    return f'<div class="wide"><table><thead>{line(grid.head, "th")}</thead><tbody>{body}</tbody></table></div>'
