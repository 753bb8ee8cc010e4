"""Runs a vLLM engine on an event loop in a thread of its own.

An ``AsyncLLMEngine`` belongs to the event loop that it was first used on. Here that loop lives as long as the engine,
so that any number of other loops, one after another or at once, may send requests.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from vllm import AsyncEngineArgs, AsyncLLMEngine, SamplingParams, TokensPrompt
from vllm.exceptions import GracefulHTTPError, VLLMClientError, VLLMError
from vllm.outputs import RequestOutput
from vllm.v1.engine.exceptions import EngineDeadError

from adaptive_ttc.errors import ConfigError, EngineError, OutageError

T = TypeVar("T")

_ABORT_AGAIN = 0.01


class PendingRequest:
    """One request; ``enough`` is called with every output, on the engine's thread, and True ends the request."""

    def __init__(
        self,
        prompt_ids: tuple[int, ...],
        params: SamplingParams,
        priority: int,
        enough: Callable[[RequestOutput], bool],
    ) -> None:
        self.prompt = TokensPrompt(prompt_token_ids=list(prompt_ids))
        self.params = params
        self.priority = priority
        self.enough = enough
        self.ended = asyncio.Event()


class EngineHost:
    """An engine, its event loop and its thread; ``settings`` are fields of ``AsyncEngineArgs``.

    ConfigError if vLLM refuses the settings, EngineError if the engine does not start.
    """

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        self.name = name
        self._pending: dict[str, PendingRequest] = {}
        self._taken = 0
        self._closed = False
        self._loop = asyncio.new_event_loop()
        # a daemon, so that a process whose user forgot aclose can end
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"engine {name}", daemon=True)
        self._thread.start()
        try:
            self._engine = self._post(_start(name, settings)).result()
        except BaseException:
            self._end_loop()
            raise

    @property
    def max_context(self) -> int:
        """Most tokens of prompt and solution together."""
        return int(self._engine.model_config.max_model_len)

    @property
    def max_logprobs(self) -> int:
        """How many most probable tokens' log-probabilities it gives at a place; its setting of this name."""
        most = int(self._engine.model_config.max_logprobs)
        return int(self._engine.model_config.get_vocab_size()) if most < 0 else most

    async def run(self, pending: PendingRequest) -> RequestOutput:
        """Send a request and wait for its last output. Cancelling the waiting task frees the request's slot.

        ConfigError if vLLM refuses the request; EngineError if the engine failed or died, or is closed.
        """
        self._check_open()
        loop = asyncio.get_running_loop()
        output: asyncio.Future[RequestOutput] = loop.create_future()
        self._post(self._run(pending)).add_done_callback(partial(_hand_over, loop, output))
        try:
            return await output
        except asyncio.CancelledError:
            # not cancelled over there: vLLM, cancelled while it takes a request in, may leave it running
            self.abort(pending)
            raise

    async def call(self, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        """Run ``work(engine)`` on the engine's loop, such as emptying its cache; EngineError if it is closed."""
        self._check_open()
        return await asyncio.wrap_future(self._post(work(self._engine)))

    def abort(self, pending: PendingRequest) -> None:
        """End a request soon; its :meth:`run` returns what it has."""
        if not self._closed and self._thread.is_alive():
            self._post(self._abort(pending))

    async def ended(self, requests: Iterable[PendingRequest]) -> None:
        """Wait until these requests are gone from the engine."""
        if not self._closed:
            with anyio.CancelScope(shield=True):
                await asyncio.wrap_future(self._post(_ended(requests)))

    async def aclose(self) -> None:
        """End every request with what it has, then the engine, its processes and its thread."""
        if self._closed or not self._thread.is_alive():
            return
        self._closed = True
        with anyio.CancelScope(shield=True):
            await asyncio.wrap_future(self._post(self._close()))
            await anyio.to_thread.run_sync(self._end_loop)

    def _check_open(self) -> None:
        if self._closed or not self._thread.is_alive():
            raise EngineError(f"the engine of {self.name} is closed, or another process's; make a new one")

    def _post(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _run(self, pending: PendingRequest) -> RequestOutput:
        self._taken += 1
        name = str(self._taken)
        self._pending[name] = pending
        outputs = self._engine.generate(pending.prompt, pending.params, name, priority=pending.priority)
        last = None
        try:
            async for last in outputs:
                if pending.enough(last):
                    await self._engine.abort(name)
        except VLLMError as error:
            raise translated(self.name, error) from error
        finally:
            del self._pending[name]
            pending.ended.set()
        if last is None or last.outputs[0].finish_reason == "error":
            raise EngineError(f"vLLM gave up a request to {self.name}; send it again", retryable=True)
        return last

    async def _abort(self, pending: PendingRequest) -> None:
        names = [name for name, other in self._pending.items() if other is pending]
        # vLLM ignores the abort of a request that it has not quite taken in: told again until it is gone
        while names and not pending.ended.is_set():
            with suppress(VLLMError):
                await self._engine.abort(names)
            with suppress(TimeoutError):
                await asyncio.wait_for(pending.ended.wait(), _ABORT_AGAIN)

    async def _close(self) -> None:
        await asyncio.gather(*map(self._abort, list(self._pending.values())))
        # nothing is in flight: a request that was would wait for ever
        self._engine.shutdown(timeout=0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _hand_over(loop: asyncio.AbstractEventLoop, output: asyncio.Future[RequestOutput], done: Future[Any]) -> None:
    """Pass a result from the engine's loop to the waiting task."""
    with suppress(RuntimeError):  # its event loop has closed, and with it the task
        loop.call_soon_threadsafe(_resolve, output, done)


def _resolve(output: asyncio.Future[RequestOutput], done: Future[Any]) -> None:
    if output.done():
        return
    if done.cancelled():
        output.set_exception(EngineError("the engine was closed; make a new one"))
    elif error := done.exception():
        output.set_exception(error)
    else:
        output.set_result(done.result())


async def _ended(requests: Iterable[PendingRequest]) -> None:
    for pending in requests:
        await pending.ended.wait()


async def _start(name: str, settings: dict[str, Any]) -> Any:
    try:
        config = AsyncEngineArgs(**settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"vLLM takes no such settings for {name}: {error}") from error
    try:
        return AsyncLLMEngine.from_engine_args(config)
    except ValueError as error:
        raise ConfigError(f"vLLM cannot run {name} with these settings: {error}") from error
    except RuntimeError as error:
        raise EngineError(
            f"the vLLM engine of {name} did not start: {error} Its own log says why (VLLM_LOGGING_LEVEL=INFO shows "
            "more); where memory is short, lower max_model_len or max_num_seqs, or change gpu_memory_utilization"
        ) from error


def translated(name: str, error: VLLMError) -> ConfigError | EngineError:
    """Our error for one of vLLM's; ``retryable`` where the same request may succeed later."""
    if isinstance(error, VLLMClientError):
        return ConfigError(f"vLLM refuses a request to {name}: {error}")
    if isinstance(error, EngineDeadError):
        return OutageError(f"the vLLM engine of {name} has died; its own log says why. Make a new policy")
    if isinstance(error, GracefulHTTPError):
        return EngineError(f"the vLLM engine of {name} is overloaded: {error}", retryable=True)
    cause = error.__cause__ or error
    return EngineError(f"a request to {name} failed in vLLM: {type(cause).__name__}: {cause}", retryable=True)
