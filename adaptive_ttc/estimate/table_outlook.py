"""Forecasts from the table alone: its cells, averaged over what is believed of the difficulty; it learned nothing else.

Where calibration fitted no outlook, or one that was no better, this stands in its place
(:class:`adaptive_ttc.estimate.gain.Outlook`), and makes of the table a plan that evidence may change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from adaptive_ttc.estimate.features import Evidence
from adaptive_ttc.estimate.gain import Action, Forecast, Option, in_hand, unseen
from adaptive_ttc.estimate.table import ComputeOptimalTable

Posteriors = Callable[[Sequence[Evidence]], Sequence[Sequence[float]]]


class TableOutlook:
    """Forecasts by arms: a state is worth what the best arm is worth that it has carried out.

    Args:
        table: of the pair.
        posteriors: states -> probabilities of the bins; None where nothing is known but how common they are.
    """

    def __init__(self, table: ComputeOptimalTable, posteriors: Posteriors | None = None) -> None:
        self.table = table
        self._posteriors = posteriors
        self._columns = _speaking(table)

    def forecasts(self, states: Sequence[Evidence]) -> list[Forecast]:
        """One for each state."""
        beliefs = self._posteriors(states) if self._posteriors and states else [self.table.share] * len(states)
        return [self._forecast(state, belief) for state, belief in zip(states, beliefs, strict=True)]

    def _forecast(self, evidence: Evidence, belief: Sequence[float]) -> Forecast:
        cells, done, scoring = self.table.cells, evidence.counts(), unseen(evidence)

        def mean(rows: Sequence[Sequence[float]], column: int) -> float:
            return math.fsum(p * row[column] for p, row in zip(belief, rows, strict=True))

        reached = [
            mean(cells.shrunk, column)
            for kind, sizes in self._columns.items()
            for units, column in sizes.items()
            if units <= done.get(kind, 0)
        ]
        now = max(reached, default=0.0)
        known = in_hand(evidence, now)
        options = []
        for kind, sizes in self._columns.items():
            held = done.get(kind, 0)
            for units, column in sizes.items():
                if units > held:
                    share = (units - held) / units
                    generated, prm = mean(cells.generated, column) * share, mean(cells.prm, column) * share
                    gain = max(now, mean(cells.shrunk, column)) - known
                    options.append(Option.in_tokens(Action(kind, units - held), gain, generated, prm + scoring))
        return Forecast(known, tuple(options))


def _speaking(table: ComputeOptimalTable) -> Mapping[str, Mapping[int, int]]:
    """Kind -> units -> column of the arm that takes the best vote over them, over all bins."""
    columns: dict[str, dict[int, int]] = {}
    for column, arm in enumerate(table.arms):
        sizes = columns.setdefault(arm.kind, {})
        before = sizes.get(arm.units)
        if before is None or _value(table, column) > _value(table, before):
            sizes[arm.units] = column
    return columns


def _value(table: ComputeOptimalTable, column: int) -> float:
    return math.fsum(p * row[column] for p, row in zip(table.share, table.cells.shrunk, strict=True))
