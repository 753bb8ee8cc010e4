"""Spreads a collection over worker processes of this machine, each with models of its own; it draws nothing itself.

Workers take problems one by one and write into the same store. The problems of one that dies are given to others:
what it had written stays, and nothing is written twice.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import anyio

from adaptive_ttc.datasets import Row
from adaptive_ttc.errors import AdaptiveTTCError, CalibrationError, ConfigError
from adaptive_ttc.solver import Solver
from calibration.collect import Advance, Collected, collect
from calibration.key import PoolKey
from calibration.store import Store

_SPAWN = multiprocessing.get_context("spawn")  # a fork of a process with running threads may hang


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a worker is to do with its problems; it can be pickled.

    Attributes:
        load: makes the solver.
        store: the file.
        demand, key, concurrency, max_tokens_total: see :func:`calibration.collect.collect`.
    """

    load: Callable[[], Solver]
    store: Path
    demand: Mapping[str, int]
    key: PoolKey
    concurrency: int
    max_tokens_total: int | None = None


@dataclass(slots=True, eq=False)
class _Worker:
    """A process, the line to it, and the problems that it has not completed."""

    process: BaseProcess
    line: Connection
    at_work: dict[str, Row] = field(default_factory=dict)
    useful: bool = False


def spread(job: Job, rows: Sequence[Row], workers: int, report: Callable[[Advance], None] | None = None) -> Collected:
    """Do a job with several processes.

    Args:
        job: what is to be done; what may be generated is divided equally among the workers.
        rows: the problems.
        workers: how many processes.
        report: told of every unit and every complete problem.

    Raises:
        ConfigError: no worker, or a ceiling too low to be divided.
        CalibrationError: a worker died before it got anything done.
        AdaptiveTTCError: what a worker raised.
    """
    if workers < 1:
        raise ConfigError(f"workers={workers} must be at least 1")
    if job.max_tokens_total is not None:
        if job.max_tokens_total < workers:
            raise ConfigError(f"max_tokens_total={job.max_tokens_total} is less than a token for each of {workers}")
        job = replace(job, max_tokens_total=job.max_tokens_total // workers)
    foreman = _Foreman(job, deque(rows), report or (lambda advance: None))
    try:
        foreman.employ(min(workers, len(rows)))
        return foreman.oversee()
    finally:
        foreman.dismiss()


@dataclass(slots=True)
class _Foreman:
    """Hands out problems and listens."""

    job: Job
    pending: deque[Row]
    report: Callable[[Advance], None]
    workers: list[_Worker] = field(default_factory=list)
    collected: Collected = field(default_factory=Collected)

    def employ(self, number: int) -> None:
        """Start workers."""
        for _ in range(number):
            line, other = _SPAWN.Pipe()
            process = _SPAWN.Process(target=_work, args=(self.job, other), daemon=True)
            process.start()
            other.close()
            self.workers.append(_Worker(process, line))

    def oversee(self) -> Collected:
        """Serve the workers until all have ended."""
        while self.workers:
            ready = wait([worker.line for worker in self.workers])
            for worker in [one for one in self.workers if one.line in ready]:
                try:
                    message = worker.line.recv()
                except (EOFError, OSError):
                    self._bury(worker)
                else:
                    self._answer(worker, message)
        return self.collected

    def dismiss(self) -> None:
        """End all that still run; what they have written stays."""
        for worker in self.workers:
            worker.process.terminate()
        for worker in self.workers:
            worker.process.join()
            worker.line.close()

    def _answer(self, worker: _Worker, message: object) -> None:
        match message:
            case "next":
                row = self.pending.popleft() if self.pending else None
                if row is not None:
                    worker.at_work[row["unique_id"]] = row
                worker.line.send(row)
            case Advance():
                worker.useful = True
                worker.at_work.pop(message.problem or "", None)
                self.collected.note(message)
                self.report(message)
            case Collected():
                self.collected.ended_early = self.collected.ended_early or message.ended_early
                worker.at_work.clear()
            case BaseException():
                raise message

    def _bury(self, worker: _Worker) -> None:
        """A worker has ended; if not by itself, its problems are others' now."""
        self.workers.remove(worker)
        worker.process.join()
        worker.line.close()
        if not worker.process.exitcode:
            return
        if not worker.useful:
            raise CalibrationError(
                f"a worker ended with code {worker.process.exitcode} before it got anything done: is there memory for "
                "so many copies of the models? take fewer workers; what is stored stays"
            )
        self.pending.extendleft(reversed(worker.at_work.values()))
        if self.job.max_tokens_total is None and self.pending:
            self.employ(1)
        elif self.pending:  # nobody knows what it had generated of its part, so its part is taken as used up
            self.collected.ended_early = "a worker died, and its part of the tokens with it; the same command goes on"


def _work(job: Job, line: Connection) -> None:
    """A worker's life."""
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the foreman, who ends the workers
    try:
        line.send(anyio.run(_collect, job, line))
    except AdaptiveTTCError as error:
        line.send(error)
    except (BrokenPipeError, EOFError):
        sys.exit(1)  # the foreman is gone
    except Exception:
        line.send(CalibrationError(f"a worker failed:\n{traceback.format_exc()}"))


async def _collect(job: Job, line: Connection) -> Collected:
    with Store(job.store) as store:
        async with job.load() as solver:
            return await collect(
                solver,
                _handed_out(line),
                job.demand,
                store,
                job.key,
                concurrency=job.concurrency,
                max_tokens_total=job.max_tokens_total,
                report=line.send,
            )


def _handed_out(line: Connection) -> Iterator[Row]:
    """Problems from the foreman, who answers at once."""
    while True:
        line.send("next")
        row = line.recv()
        if row is None:
            return
        yield row
