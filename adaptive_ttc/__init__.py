"""Budget-adaptive test-time compute: a small language model, a process reward model, and a hard token budget.

The names below are the public interface; they are imported when they are first used.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptive_ttc.allocation.report import AllocationReport as AllocationReport
    from adaptive_ttc.answers.spaces.base import AnswerSpace as AnswerSpace
    from adaptive_ttc.driver.driver import Driver as Driver
    from adaptive_ttc.driver.engines import DriverConfig as DriverConfig
    from adaptive_ttc.errors import AdaptiveTTCError as AdaptiveTTCError
    from adaptive_ttc.errors import CalibrationError as CalibrationError
    from adaptive_ttc.errors import CalibrationWarning as CalibrationWarning
    from adaptive_ttc.errors import CheckpointError as CheckpointError
    from adaptive_ttc.errors import ConfigError as ConfigError
    from adaptive_ttc.errors import EngineError as EngineError
    from adaptive_ttc.errors import GradingError as GradingError
    from adaptive_ttc.estimate.artefact import Calibrated as Calibrated
    from adaptive_ttc.ledger import Ledger as Ledger
    from adaptive_ttc.policy import Policy as Policy
    from adaptive_ttc.policy import Sampled as Sampled
    from adaptive_ttc.policy import SampleRequest as SampleRequest
    from adaptive_ttc.prm import RewardModel as RewardModel
    from adaptive_ttc.prm import Scored as Scored
    from adaptive_ttc.prm import ScoreRequest as ScoreRequest
    from adaptive_ttc.prm import load_prm as load_prm
    from adaptive_ttc.run.pool import SolutionPool as SolutionPool
    from adaptive_ttc.run.retrace import retrace as retrace
    from adaptive_ttc.run.shared_budget import SharedBudget as SharedBudget
    from adaptive_ttc.run.statistics import prometheus as prometheus
    from adaptive_ttc.run.stream import SolutionStream as SolutionStream
    from adaptive_ttc.solution import Solution as Solution
    from adaptive_ttc.solver import Solver as Solver
    from adaptive_ttc.strategies import Strategy as Strategy
    from adaptive_ttc.strategies import make_strategy as make_strategy
    from adaptive_ttc.strategies import strategy_names as strategy_names
    from adaptive_ttc.strategies.requests import Expand as Expand
    from adaptive_ttc.strategies.requests import Fork as Fork
    from adaptive_ttc.strategies.requests import Search as Search
    from adaptive_ttc.tracing.trace import Trace as Trace
    from adaptive_ttc.types import AnswerClass as AnswerClass
    from adaptive_ttc.types import Candidate as Candidate
    from adaptive_ttc.types import Message as Message
    from adaptive_ttc.types import Prefix as Prefix
    from adaptive_ttc.types import Problem as Problem
    from adaptive_ttc.types import Stopped as Stopped
    from adaptive_ttc.types import Usage as Usage

    __version__: str

logging.getLogger(__name__).addHandler(logging.NullHandler())  # who wants to read it configures logging

_NAMES = {
    "allocation.report": ("AllocationReport",),
    "answers.spaces.base": ("AnswerSpace",),
    "driver.driver": ("Driver",),
    "driver.engines": ("DriverConfig",),
    "errors": (
        "AdaptiveTTCError",
        "CalibrationError",
        "CalibrationWarning",
        "CheckpointError",
        "ConfigError",
        "EngineError",
        "GradingError",
    ),
    "estimate.artefact": ("Calibrated",),
    "ledger": ("Ledger",),
    "policy": ("Policy", "SampleRequest", "Sampled"),
    "prm": ("RewardModel", "ScoreRequest", "Scored", "load_prm"),
    "run.pool": ("SolutionPool",),
    "run.retrace": ("retrace",),
    "run.shared_budget": ("SharedBudget",),
    "run.statistics": ("prometheus",),
    "run.stream": ("SolutionStream",),
    "solution": ("Solution",),
    "solver": ("Solver",),
    "strategies": ("Strategy", "make_strategy", "strategy_names"),
    "strategies.requests": ("Expand", "Fork", "Search"),
    "tracing.trace": ("Trace",),
    "types": ("AnswerClass", "Candidate", "Message", "Prefix", "Problem", "Stopped", "Usage"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOMES)


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
