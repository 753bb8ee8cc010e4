"""The ``Policy`` over ``AutoModelForCausalLM``: loading, and the way from a task to the engine's thread and back.

It knows no strategy, budget or score. Requests join and leave a running batch; transformers' own continuous
batching was measured first and is slower on a CPU than a uniform ``generate``, and it has one seed for all requests.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.to_thread
import torch

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.chat import ChatFormat
from adaptive_ttc.policies.folder import FolderPolicy, eos_tokens, policy_fingerprint, policy_name
from adaptive_ttc.policies.stopping import StopRule
from adaptive_ttc.policies.transformers.config import EngineConfig
from adaptive_ttc.policies.transformers.engine import Engine
from adaptive_ttc.policies.transformers.loading import SMALL_MODEL, check_rows, examine, greedy_alone
from adaptive_ttc.policies.transformers.runner import ModelRunner
from adaptive_ttc.policies.transformers.scheduler import Job, Outcome, Scheduler
from adaptive_ttc.policies.transformers.worker import EngineThread
from adaptive_ttc.policies.validation import check_request
from adaptive_ttc.policy import Sampled, SampleRequest
from adaptive_ttc.prm.checkpoint import load_causal, locate


class TransformersPolicy(FolderPolicy):
    """Samples from a Hugging Face causal language model, many requests at once.

    Make one with :meth:`from_pretrained`. ``sample`` may be called from any number of asyncio tasks and event
    loops. A sample's random numbers are keyed by (seed, position in the sequence), and rows are computed alike in
    every batch as far as the device's arithmetic allows: on a CPU in float32 the same request gives the same
    tokens alone or among others.
    """

    def __init__(
        self, model: Any, chat: ChatFormat, *, name: str, fingerprint: str, eos: frozenset[int], config: EngineConfig
    ) -> None:
        facts = examine(model)
        alone = greedy_alone(model, facts.vocab_size)
        runner = ModelRunner(
            model,
            facts.shape,
            max_batch=config.max_batch,
            max_context=min(facts.max_context, config.max_context or facts.max_context),
            prefix_cache_bytes=config.prefix_cache_bytes,
            prefill_tokens=config.prefill_tokens,
        )
        check_rows(runner, alone, tolerance=1e-3 if model.dtype == torch.float32 else 0.1)
        super().__init__(
            chat,
            name=name,
            fingerprint=fingerprint,
            parameters=facts.parameters,
            max_context=runner.max_context,
            revision_prompt=facts.revision_prompt,
        )
        self._facts = facts
        self._texts = chat.token_texts()
        self._stop_rules: dict[tuple[str, ...], StopRule] = {}
        self._in_flight: set[str] = set()
        self._engine = Engine(runner, Scheduler(config.max_batch), eos)
        self._thread = EngineThread(f"policy {name}", self._engine)
        self._thread.start()
        self._finalizer = weakref.finalize(self, _end, self._thread)

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
        max_batch: int = 64,
        max_context: int | None = None,
        prefix_cache_bytes: int = 512 * 2**20,
        prefill_tokens: int = 4096,
        num_threads: int | None = None,
    ) -> Self:
        """Load a model folder, or a model from the Hugging Face Hub, with weights in safetensors.

        Args:
            path_or_hub_name: a local folder, or ``owner/name``.
            device: as torch names it, such as ``cpu`` or ``cuda:0``.
            dtype: ``float32``, ``bfloat16`` or ``float16``.
            system_prompt: put before problems without a system message; for a general instruct model
                :data:`adaptive_ttc.policies.prompts.MATH_SYSTEM_PROMPT`.
            eos_token_ids: tokens that end a solution; None takes the model's own, an empty collection ends none.
            revision: of the model on the Hub.
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
        model, tokenizer = load_causal(folder, device=device, dtype=dtype, threads=config.num_threads)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        if config.num_threads is None and model.device.type == "cpu" and parameters < SMALL_MODEL:
            torch.set_num_threads(1)
        chat = ChatFormat(tokenizer, system_prompt, str(path_or_hub_name))
        eos = eos_tokens(model.generation_config, tokenizer) if eos_token_ids is None else frozenset(eos_token_ids)
        return cls(
            model,
            chat,
            name=policy_name(path_or_hub_name, folder),
            fingerprint=policy_fingerprint(folder, chat, eos),
            eos=eos,
            config=config,
        )

    async def sample(self, request: SampleRequest) -> Sampled:
        """Generate one sample.

        Raises:
            ConfigError: the request can never be served, or its id is in flight already.
            EngineError: the model failed, or the policy is closed.
        """
        check_request(request, max_context=self.max_context, vocab_size=self._facts.vocab_size)
        if request.id in self._in_flight:
            raise ConfigError(f"request id {request.id!r} is in flight already; give every request its own")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sampled] = loop.create_future()
        job = Job(
            request=request,
            limit=min(request.max_tokens, self.max_context - len(request.prompt_ids)),
            stop=self._stop_rule(request.stop),
            reply=partial(_reply, loop, future),
        )
        self._in_flight.add(request.id)
        try:
            if not self._thread.post(partial(self._engine.submit, job)):
                raise EngineError(f"the policy {self.name} is closed; make a new one")
            return await future
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
        self._thread.close()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._thread.join)
        if self._finalizer.detach():
            self._engine.release()

    def _stop_rule(self, stop: tuple[str, ...]) -> StopRule:
        if stop not in self._stop_rules:
            self._stop_rules[stop] = StopRule(stop, self._texts)
        return self._stop_rules[stop]


def _reply(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Sampled], outcome: Outcome) -> None:
    """Hand a result from the engine's thread to the task that waits for it."""
    try:
        loop.call_soon_threadsafe(_resolve, future, outcome)
    except RuntimeError:  # that event loop has closed, and with it the task
        return


def _resolve(future: asyncio.Future[Sampled], outcome: Outcome) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _end(thread: EngineThread) -> None:
    thread.close()
    thread.join()
