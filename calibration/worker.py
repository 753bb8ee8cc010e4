"""A worker's life: it takes problems from a line, draws what they lack, and tells all; it knows no file and no other.

What the line is made of (a pipe to another process, calls of a Ray actor) is for whoever started the worker.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import anyio

from adaptive_ttc.calibration.collect import Advance, Collected, collect
from adaptive_ttc.calibration.key import PoolKey
from adaptive_ttc.calibration.mirror import Addition, Mirror, Stock
from adaptive_ttc.errors import AdaptiveTTCError, CalibrationError
from adaptive_ttc.evaluation.datasets import Row
from adaptive_ttc.solver import Solver


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a worker is to do with its problems; it can be pickled.

    Attributes:
        load: makes the solver.
        demand, key, concurrency, max_tokens_total: see :func:`adaptive_ttc.calibration.collect.collect`.
    """

    load: Callable[[], Solver]
    demand: Mapping[str, int]
    key: PoolKey
    concurrency: int
    max_tokens_total: int | None = None


@dataclass(frozen=True, slots=True)
class Next:
    """A worker has room for a problem; it is answered with a :class:`Task`, or None when there is no more."""


@dataclass(frozen=True, slots=True)
class Task:
    """A problem and what is stored of it."""

    row: Row
    stock: Stock | None


@dataclass(frozen=True, slots=True)
class Progress:
    """So much more is done, and is to be written: in one message, so that all of it counts or nothing."""

    advance: Advance
    additions: list[Addition]


Message: TypeAlias = Next | Progress | Collected | AdaptiveTTCError
"""What a worker says; one of the last two is its last word."""


class Line(Protocol):
    """A worker's line to whoever hands out problems."""

    def send(self, message: Message, /) -> None:
        """Say something."""

    def recv(self) -> Any:
        """Wait for the answer."""


def work(job: Job, line: Line) -> None:
    """Draw until there are no more problems."""
    try:
        line.send(anyio.run(_collect, job, line))
    except AdaptiveTTCError as error:
        line.send(error)
    except (BrokenPipeError, EOFError):
        raise  # nobody listens
    except Exception:
        line.send(CalibrationError(f"a worker failed:\n{traceback.format_exc()}"))


async def _collect(job: Job, line: Line) -> Collected:
    with Mirror() as mirror:

        def report(advance: Advance) -> None:
            line.send(Progress(advance, mirror.taken()))
            if advance.problem is not None:
                mirror.forget(advance.problem)

        async with job.load() as solver:
            return await collect(
                solver,
                _handed_out(job.key, line, mirror),
                job.demand,
                mirror,
                job.key,
                concurrency=job.concurrency,
                max_tokens_total=job.max_tokens_total,
                report=report,
            )


def _handed_out(key: PoolKey, line: Line, mirror: Mirror) -> Iterator[Row]:
    """Problems, for which one waits only as long as an answer takes."""
    while True:
        line.send(Next())
        task: Task | None = line.recv()
        if task is None:
            return
        if task.stock is not None:
            mirror.copy(key, task.row, task.stock)
        yield task.row
