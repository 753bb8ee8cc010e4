"""What every PRM must do. A PRM joins with ``register(PRMCase(name, make))``; each check runs on each case."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio
import pytest

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.prm import RewardModel, Scored, ScoreRequest
from adaptive_ttc.prm.base import traits_of
from adaptive_ttc.types import Prefix


@dataclass(frozen=True)
class PRMCase:
    """A PRM under test.

    Attributes:
        name: shown in the test's id.
        make: a new PRM at each call.
        tolerance: by how much a score may depend on the batch it was computed in.
        long: characters of a solution that is too long for it; 0 where nothing is.
    """

    name: str
    make: Callable[[], RewardModel]
    tolerance: float = 1e-5
    long: int = 0


Check = Callable[[PRMCase], Awaitable[None]]

CASES: dict[str, PRMCase] = {}
CHECKS: dict[str, Check] = {}


def register(case: PRMCase) -> None:
    assert case.name not in CASES, f"there is a case {case.name} already"
    CASES[case.name] = case


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


STEPS = ("3 + 4 = 7.", "7 - 2 = 5.", "Check: 5 + 2 = 7, and 7 - 4 = 3.", "So the answer is \\boxed{5}.")
WHOLE = ScoreRequest("What is 3 + 4 - 2?", STEPS)
OTHERS = (
    ScoreRequest("What is 3 + 4 - 2?", ("3 + 4 = 8.",)),
    ScoreRequest("What is 6 - 7?", ("6 - 7 = -1.", "So the answer is \\boxed{-1}.")),
    ScoreRequest("Solve x + 12 = 30.", ("x = 18.", "The answer is 18." * 5)),
)


def close(a: Scored, b: Scored, tolerance: float, steps: int | None = None) -> bool:
    return a.scores[:steps] == pytest.approx(b.scores[:steps], abs=tolerance)


@check
async def satisfies_the_protocol(case: PRMCase) -> None:
    prm = case.make()
    assert isinstance(prm, RewardModel)
    assert prm.name
    assert prm.fingerprint
    assert prm.parameters > 0
    await prm.aclose()


@check
async def one_score_a_step_in_the_unit_interval(case: PRMCase) -> None:
    prm = case.make()
    for request in (WHOLE, *OTHERS):
        scored = await prm.score(request)
        assert len(scored.scores) == len(request.steps)
        assert all(type(score) is float and 0 <= score <= 1 for score in scored.scores)
    await prm.aclose()


@check
async def scores_tell_solutions_apart(case: PRMCase) -> None:
    prm = case.make()
    lasts = {round((await prm.score(request)).scores[-1], 6) for request in (WHOLE, *OTHERS)}
    assert len(lasts) == 1 + len(OTHERS)
    await prm.aclose()


@check
async def first_steps_score_the_same_whatever_follows(case: PRMCase) -> None:
    prm = case.make()
    if traits_of(prm).finished_only:
        pytest.skip("scores whole solutions")
    whole = await prm.score(WHOLE)
    for k in range(1, len(STEPS)):
        part = await prm.score(ScoreRequest(WHOLE.question, STEPS[:k]))
        assert close(part, whole, case.tolerance, k), f"the scores of the first {k} steps depend on later ones"
    await prm.aclose()


@check
async def a_trailing_blank_line_changes_nothing(case: PRMCase) -> None:
    prm = case.make()
    text = "\n\n".join(STEPS[:2])
    open_end, closed_end = Prefix(text=text + "\n\n"), Prefix(text=text)
    a = await prm.score(ScoreRequest(WHOLE.question, open_end.steps))
    b = await prm.score(ScoreRequest(WHOLE.question, closed_end.steps))
    assert len(a.scores) == 2
    assert close(a, b, case.tolerance)
    await prm.aclose()


@check
async def empty_steps_are_refused(case: PRMCase) -> None:
    prm = case.make()
    for steps in ((), ("3 + 4 = 7.", ""), (" \n",)):
        with pytest.raises(ConfigError, match="step"):
            await prm.score(ScoreRequest("What is 3 + 4?", steps))
        with pytest.raises(ConfigError, match="step"):
            prm.count_tokens(ScoreRequest("What is 3 + 4?", steps))
    await prm.aclose()


@check
async def together_or_alone_in_any_order(case: PRMCase) -> None:
    requests = (WHOLE, *OTHERS)
    alone = case.make()
    expected = [await alone.score(request) for request in requests]
    await alone.aclose()
    for order in itertools.permutations(range(len(requests)), len(requests)):
        if order[0] > order[-1]:
            continue
        prm = case.make()
        got: dict[int, Scored] = {}

        async def ask(prm: RewardModel, index: int, got: dict[int, Scored]) -> None:
            got[index] = await prm.score(requests[index])

        async with anyio.create_task_group() as tasks:
            for index in order:
                tasks.start_soon(ask, prm, index, got)
        assert all(close(got[index], expected[index], case.tolerance) for index in order)
        await prm.aclose()


@check
async def tokens_are_counted_as_computed(case: PRMCase) -> None:
    prm = case.make()
    counts = [prm.count_tokens(ScoreRequest(WHOLE.question, STEPS[:k])) for k in range(1, len(STEPS) + 1)]
    assert counts[0] > 0
    assert all(a < b for a, b in itertools.pairwise(counts))
    for k, count in enumerate(counts, start=1):
        scored = await prm.score(ScoreRequest(WHOLE.question, STEPS[:k]))
        assert scored.prm_tokens + scored.cached_tokens == count
        assert 0 < scored.prm_tokens <= count
    await prm.aclose()


@check
async def a_cancelled_caller_hurts_nobody(case: PRMCase) -> None:
    prm = case.make()
    expected = await prm.score(WHOLE)
    got: list[Scored] = []

    async def ask(request: ScoreRequest) -> None:
        got.append(await prm.score(request))

    async with anyio.create_task_group() as others:
        others.start_soon(ask, WHOLE)
        async with anyio.create_task_group() as doomed:
            doomed.start_soon(ask, OTHERS[0])
            await anyio.lowlevel.checkpoint()
            doomed.cancel_scope.cancel()
    assert any(close(scored, expected, case.tolerance) for scored in got if len(scored.scores) == len(STEPS))
    assert close(await prm.score(WHOLE), expected, case.tolerance)
    await prm.aclose()


@check
async def closed_twice_and_then_refusing(case: PRMCase) -> None:
    prm = case.make()
    await prm.score(OTHERS[0])
    await prm.aclose()
    await prm.aclose()
    with pytest.raises(EngineError, match="closed"):
        await prm.score(OTHERS[0])


@check
async def closing_ends_every_pending_call(case: PRMCase) -> None:
    prm = case.make()
    ends: list[str] = []

    async def ask(request: ScoreRequest) -> None:
        try:
            await prm.score(request)
            ends.append("scored")
        except EngineError:
            ends.append("refused")

    async with anyio.create_task_group() as tasks:
        for request in (WHOLE, *OTHERS):
            tasks.start_soon(ask, request)
        await anyio.lowlevel.checkpoint()
        await prm.aclose()
    assert len(ends) == 1 + len(OTHERS)


@check
async def a_solution_that_does_not_fit_is_refused_and_only_that(case: PRMCase) -> None:
    if not case.long:
        pytest.skip("reads texts of any length")
    prm = case.make()
    long = ScoreRequest(WHOLE.question, (*STEPS, "1 + 1 = 2. " * (case.long // 11 + 1)))
    with pytest.raises(ConfigError, match=r"context .*"):
        prm.count_tokens(long)
    with pytest.raises(ConfigError, match=r"tokens long"):
        await prm.score(long)
    assert len((await prm.score(WHOLE)).scores) == len(STEPS)
    await prm.aclose()
