"""Learns the gain of more work from replayed runs; :mod:`adaptive_ttc.estimate.gain` says what is learned.

Every problem is replayed several times: units are drawn from its order in a random order of kinds, and in each state on
the way actions are tried on the units that come next. So one record yields many states that a live run could be in,
each with the outcome of its actions.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression

from adaptive_ttc.calibration.collect.records import ProblemRecord
from adaptive_ttc.calibration.fit.classifier import coarse, fillable
from adaptive_ttc.calibration.judge.replay import State, UnitOrder, VoteTotals
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.difficulty import Platt
from adaptive_ttc.estimate.features import family_of
from adaptive_ttc.estimate.gain import Action, Array, Estimators, LearnedGainModel, action_columns
from adaptive_ttc.estimate.table import Vote


@dataclass(frozen=True, slots=True)
class GainSettings:
    """Hyperparameters of the gain model."""

    states: int = 12_000  # seen in all, about: problems are replayed as often as that takes, at least once
    depth: int = 4  # states of a walk, at most
    trials: int = 5  # actions tried in a state, at most
    seed: int = 0  # of the walks and the estimators
    iterations: int = 80  # trees of an estimator, at most
    leaf: int = 60  # rows in a leaf, at least

    def replays(self, problems: int) -> int:
        """Random walks for every problem."""
        return min(8, max(1, round(self.states / (self.depth * max(1, problems)))))


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """States of replayed runs, and the actions tried in them."""

    states: Array  # shape [states, features]
    right: Array  # shape [states]: the answer in hand is right; between 0 and 1 where answers tie
    owner: NDArray[np.int64]  # shape [trials]: number of the state in which an action was tried
    tried: NDArray[np.int64]  # shape [trials]: number of the action
    after: Array  # shape [trials]: the answer is right afterwards
    # generated, prm: shape [trials]: tokens of one unit of it, on average
    generated: Array
    prm: Array
    problem: NDArray[np.int64]  # shape [states]: number of the problem

    def of(self, problems: Sequence[int]) -> TrainingRows:
        """Rows of some problems."""
        kept = np.isin(self.problem, problems)
        trials = kept[self.owner]
        place = np.cumsum(kept) - 1
        return TrainingRows(
            states=self.states[kept],
            right=self.right[kept],
            owner=place[self.owner[trials]],
            tried=self.tried[trials],
            after=self.after[trials],
            generated=self.generated[trials],
            prm=self.prm[trials],
            problem=self.problem[kept],
        )


def possible_actions(most: Mapping[str, int]) -> tuple[Action, ...]:
    """Powers of two and all of the exchangeable kinds, one of the others; ``most``: recorded units of each kind."""
    actions = []
    for kind in sorted(most):
        single = family_of(kind) in ("greedy", "beam_search")
        powers = {2**power for power in range(most[kind].bit_length())}
        counts = {1} & powers if single else (powers | {most[kind]}) - {0}
        actions += [Action(kind, count) for count in sorted(counts)]
    return tuple(actions)


def recorded(records: Sequence[ProblemRecord]) -> dict[str, int]:
    """Units of every kind that all problems have."""
    kinds = set.intersection(*(set(record.units) for record in records)) if records else set()
    return {kind: min(len(record.units[kind]) for record in records) for kind in sorted(kinds)}


def training_rows(
    records: Sequence[ProblemRecord], actions: Sequence[Action], vote: Vote, learning: GainSettings
) -> TrainingRows:
    """Replay all problems."""
    states: list[Array] = []
    right: list[float] = []
    problem: list[int] = []
    trials: list[tuple[int, int, float, float, float]] = []
    ballots = VoteTotals(vote)
    for number, record in enumerate(records):
        for replay in range(learning.replays(len(records))):
            order = UnitOrder(record, f"{learning.seed}/{replay}")
            rng = random.Random(f"{learning.seed}/{replay}/{record.id}")
            for state in _walk(order, actions, rng, learning.depth):
                tried = _tried(order, state, actions, ballots, rng, learning.trials)
                trials += [(len(states), *trial) for trial in tried]
                states.append(vote.reading.features(state.evidence(order)))
                right.append(order.accuracy(ballots.totals(order, state)))
                problem.append(number)
    owner, tries, after, generated, prm = (np.array(column) for column in zip(*trials, strict=True))
    features, numbers = np.stack(states), np.array(problem)
    return TrainingRows(features, np.array(right), owner, tries, after, generated, prm, numbers)


@dataclass(frozen=True, slots=True)
class GainLearner:
    """Fits gain models on any subset of the problems, whose rows are made once."""

    rows: TrainingRows  # of all problems
    actions: tuple[Action, ...]  # what may be done
    vote: Vote  # over all solutions of a state
    most: Mapping[str, int]  # units recorded of every kind
    learning: GainSettings  # how

    @classmethod
    def of(
        cls,
        records: Sequence[ProblemRecord],
        vote: Vote,
        learning: GainSettings | None = None,
        kinds: Collection[str] | None = None,
    ) -> Self:
        """Replay the problems; ``kinds`` are the kinds of units that may be drawn, by default all recorded ones."""
        learning, most = learning or GainSettings(), recorded(records)
        most = {kind: count for kind, count in most.items() if kinds is None or kind in kinds}
        actions = possible_actions(most)
        if not actions:
            raise CalibrationError("no unit of work was recorded for every problem: collect at least `sample` units")
        return cls(training_rows(records, actions, vote, learning), actions, vote, most, learning)

    def learn(self, problems: Sequence[int] | None = None) -> LearnedGainModel:
        """Fit on these problems, by their numbers, and on no others."""
        rows = self.rows if problems is None else self.rows.of(problems)
        return fit(rows, self.actions, self.vote, self.most, self.learning)


def fit(
    rows: TrainingRows, actions: Sequence[Action], vote: Vote, most: Mapping[str, int], learning: GainSettings
) -> LearnedGainModel:
    """Fit the estimators to rows."""
    if rows.right.min() == rows.right.max():
        raise CalibrationError(
            "every replayed answer is right, or every one wrong: there is nothing to learn; take problems of mixed "
            "difficulty, or more of them"
        )
    rows = replace(rows, states=coarse(rows.states))
    outside = _out_of_fold(rows, learning)
    curve = _platt(outside, rows.right)
    columns, now = action_columns(actions), rows.right[rows.owner]
    still = np.hstack([rows.states, np.zeros((len(rows.states), columns.shape[1]))])
    moved = np.hstack([rows.states[rows.owner], columns[rows.tried]])
    told = np.hstack([moved, coarse(curve(outside)[:, None])[rows.owner]])
    # right answers are rarely lost
    few = replace(learning, iterations=learning.iterations // 3, leaf=learning.leaf * 7)
    many = replace(learning, iterations=learning.iterations * 2, leaf=max(1, learning.leaf // 2))
    rising = np.zeros(still.shape[1])
    rising[-columns.shape[1] :] = 1
    estimators = Estimators(
        right=_classifier(rows.states, rows.right, learning),
        curve=curve,
        found=_classifier(told, rows.after, learning, 1 - now),
        lost=_classifier(told, 1 - rows.after, few, now),
        rising=_classifier(np.vstack([still, moved]), np.concatenate([rows.right, rows.after]), many, rising=rising),
        generated=_regressor(moved, rows.generated, learning),
        prm=_regressor(moved, rows.prm, learning),
    )
    return LearnedGainModel(estimators, actions, vote.reading, most)


def _out_of_fold(rows: TrainingRows, learning: GainSettings, folds: int = 3) -> Array:
    """P(the answer in hand is right) of every state, by an estimator that has not seen its problem."""
    found = np.zeros(len(rows.right))
    _, number = np.unique(rows.problem, return_inverse=True)
    for fold in range(folds):
        out = number % folds == fold
        if out.any() and not out.all():
            model = _classifier(rows.states[~out], rows.right[~out], learning)
            found[out] = model.predict_proba(rows.states[out])[:, 1]
    return found


def _platt(predicted: Array, target: Array) -> Platt:
    """Platt scaling of out-of-fold predictions (Platt 1999)."""
    clipped = np.clip(predicted, 1e-6, 1 - 1e-6)
    logit = (np.log(clipped) - np.log1p(-clipped))[:, None]
    rows, labels = np.tile(logit, (2, 1)), np.repeat([1, 0], len(target))
    fit = LogisticRegression(C=100.0).fit(rows, labels, sample_weight=np.concatenate([target, 1 - target]))
    return Platt(max(float(fit.coef_[0, 0]), 0.05), float(fit.intercept_[0]))


def _able(order: UnitOrder, state: State, actions: Sequence[Action]) -> list[int]:
    """Numbers of the actions whose units were recorded."""
    return [n for n, one in enumerate(actions) if order.has(one.kind, state.count(one.kind) + one.count)]


def _walk(order: UnitOrder, actions: Sequence[Action], rng: random.Random, depth: int) -> Iterator[State]:
    """States of a random run that mostly begins with the greedy solution."""
    state = State()
    if order.has("greedy", 1) and rng.random() < 0.9:
        state = state.plus("greedy", 1, scored=rng.random() < 0.8)
    elif order.has("sample", 1):
        state = state.plus("sample", 1, scored=rng.random() < 0.8)
    if state.taken:
        yield state
    for _ in range(depth - 1):
        able = [actions[number] for number in _able(order, state, actions) if actions[number].kind != "greedy"]
        if not able:
            return
        kind = rng.choice(sorted({action.kind for action in able}))
        counts = [action.count for action in able if action.kind == kind]
        count = rng.choices(counts, [1 / one for one in counts])[0]
        state = state.plus(kind, count)
        yield state


def _tried(
    order: UnitOrder, state: State, actions: Sequence[Action], ballots: VoteTotals, rng: random.Random, most: int
) -> Iterator[tuple[int, float, float, float]]:
    able = _able(order, state, actions)
    for number in sorted(rng.sample(able, min(most, len(able)))):
        action = actions[number]
        units = order.units(action.kind, state.count(action.kind), action.count)
        after = order.accuracy(ballots.totals(order, state, *units))
        generated = sum(one.unit.generated for one in units) / len(units)
        prm = sum(one.unit.prm for one in units) / len(units)
        yield number, after, generated, prm


def _trees(learning: GainSettings) -> dict[str, Any]:
    """Hyperparameters of every estimator."""
    fixed = {"learning_rate": 0.1, "max_bins": 63, "max_leaf_nodes": 16, "early_stopping": False}
    return {**fixed, "min_samples_leaf": learning.leaf, "random_state": learning.seed}


def _classifier(
    features: Array, target: Array, learning: GainSettings, weight: Array | None = None, rising: Array | None = None
) -> HistGradientBoostingClassifier:
    """Fit a target between 0 and 1 as two weighted rows; a missing label gets one row of negligible weight."""
    weight = np.ones(len(target)) if weight is None else weight
    rows = np.concatenate([np.arange(len(target))] * 2)
    labels = np.repeat([1, 0], len(target))
    weights = np.concatenate([weight * target, weight * (1 - target)])
    kept = weights > 0
    for label in (0, 1):
        if not kept[labels == label].any():
            first = int(np.argmax(labels == label))
            kept[first], weights[first] = True, 1e-6
    model = HistGradientBoostingClassifier(
        max_iter=learning.iterations, monotonic_cst=rising, l2_regularization=1.0, **_trees(learning)
    )
    return model.fit(fillable(features[rows[kept]]), labels[kept], sample_weight=weights[kept])


def _regressor(features: Array, target: Array, learning: GainSettings) -> HistGradientBoostingRegressor:
    model = HistGradientBoostingRegressor(max_iter=learning.iterations // 2, **_trees(learning))
    return model.fit(fillable(features), target)
