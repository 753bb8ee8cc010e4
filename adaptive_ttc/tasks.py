"""Work in a task of its own, so that a listener may stop listening at any time."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine, Iterator
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


class Background(ABC, Generic[Told, Done]):
    """Work that begins when it is first iterated, awaited or entered: a queue to be iterated once, and a task."""

    _once: ClassVar[str]  # message for a second iteration

    _left: ClassVar[str]  # message for those who wait for work that was cancelled

    def __init__(self) -> None:
        self._stop = anyio.Event()
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
