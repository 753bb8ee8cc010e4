"""The page of a server, at ``/``, and what it asks: ``/live`` tells of all problems, ``/live/ID`` draws one's tree.

The page itself holds nothing of anybody. Where there are keys, it sends the one that is typed into it as a header.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from adaptive_ttc.serve.accounts import Account
from adaptive_ttc.serve.asked import RefusedError
from adaptive_ttc.serve.clients import timely
from adaptive_ttc.serve.config import ServeConfig
from adaptive_ttc.serve.live import Live
from adaptive_ttc.tracing.page.board import LIVE_POLICY, live_page

_GUARDED = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_APART = "default-src 'none'; sandbox"  # of what is no page of its own


class _Messages(StreamingResponse):
    """A stream that ends where its client takes nothing for so many ``seconds``."""

    def __init__(self, *told: Any, seconds: float, **named: Any) -> None:
        super().__init__(*told, **named)
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.CancelScope() as whole:
            await super().__call__(scope, receive, timely(send, self._seconds, whole))


class Page:
    """Serves the page; ``account_of`` says whose a request is, and raises RefusedError where it is nobody's."""

    def __init__(self, live: Live, config: ServeConfig, account_of: Callable[[Request], Account]) -> None:
        self._live, self._config, self._account_of = live, config, account_of
        self._html = live_page(f"{config.model} at work")
        self.routes = [
            Route("/", self._page),
            Route("/live", self._messages),
            Route("/live/{id}", self._tree),
        ]

    async def _page(self, request: Request) -> Response:
        headers = {**_GUARDED, "Content-Security-Policy": LIVE_POLICY}
        return Response(self._html, headers=headers, media_type="text/html")

    async def _messages(self, request: Request) -> Response:
        account = self._watcher(request)
        self._live.check_room()
        headers = {**_GUARDED, "Content-Security-Policy": _APART}
        return _Messages(
            self._live.messages(account),
            headers=headers,
            media_type="text/event-stream",
            seconds=self._config.write_timeout,
        )

    async def _tree(self, request: Request) -> Response:
        html = await self._live.tree(request.path_params["id"], self._watcher(request))
        headers = {**_GUARDED, "Content-Security-Policy": _APART}
        return Response(html, headers=headers, media_type="text/html")

    def _watcher(self, request: Request) -> Account:
        """Whose problems are asked for. RefusedError: nobody's.

        Without keys, what asks must have come by this machine's address: the owner of any other name could make it
        point here, and so read this from a page of theirs.
        """
        if not self._config.keys and not _is_address(request.url.hostname or ""):
            raise RefusedError(
                "without API keys the page is shown at the server's address alone, such as http://127.0.0.1:8000/: "
                "open that, or serve with --keys FILE",
                status=403,
            )
        return self._account_of(request)


def _is_address(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
