"""States of replayed runs and the outcomes of actions in them: what gain models are fitted to.

Every problem is replayed several times: units are drawn from its order in a random order of kinds, and in each state on
the way actions are tried on the units that come next. So one record yields many states that a live run could be in,
each with the outcome of its actions.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.calibration.collect.records import ProblemRecord, groups_of
from adaptive_ttc.calibration.judge.replay import State, UnitOrder, VoteTotals
from adaptive_ttc.estimate.features import Evidence, Reading, counted_as, family_of
from adaptive_ttc.estimate.gain import Action, Array
from adaptive_ttc.estimate.table import Vote
from adaptive_ttc.strategies.adaptive import GREEDY, SECOND, is_second


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


MANY = 120  # problems from which on what a half of them teaches is as good as what all teach, about


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
    group: NDArray[np.int64]  # shape [states]: number of the problem's group; folds keep it together
    seen: tuple[Evidence, ...]  # in every state

    def fold(self, folds: int | None = None) -> NDArray[np.int64]:
        """Fold of every state, shape [states]; by default one of two, of three where there are few problems."""
        names, number = np.unique(self.group, return_inverse=True)
        return np.asarray(number % (folds or (2 if len(names) >= MANY else 3)))

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
            group=self.group[kept],
            seen=tuple(self.seen[row] for row in np.flatnonzero(kept).tolist()),
        )


def reading_of(vote: Vote, actions: Sequence[Action]) -> Reading:
    """How the states of a gain model are read: under the vote, with the units of a second policy counted apart."""
    families = (*vote.reading.families, *sorted({counted_as(one.kind) for one in actions if is_second(one.kind)}))
    return replace(vote.reading, families=families)


def possible_actions(most: Mapping[str, int]) -> tuple[Action, ...]:
    """Powers of two and all of the exchangeable kinds, one of the others; ``most``: recorded units of each kind."""
    actions = []
    for kind in sorted(most):
        single = family_of(kind) in ("greedy", "beam_search", "short_m_at_k")
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
    seen: list[Evidence] = []
    trials: list[tuple[int, int, float, float, float]] = []
    ballots, reading = VoteTotals(vote), reading_of(vote, actions)
    for number, record in enumerate(records):
        for replay in range(learning.replays(len(records))):
            order = UnitOrder(record, f"{learning.seed}/{replay}")
            rng = random.Random(f"{learning.seed}/{replay}/{record.id}")
            for state in _walk(order, actions, rng, learning.depth):
                tried = _tried(order, state, actions, ballots, rng, learning.trials)
                trials += [(len(states), *trial) for trial in tried]
                seen.append(state.evidence(order))
                states.append(reading.features(seen[-1]))
                right.append(order.accuracy(ballots.totals(order, state)))
                problem.append(number)
    owner, tries, after, generated, prm = (np.array(column) for column in zip(*trials, strict=True))
    _, groups = np.unique(groups_of(records), return_inverse=True)
    numbers = np.array(problem)
    return TrainingRows(
        np.stack(states), np.array(right), owner, tries, after, generated, prm, numbers, groups[numbers], tuple(seen)
    )


def _able(order: UnitOrder, state: State, actions: Sequence[Action]) -> list[int]:
    """Numbers of the actions whose units were recorded."""
    return [n for n, one in enumerate(actions) if order.has(one.kind, state.count(one.kind) + one.count)]


def _walk(order: UnitOrder, actions: Sequence[Action], rng: random.Random, depth: int) -> Iterator[State]:
    """States of a random run that mostly begins with the greedy solution."""
    state = State()
    if order.has(SECOND + GREEDY, 1) and rng.random() < 0.45:
        state = state.plus(SECOND + GREEDY, 1, scored=rng.random() < 0.8)
    elif order.has("greedy", 1) and rng.random() < 0.9:
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
