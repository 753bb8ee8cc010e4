"""Replays rules for independent samples: one budget over many problems, the problem of largest worth draws next.

That is what the allocator does where every slice is one sample. What a rule thinks of a problem depends on the
problem's own samples alone, so one pass in the order of worth answers every budget. A sample that no longer fits ends
the pass.
"""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.calibration.collect.records import ProblemRecord
from adaptive_ttc.calibration.judge.replay import share_right
from adaptive_ttc.estimate.agreement_gain import AgreementGainModel, PoolGainModel
from adaptive_ttc.estimate.features import Attempt, Evidence, Unit
from adaptive_ttc.estimate.gain import Forecast, GainModel
from adaptive_ttc.estimate.table import Vote
from adaptive_ttc.stopping.base import Draw, StoppingRule
from adaptive_ttc.strategies.adaptive import SAMPLE

Array = NDArray[np.float64]
Weigh = Callable[[Attempt], float]


@dataclass(frozen=True, slots=True)
class Order:
    """The samples of one problem in one random order."""

    record: ProblemRecord
    attempts: tuple[Attempt, ...]
    spent: Array  # tokens of the first n samples, shape [samples + 1]

    @classmethod
    def of(cls, record: ProblemRecord, seed: int | str, most: int | None = None) -> Order:
        """A random order; at most so many samples."""
        drawn = list(record.units.get(SAMPLE, ()))
        random.Random(f"{seed}/{record.id}").shuffle(drawn)
        attempts = tuple(one.unit.attempts[0] for one in drawn[:most])
        return cls(record, attempts, np.cumsum([0.0, *(one.tokens for one in attempts)]))

    def evidence(self, n: int) -> Evidence:
        """The first n samples."""
        units = tuple(Unit(SAMPLE, (one,), generated=one.tokens) for one in self.attempts[:n])
        return Evidence(self.record.question, self.record.prompt_tokens, units)

    def accuracy(self, weigh: Weigh, total: Callable[[float, float], float] = operator.add) -> Array:
        """How right the answer of largest ``total`` weight is after n samples, ties shared; shape [samples + 1].

        Samples that ``weigh`` gives nan have no say; while none has one, every sample has one vote.
        """
        right = self.record.right()
        totals: dict[str, float] = {}
        votes: dict[str, float] = {}
        found = [0.0]
        for attempt in self.attempts:
            if attempt.answer is not None:
                weight, before = weigh(attempt), totals.get(attempt.answer)
                votes[attempt.answer] = votes.get(attempt.answer, 0.0) + 1.0
                if not math.isnan(weight):
                    totals[attempt.answer] = weight if before is None else total(before, weight)
            found.append(share_right(totals or votes, right))
        return np.array(found)


def alike(attempt: Attempt) -> float:
    """Every vote counts as one."""
    return 1.0


@dataclass(frozen=True, slots=True)
class Rule:
    """How a pool of problems is sampled, and how answers are chosen.

    Attributes:
        name: for people.
        worth: of one more sample after those of an order up to n, on a scale that compares problems; 0: none.
        weigh: a vote's weight.
        total: of two weights of an answer: their sum, or the larger one.
        learn: is told how all problems stand whenever the number of samples has doubled, if it learns from that.
    """

    name: str
    worth: Callable[[Order, int], float]
    weigh: Weigh = alike
    learn: Callable[[Sequence[Order], Sequence[int]], None] | None = None
    total: Callable[[float, float], float] = operator.add


def by_outlook(name: str, model: GainModel, vote: Vote) -> Rule:
    """What a gain model that was learned decides, under the vote that it was learned for."""
    return Rule(name, _worth_by(model), vote.weight, total=max if vote.name == "best" else operator.add)


def by_forecast(name: str, model: AgreementGainModel) -> Rule:
    """What agreement decides, see :func:`worth_of`."""

    def learn(orders: Sequence[Order], taken: Sequence[int]) -> None:
        assert isinstance(model, PoolGainModel)
        model.learn([order.evidence(n) for order, n in zip(orders, taken, strict=True)])

    return Rule(name, _worth_by(model), model.weight, learn if isinstance(model, PoolGainModel) else None)


def _worth_by(model: GainModel) -> Callable[[Order, int], float]:
    return lambda order, n: worth_of(*model.forecasts([order.evidence(n)]))


def worth_of(forecast: Forecast) -> float:
    """The best ratio of gain to cost over all samples that may be drawn in one go; 0: nothing gains."""
    return max((0.0, *(one.gain / one.cost for one in forecast.options if one.action.kind == SAMPLE)))


def by_rule(rule: StoppingRule, weigh: Weigh = alike) -> Rule:
    """A published rule."""

    def worth(order: Order, n: int) -> float:
        draws = [Draw(one.answer, one.tokens, weigh(one)) for one in order.attempts[:n]]
        return rule.worth(draws)

    return Rule(rule.name, worth, weigh)


@dataclass(frozen=True, slots=True)
class Curve:
    """What a rule reaches at several budgets."""

    accuracy: Array  # shape [budgets, problems]
    spent: Array  # tokens a problem on average, shape [budgets]
    samples: Array  # shape [budgets, problems]


def curve(orders: Sequence[Order], rules: Sequence[Rule], budgets: Sequence[float]) -> Curve:
    """Spend every budget (rising, in tokens on all problems together); ``rules``: one for each problem."""
    n = len(orders)
    accuracy = [order.accuracy(rule.weigh, rule.total) for order, rule in zip(orders, rules, strict=True)]
    taken, spent, due = [0] * n, 0.0, n
    learning = list({id(rule): rule.learn for rule in rules if rule.learn is not None}.values())
    # every problem draws once, in order of arrival, before any draws again
    queue = [(-math.inf, place) for place, order in enumerate(orders) if order.attempts]
    found = Curve(np.zeros((len(budgets), n)), np.zeros(len(budgets)), np.zeros((len(budgets), n)))
    for row, budget in enumerate(budgets):
        while queue:
            place = queue[0][1]
            order, drawn = orders[place], taken[place]
            if order.spent[drawn + 1] - order.spent[drawn] + spent > budget:
                break
            heappop(queue)
            spent += float(order.spent[drawn + 1] - order.spent[drawn])
            taken[place] = drawn + 1
            if learning and sum(taken) >= due:
                due *= 2
                for learn in learning:
                    learn(orders, taken)
                queue = _queue(orders, rules, taken)
            elif (worth := _worth(order, rules[place], drawn + 1)) > 0:
                heappush(queue, (-worth, place))
        found.accuracy[row] = [accuracy[place][taken[place]] for place in range(n)]
        found.spent[row] = spent / max(1, n)
        found.samples[row] = taken
    return found


def _queue(orders: Sequence[Order], rules: Sequence[Rule], taken: Sequence[int]) -> list[tuple[float, int]]:
    worth = [_worth(order, rule, drawn) for order, rule, drawn in zip(orders, rules, taken, strict=True)]
    queue = [(-one, place) for place, one in enumerate(worth) if one > 0]
    heapify(queue)
    return queue


def _worth(order: Order, rule: Rule, drawn: int) -> float:
    if drawn >= len(order.attempts):
        return 0.0
    return rule.worth(order, drawn) if drawn else math.inf


def curves(
    records: Sequence[ProblemRecord],
    rules: Callable[[ProblemRecord], Rule] | Rule,
    budgets: Sequence[float],
    *,
    orders: int,
    most: int | None = None,
) -> Curve:
    """The mean over several orders; ``budgets`` in tokens a problem."""
    total = [budget * len(records) for budget in budgets]
    own = [rules if isinstance(rules, Rule) else rules(record) for record in records]
    parts = [curve([Order.of(record, seed, most) for record in records], own, total) for seed in range(orders)]
    return Curve(
        np.mean([one.accuracy for one in parts], axis=0),
        np.mean([one.spent for one in parts], axis=0),
        np.mean([one.samples for one in parts], axis=0),
    )


def mean_tokens(records: Sequence[ProblemRecord]) -> float:
    """Of a sample."""
    lengths = [attempt.tokens for record in records for one in record.units[SAMPLE] for attempt in one.unit.attempts]
    return math.fsum(lengths) / max(1, len(lengths))
