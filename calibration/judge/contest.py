"""Which rule ships where only samples are drawn: a contest on problems that no contender was fitted to.

The contenders are the published rules, forecasts from agreement, unfitted and fitted to the pair, and the outlook: the
boosted model blended with agreement. What ships is the best of those that are better than the unfitted forecasts by
their interval; else these, which need no calibration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.calibration.collect.records import ProblemRecord, groups_of
from adaptive_ttc.calibration.fit.agreement import model_of
from adaptive_ttc.calibration.judge.held_out import at_most, crossfit
from adaptive_ttc.calibration.judge.sampling import Rule, by_forecast, by_outlook, by_rule, curves, mean_tokens
from adaptive_ttc.estimate.agreement import EDGES
from adaptive_ttc.estimate.agreement_gain import AgreementGainModel
from adaptive_ttc.estimate.answer_prior import AnswerPrior, shipped_prior
from adaptive_ttc.estimate.gain import GainModel
from adaptive_ttc.estimate.table import Vote
from adaptive_ttc.evaluation.metrics import Interval, paired_interval
from adaptive_ttc.stopping.registry import parse_rule
from adaptive_ttc.strategies.adaptive import SAMPLE
from adaptive_ttc.types import Aggregation
from adaptive_ttc.voting import VoteName

Make = Callable[[Sequence[ProblemRecord]], Rule]

UNFITTED, FITTED, OUTLOOK = "votes", "votes, fitted", "outlook"
PUBLISHED = ("uniform", "adaptive_consistency:level=0.8", "adaptive_consistency:level=0.95", "esc")

_BUDGETS = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)  # mean samples a problem
_MOST = 12  # samples of a problem that are replayed
_ORDERS = 2
PROBLEMS = 120  # that are replayed, at most; all are fitted to


@dataclass(frozen=True, slots=True)
class Outlooks:
    """Learned gain models, each of the problems outside of a fold, and the vote that they were learned for."""

    models: Sequence[GainModel]
    vote: Vote


@dataclass(frozen=True, slots=True)
class Contest:
    """How the contenders did on problems that they were not fitted to."""

    chosen: str  # what ships
    accuracy: Mapping[str, float]  # mean over the problems that were replayed, at most :data:`PROBLEMS`, and budgets
    ahead: Mapping[str, Interval]  # of the unfitted forecasts, paired by problem, over groups of these


def contest(
    records: Sequence[ProblemRecord],
    *,
    general: AnswerPrior | None = None,
    agg_strategy: Aggregation = "last",
    scored: bool = False,
    outlooks: Outlooks | None = None,
    folds: int = 3,
    seed: int = 0,
) -> Contest:
    """Replay all contenders on at most :data:`PROBLEMS` of the problems, each fitted to the problems of other groups.

    Which problems these are is drawn by the hash that folds use: data sets may be sorted by subject or difficulty.
    ``outlooks``: of the same ``folds`` and ``seed``; where they are those of the first folds only, so is all else.
    """
    general = general or shipped_prior()

    def unfitted(train: Sequence[ProblemRecord]) -> Rule:
        model = AgreementGainModel(general, tokens=mean_tokens(train), agg_strategy=agg_strategy, scored=scored)
        return by_forecast(UNFITTED, model.pool())

    def fitted(train: Sequence[ProblemRecord]) -> Rule:
        return by_forecast(FITTED, model_of(train, general=general, agg_strategy=agg_strategy, scored=scored).model)

    makers: dict[str, Make] = {UNFITTED: unfitted, FITTED: fitted}
    makers |= {name: _published(name) for name in PUBLISHED}
    number = folds_of(records, folds, seed)
    judged = range(folds if outlooks is None else len(outlooks.models))
    rules: dict[str, list[Rule]] = {}
    for name, make in makers.items():
        parts = ([one for one, fold in zip(records, number, strict=True) if fold != out] for out in judged)
        rules[name] = [make(part) for part in parts]
    if outlooks is not None:
        rules[OUTLOOK] = [by_outlook(OUTLOOK, model, outlooks.vote) for model in outlooks.models]
    fold_of = {one.id: fold for one, fold in zip(records, number, strict=True) if fold in judged}
    replayed = at_most([one for one in records if one.id in fold_of], PROBLEMS, seed)
    reached = _reached(replayed, fold_of, rules)
    groups, base = groups_of(replayed), reached[UNFITTED]
    ahead = {name: paired_interval(one, base, groups, resamples=2_000, seed=seed) for name, one in reached.items()}
    accuracy = {name: float(one.mean()) for name, one in reached.items()}
    better = [name for name, known in ahead.items() if known.low > 0]
    chosen = max(better, key=lambda name: accuracy[name]) if better else UNFITTED
    return Contest(chosen, accuracy, ahead)


def _reached(
    problems: Sequence[ProblemRecord], fold_of: Mapping[str, int], rules: Mapping[str, Sequence[Rule]]
) -> dict[str, NDArray[np.float64]]:
    """Mean accuracy over budgets by every rule, shape [problems]; ``fold_of``: problem's id -> which of its rules."""
    held = float(np.mean([len(record.units[SAMPLE]) for record in problems]))
    budgets = [mean_tokens(problems) * each for each in _BUDGETS if each <= held] or [mean_tokens(problems)]
    reached: dict[str, NDArray[np.float64]] = {}
    for name, some in rules.items():
        rule_of = {one.id: some[fold_of[one.id]] for one in problems}
        found = curves(problems, lambda record: rule_of[record.id], budgets, orders=_ORDERS, most=_MOST)  # noqa: B023
        reached[name] = found.accuracy.mean(axis=0)
    return reached


def shipped(
    won: Contest,
    records: Sequence[ProblemRecord],
    *,
    general: AnswerPrior | None = None,
    agg_strategy: Aggregation = "last",
    scored: bool = False,
    edges: Sequence[float] = EDGES,
) -> AgreementGainModel | None:
    """The winner's forecasts from agreement, fitted to all records; None where a published rule or the outlook won."""
    if won.chosen == FITTED:
        return model_of(records, general=general, agg_strategy=agg_strategy, scored=scored, edges=edges).model
    if won.chosen == UNFITTED:
        tokens, prior = mean_tokens(records), general or shipped_prior()
        return AgreementGainModel(prior, tokens=tokens, agg_strategy=agg_strategy, scored=scored, edges=edges)
    return None


def ballot_of(model: AgreementGainModel, vote: Vote) -> Vote:
    """The vote whose weights the forecasts count on."""
    name: VoteName = "weighted" if model.scored else "majority"
    return replace(vote, name=name).weighing(model.weights)


def folds_of(records: Sequence[ProblemRecord], folds: int, seed: int) -> list[int]:
    """Fold of every record; those of a group are in one, and a record without a group is one by itself."""
    parts = crossfit(records, folds, seed)
    return [parts.fold[record.id] for record in records]


def _published(name: str) -> Make:
    rule = by_rule(parse_rule(name))
    return lambda _: rule
