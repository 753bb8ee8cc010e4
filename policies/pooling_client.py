"""Sends one request after another to a server that scores or embeds texts. It knows neither formats nor scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio

from adaptive_ttc.errors import ConfigError, EngineError, install_command
from adaptive_ttc.policies.secrets import redacted, split_credentials
from adaptive_ttc.tasks import LoopAffinity

try:
    import httpx2
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"served PRMs are read with httpx2, which is not installed: {install_command('openai')}", name=error.name
    ) from None

from adaptive_ttc.policies.bounded_http import beginning, bounded

_RETRYABLE = (408, 425, 429)


class PoolingClient:
    """One model at one server. Times are in seconds, ``transport`` is for tests.

    Args:
        url: of the server, without the endpoint; user and password in it are sent, and never shown.
        model: its name on the server.
        needs: how the server must have been started, told where it refuses a request.
        timeout: longest wait for an answer.
        concurrency: requests at once.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        needs: str,
        timeout: float = 60.0,
        concurrency: int = 64,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        url, self._credentials = split_credentials(url, example="http://localhost:8000")
        if timeout <= 0 or concurrency < 1:
            raise ConfigError(f"timeout={timeout} must be positive, concurrency={concurrency} at least 1")
        self.name = f"{model} at {url}"
        self._url, self._model, self._needs = url.rstrip("/"), model, needs
        self._timeout, self._concurrency, self._transport = timeout, concurrency, transport
        self._closed = False
        self._client: httpx2.AsyncClient | None = None
        self._affinity = LoopAffinity(f"the client of {self.name}")
        self._free = anyio.Semaphore(concurrency)

    async def post(self, endpoint: str, request: Mapping[str, Any], *, most: int) -> Any:
        """The JSON that it answers to a request, whose body has at most ``most`` bytes.

        ConfigError: it can never serve that, or is not set up as it must be. EngineError: it failed, or the client is
        closed.
        """
        client = self._open()
        body = {"model": self._model, **request}
        try:
            async with self._free:
                self._open()
                response = await self._answer(client, endpoint, body, most)
        except (httpx2.HTTPError, TimeoutError) as error:
            raise EngineError(
                f"{self.name} did not answer as it must ({type(error).__name__}: {error}); is the server up?",
                retryable=True,
            ) from error
        try:
            answer = response.json()
        except ValueError as error:
            raise EngineError(f"{self.name} answers something else than JSON: {error}") from error
        if isinstance(answer, dict) and answer.get("error"):  # some answer 200 all the same
            raise self._refusal(500, response.text)
        return answer

    async def aclose(self) -> None:
        """Cancel what runs."""
        self._closed = True
        if self._client is not None and self._affinity.is_here:
            await self._client.aclose()
        self._client = None

    async def _answer(
        self, client: httpx2.AsyncClient, endpoint: str, body: dict[str, Any], most: int
    ) -> httpx2.Response:
        with anyio.fail_after(self._timeout):
            async with bounded(client, "POST", f"{self._url}/{endpoint}", most=most, json=body) as response:
                if response.status_code != 200:
                    raise self._refusal(response.status_code, await beginning(response))
                await response.aread()
                return response

    def _open(self) -> httpx2.AsyncClient:
        if self._closed:
            raise EngineError(f"the client of {self.name} is closed; make a new one")
        if self._affinity.enter() or self._client is None:  # connections belong to the loop that they were opened on
            self._free = anyio.Semaphore(self._concurrency)
            self._client = httpx2.AsyncClient(timeout=self._timeout, transport=self._transport, auth=self._credentials)
        return self._client

    def _refusal(self, status: int, said: str) -> ConfigError | EngineError:
        said = redacted(said, [self._credentials])[:300]
        if status >= 500 or status in _RETRYABLE:
            return EngineError(f"{self.name} failed with {status}: {said}", retryable=True)
        return ConfigError(f"{self.name} refuses a request with {status}: {said} (it must be {self._needs})")
