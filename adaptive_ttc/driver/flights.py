"""Requests on their way to the policy, called back without losing their token counts; it knows no ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
from anyio.abc import TaskGroup

from adaptive_ttc.errors import EngineError
from adaptive_ttc.policy import Policy, Sampled, SampleRequest


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


class Flights:
    """The requests of one round.

    A task that is cancelled inside ``policy.sample`` would never learn how many tokens its request had
    got. So every call runs under a shield, and whoever wants it to end early calls :meth:`recall`.

    Args:
        policy: where the requests go.
        grace: seconds that a recalled request has to come back; after them its count is given up.
    """

    def __init__(self, policy: Policy, grace: float) -> None:
        self._policy = policy
        self._grace = grace
        self._shields: dict[str, anyio.CancelScope] = {}
        self._recalled = False

    async def sample(self, request: SampleRequest) -> Sampled | None:
        """Call the policy; None when the call was recalled and did not come back within the grace."""
        if self._recalled:
            return Sampled(token_ids=(), finish="abort")
        with anyio.CancelScope(shield=True) as shield:
            self._shields[request.id] = shield
            try:
                return await self._policy.sample(request)
            finally:
                del self._shields[request.id]
        return None

    async def recall(self) -> None:
        """Abort everything in flight; the pending :meth:`sample` calls then return what they have got.

        A call that has not set out yet does not: it returns with nothing.
        """
        self._recalled = True
        limit = anyio.current_time() + self._grace
        for shield in self._shields.values():
            shield.deadline = limit
        with anyio.CancelScope(shield=True, deadline=limit):
            async with side_by_side() as tasks:
                for request_id in list(self._shields):
                    tasks.start_soon(self._abort, request_id)

    async def _abort(self, request_id: str) -> None:
        # A policy that cannot even abort must not hide why the requests are recalled; the grace bounds the wait.
        with suppress(EngineError):
            await self._policy.abort(request_id)
