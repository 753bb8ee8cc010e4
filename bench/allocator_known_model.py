"""A problem with two answers of which all is known but the right one: its exact dynamic programme; it times nothing.

A problem is of a type, with known weights; a unit of kind k is right with the type's probability p_k, and takes c_k.
What is seen is how many units of each kind gave either answer: a state ((a_1, b_1), ..., (a_K, b_K)), told up to the
exchange of the two answers. A state's value when stopping is the probability that the vote over all units is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.estimate.gain import Option

State = tuple[tuple[int, int], ...]
Vote = Literal["majority", "posterior"]


@dataclass(frozen=True, slots=True)
class Action:
    """So many units of a kind, after which evidence is looked at."""

    kind: int
    units: int


@dataclass(frozen=True, slots=True)
class Worth:
    """What a rule makes of a problem: the probability that its answer is right, and its expected cost."""

    right: float
    cost: float

    def at(self, price: float) -> float:
        """Its value where a unit of cost is worth ``price``."""
        return self.right - price * self.cost


Rule = Callable[[State], Action | None]


@dataclass(frozen=True, eq=False)
class KnownModel:
    """The model and what is computed from it once.

    Attributes:
        weights: of the types, shape [types], of sum 1.
        right: p, shape [types, kinds].
        costs: c, whole units, one a kind.
        cap: most units of cost a problem may take.
        vote: ``majority`` counts answers; ``posterior`` takes the answer that is right more probably, which need not be
            that of the majority.
    """

    weights: tuple[float, ...]
    right: tuple[tuple[float, ...], ...]
    costs: tuple[int, ...] = (1,)
    cap: int = 40
    vote: Vote = "majority"
    _chances: dict[Action, NDArray[np.float64]] = field(default_factory=dict, init=False, repr=False)
    _posteriors: dict[State, NDArray[np.float64]] = field(default_factory=dict, init=False, repr=False)
    _values: dict[State, float] = field(default_factory=dict, init=False, repr=False)
    _futures: dict[tuple[State, Action], float] = field(default_factory=dict, init=False, repr=False)
    _takes: dict[tuple[State, Action, int], float] = field(default_factory=dict, init=False, repr=False)

    @property
    def start(self) -> State:
        """Nothing was done yet."""
        return ((0, 0),) * len(self.costs)

    def spent(self, state: State) -> int:
        """Units of cost that led there."""
        return sum(cost * sum(counts) for cost, counts in zip(self.costs, state, strict=True))

    def stop(self, state: State) -> float:
        """Probability that the vote is right."""
        if state not in self._values:
            first = float(self._posterior(state)[: len(self.weights)].sum())
            lead = sum(a - b for a, b in state)
            if self.vote == "posterior":
                value = max(first, 1 - first)
            else:
                value = 0.5 if not lead else first if lead > 0 else 1 - first
            self._values[state] = value
        return self._values[state]

    def after(self, state: State, action: Action) -> Iterator[tuple[float, State]]:
        """States that may follow, with their probabilities."""
        chances = self._chance(action) @ self._posterior(state)
        a, b = state[action.kind]
        for gained, chance in enumerate(chances):
            counts = (a + gained, b + action.units - gained)
            yield float(chance), canonical((*state[: action.kind], counts, *state[action.kind + 1 :]))

    def future(self, state: State, action: Action) -> float:
        """Probability that the vote is right after it."""
        key = (state, action)
        if key not in self._futures:
            self._futures[key] = sum(chance * self.stop(next_) for chance, next_ in self.after(state, action))
        return self._futures[key]

    def actions(self, state: State, *, longest: int) -> Iterator[Action]:
        """1, 2, 4, ... units of every kind, at most ``longest``, within the cap."""
        left = self.cap - self.spent(state)
        for kind, cost in enumerate(self.costs):
            units = 1
            while units <= longest and units * cost <= left:
                yield Action(kind, units)
                units *= 2

    def takes(self, state: State, action: Action, slices: int = 1) -> float:
        """Expected cost of what it gains: of its slices, those that come before the vote can no longer change."""
        key = (state, action, slices)
        if key not in self._takes:
            cost = 0.0
            if not self._decided(state, action):
                next_slice = Action(action.kind, min(slices, action.units))
                rest = Action(action.kind, action.units - next_slice.units)
                cost = float(next_slice.units * self.costs[action.kind])
                after = self.after(state, next_slice)
                cost += sum(chance * self.takes(next_, rest, slices) for chance, next_ in after)
            self._takes[key] = cost
        return self._takes[key]

    def options(self, state: State, *, longest: int = 1 << 30, slices: int = 1) -> tuple[Option, ...]:
        """What an allocator is told: exact gains at their expected cost, in slices of at most so many units."""
        now = self.stop(state)
        return tuple(
            Option(
                action=Action(action.kind, min(slices, action.units)),
                cost=cost,
                gain=self.future(state, action) - now,
                slice_cost=min(slices, action.units) * self.costs[action.kind],
            )
            for action in self.actions(state, longest=longest)
            if (cost := self.takes(state, action, slices))
        )

    def committed(self, state: State) -> tuple[Option, ...]:
        """The same at the cost of all units, as if none could be left out; slices of one unit."""
        now = self.stop(state)
        return tuple(
            Option(
                action=Action(action.kind, 1),
                cost=action.units * self.costs[action.kind],
                gain=self.future(state, action) - now,
                slice_cost=self.costs[action.kind],
            )
            for action in self.actions(state, longest=1 << 30)
        )

    def best_rule(self, price: float) -> Rule:
        """The exact dynamic programme: after every single unit, stop or go on with the best kind."""

        @cache
        def solve(state: State) -> tuple[float, Action | None]:
            best: tuple[float, Action | None] = (self.stop(state), None)
            for action in self.actions(state, longest=1):
                value = -price * self.costs[action.kind]
                value += sum(chance * solve(next_)[0] for chance, next_ in self.after(state, action))
                if value > best[0] + 1e-12:
                    best = value, action
            return best

        return lambda state: solve(state)[1]

    def worth(self, rule: Rule, state: State | None = None) -> Worth:
        """What a rule is worth from a state on (from nothing), exactly."""

        @cache
        def follow(state: State) -> tuple[float, float]:
            action = rule(state)
            if action is None:
                return self.stop(state), 0.0
            right, cost = 0.0, float(action.units * self.costs[action.kind])
            for chance, next_ in self.after(state, action):
                sub = follow(next_)
                right += chance * sub[0]
                cost += chance * sub[1]
            return right, cost

        return Worth(*follow(self.start if state is None else state))

    def _decided(self, state: State, action: Action) -> bool:
        """Whether no outcome of these units changes the vote; a tie does not, as either answer is as good."""
        chosen = self._choice(state)
        a, b = state[action.kind]
        outcomes = ((a + gained, b + action.units - gained) for gained in range(action.units + 1))
        after = ((*state[: action.kind], counts, *state[action.kind + 1 :]) for counts in outcomes)
        return not action.units or (chosen != 0 and all(self._choice(one) * chosen >= 0 for one in after))

    def _choice(self, state: State) -> float:
        """Above 0 for the first answer, below for the second, 0 for neither."""
        if self.vote == "majority":
            return sum(a - b for a, b in state)
        same = canonical(state)
        lead = float(self._posterior(same)[: len(self.weights)].sum()) - 0.5
        return 0.0 if abs(lead) < 1e-12 else lead if same == state else -lead

    def _posterior(self, state: State) -> NDArray[np.float64]:
        """Of (type, which answer is right), shape [2 * types]: first those in which the first answer is."""
        if state not in self._posteriors:
            p = np.log(np.array(self.right))
            q = np.log1p(-np.array(self.right))
            a, b = np.array(state).T
            log = np.concatenate([p @ a + q @ b, q @ a + p @ b]) + np.log(np.tile(self.weights, 2))
            mass = np.exp(log - log.max())
            self._posteriors[state] = mass / mass.sum()
        return self._posteriors[state]

    def _chance(self, action: Action) -> NDArray[np.float64]:
        """Of 0, 1, ... of these units giving the first answer, shape [units + 1, 2 * types]."""
        if action not in self._chances:
            p = np.array(self.right)[:, action.kind]
            p = np.concatenate([p, 1 - p])
            n = action.units
            rows = [math.comb(n, gained) * p**gained * (1 - p) ** (n - gained) for gained in range(n + 1)]
            self._chances[action] = np.array(rows)
        return self._chances[action]


def canonical(state: State) -> State:
    """One of the two states that differ by the answers' names."""
    return max(state, tuple((b, a) for a, b in state))


def opened(model: KnownModel, rule: Rule) -> Rule:
    """A rule that begins with one unit of the first kind, whatever it is worth."""
    return lambda state: Action(0, 1) if state == model.start else rule(state)


@dataclass(frozen=True, slots=True)
class Frontier:
    """The best accuracy at every mean cost, a first unit being given: the dynamic programme's worth over prices."""

    costs: Sequence[float]
    right: Sequence[float]

    @classmethod
    def of(cls, model: KnownModel, prices: Sequence[float]) -> Frontier:
        """Of a large pool of problems of this model: rules of two neighbouring prices mixed make any cost between."""
        points = [model.worth(opened(model, model.best_rule(price))) for price in sorted(prices, reverse=True)]
        kept = [Worth(model.stop(model.start), 0.0)]
        for point in points:
            if point.cost > kept[-1].cost + 1e-9:
                kept.append(point)
        return cls([one.cost for one in kept], [one.right for one in kept])

    def right_at(self, cost: float) -> float:
        """Accuracy at a mean cost."""
        return float(np.interp(cost, self.costs, self.right))

    def cost_of(self, right: float) -> float:
        """Mean cost of an accuracy."""
        return float(np.interp(right, self.right, self.costs))
