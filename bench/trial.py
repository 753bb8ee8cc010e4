"""Carries a drawn run out, watched, on a clock that counts turns of the event loop; it judges nothing."""

from __future__ import annotations

import asyncio
import selectors
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel
from cases import Case, engines
from witness import Witness, WitnessedPolicy, WitnessedPRM

from adaptive_ttc.answers import Grader
from adaptive_ttc.errors import EngineError
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solution import Solution
from adaptive_ttc.solver import Solver

TICK = 0.001
"""Seconds by which the clock goes on whenever it is read."""

STUCK = 1000.0
"""Seconds on that clock after which a run is given up."""


@dataclass(slots=True)
class Outcome:
    """What came of a run: a solution, an engine's error, nothing after a cancellation, or a crash."""

    witness: Witness
    policy: FakePolicy
    prm: FakePRM
    solution: Solution | None = None
    error: EngineError | None = None
    crash: str | None = None


def carry_out(case: Case, grader: Grader) -> Outcome:
    """Run it, with the engines' calls and the accounts watched."""
    policy, prm = engines(case)
    outcome = Outcome(Witness(), policy, prm)
    with outcome.witness.watching(), asyncio.Runner(loop_factory=_turn_counting_loop) as runner:
        runner.run(_main(case, grader, outcome))
    return outcome


async def _main(case: Case, grader: Grader, outcome: Outcome) -> None:
    witness = outcome.witness
    prm = WitnessedPRM(outcome.prm, witness) if case.prm else None
    solver = Solver(WitnessedPolicy(outcome.policy, witness), prm, grader=grader, config=case.config)
    stop = anyio.Event()

    async def solve() -> None:
        try:
            outcome.solution = await solver.solve(case.question, stop=stop, **case.wish)
        except EngineError as error:
            outcome.error = error

    async def guarded() -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as clock:
                if case.cancelled_after is not None and not case.natively:
                    clock.start_soon(_after, case.cancelled_after, scope.cancel)
                if case.stopped_after is not None:
                    clock.start_soon(_after, case.stopped_after, stop.set)
                await solve()
                clock.cancel_scope.cancel()

    task = asyncio.ensure_future(guarded())
    if case.natively and case.cancelled_after is not None:
        await _after(case.cancelled_after, task.cancel)
    _, unfinished = await asyncio.wait([task], timeout=STUCK)
    if unfinished:
        outcome.crash = "it never ended"
    elif not task.cancelled() and (error := task.exception()) is not None:
        outcome.crash = repr(error)


async def _after(turns: int, action: Any) -> None:
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()
    action()


class _Impatient(selectors.DefaultSelector):
    """Never waits: what waits for a time reads the clock until it has come."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(0)


class _TurnCountingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time goes on when it is read, so that a deadline falls in the same turn every time."""

    def __init__(self) -> None:
        self._readings = 0
        super().__init__(_Impatient())

    def time(self) -> float:
        """Seconds since the start."""
        self._readings += 1
        return TICK * self._readings


def _turn_counting_loop() -> asyncio.AbstractEventLoop:
    return _TurnCountingLoop()
