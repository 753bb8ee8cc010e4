"""Budget-adaptive test-time compute: a small language model, a process reward model, and a hard token budget.

The names below are the public interface; they are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptive_ttc.allocation.report import AllocationReport
    from adaptive_ttc.driver.driver import Driver
    from adaptive_ttc.driver.engines import DriverConfig
    from adaptive_ttc.errors import (
        AdaptiveTTCError,
        CalibrationError,
        CalibrationWarning,
        ConfigError,
        EngineError,
        GradingError,
    )
    from adaptive_ttc.estimate.artefact import Calibrated
    from adaptive_ttc.ledger import Ledger
    from adaptive_ttc.policy import Policy, Sampled, SampleRequest
    from adaptive_ttc.prm import RewardModel, Scored, ScoreRequest, load_prm
    from adaptive_ttc.run.pool import SolutionPool
    from adaptive_ttc.run.retrace import retrace
    from adaptive_ttc.run.stream import SolutionStream
    from adaptive_ttc.solution import Solution
    from adaptive_ttc.solver import Solver
    from adaptive_ttc.strategies import Strategy, make_strategy, strategy_names
    from adaptive_ttc.strategies.requests import Expand, Fork, Search
    from adaptive_ttc.tracing.trace import Trace
    from adaptive_ttc.types import AnswerClass, Candidate, Message, Prefix, Problem, Usage

    __version__: str

_HOMES = {
    "AdaptiveTTCError": "errors",
    "AllocationReport": "allocation.report",
    "AnswerClass": "types",
    "Calibrated": "estimate.artefact",
    "CalibrationError": "errors",
    "CalibrationWarning": "errors",
    "Candidate": "types",
    "ConfigError": "errors",
    "Driver": "driver.driver",
    "DriverConfig": "driver.engines",
    "EngineError": "errors",
    "Expand": "strategies.requests",
    "Fork": "strategies.requests",
    "GradingError": "errors",
    "Ledger": "ledger",
    "Message": "types",
    "Policy": "policy",
    "Prefix": "types",
    "Problem": "types",
    "RewardModel": "prm",
    "SampleRequest": "policy",
    "Sampled": "policy",
    "ScoreRequest": "prm",
    "Scored": "prm",
    "Search": "strategies.requests",
    "Solution": "solution",
    "SolutionPool": "run.pool",
    "SolutionStream": "run.stream",
    "Solver": "solver",
    "Strategy": "strategies",
    "Trace": "tracing.trace",
    "Usage": "types",
    "load_prm": "prm",
    "make_strategy": "strategies",
    "retrace": "run.retrace",
    "strategy_names": "strategies",
}

__all__ = [
    "AdaptiveTTCError",
    "AllocationReport",
    "AnswerClass",
    "Calibrated",
    "CalibrationError",
    "CalibrationWarning",
    "Candidate",
    "ConfigError",
    "Driver",
    "DriverConfig",
    "EngineError",
    "Expand",
    "Fork",
    "GradingError",
    "Ledger",
    "Message",
    "Policy",
    "Prefix",
    "Problem",
    "RewardModel",
    "SampleRequest",
    "Sampled",
    "ScoreRequest",
    "Scored",
    "Search",
    "Solution",
    "SolutionPool",
    "SolutionStream",
    "Solver",
    "Strategy",
    "Trace",
    "Usage",
    "load_prm",
    "make_strategy",
    "retrace",
    "strategy_names",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value = _version()
    elif name in _HOMES:
        value = getattr(import_module(f"adaptive_ttc.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'adaptive_ttc' has no attribute {name!r}")
    globals()[name] = value
    return value


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("adaptive-ttc")
    except PackageNotFoundError:
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
