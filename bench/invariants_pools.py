"""Random pools and streams over fake engines: lists and sources, looped over, awaited or left, ended, failing, resumed.

Drawn, carried out and checked like the runs of single problems (`invariants_fake_runs.py`), on the same clock.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import anyio
from invariants_fake_runs import (
    LONGEST,
    STUCK,
    Call,
    Case,
    RecordedPolicy,
    RecordedPRM,
    Recorder,
    after,
    draw,
    engines,
    least_budget,
    token_price,
    turn_counting,
)

from adaptive_ttc.answers import Grader
from adaptive_ttc.errors import OutageError
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.run.pool import SolutionPool
from adaptive_ttc.solution import Solution
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Problem

Taken = Literal["awaited", "looped", "left", "stopped", "cancelled"]
"""What becomes of a pool: it is left, stopped or cancelled after some solutions or turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCase:
    """One random pool.

    Attributes:
        one: settings of its engines, and what is asked of every problem.
        questions: the problems.
        request: arguments of :meth:`~adaptive_ttc.solver.Solver.solve_many`.
        sourced: whether they come from an asynchronous source.
        taken: how its solutions are taken; ``when``: after so many solutions (left) or turns it is ended.
        kept: whether it keeps a checkpoint, from which the same call is made again.
        streamed: whether the first problem is streamed instead, alone.
    """

    one: Case
    questions: tuple[str, ...]
    request: dict[str, Any]
    sourced: bool
    taken: Taken
    when: int
    kept: bool
    streamed: bool

    @property
    def calm(self) -> bool:
        """Whether nothing fails and nothing ends the run early."""
        failing = any(trouble.lost or trouble.fatal for trouble in self.one.troubles)
        return not failing and self.taken in ("awaited", "looped") and self.request.get("deadline") is None


def draw_pool(seed: int, index: int) -> PoolCase:
    """The pool of that number."""
    rng = random.Random(f"pool,{seed},{index}")
    one = draw(seed, index)
    one = replace(one, stopped_after=None, cancelled_after=None, prm_context=None)
    count = one.request["count"]
    asked = {"seed": one.request["seed"], "count": count, "max_tokens": rng.choice((20, LONGEST, LONGEST))}
    one = replace(one, request=asked, policy={**one.policy, "max_context": 4096})
    questions = tuple(_question(rng) for _ in range(rng.randint(1, 7)))
    least = least_budget(one) * (1 if count == "generated" else len(questions))
    request = asked | {
        "budget_tokens": least + round(len(questions) * token_price(one) * 2 ** rng.uniform(0, 10)),
        "max_concurrency": rng.choice((1, 2, 4, 32)),
        "deadline": one.request.get("deadline") or rng.choice((None, None, None, 0.2)),
        "per_problem_max": rng.choice((None, None, least + 200 * token_price(one))),
        "max_rounds": rng.choice((None, None, 1, 3)),
        "keep_traces": rng.random() < 0.5,
    }
    sourced = rng.random() < 0.4
    if sourced:
        request["expected"] = rng.choice((0, len(questions), 2 * len(questions)))
    taken: Taken = rng.choice(("awaited", "looped", "looped", "left", "stopped", "cancelled"))
    return PoolCase(
        one=one,
        questions=questions,
        request=request,
        sourced=sourced,
        taken=taken,
        when=rng.randint(0, len(questions)) if taken == "left" else round(2 ** rng.uniform(0, 9)) - 1,
        kept=rng.random() < 0.4,
        streamed=rng.random() < 0.15,
    )


def _question(rng: random.Random) -> str:
    return f"Add {' + '.join(str(rng.randint(1, 60)) for _ in range(rng.choice((2, 2, 3, 4))))}."


@dataclass(slots=True)
class PoolOutcome:
    """What came of a pool, and of the same call made again where it kept a checkpoint."""

    recorder: Recorder
    policy: FakePolicy
    prm: FakePRM
    spent: int = 0
    solutions: list[Solution] = field(default_factory=list)
    ended: bool = False  # by itself
    crash: str | None = None
    again: PoolOutcome | None = None


def carry_out_pool(case: PoolCase, grader: Grader) -> PoolOutcome:
    """Run it, and once more where it keeps a checkpoint, then to its end."""
    with ExitStack() as stack:
        request = dict(case.request)
        if case.kept and not case.streamed:
            request["checkpoint"] = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run.db"
        outcome = _carried_out(case, request, grader)
        if "checkpoint" in request and outcome.crash is None:
            troubles = tuple(replace(one, lost=0.0, fatal=0.0) for one in case.one.troubles)
            calm = replace(case, taken="looped", one=replace(case.one, troubles=troubles))
            outcome.again = _carried_out(calm, request | {"deadline": None}, grader)
    return outcome


def _carried_out(case: PoolCase, request: dict[str, Any], grader: Grader) -> PoolOutcome:
    outcome = PoolOutcome(Recorder(), *engines(case.one))
    with outcome.recorder.watching(), turn_counting() as runner:
        runner.run(_main(case, request, grader, outcome))
    return outcome


async def _main(case: PoolCase, request: dict[str, Any], grader: Grader, outcome: PoolOutcome) -> None:
    recorder = outcome.recorder
    prm = RecordedPRM(outcome.prm, recorder) if case.one.prm else None
    solver = Solver(RecordedPolicy(outcome.policy, recorder), prm, grader=grader, config=case.one.config)
    problems = [Problem.of(text, str(number)) for number, text in enumerate(case.questions)]
    work = _streamed(case, solver, outcome) if case.streamed else _pooled(case, request, solver, problems, outcome)
    task = asyncio.ensure_future(work)
    if case.taken == "cancelled":
        await after(case.when, task.cancel)
    _, unfinished = await asyncio.wait([task], timeout=STUCK)
    if unfinished:
        outcome.crash = "it never ended"
    elif not task.cancelled() and (error := task.exception()) is not None:
        outcome.crash = repr(error)


async def _pooled(
    case: PoolCase, request: dict[str, Any], solver: Solver, problems: list[Problem], outcome: PoolOutcome
) -> None:
    async def source() -> AsyncIterator[Problem]:
        for one in problems:
            await anyio.lowlevel.checkpoint()
            yield one

    pool = solver.solve_many(source() if case.sourced else problems, **request)
    try:
        async with anyio.create_task_group() as clock:
            if case.taken == "stopped":
                clock.start_soon(after, case.when, pool.stop)
            await _take(case, pool, outcome)
            clock.cancel_scope.cancel()
        outcome.ended = case.taken != "left" or len(outcome.solutions) == len(problems)
    finally:
        await pool.aclose()
        outcome.spent = pool.spent


async def _take(case: PoolCase, pool: SolutionPool, outcome: PoolOutcome) -> None:
    if case.taken == "awaited":
        outcome.solutions += await pool
        return
    async with pool:
        if case.taken == "left" and not case.when:
            return
        async for solution in pool:
            outcome.solutions.append(solution)
            if case.taken == "left" and len(outcome.solutions) >= case.when:
                return


async def _streamed(case: PoolCase, solver: Solver, outcome: PoolOutcome) -> None:
    names = ("budget_tokens", "count", "seed", "max_tokens", "deadline")
    async with solver.stream(case.questions[0], **{name: case.request[name] for name in names}) as stream:
        try:
            told = 0
            async for _ in stream:
                told += 1
                if case.taken == "left" and told > case.when:
                    return
                if case.taken == "stopped" and told > case.when:
                    stream.stop()
            outcome.solutions.append(await stream.solution())
            outcome.ended = True
        finally:
            await stream.aclose()
            outcome.spent = stream.spent


def pool_violations(case: PoolCase, outcome: PoolOutcome) -> Iterator[tuple[str, str]]:
    """What does not hold after a pool, each with its evidence."""
    recorder, budget = outcome.recorder, case.request["budget_tokens"]
    failing = any(trouble.lost or trouble.fatal for trouble in case.one.troubles)
    if outcome.crash and not (case.streamed and failing):
        yield "crashed", outcome.crash
    unsettled = [one for ledger in recorder.ledgers if (one := ledger.statistics()).reserved or one.open_reservations]
    if unsettled:
        yield "leaked_reservations", str(unsettled)
    if recorder.open or outcome.policy.in_flight or outcome.policy.running or outcome.prm.in_flight:
        yield "leaked_requests", f"{outcome.policy.in_flight} in the policy, {outcome.prm.in_flight} in the PRM"
    if recorder.overdrawn or outcome.spent > budget:
        yield "overspent", f"budget {budget}, spent {outcome.spent}, overdrawn {recorder.overdrawn} times"
    if case.request["count"] == "generated" and _told(recorder.calls) > outcome.spent:
        yield "miscounted", f"{_told(recorder.calls)} tokens were delivered and {outcome.spent} charged"
    if outcome.ended:
        yield from _wrong_ends(case, outcome)
    if outcome.again is not None:
        yield from _wrong_again(case, outcome, outcome.again)


def _wrong_ends(case: PoolCase, outcome: PoolOutcome) -> Iterator[tuple[str, str]]:
    found = outcome.solutions
    if not case.streamed and (spent := sum(one.spent for one in found)) != outcome.spent:
        yield "miscounted", f"the solutions cost {spent}, and the pool {outcome.spent}"
    names = Counter(one.problem.id for one in found)
    asked = Counter(map(str, range(len(case.questions))))
    early = case.taken == "stopped" or case.request.get("deadline") is not None
    early = early or any(isinstance(one.error, OutageError) for one in found)  # a run that its engine's outage ended
    some_never_arrived = case.sourced and early
    if not case.streamed and (bool(names - asked) if some_never_arrived else names != asked):
        yield "missing", str(names)
    silent = [one.problem.id for one in found if one.answer is None and not one.abstained]
    if silent:
        yield "missing", f"neither an answer nor a reason: {silent}"
    if case.calm and (failed := [one for one in found if one.error is not None]):
        yield "crashed", f"no engine failed, and yet: {failed[0].error!r}"
    most = case.request["per_problem_max"]
    if most is not None and not case.streamed and any(one.spent > most for one in found):
        yield "overspent", f"per_problem_max={most}: {[one.spent for one in found]}"


def _wrong_again(case: PoolCase, outcome: PoolOutcome, again: PoolOutcome) -> Iterator[tuple[str, str]]:
    """After the same call was made again from its checkpoint."""
    for what, words in pool_violations(replace(case, kept=False, taken="looped"), replace(again, recorder=Recorder())):
        yield what, f"again: {words}"
    final = {one.problem.id: one for one in outcome.solutions if one.stopped in ("settled", "budget", "not worth it")}
    other = {one.problem.id: one for one in again.solutions}
    if changed := [name for name, one in final.items() if name in other and other[name].answer != one.answer]:
        yield "lost", f"settled before, and other answers after: {changed}"
    told = _told(outcome.recorder.calls) + _told(again.recorder.calls)
    if case.request["count"] == "generated" and told > again.spent:
        yield "overspent", f"{told} tokens were delivered over both runs, and {again.spent} charged"
    if again.spent < outcome.spent:
        yield "lost", f"{outcome.spent} units were spent, and {again.spent} after it"


def _told(calls: list[Call]) -> int:
    return sum(len(call.sampled.token_ids) for call in calls if call.sampled is not None)


def check_pool(case: PoolCase, grader: Grader) -> tuple[Counter[str], list[str]]:
    """Carry a pool out; what is counted of it, and what was found, in words."""
    outcome = carry_out_pool(case, grader)
    found = list(pool_violations(case, outcome))
    counts = Counter(
        calm_runs=case.calm,
        solutions=len(outcome.solutions),
        errors=sum(one.error is not None for one in outcome.solutions),
        cancelled=not outcome.ended,
        calls=len(outcome.recorder.calls),
        streams=case.streamed,
        resumed=outcome.again is not None,
    )
    counts.update({what for what, _ in found})
    return counts, [f"{what}: {words}" for what, words in found]
