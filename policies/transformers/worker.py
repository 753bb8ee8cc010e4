"""Runs an engine in one thread, so that no event loop waits for the model; it knows no model and no request."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol


class Stepper(Protocol):
    """What the thread drives."""

    @property
    def idle(self) -> bool:
        """Nothing is to be done."""
        ...

    def step(self) -> None:
        """Do a little of it."""
        ...

    def fail(self, error: Exception) -> None:
        """A step raised."""
        ...

    def close(self) -> None:
        """The thread ends."""
        ...


class EngineThread:
    """A thread that steps an engine while there is work, and runs what is posted between two steps.

    Args:
        name: of the thread.
        engine: what it drives; nobody else may from then on.
    """

    def __init__(self, name: str, engine: Stepper) -> None:
        self._engine = engine
        self._posted: deque[Callable[[], object]] = deque()
        self._wake = threading.Condition()
        self._closed = False
        # a daemon, so that a process whose user forgot aclose can end
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start it."""
        self._thread.start()

    def post(self, command: Callable[[], object]) -> bool:
        """Have a command run between two steps; False if the thread is closed and never will."""
        with self._wake:
            if self._closed:
                return False
            self._posted.append(command)
            self._wake.notify()
            return True

    def close(self) -> None:
        """Ask the thread to end; what was posted before still runs."""
        with self._wake:
            self._closed = True
            self._wake.notify()

    def join(self) -> None:
        """Wait until the thread has ended."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        engine = self._engine
        while True:
            with self._wake:
                while not (self._posted or self._closed or not engine.idle):
                    self._wake.wait()
                closed = self._closed
                commands = list(self._posted)
                self._posted.clear()
            for command in commands:
                self._guarded(command)
            if closed:
                engine.close()
                return
            self._guarded(engine.step)

    def _guarded(self, action: Callable[[], object]) -> None:
        """A thread that died would leave every caller waiting: whatever is raised, they are told."""
        try:
            action()
        except Exception as error:
            self._engine.fail(error)
