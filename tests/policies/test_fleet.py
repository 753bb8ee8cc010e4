"""Which replica serves: by expected wait, near the prefix, within its limit; what hangs, refuses or comes back."""

from __future__ import annotations

from typing import Any

import anyio
import httpx2
import pytest

from adaptive_ttc.policies.fake.servers import Server
from adaptive_ttc.policies.openai import FleetConfig
from adaptive_ttc.policies.openai.fleet import Fleet, Replica
from adaptive_ttc.policies.openai.http import Connections
from adaptive_ttc.policies.openai.limits import REFUSED, Limit
from adaptive_ttc.policies.openai.pace import MEMORY, Pace
from adaptive_ttc.policies.openai.queues import Queue, read_queue
from adaptive_ttc.policies.openai.retries import seconds_of_rest
from tests.doubles import in_virtual_time, virtually
from tests.policies.virtual import Endless, asked, virtual_policy


async def draw(policy: Any, numbers: range, workers: int, **settings: Any) -> list[float]:
    """Sample so many answers by so many tasks; how long each took."""
    left, seconds = iter(numbers), []

    async def work() -> None:
        for number in left:
            begun = anyio.current_time()
            await policy.sample(asked(number, **settings))
            seconds.append(anyio.current_time() - begun)

    async with anyio.create_task_group() as tasks:
        for _ in range(workers):
            tasks.start_soon(work)
    return seconds


@virtually
async def test_a_slow_replica_gets_less_and_more_again_when_it_is_as_fast():
    servers = [Server(pace=0.06), *(Server() for _ in range(3))]
    policy = virtual_policy(servers, Endless(50), affinity_block=0)
    await draw(policy, range(400), 32)
    slow, *others = [one.taken for one in servers]
    assert 10 < slow < min(others) / 3
    servers[0].pace = 0.02
    before = [one.taken for one in servers]
    await draw(policy, range(400, 1600), 32)
    slow, *others = [one.taken - then for one, then in zip(servers, before, strict=True)]
    assert slow > 0.6 * max(others)


def test_the_same_run_chooses_the_same_replicas():
    async def run() -> tuple[list[int], float]:
        servers = [Server(pace=0.01 * (1 + index % 3)) for index in range(12)]
        await draw(virtual_policy(servers, Endless(20), affinity_block=0), range(200), 24)
        return [one.taken for one in servers], anyio.current_time()

    assert in_virtual_time(run) == in_virtual_time(run)


@virtually
async def test_a_replica_that_hangs_gets_nothing_until_it_speaks_again():
    servers = [Server(hangs=[(20.0, 60.0)]), Server()]
    policy = virtual_policy(servers, Endless(50), affinity_block=0, suspect_after=2.0, max_concurrency=16)
    taken: list[int] = []

    async def watch() -> None:
        for moment in (19.0, 23.5, 59.0, 90.0):
            await anyio.sleep_until(moment)
            taken.append(servers[0].taken)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await draw(policy, range(1000), 16)
    before, suspected, hung, back = taken
    assert before > 20
    assert suspected == hung
    assert back > hung + 20


@virtually
async def test_a_replica_that_loses_its_answers_is_probed_and_begins_with_few_requests():
    servers = [Server(hangs=[(20.0, 60.0)]), Server(pace=0.1)]
    policy = virtual_policy(
        servers, Endless(50), affinity_block=0, stall_timeout=5.0, connect_timeout=1.0, max_concurrency=32
    )
    most_at_first = lost = 0

    async def work(numbers: Any) -> None:
        nonlocal most_at_first, lost
        for number in numbers:
            try:
                await policy.sample(asked(number))
            except Exception:
                lost += 1
            if 60.0 < anyio.current_time() < 61.5:
                most_at_first = max(most_at_first, servers[0].running)

    numbers = iter(range(1500))
    async with anyio.create_task_group() as tasks:
        for _ in range(32):
            tasks.start_soon(work, numbers)
    assert 0 < lost <= 32
    assert most_at_first < 8
    assert policy.replicas[0].served > policy.replicas[1].served


@virtually
async def test_a_replica_that_refuses_gets_no_more_than_it_takes():
    servers = [Server(most=6), Server()]
    policy = virtual_policy(servers, Endless(30), affinity_block=0, backoff=0.1, max_concurrency=48)
    await draw(policy, range(600), 48)
    assert 2 <= policy.replicas[0].limit.requests <= 9
    assert policy.replicas[1].limit.requests == 48
    assert policy.replicas[0].served < servers[0].taken + 150


@virtually
async def test_a_queue_that_grows_is_kept_here():
    for tells in (True, False):
        servers = [Server(slots=4, tells_queue=tells)]
        policy = virtual_policy(servers, Endless(30), affinity_block=0, load_interval=0.5, max_concurrency=64)
        waiting = []

        async def watch(servers: Any = servers, waiting: Any = waiting) -> None:
            while True:
                await anyio.sleep(0.25)
                waiting.append(servers[0].waiting)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await draw(policy, range(400), 64)
            tasks.cancel_scope.cancel()
        late = waiting[len(waiting) // 2 : -20]
        assert (max(late) < 12) == tells
        if tells:
            assert sum(late) > 0  # it is never idle
        else:
            assert not policy.replicas[0].tells_load


@virtually
async def test_other_clients_requests_count():
    fleet = Fleet(FleetConfig(base_urls=("http://a/v1", "http://b/v1"), affinity_block=0), nobody_is_ill)
    async with fleet.replica((1,), 0.0), fleet.replica((1,), 0.0):
        for one in fleet.replicas:
            fleet.heard(one, 1.0, 50, first=True)
        fleet.looked(fleet.replicas[0], Queue(20, 0))
        assert fleet.replicas[0].others == 19
        chosen = [fleet._choose(fleet.replicas, (1,)) for _ in range(3)]
        assert chosen == [fleet.replicas[1]] * 3
        await anyio.sleep(60.0)
        assert fleet.replicas[0] in [fleet._choose(fleet.replicas, (1,))]  # what was seen then holds no more


async def nobody_is_ill(replica: Replica) -> None:
    replica.model = "m"


@virtually
async def test_samples_stay_where_their_prefix_is_unless_it_is_measurably_behind():
    prompt = tuple(range(64))
    fleet = Fleet(FleetConfig(base_urls=("http://a/v1", "http://b/v1"), affinity_block=16, spill=4), nobody_is_ill)
    async with fleet.replica(prompt, 0.0) as first:
        other = next(one for one in fleet.replicas if one is not first)
        first.heard = other.heard = anyio.current_time()
        for one in (first, other):
            one.ready = True
            fleet.heard(one, 1.0, 50, first=True)
        assert fleet._choose(fleet.replicas, prompt) is first
        first.in_flight = 5
        assert fleet._choose(fleet.replicas, prompt) is other  # more than ``spill`` behind
        first.in_flight = 3
        assert fleet._choose(fleet.replicas, prompt) is first
        fleet.heard(first, 40.0, 50, first=False)
        assert fleet._choose(fleet.replicas, prompt) is other  # slower than that is worth
        first.in_flight = 1


def test_limits_are_cut_once_a_burst_and_raised_by_one_a_round():
    limit = Limit(64)
    limit.pushed_back(REFUSED, 20, sent=1.0, now=2.0)
    assert limit.requests == 10
    for _ in range(9):
        limit.pushed_back(REFUSED, 10, sent=1.5, now=2.5)
    assert limit.requests == 10
    raised = sum(limit.taken(in_flight=10) for _ in range(11))
    assert (raised, limit.requests) == (1, 11)
    assert not any(limit.taken(in_flight=5) for _ in range(100))
    limit.pushed_back(REFUSED, 1, sent=3.0, now=3.0)
    assert limit.requests == 1
    fresh = Limit(64)
    fresh.restart(0)
    assert [fresh.taken(in_flight) for in_flight in (1, 2, 3)] == [True] * 3
    assert fresh.requests == 4


def test_a_pace_fades_into_the_fleet_s():
    pace = Pace()
    assert pace.per_token(0.0) == 0.0
    pace.took(100.0, 1000, now=0.0)
    assert pace.per_token(0.0) == pytest.approx(0.1)
    assert pace.per_token(0.0, typical=0.02) > 0.09
    assert pace.per_token(10 * MEMORY, typical=0.02) == pytest.approx(0.02, rel=0.01)
    pace.took(1.0, 100, now=-5.0)  # another event loop's clock
    assert pace.per_token(0.0) > 0


VLLM = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 7.0
vllm:num_requests_running{engine="1",model_name="m"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 2.0
vllm:kv_cache_usage_perc{engine="0"} 0.2
"""


def test_queues_are_read_as_servers_tell_them():
    assert read_queue(VLLM) == Queue(10, 2)
    assert read_queue("sglang:num_running_reqs 5\nsglang:num_queue_reqs 1e1\n") == Queue(5, 10)
    assert read_queue("llamacpp:requests_processing 1\nllamacpp:requests_deferred 0") == Queue(1, 0)
    assert read_queue('tgi_queue_size{a="{}"} 4 1700000000\ntgi_batch_current_size 2') == Queue(2, 4)
    assert read_queue('{"server_load": 9}') == Queue(9, 0)
    for nothing in (
        "",
        "# no metrics",
        "process_open_fds 5",
        "[]",
        '{"load": 1}',
        "vllm:num_requests_waiting nan",
        "1",
        '{"server_load": Infinity}',
        "[" * 100_000,
    ):
        assert read_queue(nothing) is None
    assert read_queue("vllm:num_requests_waiting e\nvllm:num_requests_running 1e999") is None


async def test_queues_are_asked_for_where_servers_have_them():
    answers = {"/metrics": (404, ""), "/load": (200, '{"server_load": 3}')}

    def answer(request: httpx2.Request) -> httpx2.Response:
        status, said = answers[request.url.path]
        return httpx2.Response(status, text=said)

    config = FleetConfig(base_urls=("http://a/v1",))
    links = Connections(config, 100)
    links.enter()
    links._client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    replica = Replica("http://a/v1", 0)
    assert await links.queue(replica) == Queue(3, 0)
    answers["/metrics"] = (200, VLLM)
    assert await links.queue(replica) == Queue(10, 2)
    answers.update({"/metrics": (200, "nothing"), "/load": (404, "")})
    assert await links.queue(replica) is None
    answers["/metrics"] = (503, "")
    with pytest.raises(Exception, match="503"):
        await links.queue(replica)
    await links.aclose()


def test_the_rest_that_is_asked_for_is_seconds_or_a_date():
    now = "Wed, 21 Oct 2026 07:28:00 GMT"
    assert [seconds_of_rest(said, None) for said in ("3", "0.5", "-1", "900", None, "soon", "nan")] == [
        *(3.0, 0.5, 0.0, 60.0, None, None, None)
    ]
    assert seconds_of_rest("Wed, 21 Oct 2026 07:28:12 GMT", now) == 12.0
    assert seconds_of_rest("Wed, 21 Oct 2026 07:27:00 GMT", now) == 0.0
    assert seconds_of_rest("Wed, 21 Oct 2026 07:28:12 GMT", None) is None
