"""How every curve is named and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from adaptive_ttc.calibration.pareto.curves import COLD
from adaptive_ttc.calibration.pareto.plots import MARKERS, name_of
from adaptive_ttc.evaluation.plot_style import colour_of


class Look(NamedTuple):
    """How a curve is named and drawn."""

    name: str
    colour: str
    line: str
    marker: str = ""


STRATEGY_LINES: Mapping[str, str] = {
    "greedy": "-",
    "majority": ":",
    "best_of_n": "--",
    "weighted_best_of_n": "-.",
    "beam_search": "--",
    "dvts": "-",
    "revision": ":",
}
LOOKS: Mapping[str, Look] = {
    **{
        name: Look(name_of(name), colour_of(name), line, MARKERS.get(name, "")) for name, line in STRATEGY_LINES.items()
    },
    "best_fixed": Look("best fixed arm", "#555555", "-"),
    "table_oracle": Look("bin table, true bins", "#E69F00", "--", "D"),
    "table_predicted": Look("bin table, predicted", "#D55E00", "-.", "s"),
    "adaptive_consistency": Look("Adaptive-Consistency", "#0072B2", ":", "o"),
    "uab": Look("UAB", "#56B4E9", "-.", "v"),
    "ias": Look("IAS", "#CC79A7", "--", "^"),
    "rate_oracle": Look("oracle of pass rates", "#009E73", "--"),
    "oracle": Look("oracle of outcomes", "#009E73", ":"),
    "ac_pooled": Look("Adaptive-Consistency .8", "#0072B2", ":", "o"),
    "esc": Look("ESC", "#E69F00", "-.", "s"),
    "martingale": Look("martingale", "#D55E00", "--", "v"),
    "cite": Look("CITE", "#CC79A7", "--", "^"),
    "blend_asc": Look("Blend-ASC", "#009E73", "-.", "D"),
    "pets": Look("PETS", "#56B4E9", "-", "P"),
    "least_settled": Look("least settled", "#8c564b", ":", "X"),
    "pandora_ucb": Look("Pandora-UCB", "#7f7f7f", "-.", "d"),
    COLD: Look("ours, no calibration", "#000000", ":", "*"),
    "ours": Look("ours, each problem", "#000000", "--"),
    "ours_pooled": Look("ours, one budget", "#000000", "-", "*"),
    "larger": Look("larger policy, majority", "#8c564b", "-.", "X"),
    "larger_greedy": Look("larger policy, greedy", "#8c564b", "", "X"),
}
