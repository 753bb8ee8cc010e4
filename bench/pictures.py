"""The look of all figures: colours a strategy, accuracy against compute with intervals; it measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # figures are written, never shown: no display is needed

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

# Okabe and Ito's palette, which people with any colour vision can tell apart
COLOURS: Mapping[str, str] = {
    "greedy": "#7f7f7f",
    "majority": "#0072B2",
    "best_of_n": "#56B4E9",
    "weighted_best_of_n": "#D55E00",
    "beam_search": "#009E73",
    "dvts": "#CC79A7",
    "revision": "#E69F00",
    "adaptive": "#000000",
}
MARKERS: Mapping[str, str] = {
    "majority": "o",
    "best_of_n": "v",
    "weighted_best_of_n": "s",
    "beam_search": "D",
    "dvts": "^",
    "revision": "P",
    "adaptive": "*",
}
NAMES: Mapping[str, str] = {
    "majority": "majority",
    "best_of_n": "best-of-N",
    "weighted_best_of_n": "weighted best-of-N",
    "beam_search": "beam search",
    "dvts": "DVTS",
}
"""Names for people, where they differ from the strategy's."""

_STYLE: dict[Any, Any] = {
    "figure.dpi": 150,
    "savefig.bbox": "tight",
    "savefig.facecolor": "white",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "lines.linewidth": 2,
    "lines.markersize": 6,
    "svg.fonttype": "none",
}


@dataclass(frozen=True, slots=True)
class Curve:
    """Accuracy of a strategy at several costs; all sequences in order of cost.

    Attributes:
        strategy: its name, which chooses the colour.
        cost: generated tokens a problem.
        accuracy: in [0, 1]; ``low`` and ``high`` are the ends of its interval.
        labels: what is written at each point, such as ``N=4``.
    """

    strategy: str
    cost: Sequence[float]
    accuracy: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    labels: Sequence[str] = ()


@contextmanager
def styled(width: float = 6.4, height: float = 4.0, **subplots: Any) -> Iterator[tuple[Figure, Any]]:
    """A figure of that size in inches and its axes, in the common style; closed afterwards."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(width, height), **subplots)
        try:
            yield figure, axes
        finally:
            plt.close(figure)


def draw_curves(axes: Axes, curves: Sequence[Curve]) -> None:
    """Accuracy against tokens, on a logarithmic axis; bands are intervals, names stand at the curves' ends."""
    for curve in curves:
        colour = COLOURS.get(curve.strategy, "#555555")
        axes.fill_between(curve.cost, curve.low, curve.high, color=colour, alpha=0.12, linewidth=0)
        axes.plot(curve.cost, curve.accuracy, color=colour, marker=MARKERS.get(curve.strategy, "o"))
    _name_at_the_end(axes, curves)
    _label_points(axes, curves)
    axes.set_xscale("log")
    ticks = sorted({tick for curve in curves for tick in curve.cost})
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("generated tokens a problem (logarithmic)")
    axes.set_ylabel("accuracy (shaded: 95 % interval)")


def save(figure: Figure, path: Path, *suffixes: str) -> list[Path]:
    """Write the figure to ``path``, and beside it with the other suffixes (``.svg``); its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    paths = [path, *(path.with_suffix(suffix) for suffix in suffixes)]
    for one in paths:
        figure.savefig(one)
    return paths


def _name_at_the_end(axes: Axes, curves: Sequence[Curve]) -> None:
    """Write each name beside the curve's last point, as far apart as the letters are high."""
    lowest = min(min(curve.low) for curve in curves)
    highest = max(max(curve.high) for curve in curves)
    gap = 0.06 * max(highest - lowest, 0.05)
    below = -1.0
    for curve in sorted(curves, key=lambda curve: curve.accuracy[-1]):
        below = max(curve.accuracy[-1], below + gap)
        axes.annotate(
            NAMES.get(curve.strategy, curve.strategy),
            (curve.cost[-1], below),
            xytext=(10, 0),
            textcoords="offset points",
            color=COLOURS.get(curve.strategy, "#555555"),
            fontweight="bold",
            va="center",
            annotation_clip=False,
        )


def _label_points(axes: Axes, curves: Sequence[Curve]) -> None:
    """Write the points' labels once for all curves that share their costs, below the lowest one."""
    lowest: dict[tuple[float, str], float] = {}
    for curve in curves:
        for cost, accuracy, label in zip(curve.cost, curve.accuracy, curve.labels, strict=False):
            lowest[cost, label] = min(accuracy, lowest.get((cost, label), 1.0))
    for (cost, label), accuracy in lowest.items():
        axes.annotate(
            label,
            (cost, accuracy),
            xytext=(0, -14),
            textcoords="offset points",
            ha="center",
            color="#444444",
            fontsize=8,
        )
