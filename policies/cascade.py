"""A small policy, and a larger one for the problems that are worth it."""

from __future__ import annotations

import hashlib
import math
from contextlib import AsyncExitStack

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policy import Policy, default_weight, recorded_problem, second_policy
from adaptive_ttc.wrappers import WrappedPolicy


def cascade_name(first: str, second: str) -> str:
    """The name of a cascade of policies of these names."""
    return f"{first} then {second}"


def cascade_fingerprint(first: str, second: str) -> str:
    """The fingerprint of a cascade of policies of these fingerprints."""
    return hashlib.sha256(f"{first}\0{second}".encode()).hexdigest()


def weight_of(first: int, second: int, weight: float | None) -> float:
    """Tokens of the first policy that one of the second counts: ``weight``, or by their ``parameters``. ConfigError: it
    is below 1 or not finite, or neither says it.
    """
    found = default_weight(first, second) if weight is None else weight
    if found is None:
        raise ConfigError(
            "how many tokens of the policy one of the second counts is the ratio of the parameters, which one of them "
            "does not tell: give second_weight (--second-weight)"
        )
    if not 1 <= found < math.inf:
        raise ConfigError(f"second_weight={weight}: a token of the second policy counts at least 1 of the first's")
    return found


class Cascade(WrappedPolicy):
    """The ``first`` policy, with a ``second`` one as further arms of adaptive runs, on the same budget.

    What a calibration of the cascade knows of both decides, problem by problem, when the second is worth its price
    (small first, as in FrugalGPT, arXiv 2305.05176); both may write solutions of one problem, which vote together. A
    strategy that is asked for by name is the first one's alone. The tokenizers may differ.

    Args:
        first: the small one.
        second: is asked where its gain for what it costs is higher.
        weight: tokens of the first that one of the second counts in a budget of tokens (in whole ones, rounded up), at
            least 1; by default what it takes in FLOPs, the ratio of the parameters. A budget of FLOPs counts these.

    Raises:
        ConfigError: the weight is below 1 or not finite, or not given where a model does not tell its size; one of
            them is a cascade already, or answers from a record.
    """

    def __init__(self, first: Policy, second: Policy, weight: float | None = None) -> None:
        super().__init__(first)
        if second_policy(first) is not None or second_policy(second) is not None:
            raise ConfigError("a cascade is of two policies: give it models, and no other cascade")
        if recorded_problem(first) is not None or recorded_problem(second) is not None:
            raise ConfigError("a cascade is of two models, and recorded samples are none: leave the second policy out")
        self._second, self._weight = second, weight_of(first.parameters, second.parameters, weight)

    @property
    def first(self) -> Policy:
        """The small policy."""
        return self._policy

    @property
    def second(self) -> Policy:
        """The other one."""
        return self._second

    @property
    def second_weight(self) -> float:
        """Tokens of the first that one of the second counts."""
        return self._weight

    @property
    def name(self) -> str:
        """Both names."""
        return cascade_name(self._policy.name, self._second.name)

    @property
    def source(self) -> str:
        """What the first is loaded by."""
        return str(getattr(self._policy, "source", self._policy.name))

    @property
    def fingerprint(self) -> str:
        """Changes with either policy."""
        return cascade_fingerprint(self._policy.fingerprint, self._second.fingerprint)

    async def aclose(self) -> None:
        """Close both."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._second.aclose)
            stack.push_async_callback(self._policy.aclose)
