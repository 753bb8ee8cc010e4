"""Who may send a request now: so many at once, the others in order of priority and arrival."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import anyio


class Gate:
    """Lets ``places`` requests in at once, the others in order of priority and arrival."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._inside = 0
        self._queue: list[tuple[int, int, anyio.Event]] = []
        self._arrivals = count()

    @property
    def waiting(self) -> int:
        """How many wait outside."""
        return len(self._queue)

    def resize(self, places: int) -> None:
        """Have so many places from now on; those who are inside stay."""
        self._places = places
        self._let_in()

    @asynccontextmanager
    async def place(self, priority: int) -> AsyncIterator[None]:
        """Be inside; a lower priority enters first."""
        if self._inside < self._places and not self._queue:
            self._inside += 1
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
        self._inside -= 1
        self._let_in()

    def _let_in(self) -> None:
        """Hand free places to the first in the queue."""
        while self._queue and self._inside < self._places:
            self._inside += 1
            heapq.heappop(self._queue)[2].set()
