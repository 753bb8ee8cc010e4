"""What tokens cost: the unit that a budget bounds, and FLOPs.

FLOPs = 2 * P_policy * (decoded + uncached prompt) + 2 * P_prm * (uncached PRM tokens), P being the parameters that take
part in a token's forward pass. Attention over the context is left out: it is small beside the matrices at the hidden
sizes of the models that this is made for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policy import Policy, second_weight
from adaptive_ttc.prm.base import traits_of
from adaptive_ttc.types import Usage

Count = Literal["generated", "generated+prm", "flops"]
"""What a budget bounds: generated tokens, a verifier's too; those and the PRM's; or floating-point operations of both.
"""

COUNTS: tuple[str, ...] = get_args(Count)


class Sized(Protocol):
    """A model that knows the number of its parameters."""

    @property
    def parameters(self) -> int:
        """Number of parameters that take part in a token's forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Ledger units for one token of each kind; the default bounds generated tokens alone.

    As cache hits are not known beforehand, what is charged is what an ideal tree cache computes: the prompt once a
    problem, every generated token once, every step scored once after its parent's steps (the question is scored anew
    with every first step). Measured usage stands beside it.
    """

    decode: int = 1  # a generated token
    prompt: int = 0  # a prompt token, charged once a problem
    score: int = 0  # a PRM token that is read
    written: int = 0  # a token that a verifier writes


def price_of(count: str, policy: Sized, prm: Sized | None) -> Price:
    """The price list under which a budget bounds ``count``; ConfigError unless it is one of :data:`COUNTS`."""
    writes = 1 if traits_of(prm).written else 0
    if count == "generated":
        return Price(written=writes)
    if count == "generated+prm":
        return Price(score=1 if prm and not traits_of(prm).free else 0, written=writes)
    if count == "flops":
        policy_token = 2 * policy.parameters
        prm_token = 2 * prm.parameters if prm else 0
        return Price(decode=policy_token, prompt=policy_token, score=prm_token, written=prm_token * writes)
    raise ConfigError(f"unknown count {count!r}: a budget bounds one of {', '.join(COUNTS)}")


def price_of_second(count: str, policy: Policy, second: Sized, price: Price) -> Price:
    """The price list for the second policy of ``policy``, whose own is ``price``: its tokens cost what they take in
    FLOPs, or as many tokens of the first policy, in whole ones, as its weight says.
    """
    token = 2 * second.parameters if count == "flops" else math.ceil(second_weight(policy))
    return replace(price, decode=token, prompt=token if price.prompt else 0)


def flops(usage: Usage, policy: Sized, prm: Sized | None, second: Sized | None = None) -> float:
    """FLOPs of what was computed: discarded tokens were decoded, lost ones are taken at their upper bound."""
    computed = usage.completion_tokens + usage.discarded_tokens + usage.lost_tokens + usage.prompt_tokens
    total = 2.0 * policy.parameters * (computed - usage.second_tokens)
    total += 2.0 * second.parameters * usage.second_tokens if second else 0.0
    return total + (2.0 * prm.parameters * usage.prm_tokens if prm else 0.0)
