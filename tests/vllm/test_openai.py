"""The policy over HTTP against vLLM's own server: conformance, the same answers, one of two replicas hung or killed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import anyio
import pytest

pytest.importorskip("vllm", reason="make test-vllm runs it in an environment with vLLM")

from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.loading import MINI_POLICY, MINI_PRM, load_policy
from adaptive_ttc.policies.openai import OpenAIPolicy
from adaptive_ttc.prm import load_prm
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Problem
from tests.conformance.policy_suite import CHECKS, PolicyCase, ask, run_check, sample_all
from tests.vllm.openai_servers import VLLMServer, start

QUESTIONS = [f"Compute {3 + index} + {11 * index + 2} * {index % 7 + 2}." for index in range(12)]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[VLLMServer]]:
    replicas = start(tmp_path_factory.mktemp("servers"), 2)
    yield replicas
    for replica in replicas:
        replica.kill()


def policy_over(*servers: VLLMServer, max_batch: int = 64, **settings: Any) -> OpenAIPolicy:
    urls = [server.url for server in servers]
    return OpenAIPolicy.from_pretrained(MINI_POLICY, base_url=urls, max_concurrency=max_batch, **settings)


@pytest.mark.parametrize("check", CHECKS)
async def test_conformance(servers: Sequence[VLLMServer], check: str) -> None:
    def make(**settings: Any) -> OpenAIPolicy:
        return policy_over(servers[0], **settings)

    def endless(**settings: Any) -> OpenAIPolicy:
        return policy_over(servers[0], extra={"ignore_eos": True}, **settings)

    await run_check(check, PolicyCase("openai", make, endless, exact_pieces=False))


async def test_greedy_tokens_are_those_of_transformers(servers: Sequence[VLLMServer]) -> None:
    local = load_policy(MINI_POLICY)
    remote = policy_over(servers[0])
    assert remote.fingerprint == local.fingerprint
    assert remote.parameters == local.parameters
    asked = [ask(local, question, id=question, temperature=0.0, max_tokens=200) for question in QUESTIONS]
    assert [remote.encode(Problem.of(question)) for question in QUESTIONS] == [one.prompt_ids for one in asked]
    ours, theirs = await sample_all(local, asked), await sample_all(remote, asked)
    await local.aclose()
    await remote.aclose()
    assert [(one.token_ids, one.finish) for one in theirs] == [(one.token_ids, one.finish) for one in ours]
    for one, other in zip(theirs, ours, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)


async def test_a_stop_string_is_told_from_the_end(servers: Sequence[VLLMServer]) -> None:
    policy = policy_over(servers[0])
    request = ask(policy, QUESTIONS[0], stop=("\n\n",), max_tokens=200, temperature=0.0)
    steps = [await policy.sample(request)]
    while steps[-1].finish == "stop" and len(steps) < 40:
        assert policy.decode(steps[-1].token_ids).endswith("\n\n")
        request = replace(request, prompt_ids=request.prompt_ids + steps[-1].token_ids)
        steps.append(await policy.sample(request))
    assert steps[-1].finish == "eos"
    assert len(steps) > 1
    assert "\\boxed" in policy.decode(steps[-1].token_ids)
    await policy.aclose()


def busy(policy: OpenAIPolicy, monkeypatch: pytest.MonkeyPatch) -> anyio.Event:
    """Set when the second replica has much to do."""
    replica, enough, answered = policy.replicas[1], anyio.Event(), policy._fleet.served

    def served(one: Any, tokens: Any) -> None:
        answered(one, tokens)
        if replica.served >= 20 and replica.in_flight >= 4:
            enough.set()

    monkeypatch.setattr(policy._fleet, "served", served)
    return enough


@pytest.mark.parametrize("hedge", [None, 0.9], ids=["once", "hedged"])
async def test_a_replica_that_hangs_is_left_alone_and_gets_work_when_it_is_back(
    servers: Sequence[VLLMServer], monkeypatch: pytest.MonkeyPatch, hedge: float | None
) -> None:
    budget = 6000
    policy = policy_over(
        *servers, affinity_block=16, spill=4, backoff=0.1, stall_timeout=15.0, suspect_after=6.0, load_interval=0.5,
        hedge=hedge, hedge_share=0.5,
    )  # fmt: skip
    sick, enough = policy.replicas[1], busy(policy, monkeypatch)
    solutions, served = [], {}

    async def hang_midway() -> None:
        await enough.wait()
        servers[1].hang()
        await anyio.sleep(8.0)
        before = [one.served for one in policy.replicas]
        while sick.ready and len(solutions) < 2 * len(QUESTIONS):  # noqa: ASYNC110
            await anyio.sleep(0.1)
        served["well"], served["hung"] = (one.served - n for one, n in zip(policy.replicas, before, strict=True))
        served["given up"] = sick.served
        servers[1].go_on()

    config = DriverConfig(loss_share=0.5)
    try:
        async with Solver(policy, load_prm(MINI_PRM), config=config, seed=None) as solver:

            async def solve(question: str, strategy: str) -> None:
                solutions.append(
                    await solver.solve(question, strategy=strategy, n=8, budget_tokens=budget, max_tokens=300)
                )

            for _ in range(2):
                async with anyio.create_task_group() as tasks:
                    if not served:
                        tasks.start_soon(hang_midway)
                    for question in QUESTIONS:
                        for strategy in ("weighted_best_of_n", "beam_search"):
                            tasks.start_soon(solve, question, strategy)
    finally:
        servers[1].go_on()
    assert len(solutions) == 4 * len(QUESTIONS)
    assert all(solution.answer is not None for solution in solutions)
    for solution in solutions:
        assert solution.spent == solution.usage.completion_tokens + solution.usage.lost_tokens <= budget
    assert sum(solution.usage.lost_tokens for solution in solutions) > 0
    assert served["hung"] <= 2 + 0.2 * served["well"]  # some, where the other one is silent as well: a busy machine
    assert sick.ready
    assert sick.served > served["given up"] + 20
    assert all(replica.queue is not None for replica in policy.replicas)  # vLLM tells it


async def test_a_run_survives_the_death_of_a_replica(
    servers: Sequence[VLLMServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last test of this file: the second replica does not come back."""
    budget = 6000
    policy = policy_over(*servers, affinity_block=16, spill=4, backoff=0.1)
    prm = load_prm(MINI_PRM)
    mortal, enough = policy.replicas[1], busy(policy, monkeypatch)
    solutions = {}
    async with Solver(policy, prm) as solver:

        async def solve(question: str, strategy: str) -> None:
            solved = await solver.solve(question, strategy=strategy, n=8, budget_tokens=budget, max_tokens=300)
            solutions[question, strategy] = solved

        async def kill_midway() -> None:
            await enough.wait()
            servers[1].kill()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kill_midway)
            for question in QUESTIONS:
                for strategy in ("weighted_best_of_n", "beam_search"):
                    tasks.start_soon(solve, question, strategy)
    assert len(solutions) == 2 * len(QUESTIONS)
    assert all(solution.answer is not None for solution in solutions.values())
    for solution in solutions.values():
        assert solution.spent == solution.usage.completion_tokens + solution.usage.lost_tokens <= budget
    assert sum(solution.usage.lost_tokens for solution in solutions.values()) > 0
    assert not mortal.ready
    assert policy.replicas[0].served > 100
