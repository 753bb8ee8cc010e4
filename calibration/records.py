"""What calibration measured on a problem: graded units of work, from which every arm and state is replayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from adaptive_ttc.estimate.features import Evidence, Unit


@dataclass(frozen=True, slots=True)
class UnitRecord:
    """A unit of work and whether its attempts are right.

    Attributes:
        unit: what was done; answer classes agree across all units of the problem.
        correct: of every attempt, in their order.
        prompt_tokens: prompt and prefix tokens that the policy computed, as measured.
        flops: of policy and PRM, as measured.
    """

    unit: Unit
    correct: tuple[bool, ...]
    prompt_tokens: int = 0
    flops: float = 0.0


@dataclass(frozen=True, slots=True)
class ProblemRecord:
    """All graded units of one problem.

    Attributes:
        id: of the problem, unique in its data set.
        question: its text.
        answer: the right one.
        prompt_tokens: of the rendered problem.
        units: the units of every kind, in the order of their index; those of a kind are exchangeable.
    """

    id: str
    question: str
    answer: str
    prompt_tokens: int
    units: Mapping[str, tuple[UnitRecord, ...]] = field(default_factory=dict)

    def nothing(self) -> Evidence:
        """What is known before any work."""
        return Evidence(self.question, self.prompt_tokens)


@dataclass(frozen=True, slots=True)
class Weights:
    """What a token costs, in tokens of the policy: the unit of every budget and cost of a calibration.

    Attributes:
        generated: a token that the policy delivers.
        prm: a token that the PRM scores: P_prm / P_policy where cost is measured by parameters, 0 where only
            generated tokens count.
    """

    generated: float = 1.0
    prm: float = 0.0

    def cost(self, unit: Unit) -> float:
        """Of one unit."""
        return self.generated * unit.generated + self.prm * unit.prm
