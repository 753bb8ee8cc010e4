"""Learns what more work brings from replayed runs; see :mod:`adaptive_ttc.outlook` for what is learned.

Every problem is replayed several times: units are drawn from its deck in a random order of kinds, and in each state on
the way every action is tried on the units that come next. So one record yields many states, all of which a live run
could be in, with what would have come of each action.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.evidence import family_of
from adaptive_ttc.outlook import Action, Array, Estimators, Outlook, action_columns
from calibration.decks import Deck, State, Vote
from calibration.records import ProblemRecord


@dataclass(frozen=True, slots=True)
class Learning:
    """How the outlook is learned.

    Attributes:
        replays: walks through the deck of every problem.
        depth: states of a walk, at most.
        seed: of the walks and the estimators.
        iterations: trees of an estimator, at most.
        leaf: rows in a leaf, at least.
    """

    replays: int = 5
    depth: int = 5
    seed: int = 0
    iterations: int = 120
    leaf: int = 60


@dataclass(frozen=True, slots=True)
class Lesson:
    """Rows to learn from.

    Attributes:
        states: shape [states, features].
        right: shape [states]: the answer in hand is right; between 0 and 1 where answers tie.
        owner: shape [trials]: number of the state in which an action was tried.
        tried: shape [trials]: number of the action.
        after: shape [trials]: the answer is right afterwards.
        generated, prm: shape [trials]: tokens of one unit of it, on average.
        problem: shape [states]: number of the problem.
    """

    states: Array
    right: Array
    owner: NDArray[np.int64]
    tried: NDArray[np.int64]
    after: Array
    generated: Array
    prm: Array
    problem: NDArray[np.int64]


def possible_actions(most: Mapping[str, int]) -> tuple[Action, ...]:
    """Every power of two of the exchangeable kinds, one of the others; ``most`` units were recorded of each."""
    actions = []
    for kind in sorted(most):
        count = 1
        while count <= most[kind]:
            actions.append(Action(kind, count))
            if family_of(kind) in ("greedy", "beam_search"):
                break
            count *= 2
    return tuple(actions)


def recorded(records: Sequence[ProblemRecord]) -> dict[str, int]:
    """Units of every kind that all problems have."""
    kinds = set.intersection(*(set(record.units) for record in records)) if records else set()
    return {kind: min(len(record.units[kind]) for record in records) for kind in sorted(kinds)}


def lesson(records: Sequence[ProblemRecord], actions: Sequence[Action], vote: Vote, learning: Learning) -> Lesson:
    """Replay all problems."""
    states: list[Array] = []
    right: list[float] = []
    problem: list[int] = []
    trials: list[tuple[int, int, float, float, float]] = []
    for number, record in enumerate(records):
        for replay in range(learning.replays):
            deck = Deck(record, f"{learning.seed}/{replay}")
            for state in _walk(deck, actions, random.Random(f"{learning.seed}/{replay}/{record.id}"), learning.depth):
                evidence = state.evidence(deck)
                trials += [(len(states), *trial) for trial in _tried(deck, state, actions, vote)]
                states.append(vote.reading.features(evidence))
                right.append(deck.accuracy(vote.totals(state.attempts(deck))))
                problem.append(number)
    owner, tried, after, generated, prm = (np.array(column) for column in zip(*trials, strict=True))
    return Lesson(
        np.stack(states),
        np.array(right),
        owner.astype(int),
        tried.astype(int),
        after,
        generated,
        prm,
        np.array(problem),
    )


def learn(records: Sequence[ProblemRecord], vote: Vote, learning: Learning | None = None) -> Outlook:
    """Fit an outlook.

    Raises:
        CalibrationError: no problem has units, or all answers are right, or all wrong.
    """
    learning = learning or Learning()
    most = recorded(records)
    actions = possible_actions(most)
    if not actions:
        raise CalibrationError("no unit of work was recorded for every problem: collect at least `sample` units")
    return fit(lesson(records, actions, vote, learning), actions, vote, most, learning)


def fit(rows: Lesson, actions: Sequence[Action], vote: Vote, most: Mapping[str, int], learning: Learning) -> Outlook:
    """Fit the estimators to rows."""
    if rows.right.min() == rows.right.max():
        raise CalibrationError(
            "every replayed answer is right, or every one wrong: there is nothing to learn; take problems of mixed "
            "difficulty, or more of them"
        )
    right = _classifier(rows.states, rows.right, learning)
    now = rows.right[rows.owner]
    features = np.hstack(
        [
            rows.states[rows.owner],
            action_columns(actions)[rows.tried],
            right.predict_proba(rows.states)[:, 1][rows.owner, None],
        ]
    )
    estimators = Estimators(
        right=right,
        found=_classifier(features, rows.after, learning, 1 - now),
        lost=_classifier(features, 1 - rows.after, learning, now),
        generated=_regressor(features[:, :-1], rows.generated, learning),
        prm=_regressor(features[:, :-1], rows.prm, learning),
    )
    return Outlook(estimators, actions, vote.reading, most)


def _walk(deck: Deck, actions: Sequence[Action], rng: random.Random, depth: int) -> Iterator[State]:
    """States on the way of a run that begins with the greedy solution, mostly, and goes on as chance has it."""
    state = State()
    if deck.has("greedy", 1) and rng.random() < 0.9:
        state = state.plus("greedy", 1, scored=rng.random() < 0.8)
    elif deck.has("sample", 1):
        state = state.plus("sample", 1, scored=rng.random() < 0.8)
    if state.taken:
        yield state
    for _ in range(depth - 1):
        able = [
            action
            for action in actions
            if action.kind != "greedy" and deck.has(action.kind, state.count(action.kind) + action.count)
        ]
        if not able:
            return
        kind = rng.choice(sorted({action.kind for action in able}))
        counts = [action.count for action in able if action.kind == kind]
        count = rng.choices(counts, [1 / one for one in counts])[0]
        state = state.plus(kind, count)
        yield state


def _tried(
    deck: Deck, state: State, actions: Sequence[Action], vote: Vote
) -> Iterator[tuple[int, float, float, float]]:
    held = state if state.scored else State(state.taken, scored=True)
    attempts = list(held.attempts(deck))
    for number, action in enumerate(actions):
        done = state.count(action.kind)
        if not deck.has(action.kind, done + action.count):
            continue
        units = [one.unit for one in deck.units(action.kind, done, action.count)]
        further = [attempt for unit in units for attempt in unit.attempts]
        after = deck.accuracy(vote.totals([*attempts, *further]))
        generated = sum(unit.generated for unit in units) / len(units)
        prm = sum(unit.prm for unit in units) / len(units)
        yield number, after, generated, prm


def _classifier(
    features: Array, target: Array, learning: Learning, weight: Array | None = None
) -> HistGradientBoostingClassifier:
    """A target between 0 and 1 is a row of each kind, weighted; both kinds are always there, be it with no weight."""
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
        learning_rate=0.08,
        max_iter=learning.iterations,
        max_leaf_nodes=16,
        min_samples_leaf=learning.leaf,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=learning.seed,
    )
    return model.fit(features[rows[kept]], labels[kept], sample_weight=weights[kept])


def _regressor(features: Array, target: Array, learning: Learning) -> HistGradientBoostingRegressor:
    model = HistGradientBoostingRegressor(
        learning_rate=0.1,
        max_iter=learning.iterations // 2,
        max_leaf_nodes=16,
        min_samples_leaf=learning.leaf,
        early_stopping=False,
        random_state=learning.seed,
    )
    return model.fit(features, target)
