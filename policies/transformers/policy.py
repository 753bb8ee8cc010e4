"""The ``Policy`` over ``AutoModelForCausalLM``: loads a model, checks that its rows can be batched, serves samples.

Requests join and leave a running batch. Transformers' own continuous batching was measured first: it is slower on a CPU
than a uniform ``generate``, and has one seed for all requests.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import anyio
import anyio.to_thread
import numpy as np
import torch
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.chat_model import ChatModel, ChatModelPolicy
from adaptive_ttc.policies.requests import check_request
from adaptive_ttc.policies.thinking_tags import AUTO, Thinking
from adaptive_ttc.policies.transformers.batched_model import ModelRunner
from adaptive_ttc.policies.transformers.batching import Engine, EngineThread, Job, Outcome, Scheduler
from adaptive_ttc.policy import Sampled, SampleRequest
from adaptive_ttc.prm.checkpoint import load_causal, locate
from adaptive_ttc.prm.prefix_cache import CacheShape, cache_argument

SMALL_MODEL = 20_000_000
"""Parameters below which a second CPU thread costs more in waiting than it computes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How a model is batched.

    Attributes:
        max_batch: samples that run at once.
        max_context: prompt and new tokens together; None takes what the model knows, and never more.
        prefix_cache_bytes: memory for keys and values of ended samples that may be continued, and of their prompts;
            when full, the least recently used go. None is for 32,768 tokens, 512 MiB at most; 0 keeps none.
        prefill_tokens: most prompt tokens in one forward pass, beside the running samples' tokens.
        num_threads: CPU threads of a forward pass, set for the whole process; None sets 1 for a model with fewer than
            20M parameters on a CPU, where more are slower, and else leaves torch's setting.
    """

    max_batch: int = 64
    max_context: int | None = None
    prefix_cache_bytes: int | None = None
    prefill_tokens: int = 4096
    num_threads: int | None = None

    def __post_init__(self) -> None:
        least = {"max_batch": 1, "prefill_tokens": 16, "max_context": 2, "prefix_cache_bytes": 0, "num_threads": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ConfigError(f"{name}={value} must be at least {bound}")


class TransformersPolicy(ChatModelPolicy):
    """Samples from a Hugging Face causal language model, many requests at once; made with :meth:`from_pretrained`.

    ``sample`` may be called from any number of asyncio tasks and event loops. Random numbers are keyed by (seed,
    position in the sequence), and rows are computed alike in every batch as far as the device's arithmetic allows: on a
    CPU in float32 the same request gives the same tokens alone or among others.

    Args:
        model: what its folder says.
        network: the loaded model, in evaluation mode.
        config: how it is batched.
    """

    def __init__(self, model: ChatModel, network: Any, config: EngineConfig) -> None:
        shape, most = examine(network)
        alone = _greedy_alone(network, model.vocab_size)
        runner = ModelRunner(
            network,
            shape,
            max_batch=config.max_batch,
            max_context=min(most, config.max_context or most),
            prefix_cache_bytes=shape.cache_bytes(config.prefix_cache_bytes, network.dtype),
            prefill_tokens=config.prefill_tokens,
        )
        _check_rows(runner, alone, tolerance=1e-3 if network.dtype == torch.float32 else 0.1)
        super().__init__(model, runner.max_context)
        self._texts = model.chat.token_texts()
        self._in_flight: set[str] = set()
        self._engine = Engine(runner, Scheduler(config.max_batch), model.eos)
        self._thread = EngineThread(f"policy {model.name}", self._engine)
        self._finalizer = weakref.finalize(self, self._thread.end)

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_name: str | Path,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        system_prompt: str | None = None,
        eos_token_ids: Iterable[int] | None = None,
        revision: str | None = None,
        thinking: Thinking = AUTO,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        max_batch: int = 64,
        max_context: int | None = None,
        prefix_cache_bytes: int | None = None,
        prefill_tokens: int = 4096,
        num_threads: int | None = None,
    ) -> Self:
        """Load a model folder, or a model from the Hugging Face Hub, with weights in safetensors.

        Args:
            path_or_hub_name: a local folder, or ``owner/name``.
            device: as torch names it, such as ``cpu`` or ``cuda:0``.
            dtype: ``float32``, ``bfloat16`` or ``float16``.
            system_prompt: put before problems without a system message; for a general instruct model
                :data:`adaptive_ttc.policies.chat_model.MATH_SYSTEM_PROMPT`.
            eos_token_ids: tokens that end a solution; None takes the model's own, an empty collection ends none.
            revision: of the model on the Hub.
            thinking: tags of a reasoning model's thoughts; ``auto`` finds them in its files (docs/reasoning.md).
            chat_template_kwargs: arguments of the chat template, such as ``{"enable_thinking": False}``.
            max_batch, max_context, prefix_cache_bytes, prefill_tokens, num_threads: see :class:`EngineConfig`.

        Raises:
            ConfigError: files are missing or unfit, there is no chat template, or a setting is out of its range.
        """
        config = EngineConfig(
            max_batch=max_batch,
            max_context=max_context,
            prefix_cache_bytes=prefix_cache_bytes,
            prefill_tokens=prefill_tokens,
            num_threads=num_threads,
        )
        folder = locate(path_or_hub_name, revision=revision)
        network, tokenizer = load_causal(folder, device=device, dtype=dtype, threads=config.num_threads)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        if config.num_threads is None and network.device.type == "cpu" and parameters < SMALL_MODEL:
            torch.set_num_threads(1)
        model = ChatModel.of(
            path_or_hub_name,
            folder,
            network,
            tokenizer,
            system_prompt=system_prompt,
            eos_token_ids=eos_token_ids,
            thinking=thinking,
            chat_template_kwargs=chat_template_kwargs,
        )
        return cls(model, network, config)

    async def sample(self, request: SampleRequest) -> Sampled:
        """Generate one sample; errors as :class:`~adaptive_ttc.policy.Policy` says, EngineError also once closed."""
        check_request(self, request, vocab_size=self.model.vocab_size, in_flight=self._in_flight)
        future: Future[Sampled] = Future()
        job = Job(
            request=request,
            limit=min(request.max_tokens, self.max_context - len(request.prompt_ids)),
            stop=self._texts.stop_rule(request.stop),
            reply=partial(_resolve, future),
        )
        self._in_flight.add(request.id)
        try:
            if not self._thread.post(partial(self._engine.submit, job)):
                raise EngineError(f"the policy {self.name} is closed, or another process's; make a new one")
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self._thread.post(partial(self._engine.drop, request.id))
            raise
        finally:
            self._in_flight.discard(request.id)

    async def abort(self, request_id: str) -> None:
        """End a pending sample early; its ``sample`` returns with ``finish="abort"`` and the tokens so far."""
        self._thread.post(partial(self._engine.abort, request_id))

    async def aclose(self) -> None:
        """Free the model; pending samples end with ``finish="abort"``. Closing again does nothing."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._thread.end)
        if self._finalizer.detach():
            self._engine.release()


def _resolve(future: Future[Sampled], outcome: Outcome) -> None:
    """Pass a result from the engine's thread to the waiting task, if it still waits."""
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


@torch.inference_mode()
def examine(network: Any) -> tuple[CacheShape, int]:
    """A model's cache shape and context length; ConfigError unless all layers keep keys and values, of one shape."""
    output = network(input_ids=torch.zeros((1, 1), dtype=torch.long, device=network.device), use_cache=True)
    layers = getattr(getattr(output, cache_argument(network), None), "layers", [])
    kind = type(network).__name__
    if not layers or any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        raise ConfigError(f"{kind} does not keep keys and values in every layer; serve it with another policy")
    shape = CacheShape.of(layers)
    if shape is None:
        raise ConfigError(f"the layers of {kind} keep keys of different shapes; serve it with another policy")
    # within its window a sliding layer attends to everything, so that up to there no special mask is needed
    windows = [layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)]
    return shape, min([_positions(network.config.get_text_config()), *windows])


def _positions(config: Any) -> int:
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is None:
        raise ConfigError("the model's config does not say how many positions it knows; add max_position_embeddings")
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in ("dynamic", "longrope"):
        # beyond the original length these turn the whole batch's angles by its longest row
        return int(rope.get("original_max_position_embeddings") or positions)
    return positions


class _Greedy(NamedTuple):
    """A prompt, its greedy continuation, and that one's log-probabilities in nats."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


@torch.inference_mode()
def _greedy_alone(network: Any, vocab_size: int) -> list[_Greedy]:
    """Greedy answers to two prompts of different length, each alone and without a cache."""
    answers = []
    for length in (12, 6):
        prompt = tokens = tuple(index * 7 % vocab_size for index in range(1, length))
        logprobs: list[float] = []
        for _ in range(2):
            logits = network(input_ids=torch.tensor([tokens], device=network.device), use_cache=False).logits[0, -1]
            logprob, token = torch.log_softmax(logits.float(), dim=-1).max(dim=-1)
            tokens, logprobs = (*tokens, int(token)), [*logprobs, logprob.item()]
        answers.append(_Greedy(prompt, tokens[len(prompt) :], tuple(logprobs)))
    return answers


def _check_rows(runner: ModelRunner, expected: Sequence[_Greedy], tolerance: float) -> None:
    """Refuse a model whose batched rows differ from its answers alone by more than rounding (no plain attention)."""
    remedy = "serve this model with another policy"
    try:
        for row, one in enumerate(expected):
            runner.begin(row, SampleRequest(id="", prompt_ids=one.prompt, max_tokens=2, seed=0, temperature=0.0))
        first, second = (runner.step(len(expected)) for _ in range(2))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"it cannot run unequal rows: {error}; {remedy}") from error
    differences = []
    for row, one in enumerate(expected):
        differences.append(abs(first.logprobs[row] - one.logprobs[0]))
        # rounding may turn a narrow choice, and then the second tokens have nothing to do with each other
        if first.tokens[row] == one.tokens[0]:
            differences.append(abs(second.logprobs[row] - one.logprobs[1]))
    worst = float(np.max(differences))
    # turned round, so that a NaN is refused
    if not worst <= tolerance:
        raise ConfigError(f"its log-probabilities are off by {worst:.2g} in a batch of unequal rows; {remedy}")
