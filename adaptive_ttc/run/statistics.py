"""What a solver is doing, seen from outside: calls of its engines, its grader, and the problems of a pool.

Everything is counted where a call is made, whatever comes of it; reading the counts costs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar

from adaptive_ttc.answers.equivalence import GraderStatistics
from adaptive_ttc.errors import EngineError
from adaptive_ttc.policy import Policy, Sampled, SampleRequest, second_policy
from adaptive_ttc.prm.base import RewardModel, Scored, ScoreRequest
from adaptive_ttc.wrappers import WrappedPolicy, WrappedPRM

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")

_log = logging.getLogger(__package__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatistics:
    """The calls of a policy or a PRM."""

    calls: int  # that were made
    in_flight: int  # that have not come back
    failed: int  # that raised an error, or were cancelled
    tokens: int  # delivered, or scored

    @property
    def loss_rate(self) -> float:
        """Share of the calls that came back which failed; 0 before the first."""
        return self.failed / max(1, self.calls - self.in_flight)


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverStatistics:
    """A snapshot of a solver."""

    policy: EngineStatistics
    prm: EngineStatistics | None
    grader: GraderStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """A snapshot of a pool; units are budget units."""

    arrived: int  # problems
    open: int  # that have arrived and not settled
    settled: int  # that have, failed ones included
    failed: int  # that settled with an error
    slices: int  # at work
    budget: int | None
    spent: int
    promised: int  # to what is at work
    lost_tokens: int  # most tokens of calls that told nothing; they are charged


class CallMeter:
    """Counts the calls of one engine."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls = self._in_flight = self._failed = self._tokens = 0

    @property
    def in_flight(self) -> int:
        """Calls that have not come back."""
        return self._in_flight

    @contextmanager
    def call(self) -> Iterator[None]:
        """A call is under way; it has failed where this is left by an exception."""
        self._calls += 1
        self._in_flight += 1
        try:
            yield
        except Exception as error:
            self._failed += 1
            _log.warning("a call of the %s failed: %s: %s", self._name, type(error).__name__, error)
            raise
        except BaseException:
            self._failed += 1
            raise
        finally:
            self._in_flight -= 1

    def add(self, tokens: int) -> None:
        """So many tokens came of a call."""
        self._tokens += tokens

    def statistics(self) -> EngineStatistics:
        """The counts."""
        return EngineStatistics(calls=self._calls, in_flight=self._in_flight, failed=self._failed, tokens=self._tokens)


class MeteredPolicy(WrappedPolicy):
    """A policy whose calls are counted."""

    def __init__(self, policy: Policy, meter: CallMeter) -> None:
        super().__init__(policy)
        self._meter = meter

    @property
    def second(self) -> Policy | None:
        """Its calls are counted among the others."""
        second = second_policy(self._policy)
        return None if second is None else MeteredPolicy(second, self._meter)

    async def sample(self, request: SampleRequest) -> Sampled:
        """The policy's reply."""
        with self._meter.call():
            sampled = await called(self._policy.sample(request), f"sample of {self.name}")
        self._meter.add(len(sampled.token_ids) if isinstance(sampled, Sampled) else 0)
        return sampled


class MeteredPRM(WrappedPRM):
    """A PRM whose calls are counted, and which is told whether the policy, of the meter ``drawing``, is at work."""

    def __init__(self, prm: RewardModel, meter: CallMeter, drawing: CallMeter) -> None:
        super().__init__(prm)
        self._meter, self._drawing = meter, drawing

    async def score(self, request: ScoreRequest) -> Scored:
        """The PRM's reply."""
        if self._drawing.in_flight:
            request = replace(request, more=True)
        with self._meter.call():
            scored = await called(self._prm.score(request), f"score of {self.name}")
        self._meter.add(scored.prm_tokens if isinstance(scored, Scored) else 0)
        return scored


async def called(call: Awaitable[T], what: str) -> T:
    """What a method of an engine gives. EngineError: it is not async."""
    if not isawaitable(call):
        raise EngineError(
            f"{what} is not async: write it as async def {what.split()[0]}(self, request)", generated=False
        )
    return await call


def prometheus(*statistics: DataclassInstance, prefix: str = "adaptive_ttc") -> str:
    """Statistics in Prometheus' text format (version 0.0.4), to be served at ``/metrics`` by whatever serves.

    All are gauges, named by their place: ``adaptive_ttc_policy_in_flight``, ``adaptive_ttc_pool_open``; those of a
    mapping have its keys as labels: ``adaptive_ttc_serve_key_spent{key="ann"}``.
    """
    lines = []
    for one in statistics:
        root = f"{prefix}_pool" if isinstance(one, PoolStatistics) else prefix
        for name, value in _flat(root, one):
            lines.append(f"# TYPE {name} gauge")
            if isinstance(value, Mapping):
                lines += [f'{name}{{key="{_label(key)}"}} {of_key}' for key, of_key in value.items()]
            else:
                lines.append(f"{name} {value}")
    return "".join(f"{line}\n" for line in lines)


def _label(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _flat(name: str, value: Any) -> Iterator[tuple[str, float | Mapping[str, float]]]:
    if is_dataclass(value):
        for part in fields(value):
            yield from _flat(f"{name}_{part.name}", getattr(value, part.name))
        if isinstance(value, EngineStatistics):
            yield f"{name}_loss_rate", value.loss_rate
    elif value is not None and value != {}:
        yield name, value
