"""What a strategy demands of its models, and how a model that cannot meet every demand says so; it runs nothing.

An engine that answers from a record holds a number of whole solutions at one temperature, perhaps with one
score each. What it cannot answer is refused before any sampling, for all models alike that say what they can do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from adaptive_ttc.types import Aggregation, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a strategy will ask of its models.

    Attributes:
        strategy: its name.
        n: samples; None where the budget alone decides how many.
        stepwise: whether it samples and scores step by step, not whole solutions alone.
        revises: whether it shows the policy its earlier attempts.
        scored: whether it has solutions scored.
        temperature: 0 is greedy.
        top_p: nucleus mass.
        max_tokens: most tokens of one solution.
        agg_strategy: how the scores of a solution's steps become one.
        count: what the budget bounds, see :data:`adaptive_ttc.cost.Count`.
    """

    strategy: str
    n: int | None
    stepwise: bool
    revises: bool
    scored: bool
    temperature: float
    top_p: float
    max_tokens: int
    agg_strategy: Aggregation
    count: str


@runtime_checkable
class Limited(Protocol):
    """A policy or PRM that cannot meet every demand. One that wraps another passes both on."""

    @property
    def strategy_defaults(self) -> Mapping[str, Any]:
        """Options of a strategy that stand here in place of the common defaults, where the caller names none."""
        ...

    def check_demand(self, problem: Problem, demand: Demand) -> None:
        """Refuse, with a ConfigError that names reason and remedy, what it cannot answer for this problem."""
        ...


def strategy_defaults(model: object) -> Mapping[str, Any]:
    """A model's own defaults; none for one without limits."""
    return model.strategy_defaults if isinstance(model, Limited) else {}


def check_demand(model: object, problem: Problem, demand: Demand) -> None:
    """Have a model check a demand; one without limits meets all.

    Raises:
        ConfigError: it cannot meet the demand.
    """
    if isinstance(model, Limited):
        model.check_demand(problem, demand)
