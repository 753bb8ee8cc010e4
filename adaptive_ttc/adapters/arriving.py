"""Problems that come one by one, solved from one budget."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio

from adaptive_ttc.run.pool import SolutionPool
from adaptive_ttc.solution import Solution
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Problem

_PATIENCE = 0.5
"""Seconds for which a pool at rest waits for further problems, before it settles those that it has."""


class ArrivingProblems:
    """One budget for ``expected`` problems, which callers bring one by one, each waiting for its solution.

    They are solved by ``Solver.solve_many``, which takes ``options``. Where callers bring no further problem before
    they have solutions, as they are limited themselves, the pool settles what it has, and another one goes on.
    """

    def __init__(self, solver: Solver, budget: int, expected: int, **options: Any) -> None:
        self._solver, self._left, self._options = solver, budget, options
        self._to_come, self._to_solve = expected, expected
        self._queue: asyncio.Queue[Problem] = asyncio.Queue()
        self._waiting: dict[str, asyncio.Future[Solution]] = {}
        self._pool: SolutionPool | None = None
        self._work: asyncio.Task[None] | None = None

    @property
    def complete(self) -> bool:
        """Whether all have come."""
        return self._to_come <= 0

    async def solve(self, problem: Problem) -> Solution:
        """The solution of one, whose id no other has. Errors as of ``Solver.solve_many``."""
        self._to_come -= 1
        answer: asyncio.Future[Solution] = asyncio.get_running_loop().create_future()
        self._waiting[problem.id] = answer
        self._queue.put_nowait(problem)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._solve_all())
        return await answer

    async def _solve_all(self) -> None:
        try:
            while self._waiting:
                self._pool = self._solver.solve_many(
                    self._source(), budget_tokens=self._left, expected=max(0, self._to_solve), **self._options
                )
                try:
                    async for solution in self._pool:
                        answer = self._waiting.pop(solution.problem.id)
                        if not answer.done():  # its caller is there still
                            answer.set_result(solution)
                finally:
                    self._left -= self._pool.spent
        except Exception as error:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(error)
            self._waiting.clear()
            self._queue = asyncio.Queue()  # nobody waits for what is in it

    async def _source(self) -> AsyncIterator[Problem]:
        while not (self._queue.empty() and self.complete):
            problem = None
            with anyio.move_on_after(_PATIENCE):
                problem = await self._queue.get()
            if problem is not None:
                self._to_solve -= 1
                yield problem
            elif self._pool is not None and not self._pool.statistics().slices:
                self._pool.stop()  # what it has is worth less than those to come
                return
