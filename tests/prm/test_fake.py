"""The fake PRM: what tests of everything else rely on."""

from __future__ import annotations

import statistics

import anyio
import anyio.lowlevel
import pytest

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.prm import FakePRM, Scored, ScoreRequest
from adaptive_ttc.prm.fake import count_characters

ONE = ScoreRequest("1 + 1?", ("1 + 1 = 2.",))
TWO = ScoreRequest("1 + 1?", ("1 + 1 = 3.", "So 3."))


async def test_by_step_scores_texts_and_refuses_unknown_ones() -> None:
    prm = FakePRM.by_step({"1 + 1 = 3.": 0.25, "So 3.": 0.5})
    assert await prm.score(TWO) == Scored(scores=(0.25, 0.5), prm_tokens=count_characters(TWO))
    with pytest.raises(LookupError, match="1 = 2"):
        await prm.score(ONE)


async def test_a_script_is_played_once_and_then_runs_dry() -> None:
    prm = FakePRM.scripted([(0.25,), (0.5, 0.75)])
    assert (await prm.score(ONE)).scores == (0.25,)
    assert (await prm.score(TWO)).scores == (0.5, 0.75)
    with pytest.raises(LookupError, match="more often than its 2"):
        await prm.score(ONE)


@pytest.mark.parametrize("reply", [(0.5, 0.5), (), (1.5,), (float("nan"),)])
async def test_a_script_that_does_not_fit_is_refused(reply: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="one score in"):
        await FakePRM.scripted([reply]).score(ONE)


async def test_truthful_is_right_in_the_main_and_the_same_for_the_same_seed() -> None:
    def truth(question: str, steps: tuple[str, ...]) -> bool:
        return steps[-1].startswith("right")

    requests = [ScoreRequest("q", (f"{kind} {k}",)) for kind in ("right", "wrong") for k in range(200)]
    prm, twin, other = (FakePRM.truthful(truth, seed=seed) for seed in (1, 1, 2))
    scores = [(await prm.score(request)).scores[0] for request in requests]
    assert [(await twin.score(request)).scores[0] for request in reversed(requests)] == scores[::-1]
    assert [(await other.score(request)).scores[0] for request in requests] != scores
    assert statistics.median(scores[:200]) == pytest.approx(0.9, abs=0.03)
    assert statistics.median(scores[200:]) == pytest.approx(0.1, abs=0.03)
    assert min(scores[:200]) < max(scores[200:]), "it must not be an oracle"
    exact = FakePRM.truthful(truth, noise=0.0, certainty=0.75)
    assert (await exact.score(requests[0])).scores == pytest.approx((0.75,))
    assert (await FakePRM.truthful(lambda *_: 0.5, noise=0.0).score(ONE)).scores == pytest.approx((0.5,))
    for bad in ({"certainty": 1.0}, {"certainty": 0.5}, {"noise": -1.0}):
        with pytest.raises(ConfigError):
            FakePRM.truthful(truth, **bad)


async def test_it_counts_and_records() -> None:
    prm = FakePRM(lambda question, steps: 0.5, name="mine", parameters=7, count=lambda request: 11, max_context=11)
    await prm.score(ONE)
    await prm.score(TWO)
    assert (prm.requests, prm.prm_tokens, prm.max_in_flight, prm.in_flight) == ([ONE, TWO], 22, 1, 0)
    assert (prm.name, prm.parameters, prm.fingerprint) == ("mine", 7, "fake:mine")
    with pytest.raises(ConfigError, match="context"):
        FakePRM(lambda question, steps: 0.5, max_context=10).count_tokens(ONE)


async def test_replies_are_held_until_released() -> None:
    prm = FakePRM(lambda question, steps: 0.5)
    hold = prm.hold(lambda request: len(request.steps) == 2)
    done: list[ScoreRequest] = []

    async def ask(request: ScoreRequest) -> None:
        await prm.score(request)
        done.append(request)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, TWO)
        await hold.arrived.wait()
        await ask(ONE)
        assert (done, hold.waiting, prm.in_flight) == ([ONE], [TWO], 1)
        hold.release()
    assert done == [ONE, TWO]
    assert prm.max_in_flight == 2
    await ask(TWO)
    assert len(done) == 3


async def test_a_cancelled_caller_is_counted_and_leaves_the_hold() -> None:
    prm = FakePRM(lambda question, steps: 0.5)
    hold = prm.hold()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(prm.score, ONE)
        await hold.arrived.wait()
        tasks.cancel_scope.cancel()
    assert (prm.cancelled, prm.in_flight, hold.waiting, prm.prm_tokens) == (1, 0, [], 0)


async def test_failures_strike_as_often_as_told_and_cost_nothing() -> None:
    prm = FakePRM(lambda question, steps: 0.5)
    prm.fail(EngineError("overload", retryable=True), matching=lambda request: request == TWO, times=2)
    for _ in range(2):
        with pytest.raises(EngineError, match="overload"):
            await prm.score(TWO)
    await prm.score(ONE)
    assert (await prm.score(TWO)).scores == (0.5, 0.5)
    assert len(prm.requests) == 4
    assert prm.prm_tokens == count_characters(ONE) + count_characters(TWO)


async def test_closing_fails_what_is_held() -> None:
    prm = FakePRM(lambda question, steps: 0.5)
    hold = prm.hold()
    errors: list[str] = []

    async def ask() -> None:
        try:
            await prm.score(ONE)
        except EngineError as error:
            errors.append(str(error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await hold.arrived.wait()
        await prm.aclose()
    assert len(errors) == 1
    assert "closed" in errors[0]
