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
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.pooling_client import PoolingClient
from adaptive_ttc.policies.served_values import served_outcome, served_values
from adaptive_ttc.prm.base import RewardModel
from adaptive_ttc.prm.checkpoint import backbone_parameters, locate, read_config
from adaptive_ttc.prm.families import outcome
from adaptive_ttc.prm.pooled import PooledPRM, Pooling, check_pooling
from adaptive_ttc.prm.remote import RemoteModel, RemotePRM

if TYPE_CHECKING:
    from adaptive_ttc.prm.registry import Family

_NEEDS = "vLLM with --runner pooling, --convert embed and the pooler's task token_embed"
_MOST_BYTES = 2**20  # of an answer's body, and
_MOST_TOKEN_BYTES = 2**18  # for every token: a hidden size of 49,000


class ServedStates:
    """One server; see :class:`~adaptive_ttc.prm.remote.StateSource`.

    Args:
        url, model: of the server, and of the model there.
        max_context: tokens that it can read, or None.
        **settings: see :class:`~adaptive_ttc.policies.pooling_client.PoolingClient`.
    """

    def __init__(self, url: str, model: str, *, max_context: int | None = None, **settings: Any) -> None:
        self._client = PoolingClient(url, model, needs=_NEEDS, **settings)
        self.name = self._client.name
        self.max_context = max_context

    async def states(self, token_ids: tuple[int, ...], *, whole: bool) -> torch.Tensor:
        """Hidden states of a row; ConfigError also if the server is not set up as it must be."""
        request = {
            "input": list(token_ids),
            "task": "token_embed",
            "use_activation": False,
            "encoding_format": "base64",
            "embed_dtype": "float32",
            "endianness": "little",
        }
        answer = await self._client.post("pooling", request, most=_MOST_BYTES + _MOST_TOKEN_BYTES * len(token_ids))
        try:
            raw = base64.b64decode(answer["data"][0]["data"], validate=True)
            flat = np.frombuffer(raw, dtype="<f4").copy()
            if not flat.size or flat.size % len(token_ids):
                raise ValueError(f"{flat.size} numbers for {len(token_ids)} tokens")
        except (ValueError, TypeError, KeyError, IndexError, binascii.Error) as error:
            raise EngineError(f"{self.name} answers something else than hidden states: {error}") from error
        return torch.from_numpy(flat).view(len(token_ids), -1)

    async def aclose(self) -> None:
        """Cancel what runs."""
        await self._client.aclose()


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
        pooling: Pooling | None = None,
        **settings: Any,
    ) -> RewardModel:
        """Read a PRM that is served.

        Args:
            family: how it is taken apart.
            path_or_hub: a folder or ``owner/name`` with config, tokenizer and weights; of these the head's are read.
            url: of the server; of each in turn where the PRM has several models (implicit: tuned, reference).
            model: the names that they are served by; by default the folder's or Hub name.
            dtype: that the server computes in; part of the fingerprint.
            revision: of a Hub model.
            max_context: tokens that the server can read, where that is less than the config says.
            pooling: what the server gives, see :data:`~adaptive_ttc.prm.pooled.Pooling`; by default ``classify`` of an
                outcome model, ``states`` of others.
            **settings: ``timeout``, ``concurrency``; see
                :class:`~adaptive_ttc.policies.pooling_client.PoolingClient`.

        Raises:
            ConfigError: files are missing or unfit, or an argument is.
        """
        told: dict[str, Any] = {"url": url, "model": model, "dtype": dtype, "revision": revision}
        if family.format == outcome.FORMAT:
            return served_outcome(path_or_hub, pooling or "classify", max_context=max_context, **told, **settings)
        folder = locate(path_or_hub, revision=revision)
        parts = family.parts(folder, "cpu", dtype)
        check_pooling(pooling := pooling or "states", parts.reader)
        urls = [url] if isinstance(url, str) else list(url)
        names = [str(path_or_hub)] if model is None else [model] if isinstance(model, str) else list(model)
        names = names * len(urls) if len(names) == 1 else names
        if not len(urls) == len(names) == len(parts.folders):
            raise ConfigError(f"this PRM has {len(parts.folders)} models; give a url, and a name, for each")
        known = [read_config(part).get("max_position_embeddings") for part in parts.folders]
        made: dict[str, Any] = {"name": str(path_or_hub), "fingerprint": family.fingerprint(folder, parts, dtype)}
        made |= {"parameters": sum(map(backbone_parameters, parts.folders)), "max_context": max_context}
        if pooling == "steps":
            told = {"steps": parts.reader.step_pooling, "max_context": known[0], **settings}
            made["parameters"] += sum(head.parameters for head in parts.reader.heads)
            return PooledPRM(parts.reader, served_values(urls[0], names[0], pooling, **told), **made)
        served = zip(urls, names, known, strict=True)
        try:
            sources = [ServedStates(where, what, max_context=most, **settings) for where, what, most in served]
        except TypeError as error:
            raise ConfigError(f"{error}; settings of a served PRM are timeout and concurrency") from error
        return cls(
            parts.reader,
            [RemoteModel(source, head) for source, head in zip(sources, parts.reader.heads, strict=True)],
            **made,
        )
