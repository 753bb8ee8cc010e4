"""Draws the figures: accuracy against compute or N, bars, names and labels that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter
from numpy.typing import NDArray

from adaptive_ttc.evaluation import plot_style as look
from adaptive_ttc.evaluation.metrics import Interval
from adaptive_ttc.evaluation.plot_style import colour_of

COLOURS = look.COLOURS
MARKERS: Mapping[str, str] = {
    "majority": "o",
    "best_of_n": "v",
    "weighted_best_of_n": "s",
    "beam_search": "D",
    "dvts": "^",
    "revision": "P",
    "adaptive": "*",
}
_LETTERS = 0.065  # height of a line of text as a share of the axes' height, at the figures' usual size
_THREAD: Mapping[str, Any] = {"arrowstyle": "-", "linewidth": 0.8, "shrinkA": 2, "shrinkB": 0, "relpos": (0, 0.5)}
_APART = 0.09  # octaves between the interval bars of two strategies at the same N
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
    "lines.linewidth": 2,
    "lines.markersize": 6,
    "svg.fonttype": "none",
}


@dataclass(frozen=True, slots=True)
class Curve:
    """Accuracy of a strategy at several costs, or in several groups of problems; all sequences in their order.

    Attributes:
        strategy: its name, which chooses the colour.
        cost: generated tokens a problem, or N, or the number of the group.
        accuracy: in [0, 1], nan where a group is empty; ``low`` and ``high`` are the ends of its interval.
        labels: what is written at each point, such as ``N=4``.
    """

    strategy: str
    cost: Sequence[float]
    accuracy: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    labels: Sequence[str] = ()

    @classmethod
    def of(cls, strategy: str, cost: Sequence[float], found: Sequence[Interval], labels: Sequence[str] = ()) -> Curve:
        """Of intervals at these costs."""
        mean, low, high = ([getattr(one, end) for one in found] for end in ("mean", "low", "high"))
        return cls(strategy, cost, mean, low, high, labels)


def styled(width: float = 6.4, height: float = 4.0, **subplots: Any) -> AbstractContextManager[tuple[Figure, Any]]:
    """A figure of that size in inches and its axes, in the common style; closed afterwards."""
    return look.styled(_STYLE, width, height, **subplots)


def draw_curves(axes: Axes, curves: Sequence[Curve]) -> None:
    """Accuracy against tokens, on a logarithmic axis; bands are intervals, names stand at the curves' ends."""
    for curve in curves:
        colour = colour_of(curve.strategy)
        axes.fill_between(curve.cost, curve.low, curve.high, color=colour, alpha=0.12, linewidth=0)
        axes.plot(curve.cost, curve.accuracy, color=colour, marker=MARKERS.get(curve.strategy, "o"))
    axes.set_xscale("log")
    _label_costs(axes, curves, "generated tokens a problem (logarithmic)", "accuracy (shaded: 95 % interval)")
    name_ends(axes, map(_end, curves))
    labelled = [curve for curve in curves if curve.labels]
    label_points(axes, (at for one in labelled for at in zip(one.cost, one.accuracy, one.labels, strict=True)))


def draw_sizes(axes: Axes, curves: Sequence[Curve], level: Curve | None = None) -> None:
    """Accuracy against N, on a log2 axis; bars are intervals, moved apart, names stand at the curves' ends.

    ``level`` has no N: a broken line from side to side.
    """
    for index, curve in enumerate(curves):
        beside = 2 ** (_APART * (index - (len(curves) - 1) / 2))
        axes.errorbar(
            [n * beside for n in curve.cost],
            curve.accuracy,
            whiskers(curve),
            color=colour_of(curve.strategy),
            marker=MARKERS.get(curve.strategy, "o"),
            elinewidth=1,
        )
    axes.set_xscale("log", base=2)
    what = "N: samples, beams or attempts a problem (logarithmic)"
    _label_costs(axes, curves, what, "accuracy (bars: 95 % interval)")
    if level is not None:
        axes.axhline(level.accuracy[0], color=colour_of(level.strategy), linestyle="--", linewidth=1.5, zorder=1)
    sizes = [n for curve in curves for n in curve.cost]
    axes.set_xlim(min(sizes) / 1.5, max(sizes) * 1.5)
    name_ends(axes, map(_end, [*curves, *([] if level is None else [level])]))


def draw_bars(axes: Axes, bars: Sequence[Curve], names: Sequence[str], level: Curve | None = None) -> None:
    """Bars side by side in every named group, one colour a strategy; whiskers are intervals, `level` a broken line."""
    width, groups = 0.84 / len(bars), np.arange(len(names))
    for index, one in enumerate(bars):
        places = groups + width * (index - (len(bars) - 1) / 2)
        axes.bar(places, one.accuracy, width=0.9 * width, color=colour_of(one.strategy), label=name_of(one.strategy))
        axes.errorbar(places, one.accuracy, whiskers(one), fmt="none", ecolor="#333333", elinewidth=0.9)
    if level is not None:
        label = name_of(level.strategy)
        axes.hlines(level.accuracy, groups - 0.45, groups + 0.45, "#333333", "--", linewidth=1.3, label=label)
    axes.set_xticks(groups, names)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def name_of(strategy: str) -> str:
    """The strategy's name for people."""
    return NAMES.get(strategy, strategy)


def save(figure: Figure, path: Path, *suffixes: str) -> list[Path]:
    """Write the figure to ``path``, and beside it with the other suffixes (``.svg``); its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    paths = [path, *(path.with_suffix(suffix) for suffix in suffixes)]
    for one in paths:
        figure.savefig(one, metadata={"Date": None} if one.suffix == ".svg" else None)
    return paths


def _label_costs(axes: Axes, curves: Sequence[Curve], cost: str, accuracy: str) -> None:
    """Ticks at the costs and nowhere else."""
    axes.set_xticks(sorted({tick for curve in curves for tick in curve.cost}))
    axes.tick_params(axis="x", which="minor", length=0)
    label_axes(axes, cost, accuracy)


def whiskers(curve: Curve) -> NDArray[np.float64]:
    """Distances from the mean to the ends of its interval; rounding may put the mean a hair outside."""
    mean = np.asarray(curve.accuracy)
    return np.maximum(0.0, [mean - curve.low, curve.high - mean])


def label_axes(axes: Axes, cost: str, accuracy: str) -> None:
    """What the axes say: plain numbers of cost, accuracy in per cent."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel(cost)
    axes.set_ylabel(accuracy)


def _end(curve: Curve) -> End:
    return End(name_of(curve.strategy), colour_of(curve.strategy), curve.accuracy[-1])


@dataclass(frozen=True, slots=True)
class End:
    """Where a curve ends: what it is called, its colour, and the height of its last point."""

    name: str
    colour: str
    height: float


def name_ends(axes: Axes, ends: Iterable[End]) -> None:
    """Write each name at the right of its curve's end, with a thread to it; call it when the limits are final."""
    bottom, top = axes.get_ylim()
    ranked = sorted(ends, key=lambda end: end.height)
    places = spread([end.height for end in ranked], _LETTERS * (top - bottom))
    for end, place in zip(ranked, places, strict=True):
        axes.annotate(
            end.name,
            (1.0, end.height),
            xytext=(1.03, place),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            arrowprops={**_THREAD, "color": end.colour},
            color=end.colour,
            fontweight="bold",
            va="center",
            annotation_clip=False,
        )


def label_points(axes: Axes, points: Iterable[tuple[float, float, str]]) -> None:
    """Write the labels of points (x, y, label) below them, once where they share x and label, below the lowest."""
    lowest: dict[tuple[float, str], float] = {}
    for x, y, label in points:
        lowest[x, label] = min(y, lowest.get((x, label), y))
    for (x, label), y in lowest.items():
        style: dict[str, Any] = {"ha": "center", "color": "#444444", "fontsize": 8}
        axes.annotate(label, (x, y), xytext=(0, -14), textcoords="offset points", **style)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Places at least ``gap`` apart, near the heights, which rise: a crowd is spread around its mean."""
    crowds: list[list[float]] = []
    for height in heights:
        crowds.append([height])
        while len(crowds) > 1 and _bottom(crowds[-1], gap) < _bottom(crowds[-2], gap) + gap * len(crowds[-2]):
            last = crowds.pop()
            crowds[-1] += last
    return [_bottom(crowd, gap) + gap * index for crowd in crowds for index in range(len(crowd))]


def _bottom(crowd: Sequence[float], gap: float) -> float:
    """Place of the lowest of a crowd."""
    return math.fsum(crowd) / len(crowd) - gap * (len(crowd) - 1) / 2
