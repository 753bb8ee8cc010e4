"""A policy that writes what a function says, a character a token; for verdicts."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.lowlevel

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policy import Sampled

EOS = 0


class Scribe:
    """Args: ``reply`` of the user's turn and the request's seed; ``logprob`` of every token; ``thought``: how many of a
    reply's tokens are one.
    """

    fingerprint, parameters, revision_prompt = "scribe", 50, None
    name = "scribe"

    def __init__(
        self,
        reply: Callable[[str, int], str],
        *,
        logprob: float | None = None,
        max_context: int = 100_000,
        thought: int | None = None,
    ) -> None:
        self.reply, self.logprob, self.max_context, self.thought = reply, logprob, max_context, thought
        self.requests, self.failures, self.closed = [], [], False
        self.hold: anyio.Event | None = None
        self.arrived = anyio.Event()

    def encode(self, problem):
        ids = tuple(1 + ord(letter) for turn in problem.messages for letter in turn.content)
        if len(ids) >= self.max_context:
            raise ConfigError("longer than the context")
        return ids

    def decode(self, token_ids):
        return "".join(chr(one - 1) for one in token_ids if one)

    async def sample(self, request):
        self.requests.append(request)
        self.arrived.set()
        await anyio.lowlevel.checkpoint()
        if self.failures:
            raise self.failures.pop(0)
        if self.hold is not None:
            await self.hold.wait()
        text = self.reply(request.messages[-1].content, request.seed)
        ids = [*(1 + ord(letter) for letter in text), EOS][: request.max_tokens]
        return Sampled(
            token_ids=tuple(ids),
            finish="eos" if ids[-1] == EOS else "length",
            logprobs=() if self.logprob is None else (self.logprob,) * len(ids),
            prompt_tokens=len(request.prompt_ids),
            thought=self.thought,
        )

    async def abort(self, request_id):
        pass

    async def aclose(self):
        self.closed = True
