"""Lets so many requests pass at once, the others in order of priority and arrival; it knows no request."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import anyio


class Gate:
    """A semaphore whose queue is sorted.

    Args:
        places: how many may be inside at once.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._queue: list[tuple[int, int, anyio.Event]] = []
        self._arrivals = count()

    @property
    def waiting(self) -> int:
        """How many wait outside."""
        return len(self._queue)

    @asynccontextmanager
    async def place(self, priority: int) -> AsyncIterator[None]:
        """Be inside; a lower priority enters first."""
        if self._free and not self._queue:
            self._free -= 1
        else:
            await self._wait(priority)
        try:
            yield
        finally:
            self._leave()

    async def _wait(self, priority: int) -> None:
        entry = (priority, next(self._arrivals), anyio.Event())
        heapq.heappush(self._queue, entry)
        try:
            await entry[2].wait()
        except BaseException:
            if entry[2].is_set():
                self._leave()
            else:
                self._queue.remove(entry)
                heapq.heapify(self._queue)
            raise

    def _leave(self) -> None:
        """Hand the place to the first in the queue."""
        if self._queue:
            heapq.heappop(self._queue)[2].set()
        else:
            self._free += 1
