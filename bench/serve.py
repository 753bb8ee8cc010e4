"""The server under load: many clients at once, some of whom leave, within one budget.

    python bench/serve.py --json FILE [--clients N] [--seconds S]

One run. The server runs in this process, over a real socket, in front of a fake policy and PRM that write arithmetic:
what is measured is the server and the solver. Every client is the official one (openai); each asks one problem
after the other, streamed and not, with budgets from 100 to 1,500 units; one in ten leaves before its answer. The budget
of all is so small that it is spent about half way: from then on requests are refused with 429.

Figures: ``answered``, ``left`` (by their clients), ``refused`` (429), ``errors`` (any other, which should be 0),
``overspent`` (units beyond the budget, and answers beyond their own), ``reserved`` (units still set aside at the end),
``requests_per_second``, ``p50_s`` and ``p99_s`` of an answer, ``memory_ratio`` (resident memory in the last fifth over
that in the second), ``clients``, ``seconds``.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import openai
import uvicorn
from measuring import run_measurement

from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.prm import FakePRM
from adaptive_ttc.serve import ServeConfig, Service
from adaptive_ttc.solver import Solver


@dataclass
class Seen:
    """What the clients saw."""

    answered: int = 0
    left: int = 0
    refused: int = 0
    errors: int = 0
    over: int = 0
    spent: int = 0
    seconds: list[float] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def client(url: str, number: int, until: float, seen: Seen) -> None:
    """Ask one problem after the other."""
    chance = random.Random(number)
    http = openai.DefaultAsyncHttpxClient(verify=False)  # nothing is encrypted here, and certificates take long to read
    async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0, timeout=120, http_client=http) as ours:
        while time.monotonic() < until:
            budget, stream = chance.randrange(100, 1500), chance.random() < 0.5
            question = f"What is {chance.randrange(100)} + {chance.randrange(100)} + {chance.randrange(100)}?"
            began = time.monotonic()
            ask = _ask(ours, question, budget, stream)
            try:
                if chance.random() < 0.1:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(ask, 0.05)
                    seen.left += 1
                else:
                    spent = await ask
                    seen.answered, seen.spent, seen.over = (
                        seen.answered + 1,
                        seen.spent + spent,
                        seen.over + (spent > budget),
                    )
                    seen.seconds.append(time.monotonic() - began)
            except openai.RateLimitError:
                seen.refused += 1
                await asyncio.sleep(0.5)
            except openai.OpenAIError:
                seen.errors += 1


async def _ask(ours: openai.AsyncOpenAI, question: str, budget: int, stream: bool) -> int:
    messages = [{"role": "user", "content": question}]
    body = {"budget_tokens": budget}
    if not stream:
        found = await ours.chat.completions.create(model="fake", messages=messages, extra_body=body)
        return int(found.usage.spent)
    pieces = await ours.chat.completions.create(
        model="fake", messages=messages, stream=True, stream_options={"include_usage": True}, extra_body=body
    )
    spent = 0
    async for piece in pieces:
        spent = piece.usage.spent if piece.usage else spent
    return int(spent)


async def _watch(seen: Seen, policy: FakePolicy) -> None:
    began = time.monotonic()
    while True:
        policy.requests.clear()  # which it keeps for tests
        policy.aborted.clear()
        seen.memory.append((time.monotonic() - began, resident()))
        await asyncio.sleep(0.5)


async def measure(*, clients: int, seconds: int) -> dict[str, float]:
    """All figures."""
    warnings.simplefilter("ignore")  # that the fake pair has no calibration
    seen = Seen()
    policy = FakePolicy.generative()
    async with Solver(policy, FakePRM(lambda question, steps: 0.5)) as solver:
        total = await _pace(solver) * seconds // 2
        service = Service(solver, ServeConfig(model="fake", default_budget=100, total_budget=total))
        server = uvicorn.Server(uvicorn.Config(service.app, port=0, log_level="error", lifespan="off"))
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
        watching = asyncio.create_task(_watch(seen, policy))
        until = time.monotonic() + seconds
        await asyncio.gather(*(client(url, number, until, seen) for number in range(clients)))
        watching.cancel()
        server.should_exit = True
        await serving
        account = service.accounts.all
        over = max(0, account.spent - total) + seen.over + max(0, seen.spent - account.spent)
        reserved = account.statistics().reserved
    waits = sorted(seen.seconds) or [math.nan]  # where nothing was answered
    parts = [[size for at, size in seen.memory if low <= at / seconds < high] for low, high in ((0.2, 0.4), (0.8, 1.0))]
    return {
        "answered": seen.answered,
        "left": seen.left,
        "refused": seen.refused,
        "errors": seen.errors,
        "overspent": over,
        "reserved": reserved,
        "requests_per_second": seen.answered / seconds,
        "p50_s": waits[len(waits) // 2],
        "p99_s": waits[int(0.99 * len(waits))],
        "memory_ratio": max(parts[1]) / max(parts[0]),
        "clients": clients,
        "seconds": seconds,
    }


async def _pace(solver: Solver) -> int:
    """Units that are spent in a second, about."""
    began, spent = time.monotonic(), 0
    while (took := time.monotonic() - began) < 2:
        found = await asyncio.gather(*(solver.solve(f"What is {i} + 5 + 8?", budget_tokens=800) for i in range(32)))
        spent += sum(one.spent for one in found)
    return int(spent / took)


if __name__ == "__main__":
    run_measurement(
        "serve",
        __doc__,
        measure,
        clients=(200, "at once (%(default)s)"),
        seconds=(120, "%(default)s"),
    )
