"""All curves that ours is compared with, on one axis: strategies, bin tables, published rules, the oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from fixed_rules import (
    best_fixed,
    cheapest_arm,
    joined,
    joined_points,
    known_arms,
    oracle,
    oracle_bins,
    oracle_rates,
    predicted_bins,
    strategy_lines,
)
from numpy.typing import NDArray
from pareto_inputs import Guide, Tested, tuning_parts
from points import Line, Point
from sampling_rules import Drawn, Rule, adaptive_consistency, draw, ias, played, tuned, uab

from adaptive_ttc.calibration.arms import Arm
from adaptive_ttc.calibration.curves import Curves, answerable, measure
from adaptive_ttc.calibration.decks import Vote
from adaptive_ttc.calibration.kinds import SAMPLE
from adaptive_ttc.calibration.records import ProblemRecord, Weights

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Measured:
    """The problems under test, with every arm on each of them.

    Attributes:
        tested: the problems.
        guides: what calibration knows, each with the problems that it may be used on.
        curves: of all problems.
        weights: units a token.
        tuned_on: records of calibration problems, on which settings of published rules are chosen; None chooses them
            in folds of the problems themselves.
        folds: of that.
        seed: of orders and folds.
    """

    tested: Tested
    guides: Sequence[Guide]
    curves: Curves
    weights: Weights
    tuned_on: Sequence[ProblemRecord] | None
    folds: int
    seed: int

    @property
    def vote(self) -> Vote:
        """Whose reading of step scores the sampling rules share."""
        return self.guides[0].vote

    def parts(self) -> list[tuple[Guide, Curves, list[ProblemRecord]]]:
        """Every guide with its problems and the arms that it knows."""
        records = self.tested.records
        return [
            (one, known_arms(self.curves.rows(one.rows), one.table), [records[row] for row in one.rows])
            for one in self.guides
        ]


def measured_arms(tested: Tested, guides: Sequence[Guide], arms: Sequence[Arm], seed: int) -> Curves:
    """Every arm that the records answer, on every problem; searches vote as its guide has it."""
    able, _ = answerable(tested.records, arms)
    n = len(tested.records)
    accuracy, generated, prm = (np.zeros((n, len(able))) for _ in range(3))
    for guide in guides:
        part = measure([tested.records[row] for row in guide.rows], able, guide.vote, seed=seed)
        accuracy[guide.rows], generated[guide.rows], prm[guide.rows] = part.accuracy, part.generated, part.prm
    return Curves(tuple(able), tuple(record.id for record in tested.records), accuracy, generated, prm)


def rival_lines(measured: Measured, tell: Callable[[str], None]) -> list[Line]:
    """All of them; those that the records cannot answer are left out."""
    tell("strategies and bin tables")
    weights, parts = measured.weights, measured.parts()
    lines = strategy_lines(measured.curves, weights)
    lines.append(joined([(one.rows, best_fixed(curves, one.table, weights)) for one, curves, _ in parts]))
    lines.append(joined([(one.rows, oracle_bins(curves, one.table, own, weights)) for one, curves, own in parts]))
    predicted = [
        (one.rows, predicted_bins(curves, one.table, one.posteriors, own, weights, measured.seed))
        for one, curves, own in parts
    ]
    known = [(rows, line) for rows, line in predicted if line is not None]
    if len(known) == len(predicted):
        lines.append(joined(known))
    tell("published rules")
    lines += sampling_lines(measured)
    everybody = np.arange(len(measured.curves.ids))
    rates = oracle_rates(measured.curves, measured.tested.records, weights)
    return [*lines, *(joined([(everybody, line)]) for line in (rates, oracle(measured.curves, weights)))]


def cheapest_arms(measured: Measured, shares: Sequence[float]) -> dict[float, Point]:
    """The cheapest arm that reaches each target on calibration problems."""
    return {
        share: joined_points(
            [
                (one.rows, cheapest_arm(curves, one.table, measured.weights, share))
                for one, curves, _ in measured.parts()
            ]
        )
        for share in shares
    }


def sampling_lines(measured: Measured) -> list[Line]:
    """Adaptive-Consistency, UAB and IAS, each in the settings that are best on other problems."""
    records = measured.tested.records
    if any(not record.units.get(SAMPLE) for record in records):
        return []
    drawn = draw(records, measured.vote, measured.seed)
    scored = "weighted" in drawn[0].right and measured.tested.ratio > 0
    rules: dict[str, Callable[[Sequence[Drawn]], list[Rule]]] = {
        "adaptive_consistency": lambda _: adaptive_consistency(),
        "uab": lambda _: uab(scored),
        "ias": lambda learned: ias(learned) if scored else [],
    }
    other = None if measured.tuned_on is None else draw(measured.tuned_on, measured.vote, measured.seed)
    lines = []
    for name, rules_of in rules.items():
        found = [_tuned(part, rules_of, drawn, other, measured) for part in _splits(measured, len(drawn))]
        if found[0][0]:
            lines.append(tuned(name, found[0][0], [one[1:] for one in found]))
    return lines


def _splits(measured: Measured, n: int) -> list[tuple[Rows, Rows]]:
    if measured.tuned_on is not None:
        return [(np.zeros(0, dtype=np.int64), np.arange(n))]
    return list(tuning_parts(n, measured.folds, measured.seed))


def _tuned(
    split: tuple[Rows, Rows],
    rules_of: Callable[[Sequence[Drawn]], list[Rule]],
    drawn: Sequence[Drawn],
    other: Sequence[Drawn] | None,
    measured: Measured,
) -> tuple[list[Rule], tuple[np.ndarray, np.ndarray], Rows, tuple[np.ndarray, np.ndarray]]:
    """The settings, how they do where they are tuned, and how on the rows to be judged."""
    learn = other if other is not None else [drawn[row] for row in split[0]]
    rules = rules_of(learn)
    judged = [drawn[row] for row in split[1]]
    return rules, played(rules, learn, measured.weights), split[1], played(rules, judged, measured.weights)
