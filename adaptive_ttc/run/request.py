"""Checks what is asked of the solver before any engine is called; it runs nothing."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from adaptive_ttc.cost import Price, price_of
from adaptive_ttc.driver.scoring import least_score
from adaptive_ttc.errors import ConfigError, RevisionWarning
from adaptive_ttc.policy import Demand, Policy, check_demand, strategy_defaults
from adaptive_ttc.prm.base import RewardModel
from adaptive_ttc.strategies.adaptive import Adaptive
from adaptive_ttc.strategies.base import Strategy, make_strategy
from adaptive_ttc.strategies.units import GREEDY
from adaptive_ttc.types import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a caller asked for: a budget in the unit of ``count``, a strategy, its options."""

    budget: int | None = None
    count: str = "generated"
    strategy: str | Strategy | None = None
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be run.

    Attributes:
        problem: what is to be solved.
        strategy: how; :class:`~adaptive_ttc.strategies.adaptive.Adaptive` where evidence decides as it comes in.
        price: what the ledger is charged.
        budget: most that it may be charged; None for no limit.
        count: what the budget bounds.
    """

    problem: Problem
    strategy: Strategy
    price: Price
    budget: int | None
    count: str


def check_wish(wish: Wish, *, prm: bool) -> None:
    """Refuse what no models could carry out, before any is loaded; :func:`make_plan` checks it against the models.

    Args:
        wish: what is asked for.
        prm: whether there will be a PRM.

    Raises:
        ConfigError: it is impossible; the message names the remedy.
    """
    _check_end(wish)
    strategy = _named(wish, prm)
    if strategy.scored and not prm:
        raise _unscored(strategy)
    _check_n(wish, strategy)
    _check_budget(wish, 1)


def make_plan(problem: Problem, policy: Policy, prm: RewardModel | None, wish: Wish) -> Plan:
    """Check a wish against the models.

    Raises:
        ConfigError: it is impossible; the message names the remedy.
    """
    free = _check_end(wish)
    strategy = _strategy(wish, policy, prm)
    price = price_of(wish.count, policy, prm)
    _check_limits(problem, policy, prm, _demand(strategy, wish.count, free))
    if strategy.revises and policy.revision_prompt is None:
        warnings.warn(
            f"{policy.name} does not say that it was trained to revise; {strategy.name} asks it in words of its own",
            RevisionWarning,
            stacklevel=3,
        )
    scoring = _check_scores(problem, strategy, prm, price)
    _check_n(wish, strategy)
    _check_room(problem, policy, price, scoring, wish)
    return Plan(problem=problem, strategy=strategy, price=price, budget=wish.budget, count=wish.count)


def _check_end(wish: Wish) -> bool:
    """Whether only the budget says what is done."""
    free = wish.strategy is None and "n" not in wish.options
    if free and wish.budget is None:
        raise ConfigError("nothing says when to stop: give budget_tokens, n, or a strategy")
    return free


def _named(wish: Wish, prm: bool) -> Strategy:
    if isinstance(wish.strategy, Strategy):
        if wish.options:
            raise ConfigError(f"set {', '.join(wish.options)} in the configured strategy instead")
        return wish.strategy
    if _check_end(wish):
        return Adaptive.of(wish.options)
    return make_strategy(wish.strategy or ("weighted_best_of_n" if prm else "majority"), **wish.options)


def _strategy(wish: Wish, policy: Policy, prm: RewardModel | None) -> Strategy:
    strategy = _named(wish, prm is not None)
    if isinstance(wish.strategy, Strategy):
        return strategy
    scored = strategy.scored or isinstance(strategy, Adaptive)
    own = {**strategy_defaults(policy), **(strategy_defaults(prm) if scored else {})}
    left_open = [key for key in own if key not in wish.options and getattr(strategy, key) == getattr(Strategy, key)]
    return replace(strategy, **{key: own[key] for key in left_open})


def _demand(strategy: Strategy, count: str, free: bool) -> Demand:
    return Demand(
        strategy=strategy.name,
        n=None if free else strategy.n,
        stepwise=free or strategy.stepwise,
        revises=strategy.revises,
        scored=strategy.scored,
        temperature=strategy.temperature,
        top_p=strategy.top_p,
        max_tokens=strategy.max_tokens,
        agg_strategy=strategy.agg_strategy,
        count=count,
    )


def _check_limits(problem: Problem, policy: Policy, prm: RewardModel | None, demand: Demand) -> None:
    """Let both models refuse what they cannot answer; one that is not asked for scores has nothing to refuse."""
    check_demand(policy, problem, demand)
    if demand.scored:
        check_demand(prm, problem, demand)


def _check_scores(problem: Problem, strategy: Strategy, prm: RewardModel | None, price: Price) -> int:
    """Units that the scoring of one token takes."""
    if not strategy.scored:
        return 0
    if prm is None:
        raise _unscored(strategy)
    return least_score(prm, problem.question, price)


def _check_n(wish: Wish, strategy: Strategy) -> None:
    """Refuse a search by its name alone: of one sample it is none."""
    if isinstance(wish.strategy, str) and strategy.name != GREEDY and "n" not in wish.options:
        raise ConfigError(f"{strategy.name} needs n, how many are drawn; without a strategy, the budget alone decides")


def _unscored(strategy: Strategy) -> ConfigError:
    return ConfigError(
        f"{strategy.name} with the {strategy.vote} vote needs a PRM: give the solver one, or take strategy='majority'"
    )


def _check_room(problem: Problem, policy: Policy, price: Price, scoring: int, wish: Wish) -> None:
    prompt = len(policy.encode(problem))
    if prompt >= policy.max_context:
        raise ConfigError(
            f"the problem takes {prompt:,} tokens, and the context of {policy.name} is {policy.max_context:,} with the "
            "answer: shorten the problem, or take a policy with a longer context"
        )
    _check_budget(wish, price.prompt * prompt + price.decode + scoring)


def _check_budget(wish: Wish, least: int) -> None:
    if wish.budget is None:
        return
    if not isinstance(wish.budget, int) or isinstance(wish.budget, bool):
        raise ConfigError(f"budget_tokens is a whole number; got {wish.budget!r}")
    if wish.budget < least:
        raise ConfigError(
            f"budget_tokens={wish.budget:,} does not pay for one token: give at least {least:,} ({wish.count})"
        )


Question = str | Sequence[Mapping[str, str]] | Problem
Priority = Callable[[Problem], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What was asked for.

    Attributes:
        problems: all of them, or a source that is still producing.
        plan: what is to be done with one of them; ConfigError where that is impossible.
        sample: a plan, for what is the same in all: how samples are drawn, what a token costs.
        voting: the vote over all that is drawn of a problem.
        budget: units for all problems together.
        per_problem_max: most units for one.
        deadline: seconds after which what runs is ended.
        min_gain: gain per 1,000 units under which nothing is bought.
        max_concurrency: slices at once.
        priority: how much a problem counts, above 0; all alike by default.
        seed: of all randomness.
    """

    problems: Iterable[Question] | AsyncIterable[Question]
    plan: Callable[[Problem], Plan]
    sample: Plan
    voting: Adaptive
    budget: int
    per_problem_max: int | None
    deadline: float | None
    min_gain: float
    max_concurrency: int
    priority: Priority | None
    seed: int


def several(problems: Iterable[Question] | AsyncIterable[Question]) -> Iterable[Question] | AsyncIterable[Question]:
    """Check that problems are several, and those of a list each.

    Raises:
        ConfigError: it is one problem, or a list that holds an empty one.
    """
    if isinstance(problems, str | Problem) or not isinstance(problems, Iterable | AsyncIterable):
        raise ConfigError("problems are several: give a list of them, or an async iterator; for one, call solve")
    return [Problem.of(one) for one in problems] if isinstance(problems, Sequence) else problems


def shared_wish(budget: int, count: str, options: Mapping[str, Any]) -> Wish:
    """What is asked of every problem.

    Raises:
        ConfigError: it belongs to a named strategy.
    """
    named = [name for name in ("n", "strategy") if name in options]
    if named:
        raise ConfigError(f"solve_many decides what is drawn: leave out {', '.join(named)}, or call solve for each")
    if budget is None:
        raise ConfigError("solve_many needs budget_tokens: what may be spent on all problems together")
    return Wish(budget=budget, count=count, options=options)
