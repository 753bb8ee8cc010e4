"""Clients that leave, and clients that take nothing of what they are sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
from starlette.types import Message, Send


async def leave_with_client(receive: Callable[[], Awaitable[Any]], scope: anyio.CancelScope) -> None:
    """End what is done for a client when it leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def timely(send: Send, seconds: float, scope: anyio.CancelScope) -> Send:
    """``send``, that ends what is done for a client who does not take what it is sent."""

    async def timely(message: Message) -> None:
        with anyio.move_on_after(seconds) as waiting:
            await send(message)
        if waiting.cancelled_caught:
            scope.cancel()
            await anyio.lowlevel.checkpoint()

    return timely
