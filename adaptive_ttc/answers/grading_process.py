"""Keeps one grading worker alive and puts requests to it under a time limit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

from adaptive_ttc.errors import ConfigError, GradingError

_POLL = 0.05  # seconds after which a wait looks whether it was abandoned


class WorkerLateError(Exception):
    """No reply within the limit; the process is still at work."""


class WorkerDiedError(Exception):
    """The process has ended, or speaks no protocol; the message is what it said last."""


class WaitAbandonedError(Exception):
    """The caller no longer wants the reply; the process is still at work."""


class WorkerProcess:
    """A subprocess (``command``) that speaks JSON lines, in a session of its own so that Ctrl-C does not reach it.

    It is executed, never forked from a process that has threads, and is not bound to an event loop. Standard error is
    read together with standard output, so that a failed start can say why. Not thread-safe: one request at a time.
    OSError if the program cannot be executed.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Symbols are ordered by hash in places: the same comparison must come out the same tomorrow.
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input: IO[bytes] = self._process.stdin
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        self._noise: deque[str] = deque(maxlen=12)
        reader = threading.Thread(target=_read, args=(self._process.stdout, self._lines), daemon=True)
        reader.start()
        self._finalizer = weakref.finalize(self, _end, self._process, reader, os.getpid())
        self.pid = self._process.pid
        self.owner = os.getpid()

    def send(self, message: Mapping[str, object]) -> None:
        """Write one request; raises :class:`WorkerDiedError`."""
        try:
            self._input.write(json.dumps(message).encode("ascii") + b"\n")
            self._input.flush()
        except OSError as error:
            raise WorkerDiedError(self._last_output()) from error

    def receive(self, limit: float, abandoned: Callable[[], bool]) -> dict[str, Any]:
        """Wait at most ``limit`` seconds for one reply.

        Raises WorkerLateError when there is none in time, WorkerDiedError when the process ended, and
        WaitAbandonedError once ``abandoned()`` is true.
        """
        deadline = time.monotonic() + limit
        while True:
            if abandoned():
                raise WaitAbandonedError
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise WorkerLateError
            try:
                line = self._lines.get(timeout=min(remaining, _POLL))
            except Empty:
                continue
            if not line:
                raise WorkerDiedError(self._last_output())
            with contextlib.suppress(ValueError):
                message = json.loads(line)
                if isinstance(message, dict):
                    return message
            self._noise.append(line.decode("utf-8", "replace").rstrip())

    def ran_out_of_time(self) -> bool:
        """Whether this process, which has died, was ended by its timer of processor time."""
        if sys.platform == "win32":
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):
            # A sandbox around the worker reports its signal as 128 + signal.
            return self._process.wait(timeout=1) in (-signal.SIGPROF, 128 + signal.SIGPROF)
        return False

    def kill(self) -> None:
        """End the process and all that it started, and reap it; may be called again."""
        self._finalizer()

    def _last_output(self) -> str:
        return "\n".join(self._noise) or "it said nothing"


def _read(stream: IO[bytes], lines: SimpleQueue[bytes]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(b"")


def _end(process: subprocess.Popen[bytes], reader: threading.Thread, owner: int) -> None:
    if os.getpid() != owner:  # a forked copy of the owner: the process is not its to end
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        elif process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    process.wait()
    if reader is not threading.current_thread():
        reader.join()
        if process.stdout is not None:
            process.stdout.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class GradingConfig:
    """How the grading worker is run."""

    # seconds of processor time (wall time would depend on the machine's load) to read one answer or compare two; what
    # takes longer is unreadable, or not equal
    time_limit: float = 3.0
    wall_limit: float = 60.0  # the same of wall time, for a worker that is stopped, or a system without such timers
    start_limit: float = 120.0  # seconds of wall time that the worker may take to start
    memory_mb: int = 2048  # address space of the worker in MiB, where the system can bound it
    cache_size: int = 65536  # comparisons and readings that are remembered
    command: tuple[str, ...] = ()  # the worker's, for a sandbox around it; see :attr:`worker_command` for the default

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
        """What is executed; by default this interpreter with ``adaptive_ttc/answers/worker.py`` and ``memory_mb``."""
        worker = Path(__file__).with_name("worker.py")
        return self.command or (sys.executable, "-P", str(worker), str(self.memory_mb))


Request = Mapping[str, str]

_GRACE = 0.2  # seconds that an abandoned request may still take, before the worker is killed rather than kept


class Supervisor:
    """One worker process, started when it is first needed and replaced when it hangs or dies.

    Thread-safe; requests are served one after the other. It counts those of
    :class:`~adaptive_ttc.answers.equivalence.GraderStatistics` that concern the worker.
    """

    def __init__(self, config: GradingConfig) -> None:
        self._config = config
        self._turn = threading.Lock()
        self._closing = threading.Event()
        self._worker: WorkerProcess | None = None
        self._ready = False
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

    def ask(self, request: Request, abandoned: Callable[[], bool]) -> bool:
        """Put a question to the worker; GradingError: the worker cannot be started, or the supervisor is closed.

        A request that exceeds its time, or under which the worker dies twice, is answered with False, and the worker
        replaced. ``abandoned`` is polled from this thread; once it is true the call ends soon with
        :class:`WaitAbandonedError`.
        """
        message = {**request, "limit": self._config.time_limit}

        def unwanted() -> bool:
            return abandoned() or self._closing.is_set()

        with self._turn:
            self.requests += 1
            for _ in range(2):  # a death need not be the request's fault: the system may have taken the memory
                worker = self._started(unwanted)
                try:
                    worker.send(message)
                    return worker.receive(self._config.wall_limit, unwanted).get("value") is True
                except (WorkerDiedError, WorkerLateError) as error:
                    late = isinstance(error, WorkerLateError) or worker.ran_out_of_time()
                    self._discard()
                    if late:
                        self.timeouts += 1
                        return False
                except WaitAbandonedError:
                    self._settle(worker)
                    self._refuse_if_closed()
                    raise
                except BaseException:  # Ctrl-C between question and reply: the next reply would answer the wrong one
                    self._discard()
                    raise
            self.crashes += 1
            return False

    def close(self) -> None:
        """End the worker, and waiting requests with :class:`GradingError`; may be called again."""
        self._closing.set()
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
