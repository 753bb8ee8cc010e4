"""Delivers the tokens of recorded samples turn by turn, so that they can be aborted midway as an engine's can."""

from __future__ import annotations

import anyio
import anyio.lowlevel


class Turns:
    """What is being delivered now: the base of the policies that answer from recorded samples."""

    def __init__(self, turn_tokens: int) -> None:
        self._turn_tokens = turn_tokens
        self._aborts: dict[str, anyio.Event] = {}  # of the requests at work
        self._closed = False

    async def _delivered(self, request_id: str, limit: int) -> int:
        """Tokens that a request got: ``limit``, or fewer where it was aborted."""
        aborted = self._aborts[request_id] = anyio.Event()
        tokens = 0
        try:
            while tokens < limit and not aborted.is_set():
                await anyio.lowlevel.checkpoint()
                tokens = min(limit, tokens + self._turn_tokens)
        finally:
            del self._aborts[request_id]
        return tokens

    async def abort(self, request_id: str) -> None:
        """End a pending sample with the tokens so far; an unknown id is ignored."""
        if request_id in self._aborts:
            self._aborts[request_id].set()
        await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """End what is pending as aborted, and refuse later requests."""
        self._closed = True
        for aborted in self._aborts.values():
            aborted.set()
        await anyio.lowlevel.checkpoint()
