"""Draws the figures: accuracy against compute or N, bars, names and labels that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from adaptive_ttc.evaluation import plot_style as look
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
    """Accuracy of a strategy at several costs; all sequences in order of cost.

    Attributes:
        strategy: its name, which chooses the colour.
        cost: generated tokens a problem, or N.
        accuracy: in [0, 1]; ``low`` and ``high`` are the ends of its interval.
        labels: what is written at each point, such as ``N=4``.
    """

    strategy: str
    cost: Sequence[float]
    accuracy: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    labels: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Bars:
    """Accuracy of a strategy in several groups of problems; nan where a group is empty.

    Attributes:
        strategy: its name, which chooses the colour.
        accuracy: in [0, 1], one a group; ``low`` and ``high`` are the ends of its interval.
    """

    strategy: str
    accuracy: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


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
    _label_axes(axes, curves, "generated tokens a problem (logarithmic)")
    axes.set_ylabel("accuracy (shaded: 95 % interval)")
    name_ends(axes, map(_end, curves))
    labelled = [curve for curve in curves if curve.labels]
    label_points(axes, (at for one in labelled for at in zip(one.cost, one.accuracy, one.labels, strict=True)))


def draw_sizes(axes: Axes, curves: Sequence[Curve], level: Curve | None = None) -> None:
    """Accuracy against N, on a log2 axis; bars are intervals, moved apart, names stand at the curves' ends.

    Args:
        axes: where to.
        curves: with N as their cost.
        level: what has no N, as a broken line from side to side.
    """
    for index, curve in enumerate(curves):
        beside = 2 ** (_APART * (index - (len(curves) - 1) / 2))
        axes.errorbar(
            [n * beside for n in curve.cost],
            curve.accuracy,
            _whiskers(curve),
            color=colour_of(curve.strategy),
            marker=MARKERS.get(curve.strategy, "o"),
            elinewidth=1,
        )
    axes.set_xscale("log", base=2)
    _label_axes(axes, curves, "N: samples, beams or attempts a problem (logarithmic)")
    axes.set_ylabel("accuracy (bars: 95 % interval)")
    if level is not None:
        axes.axhline(level.accuracy[0], color=colour_of(level.strategy), linestyle="--", linewidth=1.5, zorder=1)
    sizes = [n for curve in curves for n in curve.cost]
    axes.set_xlim(min(sizes) / 1.5, max(sizes) * 1.5)
    name_ends(axes, map(_end, [*curves, *([] if level is None else [level])]))


def draw_bars(axes: Axes, bars: Sequence[Bars], names: Sequence[str], level: Bars | None = None) -> None:
    """Groups of bars side by side, one colour a strategy; whiskers are intervals.

    Args:
        axes: where to.
        bars: in the order in which they stand in every group.
        names: of the groups.
        level: a broken line over every group, drawn where it is.
    """
    width = 0.84 / len(bars)
    for index, one in enumerate(bars):
        places = [group + width * (index - (len(bars) - 1) / 2) for group in range(len(names))]
        axes.bar(places, one.accuracy, width=0.9 * width, color=colour_of(one.strategy), label=name_of(one.strategy))
        axes.errorbar(places, one.accuracy, _whiskers(one), fmt="none", ecolor="#333333", elinewidth=0.9)
    if level is not None:
        sides = [group + side for group in range(len(names)) for side in (-0.45, 0.45)]
        heights = [height for height in level.accuracy for _ in range(2)]
        axes.hlines(
            heights[::2], sides[::2], sides[1::2], "#333333", "--", linewidth=1.3, label=name_of(level.strategy)
        )
    axes.set_xticks(range(len(names)), names)
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


def _label_axes(axes: Axes, curves: Sequence[Curve], cost: str) -> None:
    """Ticks at the costs and nowhere else, accuracy in per cent."""
    axes.set_xticks(sorted({tick for curve in curves for tick in curve.cost}))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel(cost)


def _whiskers(one: Curve | Bars) -> list[list[float]]:
    """Distances from the mean to the ends of its interval; rounding may put the mean a hair outside."""
    below = [
        max(0.0, mean - low) if math.isfinite(low) else low for mean, low in zip(one.accuracy, one.low, strict=True)
    ]
    above = [
        max(0.0, high - mean) if math.isfinite(high) else high
        for mean, high in zip(one.accuracy, one.high, strict=True)
    ]
    return [below, above]


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
            xycoords=("axes fraction", "data"),
            xytext=(1.03, place),
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
        axes.annotate(
            label,
            (x, y),
            xytext=(0, -14),
            textcoords="offset points",
            ha="center",
            color="#444444",
            fontsize=8,
        )


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
