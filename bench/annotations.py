"""Writes names beside curves and labels at points so that none lies on another; it knows no strategy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

_LETTERS = 0.065  # height of a line of text as a share of the axes' height, at the figures' usual size
_THREAD: Mapping[str, Any] = {"arrowstyle": "-", "linewidth": 0.8, "shrinkA": 2, "shrinkB": 0, "relpos": (0, 0.5)}


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
