"""Workers as processes of this machine, each at the end of a pipe; it knows nothing of what they say."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Collection
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import cast

from adaptive_ttc.calibration.spread import Died, Hand, Heard
from adaptive_ttc.calibration.worker import Job, Task, work

_SPAWN = multiprocessing.get_context("spawn")  # a fork of a process with running threads may hang


class WorkerProcess:
    """A process and the line to it."""

    def __init__(self, job: Job) -> None:
        self.line, other = _SPAWN.Pipe()
        self.process: BaseProcess = _SPAWN.Process(target=_live, args=(job, other), daemon=True)
        self.process.start()
        other.close()

    def give(self, task: Task | None) -> None:
        """Answer it."""
        with suppress(OSError):  # it has died meanwhile, which the line tells
            self.line.send(task)

    def leave(self) -> None:
        """Wait for its end."""
        self.process.join()
        self.line.close()

    def end(self) -> None:
        """End it now."""
        self.process.terminate()
        self.leave()

    def heard(self) -> Heard:
        """What it said, or how it ended."""
        try:
            return Heard(self, self.line.recv())
        except (EOFError, OSError):
            self.process.join()
            return Heard(self, Died(f"code {self.process.exitcode}"))


class Processes:
    """Starts processes and listens to them."""

    def hire(self, job: Job) -> WorkerProcess:
        """Start one."""
        return WorkerProcess(job)

    def hear(self, hands: Collection[Hand]) -> list[Heard]:
        """Wait for the next messages, one of each process that has something to say."""
        processes = {one.line: one for one in cast(Collection[WorkerProcess], hands)}
        return [processes[cast(Connection, line)].heard() for line in wait(list(processes))]


def _live(job: Job, line: Connection) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the foreman, who ends the workers
    try:
        work(job, line)
    except (BrokenPipeError, EOFError):
        sys.exit(1)  # the foreman is gone
