"""How far an allocator's decisions are from the best possible ones, where all is known of a problem; it times nothing.

:mod:`known_model` computes the best ones; ``allocator.py`` says what the figures mean.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean

from known_model import Action, Frontier, KnownModel, Rule, State, canonical

from adaptive_ttc.allocation.allocator import Allocator
from adaptive_ttc.estimate.gain import Option

AT_ONCE = 32
"""Problems of a pool that run at once."""

PRICES = (0.001, 0.003, 0.01, 0.03)
MEAN_SAMPLES = (2, 4, 8, 16)
LEVELS = {
    "even": (0.3, 0.45, 0.6, 0.75, 0.9),
    "able": (0.55, 0.65, 0.75, 0.85, 0.95),
    "weak": (0.4, 0.5, 0.55, 0.6, 0.7),
    "torn": (0.1, 0.4, 0.7, 0.95),
    "single": (0.6,),
}
"""Probabilities, equally likely, that a sample is right. ``torn`` holds problems on which most samples are wrong."""


def models(seed: int | None, cap: int) -> dict[str, KnownModel]:
    """The priors, or as many random ones."""
    if seed is None:
        return {
            name: KnownModel((1 / len(levels),) * len(levels), tuple((p,) for p in levels), cap=cap)
            for name, levels in LEVELS.items()
        }
    rng = random.Random(seed)
    drawn = {}
    for name in LEVELS:
        weights = [rng.expovariate(1) for _ in range(5)]
        types = tuple((rng.uniform(0.3, 0.98),) for _ in weights)
        drawn[name] = KnownModel(tuple(weight / sum(weights) for weight in weights), types, cap=cap)
    return drawn


def with_search(model: KnownModel, cap: int) -> KnownModel:
    """The same problems, with a second kind of unit: at four times the cost it errs half as often."""
    return replace(model, right=tuple((p, 1 - (1 - p) / 2) for (p,) in model.right), costs=(1, 4), cap=cap)


def allocator_rule(price: float, offers: Callable[[State], Iterable[Option]]) -> Rule:
    """What an allocator without a limit does at a price, in every state."""

    def rule(state: State) -> Action | None:
        allocator = Allocator(None, min_gain=1_000 * price)
        allocator.arrive("", 1)
        allocator.next()
        allocator.charged("", 0)
        allocator.offer("", offers(state))
        decision = allocator.next()
        action = decision and decision.option and decision.option.action
        assert action is None or isinstance(action, Action)
        return action

    return rule


def regret(model: KnownModel, rule: Rule, price: float, *, opened: bool = False) -> float | None:
    """Share of the dynamic programme's value that a rule misses; None where there is none to have."""
    best, ours = model.worth(model.best_rule(price)).at(price), model.worth(rule).at(price)
    stop = model.stop(model.start)
    if opened:
        stop = sum(chance * model.stop(state) for chance, state in model.after(model.start, Action(0, 1))) - price
    return (best - ours) / (best - stop) if best - stop > 1e-4 else None


def regrets(priors: Sequence[KnownModel], two_kinds: Sequence[KnownModel]) -> dict[str, float]:
    """The figures of single problems."""
    found: dict[str, list[float | None]] = {}
    missed = gained = 0.0
    for prior in priors:
        for vote in ("majority", "posterior"):
            model = replace(prior, vote=vote)
            for price in PRICES:
                plain = allocator_rule(price, model.options)
                value = regret(model, plain, price)
                if value is not None:
                    gain = model.worth(model.best_rule(price)).at(price) - model.stop(model.start)
                    missed, gained = missed + value * gain, gained + gain
                for name, share in {
                    "": value,
                    ".after_first": regret(model, plain, price, opened=True),
                    ".slices_of_4": regret(model, allocator_rule(price, partial(model.options, slices=4)), price),
                    ".one_step": regret(model, allocator_rule(price, partial(model.options, longest=1)), price),
                    ".committed": regret(model, allocator_rule(price, model.committed), price),
                }.items():
                    found.setdefault(name, []).append(share)
    for model in two_kinds:
        values = [regret(model, allocator_rule(price, model.options), price) for price in PRICES]
        found.setdefault(".two_kinds", []).extend(values)
    known = {name: [value for value in values if value is not None] for name, values in found.items()}
    means = {f"dp_regret{name}": fmean(values) for name, values in known.items()}
    return means | {"dp_regret.max": max(known[""]), "dp_regret.weighted": missed / gained}


def pooled(model: KnownModel, mean_samples: int, problems: int, seed: int) -> tuple[float, bool]:
    """Accuracy of one budget over many problems, and whether it was kept.

    Types are dealt in proportion to their weights; accuracy is that of the votes given the counts.
    """
    rng = random.Random(seed)
    bounds = [*(sum(model.weights[: i + 1]) for i in range(len(model.weights) - 1)), 1.0]
    levels = [
        next(p for p, bound in zip(model.right, bounds, strict=True) if (i + 0.5) / problems < bound)
        for i in range(problems)
    ]
    rng.shuffle(levels)
    counts = [[[0, 0] for _ in model.costs] for _ in levels]
    budget = mean_samples * problems
    allocator = Allocator(budget)
    for index in range(problems):
        allocator.arrive(str(index), 1, model.options(model.start))
    running: list[tuple[int, int]] = []  # problem, kind
    kept = True
    while True:
        decision = allocator.next() if len(running) < AT_ONCE else None
        if decision:
            running.append((int(decision.problem), decision.option.action.kind if decision.option else 0))
            kept = kept and allocator.spent + allocator.promised <= budget
            continue
        if not running:
            break
        index, kind = running.pop(0)
        allocator.charged(str(index), model.costs[kind])
        counts[index][kind][rng.random() >= levels[index][kind]] += 1
        allocator.offer(str(index), model.options(state_of(counts[index])))
    states = [state_of(one) for one in counts]
    kept = kept and allocator.spent == sum(map(model.spent, states)) <= budget
    return fmean(map(model.stop, states)), kept


def state_of(counts: Sequence[Sequence[int]]) -> State:
    """The state of a problem, of the counts of either answer by kind."""
    return canonical(tuple((first, second) for first, second in counts))


@dataclass(slots=True)
class Pools:
    """What pools missed of the best that is possible, and the share of their cost that this would have taken."""

    missed: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def add(self, frontier: Frontier, right: float, cost: float) -> None:
        """A pool of this accuracy and mean cost."""
        best, stop = frontier.right_at(cost), frontier.right[0]
        if best - stop >= 0.01:
            self.missed.append((best - right) / (best - stop))
            self.shares.append(frontier.cost_of(right) / cost)


def pools(priors: Sequence[KnownModel], two_kinds: Sequence[KnownModel], problems: int, seed: int) -> dict[str, float]:
    """The figures of pools."""
    found = {name: Pools() for name in ("pooled", "pooled_two_kinds", "pooled_uniform")}
    overspent = 0
    for model in (*priors, *two_kinds):
        frontier = Frontier.of(model, [10 ** (-5 + 4.5 * i / 30) for i in range(31)])
        for mean_cost in (one for one in MEAN_SAMPLES if 2 * one <= model.cap):
            right, kept = pooled(model, mean_cost, problems, seed)
            overspent += not kept
            found["pooled" if len(model.costs) == 1 else "pooled_two_kinds"].add(frontier, right, mean_cost)
            if len(model.costs) == 1:
                found["pooled_uniform"].add(frontier, model.future(model.start, Action(0, mean_cost)), mean_cost)
    return {
        **{f"dp_regret.{name}": fmean(one.missed) for name, one in found.items()},
        **{f"samples_share.{name}": fmean(one.shares) for name, one in found.items()},
        "overspent": overspent,
    }
