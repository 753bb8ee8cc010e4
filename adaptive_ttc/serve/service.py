"""The server as an ASGI application: who may ask, what is set aside, what runs, and what is told meanwhile."""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from adaptive_ttc.errors import AdaptiveTTCError, ConfigError
from adaptive_ttc.run.statistics import prometheus
from adaptive_ttc.run.stream import SolutionStream
from adaptive_ttc.run.summary import decision_of, finish_of, told
from adaptive_ttc.serve.accounts import Account, Accounts, Hold, ServeStatistics
from adaptive_ttc.serve.asked import Asked, RefusedError, read_asked
from adaptive_ttc.serve.clients import leave_with_client, timely
from adaptive_ttc.serve.config import ServeConfig
from adaptive_ttc.serve.description import description
from adaptive_ttc.serve.live import Live
from adaptive_ttc.serve.page import Page
from adaptive_ttc.serve.reply import Heading, as_json, error_body, event_of
from adaptive_ttc.solution import Solution
from adaptive_ttc.solver import Solver
from adaptive_ttc.tasks import side_by_side

_log = logging.getLogger(__package__)
_LATER = 3600  # seconds after which those are told to ask again for whom nothing is left that could come back


class Service:
    """Answers requests with a solver, which it does not close; ``app`` is what an ASGI server runs.

    Every request is solved on a budget of its own, which is set aside from the account of its key and from that of
    everybody before anything is drawn; what it did not spend comes back when it ends, also where its client left.
    """

    def __init__(self, solver: Solver, config: ServeConfig) -> None:
        self.solver, self.config = solver, config
        self.accounts = Accounts(config.total_budget, config.keys)
        self._live = Live(self.accounts, config.count, solver.grader)
        page = Page(self._live, config, self._account)
        self.app: ASGIApp = Starlette(
            routes=[
                Route("/v1/chat/completions", self._complete, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/v1/models/{name:path}", self._model),
                Route("/health", self._health),
                Route("/metrics", self._metrics),
                Route("/openapi.json", self._describe),
                *page.routes,
            ],
            middleware=[_cross_origin(config.cors_origins)] if config.cors_origins else [],
            exception_handlers={HTTPException: _no_such, RefusedError: _refused, Exception: _failed},
        )
        self._streams: set[SolutionStream] = set()
        self._places = anyio.Semaphore(config.max_concurrency)
        self._waiting = 0
        self._ending = False
        self._answered, self._seconds = 0, 0.0
        self._began = int(time.time())

    def end(self) -> None:
        """Let all requests end with what they have, and take no more."""
        self._ending = self._live.ended = True
        for stream in tuple(self._streams):
            stream.stop()

    async def _complete(self, request: Request) -> Response:
        account = self._account(request)
        try:
            asked = read_asked(await self._body(request), self.config)
            await self._enter(request)
        except ClientDisconnect:
            return Response(status_code=499)  # which nobody reads
        try:
            hold, stream = self._begin(asked, account)
        except BaseException:
            self._places.release()
            raise
        heading = Heading(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), asked.model)
        self._live.began(heading.id, account, asked.budget, stream)
        return _Exchange(self, heading, asked, stream, lambda: self._leave(heading.id, stream, hold, account))

    def _account(self, request: Request) -> Account:
        """Whose request it is. RefusedError: nobody's, or a web page's that needs no key to spend.

        Browsers send ``Origin`` with what pages of any site post, also to this machine.
        """
        origin = request.headers.get("origin")
        if not self.config.keys and origin is not None and not {origin, "*"} & set(self.config.cors_origins):
            raise RefusedError(
                "web pages may ask only where there are API keys (--keys FILE), or those of --cors-origin", status=403
            )
        account = self.accounts.of(request.headers.get("authorization"))
        if account is None:
            raise RefusedError("this needs an API key: Authorization: Bearer KEY", status=401, code="invalid_api_key")
        return account

    async def _body(self, request: Request) -> bytes:
        found = bytearray()
        async for piece in request.stream():
            found += piece
            if len(found) > self.config.max_body:
                raise RefusedError(f"a request has at most {self.config.max_body:,} bytes", status=413)
        return bytes(found)

    async def _enter(self, request: Request) -> None:
        """Take a place, or wait for one.

        RefusedError: too many wait, or the server ends. ClientDisconnect: the client left meanwhile.
        """
        ending = RefusedError("the server is ending", status=503, code="ending", retry_after=self._soon())
        if self._ending:
            raise ending
        try:
            self._places.acquire_nowait()
        except anyio.WouldBlock:
            if self._waiting >= self.config.max_waiting:
                raise RefusedError(
                    "too many requests wait already", status=429, code="overloaded", retry_after=self._soon()
                ) from None
            await self._wait_for_place(request.receive)
            if self._ending:
                self._places.release()
                raise ending from None

    async def _wait_for_place(self, receive: Receive) -> None:
        """ClientDisconnect: the client left meanwhile."""
        taken = kept = gone = False

        async def watch() -> None:
            nonlocal gone
            await leave_with_client(receive, tasks.cancel_scope)
            gone = True

        self._waiting += 1
        try:
            async with side_by_side() as tasks:
                tasks.start_soon(watch)
                await self._places.acquire()
                taken = True
                tasks.cancel_scope.cancel()
            kept = taken and not gone
        finally:
            self._waiting -= 1
            if taken and not kept:  # also where it is cancelled on the way out
                self._places.release()
        if not kept:
            raise ClientDisconnect

    def _begin(self, asked: Asked, account: Account) -> tuple[Hold, SolutionStream]:
        """Set the budget aside. RefusedError: it is not there, or the request is impossible."""
        try:
            stream = self.solver.stream(
                asked.problem, budget_tokens=asked.budget, count=self.config.count, **asked.options
            )
        except (ConfigError, TypeError) as error:
            raise RefusedError(str(error)) from error
        hold = self.accounts.hold(account, asked.budget)
        if hold is None:
            wait = self._soon() if self.accounts.may_come_back(account, asked.budget) else _LATER
            left = self.accounts.left(account) or 0
            remedy = f"; ask for at most that, as with {self.config.model}@{left}" if left else ""
            raise RefusedError(
                f"the budget of {asked.budget:,} is not there: {left:,} are left{remedy}",
                status=429, field="budget_tokens", code="insufficient_quota", retry_after=wait,
            )  # fmt: skip
        self._streams.add(stream)
        return hold, stream

    def _leave(self, id: str, stream: SolutionStream, hold: Hold, account: Account) -> None:
        """A stream, which is closed, has been told or left: charge what it spent."""
        self._streams.discard(stream)
        self._places.release()
        account.requests += 1
        hold.settle(stream.spent)
        self._live.left(id)

    def took(self, seconds: float) -> None:
        """A request was answered in so many seconds."""
        self._answered, self._seconds = self._answered + 1, self._seconds + seconds

    def _soon(self) -> int:
        """Seconds after which a request ends, on average."""
        return max(1, math.ceil(self._seconds / self._answered)) if self._answered else 1

    async def _models(self, request: Request) -> Response:
        self._account(request)
        return _json({"object": "list", "data": [self._card()]})

    async def _model(self, request: Request) -> Response:
        self._account(request)
        name = request.path_params["name"]
        if name.partition("@")[0] != self.config.model:
            there = f"there is no model {name[:200]!r} here; take {self.config.model}"
            raise RefusedError(there, status=404, field="model", code="model_not_found")
        return _json(self._card())

    def _card(self) -> dict[str, Any]:
        solver, config = self.solver, self.config
        return {
            "id": config.model,
            "object": "model",
            "created": self._began,
            "owned_by": "adaptive_ttc",
            "policy": solver.policy.name,
            "prm": None if solver.prm is None else solver.prm.name,
            "default_budget": config.default_budget,
            "most_budget": config.most_budget,
            "count": config.count,
        }

    async def _health(self, request: Request) -> Response:
        return _json({"status": "ending" if self._ending else "ok"}, 503 if self._ending else 200)

    def statistics(self) -> ServeStatistics:
        """What is under way, and what was spent."""
        return ServeStatistics(
            in_flight=len(self._streams),
            waiting=self._waiting,
            answered=self._answered,
            seconds=self._seconds,
            spent=self.accounts.all.spent,
            reserved=self.accounts.all.statistics().reserved,
            key_spent={one.name: one.ledger.spent for one in self.accounts.named},
            key_requests={one.name: one.requests for one in self.accounts.named},
        )

    async def _metrics(self, request: Request) -> Response:
        own = prometheus(self.statistics(), prefix="adaptive_ttc_serve")
        return Response(prometheus(self.solver.statistics()) + own, media_type="text/plain; version=0.0.4")

    async def _describe(self, request: Request) -> Response:
        return _json(description(self.config))


class _Exchange(Response):
    """A request that is being solved: the answer, whole or in pieces, unless the client leaves before it."""

    def __init__(
        self, service: Service, heading: Heading, asked: Asked, stream: SolutionStream, leave: Callable[[], None]
    ) -> None:
        self.background = None
        self._service, self._asked, self._stream, self._leave = service, asked, stream, leave
        self._heading = heading

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = anyio.current_time()
        try:
            try:
                async with self._stream, side_by_side() as tasks:
                    tasks.start_soon(leave_with_client, receive, tasks.cancel_scope)
                    send = timely(send, self._service.config.write_timeout, tasks.cancel_scope)
                    await (self._in_pieces(send) if self._asked.stream else self._whole(scope, receive, send))
                    tasks.cancel_scope.cancel()
            finally:
                with anyio.CancelScope(shield=True):
                    await self._stream.aclose()
        finally:
            self._leave()
            self._service.took(anyio.current_time() - started)

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        solution = await self._solved()
        if isinstance(solution, Exception):
            response = _error(solution)
        else:
            response = _json(self._heading.completion(solution, trace=self._asked.include_trace))
        await response(scope, receive, send)

    async def _solved(self) -> Solution | Exception:
        """The solution, also one that an engine's failure cut short; else what went wrong."""
        try:
            return await self._stream.solution()
        except AdaptiveTTCError as error:
            found: Solution | None = error.solution
            return error if found is None or found.answer is None else found
        except Exception as error:
            _log.exception("a request failed")
            return error

    async def _in_pieces(self, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._tell(send, self._heading.chunk({"role": "assistant", "content": ""}))
        done, lock = anyio.Event(), anyio.Lock()
        async with side_by_side() as tasks:
            tasks.start_soon(self._keep_alive, send, done, lock)
            if self._asked.include_trace:
                with suppress(Exception):  # told below
                    async for event in self._stream:
                        async with lock:
                            await self._tell(send, self._heading.chunk({}, **event_of(event)))
            solution = await self._solved()
            done.set()
        await self._last(send, solution)

    async def _last(self, send: Send, solution: Solution | Exception) -> None:
        if isinstance(solution, Exception):
            await self._tell(send, error_body(solution)[1])
        else:
            said = {name: text for name, text in told(solution).items() if text}
            if reasoning := said.pop("reasoning", None):
                await self._tell(send, self._heading.chunk({"reasoning": reasoning}))
            await self._tell(send, self._heading.chunk(said))
            await self._tell(send, self._heading.chunk({}, finish_of(solution), metadata=decision_of(solution)))
            if self._asked.include_usage:
                await self._tell(send, self._heading.last_usage(solution))
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})

    async def _keep_alive(self, send: Send, done: anyio.Event, lock: anyio.Lock) -> None:
        while not done.is_set():
            with anyio.move_on_after(self._service.config.keep_alive):
                await done.wait()
            if not done.is_set():
                async with lock:
                    await send({"type": "http.response.body", "body": b": working\n\n", "more_body": True})

    async def _tell(self, send: Send, piece: Mapping[str, Any]) -> None:
        await send({"type": "http.response.body", "body": b"data: " + as_json(piece) + b"\n\n", "more_body": True})


def _cross_origin(origins: Sequence[str]) -> Middleware:
    """Tells browsers whose pages may read answers; no cookies are involved, keys stand in a header."""
    return Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["Retry-After"],
    )


def _json(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(as_json(body), status, headers, media_type="application/json")


def _error(error: Exception) -> Response:
    status, body, headers = error_body(error)
    return _json(body, status, headers)


async def _no_such(request: Request, error: Exception) -> Response:
    """A path or method that is not there."""
    assert isinstance(error, HTTPException)
    refused = RefusedError(f"{request.method} {request.url.path[:200]}: {error.detail}", status=error.status_code)
    response = _error(refused)
    response.headers.update(error.headers or {})
    return response


async def _refused(request: Request, error: Exception) -> Response:
    """A request that is not served."""
    return _error(error)


async def _failed(request: Request, error: Exception) -> Response:
    _log.error("a request failed", exc_info=error)
    return _error(error)
