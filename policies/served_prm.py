"""PRMs whose transformers run elsewhere, behind vLLM's pooling endpoint.

The server gives hidden states (``/pooling``, task ``token_embed``); format and heads are here, and need the tokenizer
and the head's weights from the model's folder. Start it with ``--runner pooling --convert embed --pooler-config
'{"task": "token_embed"}'``; for models with a head of their own (Qwen2.5-Math-PRM, Skywork) add ``--hf-overrides
'{"architectures": ["AdaptiveTTCQwen2ForCausalLM"]}'``, which this package, installed beside the server, registers. Over
HTTP vLLM sends the states of all tokens and computes them anew, so only solutions scored before are saved.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anyio
import numpy as np
import torch

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.secrets import redacted, split_credentials
from adaptive_ttc.prm.checkpoint import backbone_parameters, locate, read_config
from adaptive_ttc.prm.remote import RemoteModel, RemotePRM
from adaptive_ttc.tasks import LoopAffinity

try:
    import httpx2
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "served PRMs are read with httpx2, which is not installed: pip install 'adaptive-ttc[openai]'", name=error.name
    ) from None

from adaptive_ttc.policies.bounded_http import beginning, bounded

if TYPE_CHECKING:
    from adaptive_ttc.prm.registry import Family

_RETRYABLE = (408, 425, 429)
_MOST_BYTES = 2**20  # of an answer's body, and
_MOST_TOKEN_BYTES = 2**18  # for every token: a hidden size of 49,000


class ServedStates:
    """One server; see :class:`~adaptive_ttc.prm.remote.StateSource`. Times are in seconds, ``transport`` is for tests.

    Args:
        url: of the server, without ``/pooling``; user and password in it are sent, and never shown.
        model: its name on the server.
        max_context: tokens that it can read, or None.
        timeout: longest wait for an answer.
        concurrency: requests at once.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        max_context: int | None = None,
        timeout: float = 60.0,
        concurrency: int = 64,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        url, self._credentials = split_credentials(url, example="http://localhost:8000")
        if timeout <= 0 or concurrency < 1:
            raise ConfigError(f"timeout={timeout} must be positive, concurrency={concurrency} at least 1")
        self.name = f"{model} at {url}"
        self.max_context = max_context
        self._url, self._model = url.rstrip("/"), model
        self._timeout, self._concurrency, self._transport = timeout, concurrency, transport
        self._closed = False
        self._client: httpx2.AsyncClient | None = None
        self._affinity = LoopAffinity(f"the client of {self.name}")
        self._free = anyio.Semaphore(concurrency)

    async def states(self, token_ids: tuple[int, ...], *, whole: bool) -> torch.Tensor:
        """Hidden states of a row; ConfigError also if the server is not set up as it must be."""
        client = self._open()
        request = {
            "model": self._model,
            "input": list(token_ids),
            "task": "token_embed",
            "use_activation": False,
            "encoding_format": "base64",
            "embed_dtype": "float32",
            "endianness": "little",
        }
        try:
            async with self._free:
                self._open()
                response = await self._answer(client, request, _MOST_BYTES + _MOST_TOKEN_BYTES * len(token_ids))
        except (httpx2.HTTPError, TimeoutError) as error:
            raise EngineError(
                f"{self.name} did not answer as it must ({type(error).__name__}: {error}); is the server up?",
                retryable=True,
            ) from error
        try:
            answer = response.json()
            if isinstance(answer, dict) and answer.get("error"):  # some answer 200 all the same
                raise self._refusal(500, response.text)
            raw = base64.b64decode(answer["data"][0]["data"], validate=True)
            flat = np.frombuffer(raw, dtype="<f4").copy()
            if not flat.size or flat.size % len(token_ids):
                raise ValueError(f"{flat.size} numbers for {len(token_ids)} tokens")
        except (ValueError, TypeError, KeyError, IndexError, binascii.Error) as error:
            raise EngineError(f"{self.name} answers something else than hidden states: {error}") from error
        return torch.from_numpy(flat).view(len(token_ids), -1)

    async def aclose(self) -> None:
        """Cancel what runs."""
        self._closed = True
        if self._client is not None and self._affinity.is_here:
            await self._client.aclose()
        self._client = None

    async def _answer(self, client: httpx2.AsyncClient, request: dict[str, Any], most: int) -> httpx2.Response:
        with anyio.fail_after(self._timeout):
            async with bounded(client, "POST", f"{self._url}/pooling", most=most, json=request) as response:
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
        return ConfigError(
            f"{self.name} refuses a request with {status}: {said} "
            "(it must be vLLM with --runner pooling, --convert embed and the pooler's task token_embed)"
        )


class ServedPRM(RemotePRM):
    """A PRM over servers; ``load_prm(path, engine="served", url="http://host:port", ...)``."""

    @classmethod
    def from_family(
        cls,
        family: Family,
        path_or_hub: str | Path,
        *,
        url: str | Sequence[str],
        model: str | Sequence[str] | None = None,
        dtype: str = "bfloat16",
        revision: str | None = None,
        max_context: int | None = None,
        **settings: Any,
    ) -> Self:
        """Read a PRM that is served.

        Args:
            family: how it is taken apart.
            path_or_hub: a folder or ``owner/name`` with config, tokenizer and weights; of these the head's are read.
            url: of the server; of each in turn where the PRM has several models (implicit: tuned, reference).
            model: the names that they are served by; by default the folder's or Hub name.
            dtype: that the server computes in; part of the fingerprint.
            revision: of a Hub model.
            max_context: tokens that the server can read, where that is less than the config says.
            **settings: ``timeout``, ``concurrency``; see :class:`ServedStates`.

        Raises:
            ConfigError: files are missing or unfit, or an argument is.
        """
        folder = locate(path_or_hub, revision=revision)
        parts = family.parts(folder, "cpu", dtype)
        urls = [url] if isinstance(url, str) else list(url)
        names = [str(path_or_hub)] if model is None else [model] if isinstance(model, str) else list(model)
        names = names * len(urls) if len(names) == 1 else names
        if not len(urls) == len(names) == len(parts.folders):
            raise ConfigError(f"this PRM has {len(parts.folders)} models; give a url, and a name, for each")
        known = [read_config(part).get("max_position_embeddings") for part in parts.folders]
        served = zip(urls, names, known, strict=True)
        try:
            sources = [ServedStates(where, what, max_context=most, **settings) for where, what, most in served]
        except TypeError as error:
            raise ConfigError(f"{error}; settings of a served PRM are timeout and concurrency") from error
        return cls(
            parts.reader,
            [RemoteModel(source, head) for source, head in zip(sources, parts.reader.heads, strict=True)],
            name=str(path_or_hub),
            fingerprint=family.fingerprint(folder, parts, dtype),
            parameters=sum(map(backbone_parameters, parts.folders)),
            max_context=max_context,
        )
