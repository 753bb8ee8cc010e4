"""HTTP: sends a request, reads the events of its answer, checks a server's health.

httpx2 is the client: it is maintained, made for anyio, closes a connection when its task is cancelled, and is installed
already as huggingface-hub's own client. The ``openai`` package repeats failed requests by itself, whether or not tokens
were generated for them, and has no token ids.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import anyio
import httpx2

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.bounded_http import beginning, bounded
from adaptive_ttc.policies.openai.config import FleetConfig
from adaptive_ttc.policies.openai.fleet import Replica, UnavailableError
from adaptive_ttc.policies.openai.protocol import DONE
from adaptive_ttc.policies.openai.queues import PATHS, Queue, read_queue
from adaptive_ttc.policies.openai.retries import NOT_NOW, refusal, seconds_of_rest
from adaptive_ttc.tasks import LoopAffinity

Json = Mapping[str, Any]

# Nothing was sent, so nothing was generated.
_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
# Servers close idle connections after 5 s (uvicorn's default). One that is closed while a request is on its way looks
# like a lost answer, which has to be paid for; so the client lets go first.
_KEEPALIVE = 2.0
# Engines, by their name in a list of models, whose answers say which stop string ended them.
_TELLING = frozenset({"vllm", "sglang"})
_MOST_BYTES = 4 * 2**20  # of an answer's body, and
_MOST_TOKEN_BYTES = 16 * 2**10  # for every token that was asked for; 300 are usual, 2,000 with many log-probabilities
_LAST_BYTES_TIMEOUT = 1.0  # seconds between the last event and the body's end


class Connections:
    """The connections of one policy; a replica must hold ``max_context`` tokens."""

    def __init__(self, config: FleetConfig, max_context: int) -> None:
        self._config, self._max_context = config, max_context
        self._client: httpx2.AsyncClient | None = None
        self._affinity = LoopAffinity("a policy over servers")

    def enter(self) -> None:
        """Be used from the running event loop. ConfigError: another one that uses them still runs."""
        if self._affinity.enter():
            self._client = None  # its connections belong to the loop that made them

    async def events(
        self, replica: Replica, path: str, body: Mapping[str, Any], limit: int
    ) -> AsyncGenerator[Json, None]:
        """The events of a streamed answer, each a JSON object; of a server that does not stream, its whole answer.

        :data:`~adaptive_ttc.policies.openai.protocol.DONE` is the last one of an answer that the server has ended.
        Leaving the iteration closes the connection. An answer that is far longer than its ``limit`` tokens may need
        breaks off.

        Raises:
            UnavailableError: the replica was out of reach, or refused for now; it generated nothing.
            FailedError: it failed before it had sent anything.
            MisfitError: it does not take such a request; it generated nothing.
            EngineError: it failed or broke off, perhaps after it had generated something (then retryable).
        """
        try:
            most = _MOST_BYTES + _MOST_TOKEN_BYTES * limit
            content, auth = json.dumps(body).encode(), self._auth(replica)
            async with bounded(
                self._http(), "POST", replica.url + path, most=most, content=content, auth=auth
            ) as response:
                if response.status_code != 200:
                    said = self._config.redacted(await beginning(response))[:500]
                    rest = seconds_of_rest(response.headers.get("retry-after"), response.headers.get("date"))
                    raise refusal(replica, path, response.status_code, said, rest)
                if _content_type(response) == "application/json":
                    said = (await response.aread()).decode("utf-8", "replace")
                    yield self._parsed(replica, path, said, first=True, status=400)
                    yield DONE
                    return
                first = True
                async with aclosing(aiter(httpx2.EventSource(response))) as events:  # type: ignore[type-var]
                    async for event in events:
                        if event.data.strip() == "[DONE]":
                            # read on to the body's end: only then can the connection serve another request
                            with anyio.move_on_after(_LAST_BYTES_TIMEOUT):
                                async for _ in events:
                                    pass
                            yield DONE
                            return
                        if event.data.strip():  # some keep a connection alive with empty events
                            yield self._parsed(replica, path, event.data, first=first, failed=event.event == "error")
                            first = False
        except _UNSENT as error:
            raise UnavailableError(f"out of reach ({_said(error)})", must_check=True) from error
        except httpx2.TransportError as error:
            raise EngineError(f"{replica.url} broke off its answer ({_said(error)})", retryable=True) from error

    async def check(self, replica: Replica) -> None:
        """Check a replica's health and models; set its model's name and whether it tells stop strings.

        UnavailableError if it is out of reach or not well, ConfigError if it serves other models or with a shorter
        context.
        """
        try:
            health = await self._get(replica, _root(replica) + "/health")
            # a server without that path, as some routers, is well if it lists its models
            if health.status_code not in (200, 404, 405):
                raise UnavailableError(f"/health says {health.status_code}", must_check=True)
            models = await self._get(replica, replica.url + "/models")
        except (httpx2.TransportError, TimeoutError) as error:
            raise UnavailableError(f"out of reach ({_said(error)})", must_check=True) from error
        if models.status_code in (401, 403):
            raise ConfigError(f"{replica.url} refuses the API key ({models.status_code}); pass the right api_key")
        if models.status_code == 404 and not replica.model:  # later, a router may have lost it for a while
            raise ConfigError(
                f"{replica.url}/models is not there (404): name the base URL of an OpenAI-compatible server, up to and "
                "with /v1"
            )
        if models.status_code != 200:
            raise UnavailableError(f"/models says {models.status_code}", must_check=True)
        card = self._pick(replica, models)
        replica.model = card["id"]
        replica.tells_stop = card.get("owned_by") in _TELLING

    async def queue(self, replica: Replica) -> Queue | None:
        """The length of a replica's own queue; None if it does not tell. UnavailableError if it cannot now."""
        for path in PATHS:
            try:
                said = await self._get(replica, _root(replica) + path)
            except (httpx2.TransportError, TimeoutError) as error:
                raise UnavailableError(f"out of reach ({_said(error)})") from error
            if said.status_code >= 500 or said.status_code in NOT_NOW:
                raise UnavailableError(f"{path} says {said.status_code}")
            if said.status_code == 200 and (queue := read_queue(said.text)):
                return queue
        return None

    async def aclose(self) -> None:
        """Close the connections of this event loop."""
        client, self._client = self._client, None
        if client is not None and self._affinity.is_here:
            await client.aclose()

    async def _get(self, replica: Replica, url: str) -> httpx2.Response:
        with anyio.fail_after(self._config.connect_timeout):
            async with bounded(self._http(), "GET", url, most=_MOST_BYTES, auth=self._auth(replica)) as response:
                replica.reached = True  # something is there, whatever it is that it goes on to send
                await response.aread()
                return response

    def _parsed(
        self, replica: Replica, path: str, data: str, *, first: bool, failed: bool = False, status: int | None = None
    ) -> Json:
        """An event's JSON object, if it is one of an answer.

        ``first``: nothing came before it; ``failed``: it says so; ``status``: of an error there that names none.
        """
        said = self._config.redacted(data)[:500]
        try:
            event = json.loads(data)
        except ValueError:
            event = None
        if isinstance(event, dict) and not failed and not event.get("error") and event.get("object") != "error":
            return event
        status = (_status(event) if isinstance(event, dict) else None) or status
        if first and status is not None:
            raise refusal(replica, path, status, said)
        if isinstance(event, dict) or failed:
            raise EngineError(f"{replica.url} failed while it answered: {said}", retryable=True)
        raise EngineError(f"{replica.url} sent an event that is not JSON: {said!r}", retryable=True)

    def _auth(self, replica: Replica) -> httpx2.BasicAuth | None:
        credentials = self._config.credentials.get(replica.url)
        return None if credentials is None else httpx2.BasicAuth(*credentials)

    def _http(self) -> httpx2.AsyncClient:
        self.enter()
        if self._client is None:
            config = self._config
            key = {"Authorization": f"Bearer {config.api_key}"} if config.api_key else {}
            self._client = httpx2.AsyncClient(
                headers={"Content-Type": "application/json", **key},
                timeout=httpx2.Timeout(config.stall_timeout, connect=config.connect_timeout, pool=None),
                # the policy's own gate bounds the requests; a second bound here could only stall them
                limits=httpx2.Limits(max_connections=None, keepalive_expiry=_KEEPALIVE),
            )
        return self._client

    def _pick(self, replica: Replica, response: httpx2.Response) -> dict[str, Any]:
        """The model's entry in a replica's list."""
        try:
            cards = {card["id"]: card for card in response.json()["data"]}
        except (ValueError, LookupError, TypeError) as error:
            raise ConfigError(
                f"{replica.url}/models is no list of models; is this an OpenAI-compatible URL?"
            ) from error
        wanted = self._config.model or (next(iter(cards)) if len(cards) == 1 else None)
        if wanted is None or wanted not in cards:
            served = ", ".join(sorted(map(str, cards))) or "none"
            raise ConfigError(f"{replica.url} serves {served}; pass model= one of them")
        length = cards[wanted].get("max_model_len")
        if isinstance(length, int) and length < self._max_context:
            raise ConfigError(
                f"{replica.url} holds {length} tokens, and the policy was made for {self._max_context}; "
                f"pass max_context={length}, or start the server with --max-model-len {self._max_context}"
            )
        return dict(cards[wanted])


def _status(event: Json) -> int | None:
    """The HTTP status that an error event names, or the error inside it."""
    error = event.get("error")
    inner = error if isinstance(error, dict) else {}
    for code in (inner.get("code"), inner.get("status"), event.get("code"), event.get("status_code")):
        if isinstance(code, int | str) and str(code).isdecimal() and 400 <= int(code) < 600:
            return int(code)
    return None


def _content_type(response: httpx2.Response) -> str:
    named: str = response.headers.get("content-type", "")
    return named.partition(";")[0].strip().lower()


def _root(replica: Replica) -> str:
    """The address beside ``/v1``, where health and queues are told."""
    parts = urlsplit(replica.url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path.removesuffix("/v1"), "", ""))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
