"""Work in a task of its own, so that a listener may stop listening at any time, and the event loop it belongs to."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, ClassVar, Generic, Self, TypeVar

import anyio
from anyio.abc import TaskGroup

from adaptive_ttc.errors import ConfigError

Told = TypeVar("Told")
Done = TypeVar("Done")


@asynccontextmanager
async def side_by_side() -> AsyncIterator[TaskGroup]:
    """A task group whose first failure is raised as itself, not inside an exception group."""
    try:
        async with anyio.create_task_group() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from first.__cause__


@asynccontextmanager
async def watched(*watchers: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run watchers beside the block, and end them with it; one that fails ends the block with its error.

    Each has a scope of its own, in which its cancellation ends: a task that ends as cancelled stays, with all that its
    frames hold, until the garbage collector comes.
    """
    scopes = [anyio.CancelScope() for _ in watchers]
    async with side_by_side() as tasks:
        for watcher, scope in zip(watchers, scopes, strict=True):
            tasks.start_soon(_within, scope, watcher)
        try:
            yield
        finally:
            for scope in scopes:
                scope.cancel()


async def _within(scope: anyio.CancelScope, watcher: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await watcher()


_called: set[asyncio.Task[None]] = set()  # held, so that none is collected


def call_in_task(call: Callable[[], object]) -> None:
    """Call a function soon, in a task: anyio may not be used in a callback of the event loop, such as a timer's (where
    the package sniffio is installed, it does not find its event loop there).
    """

    async def called() -> None:
        call()

    task = asyncio.get_running_loop().create_task(called())
    _called.add(task)
    task.add_done_callback(_called.discard)


class Signal:
    """An event that calls back, so that what is to happen when it is set needs no task that waits for it."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._calls: dict[object, Callable[[], None]] = {}

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._event.is_set()

    def set(self) -> None:
        """Set it, for good; those who wait go on, and those who are to be called are: at once, and from a callback of
        the event loop, such as a signal's handler, a little later.
        """
        if not self.is_set():
            self._event.set()
            if self._calls and asyncio.current_task() is None:
                call_in_task(self._tell)
            else:
                self._tell()

    def _tell(self) -> None:
        for call in tuple(self._calls.values()):
            call()

    async def wait(self) -> None:
        """Wait until it is set."""
        await self._event.wait()

    @contextmanager
    def calling(self, call: Callable[[], None]) -> Iterator[None]:
        """Meanwhile, have a function called once when it is set, or at once if it was."""
        key = object()
        self._calls[key] = call
        try:
            if self.is_set():
                call()
            yield
        finally:
            del self._calls[key]


class LoopAffinity:
    """The process and the event loop that may use an object: of several loops one after the other, never two at once.

    ``owner`` names the object in errors, such as ``this solver``.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._process = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None

    def check_process(self) -> None:
        """ConfigError: this process is a fork of the one that made the object; threads and connections are not its."""
        if self.forked:
            raise ConfigError(
                f"{self._owner} was made before this process was forked, and its threads and connections are the other "
                "process's: make one of its own in every process"
            )

    def enter(self) -> bool:
        """Use it from the running loop; whether that is another one than before.

        ConfigError: the one before still runs, or this process is a fork.
        """
        self.check_process()
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return False
        if self._loop is not None and self._loop.is_running():
            raise ConfigError(f"{self._owner} is used by another event loop that still runs: make one for each loop")
        self._loop = loop
        return True

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of the one that made the object."""
        return os.getpid() != self._process

    @property
    def is_here(self) -> bool:
        """Whether the running loop, which must be one, was the last to use it."""
        return self._loop is asyncio.get_running_loop() and not self.forked


def refuse_running_loop(name: str, remedy: str) -> None:
    """ConfigError, with the remedy, where an event loop runs."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigError(f"{name} cannot be called where an event loop runs, as in a notebook: write `{remedy}` there")


class Background(ABC, Generic[Told, Done]):
    """Work that begins when it is first iterated, awaited or entered: a queue to be iterated once, and a task."""

    _once: ClassVar[str]  # message for a second iteration

    _left: ClassVar[str]  # message for those who wait for work that was cancelled

    def __init__(self) -> None:
        self._stop = Signal()
        self._told: asyncio.Queue[Told | None] = asyncio.Queue()
        self._task: asyncio.Task[Done] | None = None
        self._iterated = False
        self._followers = 0

    @property
    def final(self) -> bool:
        """Whether the work has ended, done, failed or cancelled, and everything is counted."""
        return self._task is not None and self._task.done()

    async def aclose(self) -> None:
        """Cancel what is under way and wait until the engines are idle and everything is counted."""
        if self._task is None:
            return
        self._task.cancel()
        with anyio.CancelScope(shield=True), suppress(asyncio.CancelledError, Exception):
            await self._task

    def __aiter__(self) -> AsyncIterator[Told]:
        if self._iterated:
            raise ConfigError(self._once)
        self._iterated = True
        # A generator of its own: when a loop over it is left, nothing else holds it and it is closed.
        return self._listen()

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    @abstractmethod
    def _work(self) -> Coroutine[Any, Any, Done]:
        """What the task runs; called once."""

    @abstractmethod
    def _listen(self) -> AsyncIterator[Told]:
        """The items of the queue, until the work has ended."""

    def _start(self) -> asyncio.Task[Done]:
        if self._task is None:
            self._task = asyncio.create_task(self._work())
            self._task.add_done_callback(lambda task: self._told.put_nowait(None))
        return self._task

    async def _wait(self) -> Done:
        """The result. Cancelling the only follower cancels the work; while others follow it goes on for them."""
        task = self._start()
        with self._following():
            try:
                # not the task itself: a waiter that is cancelled does not end what others wait for
                await asyncio.wait([task])
            except asyncio.CancelledError:
                if self._followers == 1:
                    await self.aclose()
                raise
        return self._result()

    @contextmanager
    def _following(self) -> Iterator[None]:
        self._followers += 1
        try:
            yield
        finally:
            self._followers -= 1

    def _result(self) -> Done:
        """Of the task, which has ended."""
        assert self._task is not None
        if self._task.cancelled():
            raise ConfigError(self._left)
        return self._task.result()
