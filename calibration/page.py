"""Makes the report's page of HTML: figures and tables in one file that needs no network; it writes no file."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from html import escape

from adaptive_ttc.calibration import figures
from adaptive_ttc.calibration.calibrate import Calibration
from adaptive_ttc.calibration.findings import Grid

_STYLE = """
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
    """The whole page.

    Args:
        title: of it.
        command: that made the calibration.
        sentences: findings, a line each.
        grids: ``choices``, ``stages``, ``gains`` and ``origin``.
        calibration: what the figures show.
    """
    table, weights = calibration.table, calibration.settings.weights
    unit = f"A unit is a generated token; a token scored by the PRM costs {weights.prm:g} of them."
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p><code>{escape(command)}</code></p>",
        "<ul>" + "".join(f"<li>{escape(one)}</li>" for one in sentences) + "</ul>",
        _heading(grids["choices"].title),
        f"<p>{escape(unit)} Arms are chosen by expected accuracies: measured ones, shrunk towards "
        "what bin and arm alone predict.</p>",
        _table(grids["choices"]),
        _heading("What every strategy reaches, by difficulty"),
        _figure(lambda: figures.curves(table, weights), "Measured accuracy; bands are 95 % intervals over problems."),
        _heading("All arms"),
        _figure(lambda: figures.arm_heat_map(table, weights), "Right, in %, of the problems of each bin."),
        _heading(grids["gains"].title),
        _figure(lambda: figures.gains(calibration), "All choices are made by what was fitted without the problem."),
        _table(grids["gains"]),
        _heading(grids["stages"].title),
        _table(grids["stages"]),
        "<p>Log-loss in nats: “of shares” is that of a classifier that always answers how common the bins are, "
        "“floor” the entropy of the labels, below which none is. “Ceiling” is the rank correlation that the true "
        "rates would have with the measured ones.</p>",
        _heading("Reliability"),
        _figure(lambda: figures.reliability(calibration.stages), "On unseen problems; groups of equal mass."),
        _heading("Confusion"),
        _figure(
            lambda: figures.confusion(calibration.stages),
            "Unseen problems; one counts in each bin with the probability that its rate lies there. Bin 0 is the "
            "easiest. Colours are shares of a row.",
        ),
        _heading("What the classifiers live on"),
        _figure(
            lambda: figures.importances(calibration.importances),
            "Rise of the log-loss (nats) on unseen problems when a group of features is shuffled among them.",
        ),
        f"<details><summary>{escape(grids['origin'].title)}</summary>{_table(grids['origin'])}</details>",
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>\n' + "\n".join(
        [*parts, "</body></html>\n"]
    )


def _heading(text: str) -> str:
    return f"<h2>{escape(text)}</h2>"


def _figure(draw: Callable[[], str], caption: str) -> str:
    """A figure as an image of its own, so that nothing of it meets the page's names; words where it cannot be drawn."""
    try:
        svg = draw()
    except ImportError:
        return "<p>No figure: matplotlib is not installed (pip install 'adaptive-ttc[plot]').</p>"
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
