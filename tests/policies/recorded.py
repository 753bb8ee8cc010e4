"""Records of the fake policy and PRM, made once a test run, through the recorder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

import anyio

from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.policies.replay import Record, Recorder, ReplayPolicy, SampleSettings
from adaptive_ttc.policy import Policy, SampleRequest
from adaptive_ttc.prm.base import RewardModel, ScoreRequest
from adaptive_ttc.types import Problem
from tests.conformance.policy_suite import PLACES, QUESTIONS

T = TypeVar("T")


def outside_the_loop(work: Callable[[], T]) -> T:
    """Run what starts an event loop where one may be running already."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


async def draw(recorder: Recorder, max_tokens: int) -> None:
    """``PLACES`` whole solutions of every question."""
    for question in QUESTIONS:
        prompt = recorder.policy.encode(Problem.of(question))
        for place in range(PLACES):
            await recorder.policy.sample(
                SampleRequest(
                    id=str(place), prompt_ids=prompt, max_tokens=max_tokens, seed=place, temperature=0.8, path=(place,)
                )
            )


def record_of(policy: Policy, max_tokens: int, prm: RewardModel | None = None) -> Record:
    recorder = Recorder(policy, prm, settings=SampleSettings(max_tokens=max_tokens))
    outside_the_loop(lambda: anyio.run(draw, recorder, max_tokens))
    return recorder.record()


@cache
def _kept(make: Callable[[], Policy], max_tokens: int) -> Record:
    return record_of(make(), max_tokens)


def replay_of(make: Callable[[], Policy], max_tokens: int) -> ReplayPolicy:
    return ReplayPolicy(_kept(make, max_tokens), turn_tokens=16)


def scored_record(prm: RewardModel, solutions: Sequence[ScoreRequest]) -> Record:
    """A record of just these solutions, written by a script and scored by ``prm``."""
    replies: dict[str, dict[int, str]] = {}
    for seed, one in enumerate(solutions):
        replies.setdefault(one.question, {})[seed] = "\n\n".join(one.steps)
    recorder = Recorder(FakePolicy.scripted({**replies}), prm)

    async def play() -> None:
        assert recorder.prm is not None
        for seed, one in enumerate(solutions):
            prompt = recorder.policy.encode(Problem.of(one.question))
            await recorder.policy.sample(SampleRequest(id=str(seed), prompt_ids=prompt, max_tokens=2048, seed=seed))
            await recorder.prm.score(one)

    outside_the_loop(lambda: anyio.run(play))
    return recorder.record()
