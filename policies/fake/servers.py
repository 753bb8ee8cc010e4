"""Servers in virtual time for :class:`~adaptive_ttc.policies.openai.OpenAIPolicy`: slow, crowded, refusing, hanging.

They speak like vLLM's server, without a network: an event loop of :mod:`adaptive_ttc.policies.fake.clock` runs hours of
them at once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import count, islice
from random import Random
from typing import Any

import anyio

from adaptive_ttc.errors import EngineError
from adaptive_ttc.policies.fake.writers import EOS, Writer
from adaptive_ttc.policies.openai.config import FleetConfig
from adaptive_ttc.policies.openai.fleet import Replica, UnavailableError
from adaptive_ttc.policies.openai.http import Connections
from adaptive_ttc.policies.openai.protocol import DONE, Json
from adaptive_ttc.policies.openai.queues import Queue
from adaptive_ttc.policy import SampleRequest


@dataclass(eq=False)
class Server:
    """One server; times are in seconds.

    Attributes:
        pace: that a token of one answer takes.
        first: from a request's turn to its first token, besides.
        slots: answers at once; more requests wait in its queue.
        crowd: by what share of ``pace`` each answer under way slows the others down.
        most: requests, waiting ones included, above which it refuses (429); None for no bound.
        hangs: times, each from and to, in which nothing comes from it, nor its health.
        deaf: whether it goes on generating then what was asked for, heard or not; else it stands still.
        broken: probability that an answer breaks off at one of its pieces.
        tells_queue: whether it tells its queue.
        generated: tokens in all.
        running: answers under way; ``waiting``: requests in the queue.
        taken: requests in all.
    """

    pace: float = 0.02
    first: float = 0.1
    slots: int = 64
    crowd: float = 0.0
    most: int | None = None
    hangs: Sequence[tuple[float, float]] = ()
    deaf: bool = False
    broken: float = 0.0
    tells_queue: bool = True
    generated: int = 0
    running: int = 0
    waiting: int = 0
    taken: int = 0
    _free: anyio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._free = anyio.Semaphore(self.slots)

    def hangs_until(self) -> float | None:
        """When it comes back; None while it is there."""
        now = anyio.current_time()
        return next((end for begin, end in self.hangs if begin <= now < end), None)

    async def turn(self) -> None:
        """Wait in the queue; to be left with :meth:`leave`."""
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        self.running += 1

    def leave(self) -> None:
        """An answer has ended."""
        self.running -= 1
        self._free.release()

    async def wait_out(self) -> None:
        """Wait until no hang is on."""
        if (until := self.hangs_until()) is not None:
            await anyio.sleep_until(until)


class VirtualServers(Connections):
    """The connections to ``servers``, one for each base URL.

    ``writer`` writes all answers, of which ``eos`` is the last token; ``random`` breaks them.
    """

    def __init__(
        self, config: FleetConfig, max_context: int, servers: Sequence[Server], writer: Writer, random: Random,
        *, eos: int = EOS,
    ) -> None:  # fmt: skip
        super().__init__(config, max_context)
        self._servers, self._writer, self._random, self._eos = servers, writer, random, eos
        self._seeds = count()

    async def check(self, replica: Replica) -> None:
        """As its base class, without a network."""
        server = self._servers[replica.index]
        if server.hangs_until() is not None:
            await anyio.sleep(self._config.connect_timeout)
            raise UnavailableError("out of reach (ReadTimeout)", must_check=True)
        replica.model, replica.tells_stop = "virtual", False

    async def queue(self, replica: Replica) -> Queue | None:
        """As its base class, without a network."""
        server = self._servers[replica.index]
        await server.wait_out()
        return Queue(server.running, server.waiting) if server.tells_queue else None

    async def events(
        self, replica: Replica, path: str, body: Mapping[str, Any], limit: int
    ) -> AsyncGenerator[Json, None]:
        """As its base class, without a network."""
        server = self._servers[replica.index]
        if server.most is not None and server.running + server.waiting >= server.most:
            raise UnavailableError("says 429: not now")
        server.taken += 1
        async with aclosing(self._answer(server, body)) as pieces:
            while True:
                event = None
                with anyio.move_on_after(self._config.stall_timeout):
                    event = await anext(pieces, DONE)
                if event is None or self._random.random() < server.broken:
                    said = "ReadTimeout" if event is None else "ReadError"
                    raise EngineError(f"{replica.url} broke off its answer ({said})", retryable=True)
                yield event
                if event is DONE:
                    return

    async def _answer(self, server: Server, body: Mapping[str, Any]) -> AsyncGenerator[Json, None]:
        prompt, most = tuple(body["prompt"]), body["max_tokens"]
        request = SampleRequest(
            id="", prompt_ids=prompt, max_tokens=most, seed=body.get("seed", next(self._seeds)),
            temperature=body["temperature"], top_p=body["top_p"],
        )  # fmt: skip
        tokens = islice(self._writer.write(request), most)
        told = 0
        await server.turn()
        try:
            while piece := [token for token, _ in islice(tokens, body["stream_interval"])]:
                slower = 1 + server.crowd * (server.running - 1)
                await anyio.sleep(len(piece) * server.pace * slower + (0.0 if told else server.first))
                if server.deaf and server.hangs_until() is not None:
                    piece += [token for token, _ in tokens]
                    server.generated += len(piece)
                    await server.wait_out()
                else:
                    await server.wait_out()
                    server.generated += len(piece)
                told += len(piece)
                finish = "stop" if piece[-1] == self._eos else "length" if told == most else None
                yield {
                    "choices": [{"text": "", "token_ids": piece, "finish_reason": finish}],
                    "usage": {"prompt_tokens": len(prompt), "completion_tokens": told},
                }
        finally:
            server.leave()
