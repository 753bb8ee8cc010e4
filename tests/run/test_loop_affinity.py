"""A solver in a second event loop that runs, or after a fork: told at once, never a hang."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.solver import Solver
from tests.doubles import TinyPolicy
from tests.policies.openai_server import folder

ROOT = Path(__file__).parents[2]
Use = Callable[[Solver], Coroutine[Any, Any, Any]]


class Waiting(TinyPolicy):
    """Samples once it is ``told`` to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.told = anyio.Event(), anyio.Event()

    async def sample(self, request: Any) -> Any:
        self.asked.set()
        await self.told.wait()
        return await super().sample(request)


async def solve(solver: Solver) -> Any:
    return await solver.solve("how much?", n=2)


async def pool(solver: Solver) -> Any:
    return await solver.solve_many(["how much?"], budget_tokens=1000)


async def stream(solver: Solver) -> Any:
    return [event async for event in solver.stream("how much?", n=2)]


@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")
@pytest.mark.parametrize("use", [solve, pool, stream])
async def test_a_second_loop_is_refused_while_the_first_runs_which_goes_on(use: Use) -> None:
    policy = Waiting()
    async with Solver(policy) as solver:
        first = asyncio.create_task(solve(solver))
        await policy.asked.wait()
        with pytest.raises(ConfigError, match="make one for each loop"):
            await anyio.to_thread.run_sync(asyncio.run, use(solver))
        policy.told.set()
        assert (await first).answer is not None


def test_one_loop_after_another_may_use_it() -> None:
    solver = Solver(TinyPolicy())
    answers = [asyncio.run(solve(solver)).answer for _ in range(3)]
    assert answers[0] is not None
    assert len(set(answers)) == 1
    asyncio.run(solver.aclose())


async def test_so_is_a_policy_over_servers_whatever_solver_asks_it() -> None:
    from adaptive_ttc.policies.openai import OpenAIPolicy

    policy = OpenAIPolicy.from_pretrained(folder(), base_url="http://127.0.0.1:1/v1", patience=0.0)
    policy._connections.enter()
    with pytest.raises(ConfigError, match="make one for each loop"):
        await anyio.to_thread.run_sync(asyncio.run, solve(Solver(policy)))
    await policy.aclose()


def test_after_a_fork_it_is_told_and_closing_does_nothing() -> None:
    program = """
import asyncio, os
from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.transformers import TransformersPolicy
from adaptive_ttc.prm.batcher import MicroBatcher
from adaptive_ttc.solver import Solver
from tests.conformance.policy_suite import ask
from tests.doubles import TinyPolicy
from tests.policies.tiny import folder

async def told(work, kind):
    try:
        await work
    except kind as error:
        assert "process" in str(error), error
    else:
        raise AssertionError

async def pool(solver):
    return await solver.solve_many(["how much?"], budget_tokens=1000)

async def child():
    await told(solver.solve("how much?", n=2), ConfigError)
    await told(pool(solver), ConfigError)
    await told(model.sample(ask(model)), EngineError)
    await told(batcher.submit(1), ConfigError)
    await model.abort("nobody")
    await model.aclose()
    await solver.aclose()

async def batched():
    await batcher.submit(1)

model, batcher = TransformersPolicy.from_pretrained(folder()), MicroBatcher(list)
asyncio.run(batched())
with Solver(TinyPolicy()) as solver:
    solver.solve_sync("how much?", n=2)
    solver._turn.acquire()  # as a thread does that is solving
    forked = os.fork()
    if not forked:
        code = 1
        try:
            asyncio.run(child())
            try:
                solver.solve_sync("how much?", n=2)
            except ConfigError:
                code = 0
            solver.close()
        finally:
            os._exit(code)
    solver._turn.release()
    assert os.waitpid(forked, 0)[1] == 0
    assert solver.solve_sync("how much?", n=2).answer is not None
    assert asyncio.run(model.sample(ask(model))).token_ids
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
