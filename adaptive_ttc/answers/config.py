"""Settings and statistics of grading; it runs nothing."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from adaptive_ttc.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class GradingConfig:
    """How the grading worker is run.

    Attributes:
        time_limit: seconds of processor time that reading one answer, or comparing two, may take; what
            takes longer is unreadable, or not equal. Not wall time, so that verdicts do not depend on
            the machine's load.
        wall_limit: seconds of wall time after which the worker is given up all the same (it may be
            stopped or swapped out); the only limit where the system has no timer of processor time.
        start_limit: seconds of wall time that the worker may take to start.
        memory_mb: address space of the worker in MiB, where the system can bound it.
        cache_size: comparisons and readings that are remembered.
        command: the program that serves as worker, for a sandbox around it; by default this
            interpreter with ``adaptive_ttc/grading/worker.py`` and ``memory_mb``.
    """

    time_limit: float = 3.0
    wall_limit: float = 60.0
    start_limit: float = 120.0
    memory_mb: int = 2048
    cache_size: int = 65536
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("time_limit", "wall_limit", "start_limit"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is a number of seconds above 0; got {getattr(self, name)!r}")
        if self.memory_mb < 512:
            raise ConfigError(f"memory_mb is at least 512, which SymPy needs; got {self.memory_mb!r}")
        if self.cache_size < 1:
            raise ConfigError(f"cache_size is at least 1; got {self.cache_size!r}")

    @property
    def worker_command(self) -> tuple[str, ...]:
        """What is executed."""
        worker = Path(__file__).with_name("worker.py")
        return self.command or (sys.executable, "-P", str(worker), str(self.memory_mb))


@dataclass(frozen=True, slots=True, kw_only=True)
class GraderStatistics:
    """What a grader has done so far.

    Attributes:
        plain: comparisons of plain numbers, decided without the worker.
        cached: comparisons that were remembered.
        requests: readings and comparisons that the worker was asked for.
        timeouts: requests that were cut off by ``time_limit`` or ``wall_limit``.
        crashes: requests under which the worker died twice.
        starts: worker processes started.
    """

    plain: int
    cached: int
    requests: int
    timeouts: int
    crashes: int
    starts: int
