"""Ctrl-C and SIGTERM end a command in order, and for good where that takes too long.

Both are obeyed even where the shell has them ignored, as for jobs in the background.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from adaptive_ttc.errors import ConfigError

PATIENCE = 2.0
"""Seconds that an interrupted command may take to end its work, before its process is ended.

What it keeps is whole at any moment; only its last words are lost then.
"""

GRACE = 1.0
"""Seconds that the engine requests of a command have to tell what they generated when they are aborted."""

Result = TypeVar("Result")


class Interruption:
    """The signal that came, if any, and what is ended by it."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._cancel: Callable[[], object] | None = None
        self._watch: threading.Timer | None = None

    @property
    def code(self) -> int:
        """The exit code that shells know: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + (self.signal or signal.SIGINT)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """End the work in order; at once when it is the second signal."""
        if self.signal is not None:
            self._end()
        self.signal = number
        self._watch = threading.Timer(PATIENCE, self._end)
        self._watch.daemon = True
        self._watch.start()
        if self._cancel is None:
            raise KeyboardInterrupt
        self._cancel()

    def relax(self) -> None:
        """The work has ended: what is left may take its time."""
        if self._watch is not None:
            self._watch.cancel()

    def run(self, work: Callable[..., Awaitable[Result]], *arguments: Any) -> Result:
        """Run work in an event loop. KeyboardInterrupt: a signal came, and it was cancelled."""

        async def cancellable() -> Result:
            task, loop = asyncio.current_task(), asyncio.get_running_loop()
            assert task is not None
            self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
            return await work(*arguments)

        try:
            with asyncio.Runner() as runner:
                return runner.run(cancellable())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        finally:
            self._cancel = None
            self.relax()

    def _end(self) -> None:
        """End this process, and those that it has started."""
        for process in multiprocessing.active_children():
            process.terminate()
        with contextlib.suppress(OSError):
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"interrupted: ended before it was idle\n")
        os._exit(self.code)


_current: Interruption | None = None


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Meanwhile, SIGINT and SIGTERM interrupt what runs; those of another thread are not ours."""
    global _current
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.signal(number, interruption.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    outer, _current = _current, interruption
    try:
        yield interruption
    finally:
        _current = outer
        interruption.relax()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Meanwhile a signal interrupts nothing: the work asks whether one came, and takes its time to save and end by
    KeyboardInterrupt. A second signal ends the process.
    """
    asked, current = threading.Event(), _current or Interruption()

    def ask() -> None:
        current.relax()
        asked.set()

    before, current._cancel = current._cancel, ask
    try:
        yield asked.is_set
    finally:
        current._cancel = before


def run(work: Callable[..., Awaitable[Result]], *arguments: Any) -> Result:
    """Run the work of a command in an event loop, so that a signal cancels it. KeyboardInterrupt: one came."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return (_current or Interruption()).run(work, *arguments)
    raise ConfigError("a command cannot be run where an event loop runs: run it as a process")
