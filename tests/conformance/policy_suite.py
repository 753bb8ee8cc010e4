"""What every policy must do. A policy joins with ``register(PolicyCase(...))``; each check runs on each case."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import anyio
import pytest

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policy import Policy, Sampled, SampleRequest, whole_samples
from adaptive_ttc.types import Problem


@dataclass(frozen=True)
class PolicyCase:
    """A policy under test.

    Attributes:
        name: shown in the test's id.
        make: a new policy at each call; takes ``max_batch`` (samples at once) and ``max_context``. Within 300 tokens
            some of its samples end by themselves.
        make_endless: the same, whose samples do not end by themselves within thousands of tokens.
        exact_pieces: a sample that is cut into several requests of one seed is the same sample.
        caches: a continuation of its own sample finds most of its prompt cached.
        any_settings: it samples at any temperature and nucleus and ends at stop strings; one that answers from a
            record knows temperature 0.8 alone.
        any_prompt: it answers any prompt; one that answers from a record knows :data:`QUESTIONS` alone.
        goes_on: it ends at stop strings and goes on from begun solutions; one that does not writes whole ones alone.
        logprobs: it tells the log-probability of every token.
    """

    name: str
    make: Callable[..., Policy]
    make_endless: Callable[..., Policy]
    exact_pieces: bool = True
    caches: bool = True
    any_settings: bool = True
    any_prompt: bool = True
    goes_on: bool = True
    logprobs: bool = True

    @property
    def cut_temperature(self) -> float:
        """A temperature at which cutting a sample does not change it."""
        return 0.8 if self.exact_pieces else 0.0

    def mixed(self, policy: Policy, count: int) -> list[SampleRequest]:
        """Requests of different prompts, seeds and lengths, and of all temperatures and nuclei that it has."""
        requests = mixed(policy, count)
        return requests if self.any_settings else [replace(one, temperature=0.8, top_p=1.0) for one in requests]


Check = Callable[[PolicyCase], Awaitable[None]]

CASES: dict[str, PolicyCase] = {}
CHECKS: dict[str, Check] = {}

QUESTIONS = ("What is 12 + 30 + 7?", "Add 3, 14 and 15.", "Compute 99 + 1 + 2 + 3 + 4 + 5.")


def register(case: PolicyCase) -> None:
    assert case.name not in CASES, f"there is a case {case.name} already"
    CASES[case.name] = case


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


async def run_check(name: str, case: PolicyCase) -> None:
    """Run one check on a case, and close what it made, so that one that fails leaves nothing open for the next."""
    made: list[Policy] = []

    def kept(make: Callable[..., Policy]) -> Callable[..., Policy]:
        def making(**settings: Any) -> Policy:
            made.append(make(**settings))
            return made[-1]

        return making

    try:
        await CHECKS[name](replace(case, make=kept(case.make), make_endless=kept(case.make_endless)))
    finally:
        for policy in made:
            await policy.aclose()


PLACES = 16
"""Places in a search that requests come from: a sample's seed belongs to its place, and some engines go by that."""


def ask(policy: Policy, question: str = QUESTIONS[0], **settings: Any) -> SampleRequest:
    fields: dict[str, Any] = {
        "path": (settings.get("seed", 1) % PLACES,),
        "id": "one",
        "prompt_ids": policy.encode(Problem.of(question)),
        "max_tokens": 40,
        "seed": 1,
        "messages": Problem.of(question).messages,
    }
    return SampleRequest(**{**fields, **settings})


def mixed(policy: Policy, count: int) -> list[SampleRequest]:
    """Requests of different prompts, seeds, lengths, temperatures and nuclei."""
    return [
        ask(
            policy,
            QUESTIONS[index % len(QUESTIONS)],
            id=f"mixed-{index}",
            seed=1000 + index // 2,
            max_tokens=3 + index % 17,
            temperature=(0.8, 1.2, 0.0)[index % 3],
            top_p=(1.0, 0.9)[index % 2],
        )
        for index in range(count)
    ]


async def sample_all(policy: Policy, requests: Sequence[SampleRequest]) -> list[Sampled]:
    """All at once, their tasks started in the order given."""
    got: dict[int, Sampled] = {}

    async def one(index: int) -> None:
        got[index] = await policy.sample(requests[index])

    async with anyio.create_task_group() as tasks:
        for index in range(len(requests)):
            tasks.start_soon(one, index)
    return [got[index] for index in range(len(requests))]


@check
async def satisfies_the_protocol(case: PolicyCase) -> None:
    policy = case.make()
    assert isinstance(policy, Policy)
    assert policy.name
    assert policy.fingerprint
    assert policy.parameters > 0
    prompt = policy.encode(Problem.of(QUESTIONS[0]))
    assert isinstance(prompt, tuple)
    assert all(type(token) is int for token in prompt)
    assert len(prompt) < policy.max_context


@check
async def prompts_are_a_function_of_the_problem(case: PolicyCase) -> None:
    policy, other = case.make(), case.make()
    prompts = [policy.encode(Problem.of(question)) for question in QUESTIONS]
    assert prompts == [other.encode(Problem.of(question, id="another")) for question in QUESTIONS]
    assert len(set(prompts)) == len(QUESTIONS)


@check
async def same_seed_same_tokens_alone_and_among_others(case: PolicyCase) -> None:
    policy = case.make(max_batch=4)
    requests = case.mixed(policy, 24)
    alone = [await policy.sample(request) for request in requests]
    await policy.aclose()
    for order in (range(24), range(23, -1, -1)):
        policy = case.make(max_batch=16)
        together = await sample_all(policy, [requests[index] for index in order])
        for index, sampled in zip(order, together, strict=True):
            assert sampled.token_ids == alone[index].token_ids, f"request {index}"
            assert sampled.finish == alone[index].finish
        await policy.aclose()


@check
async def seeds_decide(case: PolicyCase) -> None:
    policy = case.make()
    requests = [ask(policy, id=str(seed), seed=seed) for seed in (0, 1, 2, 3, 2**63 - 1)]
    assert len({sampled.token_ids for sampled in await sample_all(policy, requests)}) > 1


@check
async def greedy_asks_no_seed(case: PolicyCase) -> None:
    if not case.any_settings:
        pytest.skip("answers at the recorded settings alone")
    policy = case.make()
    requests = [ask(policy, id=str(seed), seed=seed, temperature=0.0) for seed in range(4)]
    assert len({sampled.token_ids for sampled in await sample_all(policy, requests)}) == 1


@check
async def max_tokens_is_exact(case: PolicyCase) -> None:
    policy = case.make_endless()
    requests = [ask(policy, id=str(limit), max_tokens=limit) for limit in (1, 2, 3, 15, 16, 17, 33)]
    for request, sampled in zip(requests, await sample_all(policy, requests), strict=True):
        assert len(sampled.token_ids) == request.max_tokens
        assert sampled.finish == "length"


@check
async def a_longer_limit_only_adds_tokens(case: PolicyCase) -> None:
    policy = case.make()
    short, long = await sample_all(policy, [ask(policy, id="a", max_tokens=9), ask(policy, id="b", max_tokens=50)])
    assert long.token_ids[: len(short.token_ids)] == short.token_ids
    assert len(long.token_ids) > len(short.token_ids)


@check
async def eos_is_delivered_and_not_decoded(case: PolicyCase) -> None:
    policy = case.make()
    samples = await sample_all(policy, [ask(policy, id=str(seed), seed=seed, max_tokens=300) for seed in range(12)])
    ended = [sampled for sampled in samples if sampled.finish == "eos"]
    assert ended, "none of the samples ended by itself"
    for sampled in ended:
        *before, eos = sampled.token_ids
        assert policy.decode([eos]) == ""
        assert policy.decode(sampled.token_ids) == policy.decode(before)
        assert eos not in before
    # its last token may be the one that the limit allows: it has ended all the same
    shortest = min(range(12), key=lambda seed: (samples[seed].finish != "eos", len(samples[seed].token_ids)))
    limit = len(samples[shortest].token_ids)
    again = await policy.sample(ask(policy, seed=shortest, max_tokens=limit))
    assert (again.finish, again.token_ids) == ("eos", samples[shortest].token_ids)


def plain_pair(policy: Policy, tokens: Sequence[int]) -> tuple[str, int]:
    """Two plain characters of a sample's text, and the number of tokens up to where they first stand together.

    A token ends between the two.
    """
    text = policy.decode(tokens)
    for start in range(8, len(text) - 1):
        pair = text[start : start + 2]
        if pair.isascii() and pair.isprintable():
            length = next(k for k in range(1, len(tokens) + 1) if pair in policy.decode(tokens[:k]))
            if length > 2 and policy.decode(tokens[: length - 1]).endswith(pair[0]):
                return pair, length
    raise AssertionError(f"no two plain characters of two tokens in {text!r}")


@check
async def a_stop_string_ends_the_sample_and_is_delivered(case: PolicyCase) -> None:
    if not case.goes_on:
        pytest.skip("writes whole solutions alone")
    if not case.any_settings:
        pytest.skip("answers at the recorded settings alone")
    policy = case.make_endless()
    whole = await policy.sample(ask(policy, max_tokens=120, temperature=case.cut_temperature))
    pair, length = plain_pair(policy, whole.token_ids)
    for max_tokens in (120, length):
        request = ask(policy, max_tokens=max_tokens, temperature=case.cut_temperature, stop=("never\n", pair))
        stopped = await policy.sample(request)
        assert stopped.finish == "stop"
        assert stopped.token_ids == whole.token_ids[:length]
        assert pair in policy.decode(stopped.token_ids)


@check
async def a_stop_string_is_seen_across_a_seam(case: PolicyCase) -> None:
    if not case.goes_on:
        pytest.skip("writes whole solutions alone")
    if not case.any_settings:
        pytest.skip("answers at the recorded settings alone")
    policy = case.make_endless()
    temperature = case.cut_temperature
    whole = await policy.sample(ask(policy, max_tokens=120, temperature=temperature))
    pair, length = plain_pair(policy, whole.token_ids)
    begun = whole.token_ids[: length - 1]
    request = ask(policy, temperature=temperature, max_tokens=8, stop=(pair,))
    request = replace(request, prompt_ids=request.prompt_ids + begun)
    context = policy.decode(begun)[-1:]
    assert pair.startswith(context)
    seen = await policy.sample(replace(request, stop_context=context))
    assert (seen.finish, seen.token_ids) == ("stop", whole.token_ids[length - 1 : length])
    # without the context, only a later occurrence counts; and one that ended before the new tokens never does
    unseen = await policy.sample(request)
    assert len(unseen.token_ids) > 1 or unseen.finish != "stop"
    past = await policy.sample(replace(request, stop_context=pair))
    assert past.token_ids == unseen.token_ids


@check
async def pieces_of_a_sample_are_the_sample(case: PolicyCase) -> None:
    if not case.exact_pieces:
        pytest.skip("seeds a stream for every request")
    policy = case.make(max_batch=8)
    request = ask(policy, max_tokens=80, seed=5, temperature=1.0 if case.any_settings else 0.8)
    whole = await policy.sample(request)
    for sizes in ((1,), (7, 2), (40,)):
        tokens: tuple[int, ...] = ()
        pieces = 0
        finish = "length"
        while finish == "length" and len(tokens) < 80:
            limit = min(sizes[pieces % len(sizes)], 80 - len(tokens))
            piece = replace(request, id=f"piece-{pieces}", prompt_ids=request.prompt_ids + tokens, max_tokens=limit)
            sampled = await policy.sample(piece)
            tokens, finish, pieces = tokens + sampled.token_ids, sampled.finish, pieces + 1
        assert (tokens, finish) == (whole.token_ids, whole.finish)


@check
async def logprobs_are_of_the_delivered_tokens(case: PolicyCase) -> None:
    if not case.logprobs:
        pytest.skip("tells no log-probabilities")
    policy = case.make()
    for sampled in await sample_all(policy, case.mixed(policy, 12)):
        assert len(sampled.logprobs) == len(sampled.token_ids)
        assert all(math.isfinite(logprob) and logprob <= 1e-6 for logprob in sampled.logprobs)
    if not case.any_settings:
        await policy.aclose()
        return
    # they are the temperature-1 model's, so that they do not change with temperature and nucleus
    plain = await policy.sample(ask(policy, temperature=0.0))
    narrow = await policy.sample(ask(policy, temperature=0.8, top_p=1e-6))
    assert narrow.token_ids == plain.token_ids
    assert narrow.logprobs == pytest.approx(plain.logprobs, abs=1e-4)


@check
async def usage_adds_up(case: PolicyCase) -> None:
    policy = case.make(max_batch=4)
    requests = case.mixed(policy, 20)
    for request, sampled in zip(requests, await sample_all(policy, requests), strict=True):
        assert sampled.prompt_tokens + sampled.cached_tokens == len(request.prompt_ids)
        assert sampled.prompt_tokens > 0
        assert sampled.cached_tokens >= 0


@check
async def what_goes_on_from_a_begun_solution_is_refused_and_only_that(case: PolicyCase) -> None:
    policy = case.make()
    for part in () if case.goes_on else ({"stop": ("\n\n",)}, {"messages": ()}):
        with pytest.raises(ConfigError, match="whole"):
            await policy.sample(ask(policy, **part))
    assert whole_samples(policy) == (not case.goes_on)
    assert (await policy.sample(ask(policy, max_tokens=2))).token_ids


@check
async def a_continuation_finds_its_prefix_cached(case: PolicyCase) -> None:
    if not case.caches:
        pytest.skip("has no prefix cache")
    policy = case.make_endless()
    request = ask(policy, max_tokens=60)
    first = await policy.sample(request)
    goes_on = replace(request, prompt_ids=request.prompt_ids + first.token_ids, seed=2, path=(*request.path, 0))
    second = await policy.sample(goes_on)
    assert second.cached_tokens >= 0.8 * len(goes_on.prompt_ids)


@check
async def an_abort_returns_the_tokens_so_far(case: PolicyCase) -> None:
    policy = case.make_endless(max_batch=2)
    long = ask(policy, id="long", max_tokens=3000, seed=3)
    expected = await policy.sample(replace(long, max_tokens=2))
    ended: dict[str, Sampled] = {}

    async def run(request: SampleRequest) -> None:
        ended[request.id] = await policy.sample(request)

    # how far it comes beside five short ones is a server's matter: it may not have begun by then, or have ended
    for shorts in (5, 1, 20, 5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, long)
            for turn in range(shorts):
                await policy.sample(ask(policy, id=f"short-{turn}", max_tokens=30))
            await policy.abort("long")
        aborted = ended["long"]
        if aborted.finish == "abort" and len(aborted.token_ids) >= 2:
            break
    assert aborted.finish == "abort"
    assert aborted.token_ids[:2] == expected.token_ids
    assert 2 <= len(aborted.token_ids) < 3000
    assert len(aborted.logprobs) == len(aborted.token_ids) * case.logprobs


@check
async def an_abort_frees_the_slot_and_reaches_the_queue(case: PolicyCase) -> None:
    policy = case.make_endless(max_batch=1)
    ended: dict[str, Sampled] = {}

    async def run(request: SampleRequest) -> None:
        ended[request.id] = await policy.sample(request)

    async with anyio.create_task_group() as tasks:
        for name in ("first", "second"):
            tasks.start_soon(run, ask(policy, id=name, max_tokens=3000))
        await anyio.lowlevel.checkpoint()
        await policy.abort("second")
        await policy.abort("first")
        third = await policy.sample(ask(policy, id="third", max_tokens=3))
    assert {name: sampled.finish for name, sampled in ended.items()} == {"first": "abort", "second": "abort"}
    assert len(third.token_ids) == 3


@check
async def unknown_aborts_are_ignored(case: PolicyCase) -> None:
    policy = case.make_endless()
    await policy.abort("nobody")
    sampled = await policy.sample(ask(policy, id="somebody", max_tokens=4))
    await policy.abort("somebody")
    again = await policy.sample(ask(policy, id="somebody", max_tokens=4))
    assert (sampled.finish, again.finish) == ("length", "length")
    assert sampled.token_ids == again.token_ids


@check
async def a_cancelled_task_frees_its_slot(case: PolicyCase) -> None:
    policy = case.make_endless(max_batch=1)
    expected = await policy.sample(ask(policy, id="before", max_tokens=5))
    for _ in range(3):
        async with anyio.create_task_group() as doomed:
            for name in ("running", "waiting"):
                doomed.start_soon(policy.sample, ask(policy, id=name, max_tokens=3000))
            await anyio.lowlevel.checkpoint()
            doomed.cancel_scope.cancel()
    after = await policy.sample(ask(policy, id="running", max_tokens=5))
    assert after.token_ids == expected.token_ids


@check
async def what_cannot_fit_is_refused_and_only_that(case: PolicyCase) -> None:
    if not case.any_prompt:
        pytest.skip("answers recorded prompts alone")
    policy = case.make_endless(max_context=200)
    assert policy.max_context == 200
    with pytest.raises(ConfigError, match="context"):
        policy.encode(Problem.of("1 + " * 200 + "1"))
    prompt = policy.encode(Problem.of(QUESTIONS[0]))
    filler = policy.encode(Problem.of("1 + " * 30 + "1"))[:-1]
    prompt = (prompt + (prompt[-1],) * 200)[:200] if len(filler) < 2 else (prompt + filler * 10)[:200]
    with pytest.raises(ConfigError, match="context"):
        await policy.sample(ask(policy, prompt_ids=prompt))
    # up to the context's end, and not beyond
    last = await policy.sample(ask(policy, prompt_ids=prompt[:199], max_tokens=5))
    assert (len(last.token_ids), last.finish) == (1, "length")
    more = await policy.sample(ask(policy, prompt_ids=prompt[:190], max_tokens=100))
    assert (len(more.token_ids), more.finish) == (10, "length")


@check
async def impossible_requests_are_refused(case: PolicyCase) -> None:
    policy = case.make()
    for impossible in (
        {"max_tokens": 0},
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"stop": ("",)},
        {"prompt_ids": ()},
        {"prompt_ids": (10**9,)},
        {"prompt_ids": (-1,)},
    ):
        with pytest.raises(ConfigError):
            await policy.sample(ask(policy, **impossible))
    assert (await policy.sample(ask(policy, max_tokens=2))).token_ids


@check
async def what_is_not_on_record_is_refused_and_only_that(case: PolicyCase) -> None:
    policy = case.make()
    strange = (
        [] if case.any_settings else [{"temperature": 0.7}, {"temperature": 0.0}, {"top_p": 0.9}, {"stop": ("x",)}]
    )
    if not case.any_prompt:
        other = policy.encode(Problem.of(QUESTIONS[0]))[:-1]
        strange += [{"prompt_ids": other}, {"path": (PLACES,)}, {"path": (0, 1)}]
        with pytest.raises(ConfigError, match="record this one"):
            policy.encode(Problem.of("What is never asked?"))
    for settings in strange:
        with pytest.raises(ConfigError, match="recorded"):
            await policy.sample(ask(policy, **settings))
    assert (await policy.sample(ask(policy, max_tokens=2))).token_ids


@check
async def two_requests_of_one_id_are_refused(case: PolicyCase) -> None:
    policy = case.make_endless()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(policy.sample, ask(policy, id="twin", max_tokens=500))
        await anyio.lowlevel.checkpoint()
        with pytest.raises(ConfigError, match="twin"):
            await policy.sample(ask(policy, id="twin"))
        await policy.abort("twin")


@check
async def many_requests_through_few_slots_all_end(case: PolicyCase) -> None:
    policy = case.make(max_batch=8)
    requests = [replace(request, id=str(index)) for index, request in enumerate(case.mixed(policy, 200))]
    for request, sampled in zip(requests, await sample_all(policy, requests), strict=True):
        assert sampled.finish in ("eos", "length")
        assert 0 < len(sampled.token_ids) <= request.max_tokens
        assert sampled.finish == "eos" or len(sampled.token_ids) == request.max_tokens


@check
async def closed_twice_and_then_refusing(case: PolicyCase) -> None:
    policy = case.make()
    await policy.sample(ask(policy, max_tokens=2))
    await policy.aclose()
    await policy.aclose()
    with pytest.raises(EngineError, match="closed"):
        await policy.sample(ask(policy))
    await policy.abort("nobody")


@check
async def closing_ends_what_is_pending(case: PolicyCase) -> None:
    policy = case.make_endless(max_batch=2)
    ended: list[Sampled] = []

    async def run(index: int) -> None:
        ended.append(await policy.sample(ask(policy, id=str(index), max_tokens=3000)))

    async with anyio.create_task_group() as tasks:
        for index in range(5):
            tasks.start_soon(run, index)
        await anyio.lowlevel.checkpoint()
        await policy.aclose()
    assert [sampled.finish for sampled in ended] == ["abort"] * 5
