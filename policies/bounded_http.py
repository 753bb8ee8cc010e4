"""Bodies of HTTP answers that have an end: what a server sends without one is cut off, never gathered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import anyio
import httpx2

_ERROR_BYTES = 4096  # of an error's body that are read
_ERROR_SECONDS = 5.0  # that are waited for them


class UnboundedError(httpx2.TransportError):
    """A body is longer than it may be, or compressed, so that nobody knows how long it becomes."""


@asynccontextmanager
async def bounded(
    client: httpx2.AsyncClient, method: str, url: str, *, most: int, **request: Any
) -> AsyncIterator[httpx2.Response]:
    """``client.stream(method, url, **request)``, of whose body no more than ``most`` bytes are read.

    Leaving it closes the connection, unless the body was read to its end. Raises UnboundedError where it is longer,
    and whatever ``client.stream`` raises.
    """
    async with client.stream(method, url, headers={"Accept-Encoding": "identity"}, **request) as response:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise UnboundedError(f"it sends {response.headers['content-encoding']!r} where none may be compressed")
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Bounded(response.stream, most)
        yield response


async def beginning(response: httpx2.Response) -> str:
    """What an error's body begins with, as far as it comes at once."""
    said = b""
    with suppress(httpx2.TransportError), anyio.move_on_after(_ERROR_SECONDS):
        async with aclosing(response.aiter_bytes()) as parts:
            async for part in parts:
                said += part
                if len(said) >= _ERROR_BYTES:
                    break
    return said[:_ERROR_BYTES].decode("utf-8", "replace")


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, most: int) -> None:
        self._stream, self._most = stream, most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self._stream:
            size += len(part)
            if size > self._most:
                raise UnboundedError(f"it sends more than {self._most:,} bytes")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()
