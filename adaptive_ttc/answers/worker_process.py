"""A subprocess that answers JSON lines, one request at a time; it knows nothing of grading."""

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
from queue import Empty, SimpleQueue
from typing import IO, Any

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
