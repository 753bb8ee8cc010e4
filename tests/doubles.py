"""A policy whose every token is a function of seed, position and the tokens before (leases cannot change a sample), and
a file on a full disk.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import hashlib
import random
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.fake import VirtualTimeLoop
from adaptive_ttc.policy import Sampled
from adaptive_ttc.wrappers import WrappedPolicy

EOS = 0
TEXT = {0: "", 1: "x", 2: "y", 3: "\n", 4: "\\boxed{1}", 5: "\\boxed{2}", 6: "\\boxed{3}"}


def in_virtual_time(main, *arguments):
    """What a coroutine function returns, in a loop where waiting takes no time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main(*arguments))


def virtually(test):
    """Run an async test in virtual time."""

    @functools.wraps(test)
    def run(*arguments, **settings):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test(*arguments, **settings))

    return run


class TinyPolicy:
    """Steps of x and y, an answer in a box, EOS.

    Args:
        mean: of the geometric length of a solution, in tokens; ``step`` that of a step, about.
        chaos: seed of how many turns of the event loop a token takes; None for none at all.
        failure: probability that a call fails, lost before (retryable) or after some tokens.
        fatal: probability that a call fails for good.
        deaf: ignores aborts.
    """

    name = "tiny"
    fingerprint = "tiny"
    parameters = 10
    revision_prompt = None

    def __init__(
        self, *, mean=20, chaos=None, failure=0.0, fatal=0.0, step=5, max_context=100_000, deaf=False, frozen=()
    ):
        self.mean, self.failure, self.fatal, self.max_context, self.deaf = mean, failure, fatal, max_context, deaf
        self.chaos = random.Random(chaos) if chaos is not None else None
        self.frozen, self.step = set(frozen), step
        self.requests = []
        self.delivered = 0
        self.in_flight = {}
        self.max_in_flight = 0
        self.aborted = []
        self.started = anyio.Event()

    def encode(self, problem):
        return tuple(100 + ord(letter) for letter in problem.question)

    def decode(self, token_ids):
        return "".join(TEXT[one] for one in token_ids)

    async def sample(self, request):
        if len(request.prompt_ids) >= self.max_context:
            raise ConfigError("the prompt is longer than the context")
        self.requests.append(request)
        assert request.id not in self.in_flight
        self.in_flight[request.id] = anyio.Event()
        self.max_in_flight = max(self.max_in_flight, len(self.in_flight))
        try:
            self.started.set()
            sampled = await self._generate(request)
        finally:
            del self.in_flight[request.id]
        self.delivered += len(sampled.token_ids)
        return sampled

    async def _generate(self, request):
        tokens, finish = [], "length"
        await anyio.lowlevel.checkpoint()
        room = min(request.max_tokens, self.max_context - len(request.prompt_ids))
        while len(tokens) < room:
            if self.chaos:
                for _ in range(self.chaos.randrange(3)):
                    await anyio.lowlevel.checkpoint()
                if self.chaos.random() < self.failure / 10:
                    raise EngineError("lost", retryable=True)
                if self.chaos.random() < self.fatal / 10:
                    raise EngineError("broken")
            if request.seed in self.frozen:
                await self.in_flight[request.id].wait()
            if self.in_flight[request.id].is_set():
                finish = "abort"
                break
            tokens.append(self.next_token(request, request.prompt_ids + tuple(tokens)))
            if tokens[-1] == EOS:
                finish = "eos"
                break
            text = request.stop_context + self.decode(tokens)
            if any(text.endswith(stop) for stop in request.stop):
                finish = "stop"
                break
        return Sampled(
            token_ids=tuple(tokens),
            finish=finish,
            logprobs=(-0.5,) * len(tokens),
            prompt_tokens=len(request.prompt_ids),
        )

    def next_token(self, request, before):
        digest = hashlib.sha256(f"{request.seed},{len(before)},{request.temperature > 0}".encode()).digest()
        if before[-1] in (4, 5, 6):
            return EOS
        if digest[0] / 256 < 1 / self.mean:
            return 4 + digest[1] % 3
        if before[-1] == 3 and before[-2] in (1, 2):
            return 3
        if before[-1] != 3 and digest[2] % self.step == 0:
            return 3
        return 1 + digest[3] % 2

    async def abort(self, request_id):
        self.aborted.append(request_id)
        await anyio.lowlevel.checkpoint()
        if request_id in self.in_flight and not self.deaf:
            self.in_flight[request_id].set()

    async def aclose(self):
        for aborted in self.in_flight.values():
            aborted.set()


class NearlyFull:
    """A file on a disk with room for 20 bytes, then none."""

    def __init__(self, file: Any) -> None:
        self._file, self._room = file, 20

    def write(self, data: Any) -> Any:
        if not self._room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._room = 0
        return self._file.write(data[:20])


class Shifted(WrappedPolicy):
    """A larger policy with a tokenizer of its own: what the ``inner`` one writes, in other ids, after a longer prompt.

    Attributes:
        inner: writes it, and counts.
    """

    name = fingerprint = "large"
    parameters = 40

    def __init__(self, **settings: Any) -> None:
        self.inner = TinyPolicy(**settings)
        super().__init__(self.inner)

    def encode(self, problem):
        return (999, *self.inner.encode(problem))

    def decode(self, token_ids):
        return "".join(TEXT[one - 50] for one in token_ids)

    async def sample(self, request):
        own = tuple(one - 50 if 50 <= one < 60 else one for one in request.prompt_ids)
        sampled = await self.inner.sample(replace(request, prompt_ids=own))
        return replace(sampled, token_ids=tuple(one + 50 for one in sampled.token_ids))
