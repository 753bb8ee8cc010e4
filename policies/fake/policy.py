"""A policy without a model, for tests: it batches, counts, holds and fails on demand; a writer makes the text.

No sample depends on order or time, except for scripts whose replies are taken in order of arrival.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import anyio
import anyio.lowlevel

from adaptive_ttc.answers.thinking import ThinkingTags
from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.fake.reasoning import ReasoningToy
from adaptive_ttc.policies.fake.writers import (
    ASSISTANT,
    EOS,
    REVISION_PROMPT,
    VOCAB_SIZE,
    Key,
    Replies,
    Script,
    ToyModel,
    Writer,
    decode_tokens,
    encode_problem,
)
from adaptive_ttc.policies.requests import TokenTexts, check_request
from adaptive_ttc.policy import Sampled, SampleRequest
from adaptive_ttc.prm.fake import Failure, Trouble, anything
from adaptive_ttc.types import Problem

Matching = Callable[[SampleRequest], bool]


@dataclass(slots=True, eq=False)
class Pending:
    """A request being served or waiting; ``wake`` is set to end its wait, or when it is aborted."""

    request: SampleRequest
    wake: anyio.Event = field(default_factory=anyio.Event)
    aborted: bool = False
    has_slot: bool = False

    async def park(self) -> None:
        """Wait until woken."""
        self.wake = anyio.Event()
        if not self.aborted:
            await self.wake.wait()


@dataclass(slots=True, eq=False)
class Hold:
    """Samples that wait, after ``after_tokens`` tokens, until they are released."""

    matching: Matching
    after_tokens: int = 0
    arrived: anyio.Event = field(default_factory=anyio.Event)  # set when the first of them waits
    _waiting: list[Pending] = field(default_factory=list)
    _released: bool = False

    @property
    def waiting(self) -> tuple[SampleRequest, ...]:
        """Requests that wait, in order of arrival."""
        return tuple(pending.request for pending in self._waiting)

    def release(self) -> None:
        """Release all, and hold no further ones."""
        self._released = True
        for pending in self._waiting:
            pending.wake.set()

    def release_one(self, request_id: str) -> None:
        """Release one; the others wait on."""
        next(pending for pending in self._waiting if pending.request.id == request_id).wake.set()

    async def let_pass(self, pending: Pending, tokens: int) -> None:
        """Make a sample with ``tokens`` tokens wait if the hold is for it."""
        if self._released or tokens != self.after_tokens or not self.matching(pending.request):
            return
        self._waiting.append(pending)
        self.arrived.set()
        try:
            await pending.park()
        finally:
            self._waiting.remove(pending)


class FakePolicy:
    """A :class:`~adaptive_ttc.policy.Policy` over bytes as tokens.

    Its prefix cache is ideal: of a prompt with a begun solution one token is computed, of any other prompt all.

    Args:
        writer: writes the text; see :meth:`scripted` and :meth:`generative`.
        name: for people.
        parameters: its claimed size, for costs in FLOPs.
        max_context: prompt and new tokens together.
        max_batch: samples at once; more wait in order of priority and arrival.
        turn_tokens: tokens that a sample writes before other tasks have their turn.
        overrun: tokens reported as computed past a stop string or an abort.
        trouble: random delays and failures, before the first token and at every later turn of a sample.
        thinking: how the writer marks thoughts; None takes what it says itself, which scripts do not.

    Attributes:
        requests: all requests in order, failed ones included.
        completion_tokens: delivered in all.
        in_flight: requests being served or waiting; ``running`` those served, ``max_running`` the most at once.
        aborted: ids that ``abort`` was called with.
        cancelled: requests whose caller was cancelled.
        closed: whether it was closed.
    """

    def __init__(
        self,
        writer: Writer,
        *,
        name: str = "fake-policy",
        parameters: int = 1000,
        max_context: int = 4096,
        max_batch: int = 64,
        turn_tokens: int = 16,
        overrun: int = 0,
        trouble: Trouble | None = None,
        thinking: ThinkingTags | None = None,
    ) -> None:
        if min(max_context - 1, max_batch, turn_tokens) < 1 or overrun < 0:
            raise ConfigError("max_context must be at least 2, max_batch and turn_tokens 1, and overrun 0")
        self._writer = writer
        self.thinking: ThinkingTags | None = thinking or getattr(writer, "tags", None)
        self.name, self.parameters, self.max_context = name, parameters, max_context
        self.revision_prompt = REVISION_PROMPT
        self._max_batch, self._turn_tokens, self._overrun = max_batch, turn_tokens, overrun
        self._trouble = trouble
        self._texts = TokenTexts(decode_tokens, ord("a"))
        self._pending: dict[str, Pending] = {}
        self._queue: deque[Pending] = deque()
        self._holds: list[Hold] = []
        self._failures: list[Failure] = []
        self.requests: list[SampleRequest] = []
        self.aborted: list[str] = []
        self.completion_tokens = self.running = self.max_running = self.cancelled = 0
        self.closed = False

    @classmethod
    def scripted(cls, replies: Mapping[Key, Replies], **settings: Any) -> Self:
        """Replies from a script, which raises ScriptError when it has none left; see :class:`Script`."""
        return cls(Script(replies), **settings)

    @classmethod
    def generative(cls, *, error_rate: float = 0.03, **settings: Any) -> Self:
        """Sums from a toy model that errs; see :class:`ToyModel`. ``settings``: the constructor's."""
        return cls(ToyModel(error_rate), **settings)

    @classmethod
    def reasoning(cls, *, error_rate: float = 0.03, again: float = 0.4, begun: bool = False, **settings: Any) -> Self:
        """The toy model that thinks before it answers, see :class:`ReasoningToy`; ``settings``: the constructor's."""
        return cls(ReasoningToy(error_rate, again, begun), **settings)

    @classmethod
    def from_pretrained(cls, path_or_name: str, *, reasoning: bool = False, **settings: Any) -> Self:
        """The toy model under any name, to try commands without a real one; ``settings``: :meth:`generative`'s, or with
        ``reasoning`` those of :meth:`reasoning`.
        """
        return (cls.reasoning if reasoning else cls.generative)(name=str(path_or_name), **settings)

    @property
    def fingerprint(self) -> str:
        """Constant for a name and a writer."""
        return f"fake:{self.name}:{self._writer!r}" if isinstance(self._writer, ToyModel) else f"fake:{self.name}"

    @property
    def in_flight(self) -> int:
        """Requests being served or waiting."""
        return len(self._pending)

    def hold(self, matching: Matching = anything, *, after_tokens: int = 0) -> Hold:
        """Make matching samples wait, after ``after_tokens`` tokens, until they are released or aborted."""
        hold = Hold(matching, after_tokens)
        self._holds.append(hold)
        return hold

    def fail(self, error: Exception, *, matching: Matching = anything, after_tokens: int = 0, times: int = 1) -> None:
        """Make the next ``times`` matching samples raise ``error`` after so many tokens, which are lost."""
        self._failures.append(Failure(error, matching, times, after_tokens))

    def lose_connection(self, matching: Matching = anything, *, after_tokens: int = 0, times: int = 1) -> None:
        """Fail matching samples with a retryable error; the tokens generated stay unknown."""
        error = EngineError("the connection was lost; the same request may succeed later", retryable=True)
        self.fail(error, matching=matching, after_tokens=after_tokens, times=times)

    def encode(self, problem: Problem) -> tuple[int, ...]:
        """Every message behind a token for its role; ConfigError if that leaves no room for a token."""
        ids = encode_problem(problem)
        if self.thinking is not None and self.thinking.begun:
            ids = (*ids, *self.thinking.opening)
        if len(ids) >= self.max_context:
            raise ConfigError(f"problem {problem.id!r} is {len(ids)} tokens long, the context {self.max_context}")
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of generated tokens, control tokens left out."""
        return decode_tokens(token_ids)

    async def sample(self, request: SampleRequest) -> Sampled:
        """Reply, after the holds and failures that match.

        Errors as :class:`~adaptive_ttc.policy.Policy` says, and ScriptError if the script has no reply.
        """
        check_request(self, request, vocab_size=VOCAB_SIZE, in_flight=self._pending, closed=self.closed)
        self.requests.append(request)
        pending = self._pending[request.id] = Pending(request)
        try:
            await self._take_slot(pending)
            sampled = await self._generate(pending)
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        finally:
            self._free_slot(pending)
            del self._pending[request.id]
        self.completion_tokens += len(sampled.token_ids)
        return sampled

    async def abort(self, request_id: str) -> None:
        """End a pending sample with the tokens so far; an unknown id is ignored."""
        self.aborted.append(request_id)
        pending = self._pending.get(request_id)
        if pending is not None and not (self._trouble is not None and self._trouble.deaf):
            pending.aborted = True
            pending.wake.set()
        await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """End what is pending as aborted, and refuse later requests."""
        self.closed = True
        for pending in self._pending.values():
            pending.aborted = True
            pending.wake.set()
        await anyio.lowlevel.checkpoint()

    async def _take_slot(self, pending: Pending) -> None:
        """Wait for a slot, or an abort."""
        if self.running < self._max_batch:
            pending.has_slot = True
            self.running += 1
            self.max_running = max(self.max_running, self.running)
            return
        self._queue.append(pending)
        try:
            await pending.park()
        finally:
            if pending in self._queue:
                self._queue.remove(pending)

    def _free_slot(self, pending: Pending) -> None:
        """Hand the slot to the next in the queue."""
        if pending.has_slot and self._queue:
            first = min(self._queue, key=lambda waiting: waiting.request.priority)
            self._queue.remove(first)
            first.has_slot = True
            first.wake.set()
        elif pending.has_slot:
            self.running -= 1

    async def _generate(self, pending: Pending) -> Sampled:
        request = pending.request
        stop = self._texts.stop_rule(request.stop)
        limit = min(request.max_tokens, self.max_context - len(request.prompt_ids))
        tokens: list[int] = []
        logprobs: list[float] = []
        writing = None
        while True:
            if len(tokens) % self._turn_tokens == 0:
                await anyio.lowlevel.checkpoint()
                if self._trouble is not None:
                    await self._trouble.befall()
            for hold in self._holds:
                await hold.let_pass(pending, len(tokens))
            for failure in self._failures:
                failure.raise_if_due(request, len(tokens))
            if pending.aborted:
                return self._sampled(request, tokens, logprobs, "abort")
            writing = writing or self._writer.write(request)
            token, logprob = next(writing)
            tokens.append(token)
            logprobs.append(logprob)
            if token == EOS:
                return self._sampled(request, tokens, logprobs, "eos")
            if token in request.stop_ids or stop.met(request.stop_context, tokens):
                return self._sampled(request, tokens, logprobs, "stop")
            if len(tokens) == limit:
                return self._sampled(request, tokens, logprobs, "length")

    def _sampled(self, request: SampleRequest, tokens: list[int], logprobs: list[float], finish: Any) -> Sampled:
        if finish != "eos":
            self._writer.cut(request, tokens)
        begun = () if self.thinking is None or not self.thinking.begun else self.thinking.opening
        opening = (ASSISTANT, *begun)
        cached = 0 if request.prompt_ids[-len(opening) :] == opening else len(request.prompt_ids) - 1
        return Sampled(
            token_ids=tuple(tokens),
            finish=finish,
            logprobs=tuple(logprobs),
            prompt_tokens=len(request.prompt_ids) - cached,
            cached_tokens=cached,
            discarded_tokens=self._overrun if finish in ("stop", "abort") else 0,
        )
