"""What makes a mini pair: problem families, rates of mistakes, sizes, training lengths and seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from adaptive_ttc.mini.minimath import MiniMath

PARTS = ("pair", "large", "verifier")
"""What can be made: the policy with its implicit PRM, the larger policy, a verifier in the RLHFlow format."""


@dataclass(frozen=True, slots=True)
class Size:
    """Shape of a Llama."""

    hidden: int
    layers: int
    heads: int
    intermediate: int


@dataclass(frozen=True, slots=True)
class Training:
    """Length and pace of one stage: optimiser steps, padded tokens a step and process, peak learning rate."""

    steps: int
    tokens: int = 4096
    learning_rate: float = 2e-3


@dataclass(frozen=True, slots=True)
class Pair:
    """A policy, its PRM and a larger reference policy, made from one distribution of problems.

    Args:
        name: folder name of the pair.
        seed: every draw of data and every initial weight follows from it.
        source: the problems, with the rates of mistakes that the policy learns.
        care: how likely mistakes are in a revised attempt, as a share of those rates.
        large_care: how likely they are in an attempt of the reference policy, as a share of the same rates.
        small: shape of the policy and of the frozen part of the verifier.
        verifier_layers: layers of the verifier above the frozen part.
        large_layers: layers of the reference policy, which is twice as wide as the small one.
        base, revised, noisy, verifier, large_base, large_noisy: the training stages.
        own_samples: how many of the policy's own solutions the PRM or verifier learns from.
    """

    name: str
    seed: int
    source: MiniMath
    care: float = 0.5
    large_care: float = 0.6
    small: Size = Size(hidden=128, layers=4, heads=4, intermediate=352)
    verifier_layers: int = 3
    large_layers: int = 5
    base: Training = Training(steps=4000, learning_rate=3e-3)
    revised: Training = Training(steps=800, learning_rate=1.5e-3)
    noisy: Training = Training(steps=600, learning_rate=1e-3)
    verifier: Training = Training(steps=5000)
    large_base: Training = Training(steps=500, learning_rate=1e-3)
    large_noisy: Training = Training(steps=400, learning_rate=5e-4)
    own_samples: int = 4_096

    def shrunk(self, share: float) -> Pair:
        """The same pair with ``share`` of the steps and samples of every stage."""
        stages: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        shorter: dict[str, Any] = {
            name: replace(stage, steps=max(1, round(stage.steps * share)))
            for name, stage in stages.items()
            if isinstance(stage, Training)
        }
        return replace(self, own_samples=max(256, round(self.own_samples * share)), **shorter)


_SLIPS: Mapping[str, float] = {
    "add": 0.026, "carry": 0.20, "signed": 0.39, "times": 0.04, "times_hard": 0.33, "sign": 0.46, "divide": 0.26,
    "move": 0.46, "distribute": 0.58, "precedence": 0.58, "denominator": 0.46, "substitute": 0.26,
}  # fmt: skip
_LOAD = (0.0, 0.12, 0.7, 1.25, 1.75)

PAIRS: Mapping[str, Pair] = {
    "mini": Pair("mini", seed=1, source=MiniMath(slips=_SLIPS, load=_LOAD)),
    "mini-b": Pair(
        "mini-b",
        seed=2,
        source=MiniMath(
            families=("divisor", "mean", "proportion", "polynomial", "equation"),
            slips={**_SLIPS, "divide": 0.42, "carry": 0.28, "substitute": 0.18, "sign": 0.38, "times_hard": 0.4},
            load=(0.05, 0.35, 0.8, 1.2, 1.6),
        ),
    ),
}
