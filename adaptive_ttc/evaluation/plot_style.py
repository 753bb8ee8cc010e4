"""The style that all figures share, and each strategy's colour; matplotlib is imported when a figure is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which people with any colour vision can tell apart
COLOURS: Mapping[str, str] = {
    "greedy": "#7f7f7f",
    "majority": "#0072B2",
    "best_of_n": "#56B4E9",
    "weighted_best_of_n": "#D55E00",
    "short_m_at_k": "#F0E442",
    "beam_search": "#009E73",
    "dvts": "#CC79A7",
    "revision": "#E69F00",
    "adaptive": "#000000",
}
_PLAIN: Mapping[str, Any] = {
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "svg.hashsalt": "adaptive_ttc",  # the same figure is the same file
}


def colour_of(strategy: str) -> str:
    """The strategy's colour, in every figure the same."""
    return COLOURS.get(strategy, "#555555")


@contextmanager
def styled(own: Mapping[str, Any], width: float, height: float, **subplots: Any) -> Iterator[tuple[Figure, Any]]:
    """A figure of ``width`` x ``height`` inches and its axes, closed afterwards; ``own`` overrides the plain style."""
    import matplotlib as mpl

    mpl.use("Agg")  # figures are written, never shown: no display is needed
    from matplotlib import pyplot as plt

    settings: dict[Any, Any] = {**_PLAIN, **own}
    with plt.rc_context(settings):
        figure, axes = plt.subplots(figsize=(width, height), **subplots)
        try:
            yield figure, axes
        finally:
            plt.close(figure)
