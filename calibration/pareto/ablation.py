"""Ours without a part of what it knows: what the posterior over difficulty, the table and the boosted trees are worth.

All are replayed on the same orders, with one budget over all problems:

``shares``
    forecasts that take every problem for one of average difficulty.
``true``
    forecasts that know the bin of every problem's own measured pass rate, which nothing live can.
``table``
    the compute-optimal table's own forecasts.
``trees``
    the boosted trees alone, without gains by difficulty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.calibration.collect.records import ProblemRecord, Weights
from adaptive_ttc.calibration.fit.difficulty import counts_of
from adaptive_ttc.calibration.judge.replay import Forecaster
from adaptive_ttc.calibration.pareto import rules
from adaptive_ttc.calibration.pareto.curves import RESAMPLES, Groups, Line
from adaptive_ttc.calibration.pareto.inputs import Guide
from adaptive_ttc.estimate.bin_gains import BinGains
from adaptive_ttc.estimate.blended_gain import BlendedGainModel
from adaptive_ttc.estimate.features import Evidence
from adaptive_ttc.estimate.gain import LearnedGainModel, Posteriors, TableGainModel
from adaptive_ttc.evaluation.markdown import markdown_table
from adaptive_ttc.evaluation.metrics import Interval, paired_interval

NAMES = {
    "shares": "average difficulty",
    "true": "true difficulty",
    "table": "table alone",
    "trees": "boosted trees alone",
}


def forecasters(guide: Guide, records: Sequence[ProblemRecord]) -> dict[str, Forecaster]:
    """Name -> forecasts without a part; those of a part that the calibration does not have are left out."""
    found: dict[str, Forecaster] = {"table": TableGainModel(guide.table, guide.posteriors).forecasts}
    model = guide.gain.learned if isinstance(guide.gain, BlendedGainModel) else guide.gain
    if isinstance(model, LearnedGainModel) and model.bins is not None:
        share, bins = guide.table.share, model.bins
        place = {record.question: row for record, row in zip(records, _true_bins(guide, records), strict=True)}

        def average(states: Sequence[Evidence]) -> list[tuple[float, ...]]:
            return [share] * len(states)

        def true(states: Sequence[Evidence]) -> list[tuple[float, ...]]:
            return [place[state.question] for state in states]

        def without(bins: BinGains, posteriors: Posteriors | None = None) -> Forecaster:
            other = LearnedGainModel(model.estimators, model.actions, model.reading, model.most, bins, posteriors)
            return (guide.gain.around(other) if isinstance(guide.gain, BlendedGainModel) else other).forecasts

        found |= {"shares": without(bins, average), "true": without(bins, true)}
        found["trees"] = without(replace(bins, weight=0.0))
    return found


def _true_bins(guide: Guide, records: Sequence[ProblemRecord]) -> list[tuple[float, ...]]:
    """The bin of every problem's measured pass rate, as probabilities."""
    counts, edges = counts_of(records), np.array(guide.table.edges)
    number = ((counts.right / np.maximum(counts.drawn, 1))[:, None] < edges).sum(axis=1)
    return [tuple(map(float, row)) for row in np.eye(len(edges) + 1)[number].tolist()]


def ablation(
    records: Sequence[ProblemRecord],
    guides: Sequence[Guide],
    weights: Weights,
    budgets: Sequence[float],
    decks: int,
    tell: Callable[[str], None],
) -> dict[str, Line]:
    """Name -> ours without that part, at budgets of mean units a problem over so many orders of the units."""
    parts = [(guide, forecasters(guide, [records[row] for row in guide.rows])) for guide in guides]
    lines = {}
    for name in NAMES:
        if all(name in known for _, known in parts):
            part = [replace(guide, forecast=known[name], begin=None) for guide, known in parts]
            lines[name] = rules.replays(name, rules.shared, records, part, weights, budgets, decks, tell).line
    return lines


def differences(own: Line, other: Line, groups: Groups = None) -> list[tuple[float, Interval]]:
    """Every budget with the accuracy of ours less that of the other, paired by problem, over ``groups``."""
    return [
        (one.budget, paired_interval(one.accuracy, two.accuracy, groups, resamples=RESAMPLES))
        for one, two in zip(own.points, other.points, strict=True)
    ]


def mean_difference(own: Line, other: Line, groups: Groups = None) -> Interval:
    """The same over all budgets together."""
    means: list[NDArray[np.float64]] = [line.accuracies.mean(axis=0) for line in (own, other)]
    return paired_interval(means[0], means[1], groups, resamples=RESAMPLES)


def ablation_figures(own: Line, lines: Mapping[str, Line], groups: Groups = None) -> dict[str, Any]:
    """Name -> what ours loses without that part, ``all`` budgets together and at each of the ``budgets``."""
    return {
        name: {
            "all": asdict(mean_difference(own, line, groups)),
            "budgets": [{"budget": budget, **asdict(less)} for budget, less in differences(own, line, groups)],
        }
        for name, line in lines.items()
    }


def ablation_table(own: Line, lines: Mapping[str, Line], groups: Groups = None) -> str:
    """Markdown: accuracy of ours, and less what it is without each part, in points."""
    told = {name: [less for _, less in differences(own, line, groups)] for name, line in lines.items()}
    rows = [
        (f"{point.budget:,.0f}", f"{100 * point.accuracy.mean():.1f}", *(_points(told[name][place]) for name in lines))
        for place, point in enumerate(own.points)
    ]
    rows.append(("all", "", *(_points(mean_difference(own, line, groups)) for line in lines.values())))
    return markdown_table(("budget", "ours", *(f"less {NAMES[name]}" for name in lines)), rows)


def _points(less: Interval) -> str:
    text = f"{100 * less.mean:+.1f} [{100 * less.low:+.1f}, {100 * less.high:+.1f}]"
    return f"**{text}**" if less.low > 0 or less.high < 0 else text
