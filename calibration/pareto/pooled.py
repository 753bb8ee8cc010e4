"""Rules without a calibration that spend one budget over all problems: published ones, and ours, which begins cold.

They are replayed as they run live, by the allocator on the orders of ours, and pay for what they ask: a rule that votes
by majority pays no PRM, one that looks at scores pays for the scores of all its samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from adaptive_ttc.calibration.collect.records import ProblemRecord, Weights
from adaptive_ttc.calibration.pareto import rules
from adaptive_ttc.calibration.pareto.curves import COLD
from adaptive_ttc.calibration.pareto.inputs import Guide
from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.estimate.features import Evidence
from adaptive_ttc.estimate.gain import Forecast, GainModel
from adaptive_ttc.estimate.pair_calibration import calibrated_by, prior_of, prior_table
from adaptive_ttc.estimate.table import Vote
from adaptive_ttc.stopping.base import Pool, StoppingRule
from adaptive_ttc.stopping.registry import make_rule

MAX_TOKENS = 2048
"""Of one solution, the default of every strategy: all that is known of lengths beforehand."""

FIRST_LEARNED = 8
"""Slices after which forecasts learn from the pool for the first time, as live."""

UNSCORED: Mapping[str, StoppingRule] = {
    "ac_pooled": make_rule("adaptive_consistency", level=0.8),
    "esc": make_rule("esc"),
    "martingale": make_rule("martingale"),
    "cite": make_rule("cite"),
    "blend_asc": make_rule("blend_asc"),
    "pets": make_rule("pets"),
    "least_settled": make_rule("least_settled"),
}
SCORED: Mapping[str, StoppingRule] = {"pandora_ucb": make_rule("pandora_ucb")}
PUBLISHED = (*UNSCORED, *SCORED)


@dataclass(slots=True)
class Standing:
    """How a budget over many problems stands, by what each of them showed last.

    Attributes:
        total: units, for all problems together.
        problems: how many.
        weights: what a token costs.
        seen: question -> what was seen last.
    """

    total: float
    problems: int
    weights: Weights
    seen: dict[str, Evidence] = field(default_factory=dict)
    _spent: dict[str, float] = field(default_factory=dict)
    _sum: float = 0.0

    def take(self, state: Evidence) -> None:
        """Take in what a problem shows now."""
        spent = sum(self.weights.cost(unit) for unit in (*state.units, *state.begun))
        self._sum += spent - self._spent.get(state.question, 0.0)
        self._spent[state.question] = spent
        self.seen[state.question] = state

    def pool(self, tokens: float) -> Pool:
        """What a rule is told, where a sample takes so many tokens."""
        left = max(0.0, self.total - self._sum)
        price = self.weights.generated + self.weights.prm
        return Pool(left / self.total, self.problems, left / (tokens * price))


class PoolForecasts:
    """Forecasts of one pool, which learn from it whenever the slices that came back have doubled."""

    def __init__(self, gain: GainModel, standing: Standing) -> None:
        self._gain = gain
        self._standing = standing
        self._looks, self._due = 0, FIRST_LEARNED

    def __call__(self, states: Sequence[Evidence]) -> list[Forecast]:
        """One for each state."""
        for state in states:
            self._standing.take(state)
            self._looks += bool(state.units)
        if self._gain.learns and self._looks >= self._due:
            self._due = 2 * self._looks
            self._gain.learn(list(self._standing.seen.values()))
        return self._gain.forecasts(states)


def in_pool(guide: Guide) -> Guide:
    """With forecasts that see their pool; a guide to whose model a pool tells nothing is as it was."""
    gain = guide.gain
    if gain is None or gain.pool() is gain:
        return guide

    def begin(total: float, problems: int, weights: Weights) -> PoolForecasts:
        standing = Standing(total, problems, weights)
        return PoolForecasts(gain.pool(look=standing.pool), standing)

    return replace(guide, begin=begin)


def uncalibrated(made: Calibrated, problems: int, vote: Vote) -> Guide:
    """What a calibration that was never measured, such as the prior's or a rule's, does with so many problems."""
    table = made.table

    def average(states: Sequence[Evidence]) -> list[tuple[float, ...]]:
        return [table.share] * len(states)

    rows = np.arange(problems)
    return in_pool(Guide(rows, table, average, made.gain.forecasts, made.opening, vote, made.gain, measured=False))


def cold_guide(problems: int, *, scored: bool) -> Guide:
    """Ours without a calibration, for so many problems."""
    prior = prior_of(MAX_TOKENS, prm=scored)
    return uncalibrated(prior, problems, prior.table.ballot)


def rule_guide(rule: StoppingRule, problems: int, *, scored: bool) -> Guide:
    """A published rule, for so many problems."""
    made = calibrated_by(rule, prior_table(prm=scored), MAX_TOKENS, prm=scored)
    return uncalibrated(made, problems, Vote("best" if scored else "majority"))


def pooled_lines(
    records: Sequence[ProblemRecord],
    weights: Weights,
    budgets: Sequence[float],
    seeds: int,
    tell: Callable[[str], None],
    *,
    scored: bool,
) -> list[rules.Replays]:
    """Ours without a calibration, and every published rule that the records can answer."""
    number, plain = len(records), replace(weights, prm=0.0)
    asked = [(COLD, cold_guide(number, scored=scored), weights)]
    asked += [(name, rule_guide(rule, number, scored=False), plain) for name, rule in UNSCORED.items()]
    if scored:
        asked += [(name, rule_guide(rule, number, scored=True), weights) for name, rule in SCORED.items()]
    return [
        rules.replays(name, rules.shared, records, [guide], paid, budgets, seeds, tell) for name, guide, paid in asked
    ]
