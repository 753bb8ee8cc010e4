"""The policy over HTTP: forms of prompts, counts, what is repeated and what is paid for, routing, a dying replica."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
import pytest

from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.errors import ConfigError, EngineError, OutageError
from adaptive_ttc.events import RequestEvent
from adaptive_ttc.loading import load_policy
from adaptive_ttc.policies.fake import FakePolicy, ToyModel, toy_right_so_far
from adaptive_ttc.policies.openai import OpenAIPolicy
from adaptive_ttc.policy import Sampled, SampleRequest
from adaptive_ttc.prm import ScoreRequest, load_prm
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Problem
from tests.conformance.policy_suite import ask, sample_all
from tests.policies.openai_server import ToyServer, folder
from tests.policies.server_profiles import (
    CHAT_ONLY,
    HEALTHLESS,
    LLAMA_CPP,
    MODEL,
    OLD_SGLANG,
    OLD_VLLM,
    PROFILES,
    SGLANG,
    TEXT_ONLY,
    TGI,
    VLLM,
)
from tests.policies.test_openai_conformance import EndlessWriter

LONG = "Add 1, 22, 333, 44, 555, 66, 777, 8 and 9."
QUIET = {"backoff": 0.0, "patience": 20.0}


def policy_over(*servers: ToyServer, **settings: Any) -> OpenAIPolicy:
    urls = [server.url for server in servers]
    return OpenAIPolicy.from_pretrained(folder(), base_url=urls, **{**QUIET, **settings})


async def whole_solution(policy: Any, **settings: Any) -> list[Sampled]:
    """A solution step by step, each from the tokens before."""
    request = ask(policy, LONG, max_tokens=400, stop=("\n\n",), temperature=0.0, **settings)
    steps = [await policy.sample(request)]
    while steps[-1].finish == "stop":
        request = replace(request, prompt_ids=request.prompt_ids + steps[-1].token_ids)
        steps.append(await policy.sample(request))
    return steps


@pytest.mark.parametrize("manner", [VLLM, OLD_VLLM, SGLANG, LLAMA_CPP], ids=["vllm", "old-vllm", "sglang", "llama-cpp"])
async def test_every_manner_of_server_that_names_ids_gives_the_model_s_own_tokens(manner):
    fake = FakePolicy.generative()
    expected = await whole_solution(fake)
    assert len(expected) > 5
    assert expected[-1].finish == "eos"
    with ToyServer(manner) as server:
        policy = policy_over(server)
        assert policy.encode(Problem.of(LONG)) == fake.encode(Problem.of(LONG))
        steps = await whole_solution(policy)
        await policy.aclose()
        assert [(one.token_ids, one.finish) for one in steps] == [(one.token_ids, one.finish) for one in expected]
        assert all(one.prompt_tokens > 0 for one in steps)
        asked = list(server.requests)
    # a stop string is left to the server only if it is known, or has shown, that it says which one it met
    assert ("stop" in asked[0]) == (manner.owner in ("vllm", "sglang"))
    assert all(("stop" in body) == (manner != LLAMA_CPP) for body in asked[1:])


WHOLE = {
    "chat": (CHAT_ONLY, "chat"),
    "text": (TEXT_ONLY, "text"),
    "old-sglang": (OLD_SGLANG, "chat"),
    **{f"{one.name}-chat": (one, "chat") for one in PROFILES},
    "tgi-text": (TGI, "text"),
}


@pytest.mark.parametrize(("manner", "api"), WHOLE.values(), ids=WHOLE)
async def test_every_other_server_gives_whole_solutions_in_the_model_s_own_tokens(manner, api):
    fake = FakePolicy.generative()
    expected = await fake.sample(ask(fake, LONG, max_tokens=400, temperature=0.0))
    assert expected.finish == "eos"
    with ToyServer(manner) as server:
        policy = policy_over(server, api=api, model=MODEL)
        sampled = await policy.sample(ask(policy, LONG, max_tokens=400, temperature=0.0))
        await policy.aclose()
    assert (sampled.token_ids, sampled.finish) == (expected.token_ids, expected.finish)
    assert sampled.prompt_tokens + sampled.cached_tokens == len(fake.encode(Problem.of(LONG)))


@pytest.mark.parametrize("request_", [{"strategy": "beam_search", "n": 4}, {"strategy": "dvts", "n": 4}])
async def test_a_step_search_on_whole_samples_is_refused_before_anything_is_sent(request_):
    with ToyServer(CHAT_ONLY) as server:
        async with Solver(policy_over(server, api="chat"), FakePRM.truthful(toy_right_so_far)) as solver:
            with pytest.raises(ConfigError, match=r"half-written solutions.*majority.*vLLM or SGLang"):
                await solver.solve(LONG, **request_, budget_tokens=4000)
        assert not server.paths


@pytest.mark.parametrize(
    "request_",
    [
        {"strategy": "greedy"},
        {"strategy": "majority", "n": 8},
        {"strategy": "best_of_n", "n": 8},
        {"strategy": "weighted_best_of_n", "n": 8},
        {"strategy": "revision", "n": 6},
    ],
    ids=lambda request: request["strategy"],
)
@pytest.mark.parametrize("budget", [150, 900, 4000])
@pytest.mark.parametrize(("manner", "api"), [(CHAT_ONLY, "chat"), (TEXT_ONLY, "text")], ids=["chat", "text"])
@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.RevisionWarning")
async def test_whole_samples_get_all_their_tokens_in_one_request_and_no_budget_is_overrun(
    manner, api, budget, request_
):
    with ToyServer(manner, ToyModel(0.1)) as server:
        async with Solver(policy_over(server, api=api), FakePRM.truthful(toy_right_so_far)) as solver:
            solution = await solver.solve(LONG, **request_, max_tokens=300, budget_tokens=budget)
        asked = list(solution.trace.of(RequestEvent))
        assert solution.spent == solution.usage.completion_tokens == server.generated <= budget
    if budget >= 300:
        assert solution.answer is not None
    # none goes on from another, and where the budget is wide all may run to their limit
    assert len({event.path for event in asked}) == len(asked)
    assert all(event.position == 0 for event in asked)
    if budget == 4000:
        assert {event.max_tokens for event in asked} == {300}
        assert len(asked) == request_.get("n", 1)


@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")
async def test_a_budget_alone_buys_whole_samples():
    with ToyServer(CHAT_ONLY, ToyModel(0.1)) as server:
        async with Solver(policy_over(server, api="chat"), FakePRM.truthful(toy_right_so_far)) as solver:
            solution = await solver.solve(LONG, budget_tokens=900, max_tokens=300)
    asked = list(solution.trace.of(RequestEvent))
    assert len(asked) == len({event.path for event in asked}) > 1
    assert all(event.position == 0 for event in asked)
    assert asked[0].max_tokens == 300
    assert solution.answer is not None
    assert solution.spent == solution.usage.completion_tokens <= 900


@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.RevisionWarning")
async def test_a_revision_by_chat_shows_earlier_attempts_as_turns():
    with ToyServer(CHAT_ONLY, ToyModel(0.1)) as server:
        async with Solver(policy_over(server, api="chat", system_prompt="Add.")) as solver:
            assert solver.policy.system_prompt == "Add."
            solution = await solver.solve(LONG, strategy="revision", n=3, sequential=3, vote="majority")
        turns = [[(one["role"], one["content"]) for one in body["messages"]] for body in server.requests]
    first, second, _ = solution.candidates
    opening = [("system", "Add."), ("user", LONG)]
    assert turns[0] == opening
    assert turns[1][:3] == [*opening, ("assistant", first.prefix.text)]
    assert turns[2][:3] == turns[1][:3]
    assert turns[2][4] == ("assistant", second.prefix.text)
    assert [len(one) for one in turns] == [2, 4, 6]
    assert turns[2][5] == turns[1][3] == turns[2][3]


async def test_a_server_that_names_no_ids_is_refused_at_its_first_words():
    with ToyServer(OLD_SGLANG, EndlessWriter(), pace=0.001) as server:
        policy = policy_over(server)
        with pytest.raises(ConfigError, match=r"names no token ids.*api='chat'"):
            await policy.sample(ask(policy, max_tokens=4000))
        while not server.gone:
            await anyio.lowlevel.checkpoint()
        assert server.generated < 4000
        await policy.aclose()


async def test_text_of_control_tokens_is_not_sent_as_text():
    with ToyServer(TEXT_ONLY) as server:
        policy = policy_over(server, api="text")
        written = policy.model.chat.tokenizer.encode("What is <user> 1 + 1?", split_special_tokens=True)
        with pytest.raises(ConfigError, match="control token"):
            await policy.sample(ask(policy, prompt_ids=tuple(written)))
        assert server.requests == []
        await policy.aclose()


@pytest.mark.parametrize(
    ("manner", "api"), [(CHAT_ONLY, "tokens"), (TEXT_ONLY, "tokens"), (TEXT_ONLY, "chat"), (CHAT_ONLY, "text")]
)
async def test_a_server_that_does_not_take_such_prompts_is_refused_before_it_generates(manner, api):
    with ToyServer(manner) as server:
        policy = policy_over(server, api=api)
        with pytest.raises(ConfigError, match=r"completions with 40[04].*api='chat'"):
            await policy.sample(ask(policy))
        await policy.aclose()
        assert server.generated == 0


async def test_bodies_switch_off_what_bends_the_distribution():
    with ToyServer() as server:
        policy = policy_over(server, extra={"cache_salt": "mine"})
        await policy.sample(ask(policy, priority=3))
        await policy.aclose()
        [body] = server.requests
    expected = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "repeat_penalty": 1.0, "model": MODEL}
    assert expected.items() <= body.items()
    assert (body["priority"], body["cache_salt"]) == (3, "mine")
    assert 0 <= body["seed"] < 2**31


async def test_a_server_gets_a_seed_where_draws_are_to_be_repeated_alone():
    with ToyServer() as server:
        policy = policy_over(server)
        await policy.sample(ask(policy, seeded=False))
        await policy.aclose()
        [body] = server.requests
    assert "seed" not in body


async def test_hosted_servers_get_the_fields_that_they_know():
    with ToyServer(CHAT_ONLY) as server:
        policy = policy_over(server, api="chat", standard_fields=True, extra={"user": "me"})
        await policy.sample(ask(policy))
        await policy.aclose()
        [body] = server.requests
    known = {"model", "messages", "max_tokens", "temperature", "top_p", "seed", "stream", "stream_options"}
    assert set(body) == known | {"logprobs", "top_logprobs", "user"}
    assert body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("status", [429, 503])
async def test_a_refusal_is_repeated_in_silence(status):
    with ToyServer() as server:
        server.trouble.refusals = [status] * 5
        policy = policy_over(server)
        sampled = await policy.sample(ask(policy))
        await policy.aclose()
        assert server.paths["/v1/completions"] == 6
        assert server.generated == len(sampled.token_ids) > 0


@pytest.mark.parametrize("statuses", [[502], [504], [424], [500, 500]])
async def test_a_failure_is_told_and_not_repeated(statuses):
    with ToyServer() as server:
        server.trouble.refusals = list(statuses)
        policy = policy_over(server)
        with pytest.raises(EngineError) as caught:
            await policy.sample(ask(policy))
        assert caught.value.retryable
        assert server.paths["/v1/completions"] == len(statuses)
        assert (await policy.sample(ask(policy))).token_ids
        await policy.aclose()


async def test_refusals_without_end_end_the_run_and_cost_nothing():
    with ToyServer() as server:
        server.trouble.refusals = [429] * 1000
        policy = policy_over(server, patience=0.0)
        with pytest.raises(EngineError, match="429") as caught:
            await policy.sample(ask(policy))
        assert not caught.value.retryable
        await policy.aclose()
        assert server.generated == 0


async def test_a_lost_answer_is_told_and_not_repeated():
    with ToyServer() as server:
        server.trouble.break_after, server.trouble.breaks = 5, 1
        policy = policy_over(server)
        with pytest.raises(EngineError, match="broke off") as caught:
            await policy.sample(ask(policy))
        assert caught.value.retryable
        assert len(server.requests) == 1
        assert (await policy.sample(ask(policy))).token_ids
        await policy.aclose()


async def test_an_answer_whose_count_was_lost_is_told_as_lost():
    with ToyServer(TEXT_ONLY) as server:
        server.trouble.break_after, server.trouble.breaks = 5, 1
        policy = policy_over(server, patience=0.0, api="text")
        with pytest.raises(EngineError) as caught:
            await policy.sample(ask(policy, max_tokens=5))
        assert caught.value.retryable
        assert len((await policy.sample(ask(policy, max_tokens=5))).token_ids) == 5
        await policy.aclose()


async def test_a_lost_answer_is_charged_in_full():
    with ToyServer() as server:
        server.trouble.break_after, server.trouble.breaks = 3, 2
        async with Solver(policy_over(server)) as solver:
            solution = await solver.solve(LONG, strategy="majority", n=8, budget_tokens=4000, max_tokens=400)
        lost = [event for event in solution.trace.of(RequestEvent) if event.finish == "lost"]
        assert len(lost) == 2
        assert solution.usage.lost_tokens == sum(event.max_tokens for event in lost)
        assert solution.spent == solution.usage.completion_tokens + solution.usage.lost_tokens <= 4000
        assert solution.answer is not None


async def test_nobody_is_there():
    with ToyServer() as server:
        policy = policy_over(server, patience=0.0)
        await policy.ready()
        server.close()
        policy.replicas[0].ready = False
        with pytest.raises(EngineError, match=r"no replica.*out of reach") as caught:
            await policy.sample(ask(policy))
        # to try again would be charged for what certainly generated nothing
        assert not caught.value.retryable
        await policy.aclose()


async def test_a_server_that_was_never_there_is_told_soon_and_may_come_up_later():
    with ToyServer() as server:
        policy = policy_over(server, patience=60.0, first_patience=0.5)
        policy.replicas[0].url = "http://127.0.0.1:9/v1"
        with pytest.raises(ConfigError, match=r"no server is there .http://127.0.0.1:9/v1: out of reach.*base_url"):
            await policy.ready()
        with pytest.raises(ConfigError, match="no server is there"):
            await policy.sample(ask(policy))
        policy.replicas[0].url, policy.replicas[0].retry_at = server.url, 0.0
        assert (await policy.sample(ask(policy))).token_ids
        await policy.aclose()


async def test_a_base_url_that_leads_past_the_api_is_told_at_once():
    with ToyServer() as server:
        policy = OpenAIPolicy.from_pretrained(folder(), base_url=server.url.removesuffix("/v1"), **QUIET)
        with pytest.raises(ConfigError, match=r"/models is not there \(404\).*with /v1"):
            await policy.ready()
        await policy.aclose()


async def test_a_server_that_says_that_it_is_not_well_is_waited_for():
    with ToyServer() as server:
        server.trouble.sick = True
        policy = policy_over(server, patience=0.05)
        with pytest.raises(OutageError, match="/health says"):
            await policy.ready()
        await policy.aclose()


async def test_the_sick_are_passed_over_until_they_are_well():
    with ToyServer() as sick, ToyServer() as well:
        sick.trouble.sick = True
        policy = policy_over(sick, well, affinity_block=0)
        await sample_all(policy, [ask(policy, id=str(index)) for index in range(8)])
        assert (len(sick.requests), len(well.requests)) == (0, 8)
        sick.trouble.sick = False
        await sample_all(policy, [ask(policy, id=str(index)) for index in range(8)])
        assert len(sick.requests) > 0
        await policy.aclose()


async def test_servers_without_a_health_path_are_asked_for_their_models():
    with ToyServer(HEALTHLESS) as server:
        policy = policy_over(server)
        assert (await policy.sample(ask(policy))).token_ids
        await policy.aclose()
        assert server.paths["/v1/models"] == 1


async def test_another_model_or_a_shorter_context_is_refused():
    with ToyServer(max_model_len=100) as server:
        for settings, message in (({"model": "other"}, f"serves {MODEL}"), ({}, "max_context=100")):
            policy = policy_over(server, **settings)
            with pytest.raises(ConfigError, match=message):
                await policy.sample(ask(policy))
            await policy.aclose()


async def test_continuations_go_where_their_prefix_is(monkeypatch):
    with ToyServer() as one, ToyServer() as two:
        policy = policy_over(one, two, affinity_block=4)
        heard = policy._fleet.heard  # as from two servers of one pace, however busy the machine is
        monkeypatch.setattr(
            policy._fleet, "heard", lambda replica, _, tokens, first: heard(replica, 1.0, tokens, first=first)
        )
        await all_well(policy, one, two)
        for replica in policy.replicas:
            replica.served = 0
        questions = [f"Add {index}, {index + 5}, {index * 7} and 12." for index in range(12)]
        for question in questions:
            first = await policy.sample(ask(policy, question, stop=("\n\n",)))
            await policy.sample(ask(policy, question, prompt_ids=ask(policy, question).prompt_ids + first.token_ids))
        await policy.aclose()
        for server in (one, two):
            # first steps take turns, and each is followed by its second where it was written
            assert len(server.requests) == 12
            prompts = [body["prompt"] for body in server.requests]
            assert all(later[: len(first)] == first for first, later in zip(prompts[::2], prompts[1::2], strict=True))


async def all_well(policy, *servers):
    """Nobody waits for a second replica's health: where load is shared, the test begins when all are well."""
    while not all(replica.ready for replica in policy.replicas):
        await policy.sample(ask(policy))
    for server in servers:
        server.requests.clear()
        server.generated = 0


async def test_a_crowd_spills_over():
    with ToyServer(VLLM, EndlessWriter()) as one, ToyServer(VLLM, EndlessWriter()) as two:
        policy = policy_over(one, two, affinity_block=4, spill=3)
        await all_well(policy, one, two)
        await sample_all(policy, [ask(policy, LONG, id=str(index), seed=index) for index in range(40)])
        await policy.aclose()
        assert min(len(one.requests), len(two.requests)) >= 15


async def test_so_many_requests_at_once_and_no_more():
    with ToyServer() as server:
        policy = policy_over(server, max_concurrency=3)
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, sum(replica.in_flight for replica in policy.replicas))
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await sample_all(policy, [ask(policy, id=str(index)) for index in range(20)])
            tasks.cancel_scope.cancel()
        await policy.aclose()
        assert most == 3


async def test_an_abort_is_seen_by_the_server_and_counts_what_came():
    with ToyServer(VLLM, EndlessWriter(), pace=0.001) as server:
        policy = policy_over(server)
        ended: list[Sampled] = []

        async def run() -> None:
            ended.append(await policy.sample(ask(policy, id="long", max_tokens=4000)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            while server.generated < 20:
                await anyio.lowlevel.checkpoint()
            await policy.abort("long")
        [aborted] = ended
        while not server.gone:
            await anyio.lowlevel.checkpoint()
        assert aborted.finish == "abort"
        assert len(aborted.token_ids) <= server.generated < 4000
        whole = await policy.sample(ask(policy, max_tokens=len(aborted.token_ids) + 1))
        assert whole.token_ids[:-1] == aborted.token_ids
        await policy.aclose()


async def test_an_answer_that_stalls_or_lasts_too_long_is_lost():
    for settings in ({"stall_timeout": 0.05}, {"request_timeout": 0.05}):
        with ToyServer() as server:
            server.trouble.hang = True
            policy = policy_over(server, **settings)
            with pytest.raises(EngineError) as caught:
                await policy.sample(ask(policy))
            assert caught.value.retryable
            await policy.aclose()


@pytest.mark.parametrize("strategy", ["weighted_best_of_n", "beam_search"])
async def test_a_run_survives_the_death_of_a_replica(strategy):
    questions = [f"Add {index}, 22, {index * 31}, 44 and {index + 6}." for index in range(6)]
    budget = 6000
    with ToyServer(VLLM, ToyModel(0.1)) as mortal, ToyServer(VLLM, ToyModel(0.1)) as other:
        mortal.trouble.die_after = 700
        policy = policy_over(mortal, other, affinity_block=8, spill=2)
        await all_well(policy, mortal, other)
        solutions = {}
        # half of what is under way is lost at once: more than the share of a budget that losses may take by default
        patient = DriverConfig(loss_share=0.5)
        async with Solver(policy, FakePRM.truthful(toy_right_so_far, noise=0.5), config=patient) as solver:

            async def solve(question: str) -> None:
                solutions[question] = await solver.solve(
                    question, strategy=strategy, n=8, budget_tokens=budget, max_tokens=200
                )

            async with anyio.create_task_group() as tasks:
                for question in questions:
                    tasks.start_soon(solve, question)
    assert mortal.dead
    assert mortal.generated >= 700
    assert set(solutions) == set(questions)
    assert all(solution.answer is not None for solution in solutions.values())
    usages = [solution.usage for solution in solutions.values()]
    assert all(one.completion_tokens + one.lost_tokens <= budget for one in usages)
    charged = sum(one.completion_tokens + one.lost_tokens for one in usages)
    assert charged == sum(solution.spent for solution in solutions.values())
    assert sum(one.lost_tokens for one in usages) > 0
    # whatever either server generated was charged to somebody
    assert mortal.generated + other.generated <= charged


def test_it_is_found_by_name():
    policy = load_policy(folder(), engine="openai", base_url="http://localhost:1/v1", max_concurrency=5)
    assert isinstance(policy, OpenAIPolicy)
    assert policy.fingerprint == load_policy(folder(), engine="openai").fingerprint
    assert policy.parameters > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": ()}, "base_urls is empty"),
        ({"base_url": "localhost:8000"}, "no base URL"),
        ({"base_url": ["http://a/v1", "http://a/v1/"]}, "twice"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"stream_interval": 0}, "stream_interval"),
        ({"stall_timeout": 0}, "stall_timeout"),
        ({"spill": -1}, "spill"),
        ({"suspect_after": 0}, "suspect_after"),
        ({"load_interval": -1}, "load_interval"),
        ({"hedge": 1.0}, "quantile between 0 and 1"),
        ({"hedge": 0.9}, "name two or more"),
        ({"hedge_share": 5}, "share from 0 to 1"),
        ({"api": "chats"}, "tokens, chat, text"),
        ({"extra": {"seed": 1}}, "seed"),
        ({"retries": 3}, "unknown settings retries"),
        ({"max_context": 10**6}, "max_context"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        OpenAIPolicy.from_pretrained(folder(), **settings)


async def test_requests_without_messages_cannot_be_put_as_a_chat():
    with ToyServer(CHAT_ONLY) as server:
        policy = policy_over(server, api="chat")
        with pytest.raises(ConfigError, match="messages"):
            await policy.sample(SampleRequest(id="x", prompt_ids=(1, 2, 3), max_tokens=4, seed=0))
        await policy.aclose()


async def test_a_chat_endpoint_judges():
    with ToyServer(CHAT_ONLY) as server:
        settings = {"verdict": r"boxed\{(?P<verdict>\d+)\}", "grades": [0, 1000], "max_tokens": 400}
        where = {"engine": "openai", "base_url": server.url, "api": "chat", "model": MODEL, **QUIET}
        judge = load_prm(f"judge:{folder()}", **settings, **where)
        scored = await judge.score(ScoreRequest(LONG, ("It is 7.", "So \\boxed{7}.")))
        (body,) = server.requests
        await judge.aclose()
    assert LONG in body["messages"][-1]["content"]
    assert scored.scores[0] == scored.scores[1] > 0
    assert 0 < scored.written_tokens < scored.prm_tokens
