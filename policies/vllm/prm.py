"""PRMs of every family over vLLM engines of their own.

An engine gives hidden states (pooling, task ``token_embed``). With vLLM's prefix cache only new steps are computed:
vLLM leaves out the states of a cached prefix, whose values are remembered here.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import torch
from vllm import PoolingParams, TokensPrompt
from vllm.config import PoolerConfig
from vllm.exceptions import VLLMError

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.vllm.engine import EngineHost, translated
from adaptive_ttc.policies.vllm.plugin import OWN_HEADS, QWEN2_BACKBONE, register
from adaptive_ttc.prm.base import RewardModel, ScoreRequest
from adaptive_ttc.prm.checkpoint import DTYPES, backbone_parameters, load_tokenizer, locate, read_config
from adaptive_ttc.prm.format import Row, StepPooling
from adaptive_ttc.prm.pooled import PooledPRM, Pooling, Values, at_positions, check_pooling
from adaptive_ttc.prm.remote import RemoteModel, RemotePRM

if TYPE_CHECKING:
    from adaptive_ttc.prm.registry import Family

_RESERVED = ("model", "model_impl", "runner", "convert", "pooler_config", "hf_overrides", "skip_tokenizer_init")


class PoolingEngine:
    """One engine that pools; the base of what reads it."""

    def __init__(self, host: EngineHost) -> None:
        self._host = host
        self._number = 0
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def name(self) -> str:
        """The engine's name."""
        return self._host.name

    @property
    def max_context(self) -> int:
        """Tokens that the engine can hold."""
        return self._host.max_context

    async def aclose(self) -> None:
        """Wait for what runs, then end the engine."""
        with anyio.CancelScope(shield=True):
            try:
                await self._host.call(self._drained)
            except EngineError:
                return  # closed before
            await self._host.aclose()

    async def _pooled(self, token_ids: tuple[int, ...], params: PoolingParams) -> Any:
        """The engine's output for a row; cancelling does not stop it, as it is one forward pass."""
        return await self._host.call(partial(self._watched, token_ids, params))

    async def _watched(self, token_ids: tuple[int, ...], params: PoolingParams, engine: Any) -> Any:
        """On the engine's loop, as all below."""
        task = asyncio.create_task(self._encode(engine, token_ids, params))
        self._running.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    async def _encode(self, engine: Any, token_ids: tuple[int, ...], params: PoolingParams) -> Any:
        self._number += 1
        prompt = TokensPrompt(prompt_token_ids=list(token_ids))
        last = None
        try:
            async for output in engine.encode(prompt, params, f"row-{id(self)}-{self._number}"):
                last = output
        except VLLMError as error:
            raise translated(self.name, error) from error
        if last is None or getattr(last, "error", None) is not None:
            raise EngineError(f"vLLM gave up a request to {self.name}; send it again", retryable=True)
        return last

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # seen, where nobody waits for it any more

    async def _drained(self, engine: Any) -> None:
        await asyncio.gather(*self._running, return_exceptions=True)


class EngineStates(PoolingEngine):
    """One engine that gives hidden states; see :class:`~adaptive_ttc.prm.remote.StateSource`."""

    async def states(self, token_ids: tuple[int, ...], *, whole: bool) -> torch.Tensor:
        """Hidden states of a row."""
        params = PoolingParams(task="token_embed", use_activation=False, skip_reading_prefix_cache=whole)
        states: torch.Tensor = (await self._pooled(token_ids, params)).outputs.data
        return states


class EngineValues(PoolingEngine):
    """One engine that reads a model by its own head; see :class:`~adaptive_ttc.prm.pooled.ValueSource`.

    ``steps``: where the values of steps stand, for which the prefix cache is not read; None: it is a classifier.
    """

    def __init__(self, host: EngineHost, steps: StepPooling | None = None) -> None:
        super().__init__(host)
        self._steps = steps

    async def values(self, request: ScoreRequest, row: Row) -> Values:
        """The values at a row's positions."""
        params = PoolingParams(task="token_classify" if self._steps else "classify", use_activation=True)
        output = await self._pooled(row.token_ids, params)
        found = output.outputs.data.float()
        computed = len(row.token_ids) - (output.num_cached_tokens or 0)
        if self._steps is None:
            return Values(tuple(found.flatten().tolist()), computed)
        # of one label the good one's share, of two classes the second's
        return Values(at_positions(found[:, -1].tolist(), row, self._steps.token), computed)


class VLLMPRM(RemotePRM):
    """A PRM whose transformers run in vLLM, in this process or its children; ``load_prm(path, engine="vllm", ...)``.

    Tokens are charged as vLLM computes them: its cache holds whole blocks, and the last one is computed again.
    """

    @classmethod
    def from_family(
        cls,
        family: Family,
        path_or_hub: str | Path,
        *,
        revision: str | None = None,
        max_context: int | None = None,
        head_device: str | None = None,
        pooling: Pooling | None = None,
        **settings: Any,
    ) -> RewardModel:
        """Start an engine for each model of a PRM.

        Args:
            family: how it is taken apart.
            path_or_hub: a model folder, or ``owner/name``.
            revision: of a Hub model.
            max_context: tokens it may read, where that is less than the engine can.
            head_device: where the heads live; by default the GPU if torch sees one.
            pooling: what the engines give, see :data:`~adaptive_ttc.prm.pooled.Pooling`: ``classify`` of an outcome
                model, else ``states`` (the default) or ``steps``.
            **settings: fields of vLLM's ``AsyncEngineArgs``, for each engine: ``gpu_memory_utilization``,
                ``dtype``, ``max_model_len``, ``tensor_parallel_size``, ...; on a CPU begin with
                :data:`adaptive_ttc.policies.vllm.CPU_SETTINGS`.

        Raises:
            ConfigError: files are missing or unfit, or vLLM refuses a setting.
            EngineError: an engine does not start.
        """
        if reserved := sorted(set(settings) & set(_RESERVED)):
            raise ConfigError(f"{', '.join(reserved)} cannot be set: the PRM decides")
        folder = locate(path_or_hub, revision=revision)
        dtype = number_format(folder, settings.get("dtype", "auto"))
        parts = family.parts(folder, head_device or ("cuda" if torch.cuda.is_available() else "cpu"), dtype)
        register()
        made: dict[str, Any] = {"name": str(path_or_hub), "fingerprint": family.fingerprint(folder, parts, dtype)}
        made |= {"parameters": sum(map(backbone_parameters, parts.folders)), "max_context": max_context}
        outcome = parts.reader.traits.finished_only
        if outcome and pooling not in (None, "classify"):
            raise ConfigError(f"pooling={pooling!r} does not serve an outcome model in vLLM; leave it out")
        if not outcome:
            check_pooling(pooling := pooling or "states", parts.reader)
        if outcome or pooling == "steps":
            made["parameters"] += sum(head.parameters for head in parts.reader.heads)
            steps = None if outcome else parts.reader.step_pooling
            host = EngineHost(str(path_or_hub), value_settings(folder, settings, steps))
            return PooledPRM(parts.reader, EngineValues(host, steps), **made)
        models: list[RemoteModel] = []
        for part, head in zip(parts.folders, parts.reader.heads, strict=True):
            host = EngineHost(f"{path_or_hub} ({part.name})", engine_settings(part, settings))
            models.append(RemoteModel(EngineStates(host), head))
        return cls(parts.reader, models, **made)


def value_settings(folder: Path, settings: dict[str, Any], steps: StepPooling | None) -> dict[str, Any]:
    """``AsyncEngineArgs`` for an engine that reads a model by its own head: of steps, or a classifier's."""
    ours = {"disable_log_stats": True, **settings, "model": str(folder), "runner": "pooling", "model_impl": "vllm"}
    if steps is None:
        return {"enable_prefix_caching": True, **ours, "pooler_config": PoolerConfig(task="classify")}
    ours["pooler_config"] = PoolerConfig(task="token_classify", tok_pooling_type="STEP", step_tag_id=steps.token)
    if steps.labels is not None:
        good, bad = load_tokenizer(folder).convert_ids_to_tokens(list(steps.labels))
        stated = [str(one) for one in read_config(folder).get("architectures") or ()]
        ours["convert"] = "classify"
        ours["hf_overrides"] = {
            "architectures": [one.replace("ForCausalLM", "ForSequenceClassification") for one in stated],
            "classifier_from_token": [bad, good],
            "method": "from_2_way_softmax",
        }
    return ours


def engine_settings(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """``AsyncEngineArgs`` for an engine that gives the hidden states of one transformer."""
    ours: dict[str, Any] = {
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        **settings,
        "model": str(folder),
        "runner": "pooling",
        "convert": "embed",
        "pooler_config": PoolerConfig(task="token_embed"),
    }
    if set(read_config(folder).get("architectures") or ()) & set(OWN_HEADS):
        ours["hf_overrides"] = {"architectures": [QWEN2_BACKBONE]}
    return ours


def number_format(folder: Path, asked: str) -> str:
    """The number format that vLLM will use, for heads and fingerprint; ConfigError if heads are not read in it."""
    config = read_config(folder)
    stated = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16").removeprefix("torch.")
    dtype = {"auto": stated, "half": "float16", "float": "float32"}.get(asked, asked)
    # vLLM serves models that are stored in float32 in half the bytes unless told otherwise
    dtype = "bfloat16" if asked == "auto" and dtype == "float32" else dtype
    if dtype not in DTYPES:
        raise ConfigError(f"dtype={asked!r} is not one of auto, {', '.join(DTYPES)}")
    return dtype
