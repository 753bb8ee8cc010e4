"""Keeps one grading worker alive and puts requests to it under limits of time and memory."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptive_ttc.answers.worker_process import WaitAbandonedError, WorkerDiedError, WorkerLateError, WorkerProcess
from adaptive_ttc.errors import ConfigError, GradingError

_log = logging.getLogger(__package__)


@dataclass(frozen=True, slots=True, kw_only=True)
class GradingConfig:
    """How the grading workers are run."""

    # seconds of processor time (wall time would depend on the machine's load) to read one answer or compare two; what
    # takes longer is left undecided
    time_limit: float = 3.0
    wall_limit: float = 60.0  # the same of wall time, for a worker that is stopped, or a system without such timers
    problem_limit: float = 60.0  # seconds of processor time for the answers of one problem
    start_limit: float = 120.0  # seconds of wall time that the worker may take to start
    workers: int = 4  # processes at most; another is started when a question has waited for a second
    memory_mb: int = 2048  # address space of a worker in MiB, where the system can bound it
    cache_size: int = 65536  # comparisons and readings that are remembered
    cache_mb: int = 64  # MiB that these may take
    command: tuple[str, ...] = ()  # the worker's, for a sandbox around it; see :attr:`worker_command` for the default

    def __post_init__(self) -> None:
        for name in ("time_limit", "wall_limit", "problem_limit", "start_limit"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is a number of seconds above 0; got {getattr(self, name)!r}")
        if self.memory_mb < 512:
            raise ConfigError(f"memory_mb is at least 512, which SymPy needs; got {self.memory_mb!r}")
        for name in ("workers", "cache_size", "cache_mb"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is at least 1; got {getattr(self, name)!r}")

    @property
    def worker_command(self) -> tuple[str, ...]:
        """What is executed; by default this interpreter with ``adaptive_ttc/answers/worker.py`` and ``memory_mb``."""
        worker = Path(__file__).with_name("worker.py")
        return self.command or (sys.executable, "-P", str(worker), str(self.memory_mb))


Request = Mapping[str, str]

_GRACE = 0.2  # seconds that an abandoned request may still take, before the worker is killed rather than kept


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a worker said to one request."""

    value: bool | None  # None: undecided, for want of time or memory
    seconds: float  # of processor time, or of wall time where the worker cannot tell


class Supervisor:
    """One worker process, started when it is first needed and replaced when it hangs or dies.

    Thread-safe; requests are served one after the other. It counts those of
    :class:`~adaptive_ttc.answers.equivalence.GraderStatistics` that concern the worker.
    """

    def __init__(self, config: GradingConfig, closing: threading.Event) -> None:
        self._config = config
        self._turn = threading.Lock()
        self._closing = closing
        self._worker: WorkerProcess | None = None
        self._ready = False
        self.ready_at = float("inf")  # monotonic seconds; infinite while there is no worker, or it starts
        self.requests = self.timeouts = self.crashes = self.starts = 0

    @property
    def pid(self) -> int | None:
        """The process id of the worker, or None while there is none."""
        return None if (worker := self._worker) is None else worker.pid

    def start(self) -> None:
        """Start the worker without waiting for it."""
        if self._turn.acquire(blocking=False):  # who holds it has a worker, or is about to start one
            try:
                self._spawned()
            finally:
                self._turn.release()

    def ask(self, request: Request, limit: float, abandoned: Callable[[], bool]) -> Verdict:
        """Put a question to the worker; GradingError: the worker cannot be started, or the supervisor is closed.

        A question that ends the worker, for want of memory or for a reason unknown, is put once more to a fresh one;
        one that exceeds its ``limit`` of processor time is not, as that does not depend on what the worker did before.
        ``abandoned`` is polled from this thread; once it is true the call ends soon with
        :class:`~adaptive_ttc.answers.worker_process.WaitAbandonedError`.
        """

        def unwanted() -> bool:
            return abandoned() or self._closing.is_set()

        seconds = 0.0
        lost = ""
        with self._turn:
            self.requests += 1
            for _ in range(2):
                reply = self._reply({**request, "limit": limit}, unwanted)
                seconds += reply["seconds"]
                if "value" in reply:
                    return Verdict(reply["value"] is True, seconds)
                lost = reply["lost"]
                if lost == "time" or reply["fresh"]:
                    break
            if lost in ("time", "late"):
                self.timeouts += 1
            else:
                self.crashes += 1
            return Verdict(None, seconds)

    def _reply(self, message: Mapping[str, object], unwanted: Callable[[], bool]) -> dict[str, Any]:
        worker = self._started(unwanted)
        began = time.monotonic()
        try:
            worker.send(message)
            return worker.receive(self._config.wall_limit, unwanted)
        except (WorkerDiedError, WorkerLateError) as error:
            self._discard()
            lost = "late" if isinstance(error, WorkerLateError) else "death"
            _log.warning("the grading worker ended (%s): the next question starts another one", lost)
            return {"lost": lost, "fresh": False, "seconds": time.monotonic() - began}
        except WaitAbandonedError:
            self._settle(worker)
            self._refuse_if_closed()
            raise
        except BaseException:  # Ctrl-C between question and reply: the next reply would answer the wrong one
            self._discard()
            raise

    def close(self) -> None:
        """End the worker; may be called again. What it is asked meanwhile ends once ``closing`` is set."""
        with self._turn:
            self._discard()

    def _started(self, abandoned: Callable[[], bool]) -> WorkerProcess:
        """The worker, once it has said that it is ready."""
        said = ""
        for _ in range(2):
            worker = self._spawned()
            if self._ready:
                return worker
            try:
                message = worker.receive(self._config.start_limit, abandoned)
            except WaitAbandonedError:
                self._refuse_if_closed()
                raise  # the worker goes on starting
            except WorkerLateError:
                said = f"it was not ready within start_limit = {self._config.start_limit:g} seconds"
            except WorkerDiedError as error:
                said = str(error)
            else:
                self._ready = message.get("ready") is True
                if self._ready:
                    self.ready_at = time.monotonic()
                    return worker
                said = str(message.get("error", message))
            self._discard()
        raise GradingError(
            f"the grading worker did not start: {said}\n"
            f"Its command is {' '.join(self._config.worker_command)!r}; check that it runs, and that "
            "pip install 'math-verify[antlr4_13_2]' was done for this interpreter."
        )

    def _spawned(self) -> WorkerProcess:
        self._refuse_if_closed()
        if self._worker is not None and self._worker.owner != os.getpid():
            self._worker = None  # this process is a fork of the worker's owner, who still uses it
        if self._worker is None:
            try:
                self._worker = WorkerProcess(self._config.worker_command)
            except OSError as error:
                raise GradingError(
                    f"the grading worker cannot be executed: {error}; check GradingConfig.command"
                ) from error
            self._ready = False
            self.ready_at = float("inf")
            self.starts += 1
        return self._worker

    def _settle(self, worker: WorkerProcess) -> None:
        """Take the unwanted reply, if it comes soon: a restart costs more than the wait."""
        try:
            worker.receive(_GRACE, self._closing.is_set)
        except (WorkerLateError, WorkerDiedError, WaitAbandonedError):
            self._discard()

    def _discard(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def _refuse_if_closed(self) -> None:
        if self._closing.is_set():
            raise GradingError("this grader is closed; make a new one")
