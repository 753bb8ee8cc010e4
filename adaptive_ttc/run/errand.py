"""What is asked of :meth:`adaptive_ttc.solver.Solver.solve_many`, checked; it runs nothing."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.run.request import Plan, Wish
from adaptive_ttc.strategies.adaptive import Adaptive
from adaptive_ttc.types import Problem

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
