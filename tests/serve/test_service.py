"""The server, by the official client and by hand: answers, budgets, keys, limits, clients that leave, its end."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager

import anyio
import httpx2
import openai
import pytest
import uvicorn

from adaptive_ttc import Solver
from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.prm import FakePRM
from adaptive_ttc.serve import Key, ServeConfig, Service, read_keys

pytestmark = pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")

MESSAGES = [{"role": "user", "content": "What is 12 + 30 + 5?"}]


@asynccontextmanager
async def served(policy=None, prm=None, **settings):
    async with Solver(policy or FakePolicy.generative(error_rate=0.0), prm) as solver:
        yield Service(solver, ServeConfig(**{"model": "fake", "default_budget": 600, **settings}))


async def until(condition):
    while not condition():  # noqa: ASYNC110
        await anyio.sleep(0.001)


def http_of(service):
    transport = httpx2.ASGITransport(app=service.app)
    return httpx2.AsyncClient(transport=transport, base_url="http://server")


def client_of(service, key="any"):
    http = http_of(service)
    return openai.AsyncOpenAI(base_url="http://server/v1", api_key=key, http_client=http, max_retries=0)


async def test_a_completion_holds_the_answer_the_spend_and_the_decision():
    async with served(prm=FakePRM(lambda question, steps: 0.5)) as service, client_of(service) as client:
        found = await client.chat.completions.create(model="fake@900", messages=MESSAGES)
    [choice] = found.choices
    assert "\\boxed{47}" in choice.message.content
    assert choice.finish_reason == "stop"
    assert found.model == "fake@900"
    assert 0 < found.usage.completion_tokens <= 900
    assert found.usage.spent == found.usage.completion_tokens == service.accounts.all.spent
    assert (found.usage.budget, found.usage.total_tokens) == (900, found.usage.prompt_tokens + found.usage.spent)
    assert found.usage.prm_tokens > 0
    assert found.metadata["answer"] == "47"
    assert found.metadata["stopped"] in ("settled", "not worth it", "budget", "no option fits")
    assert found.metadata["arms"]
    assert service.accounts.all.statistics().open_reservations == 0


async def test_a_strategy_its_options_and_the_trace_are_had_by_extra_fields():
    body = {"budget_tokens": 5000, "strategy": "majority", "n": 4, "answers": "number", "include_trace": True}
    async with served() as service, client_of(service) as client:
        found = await client.chat.completions.create(
            model="fake", messages=MESSAGES, temperature=0.5, seed=3, max_tokens=300,
            extra_body={**body, "options": {"top_p": 0.9}},
        )  # fmt: skip
        assert (found.metadata["strategy"], found.metadata["n"]) == ("majority", 4)
        asked = next(event for event in found.trace if event["event"] == "search")
        assert (asked["options"]["temperature"], asked["options"]["top_p"]) == (0.5, 0.9)
        assert asked["options"]["max_tokens"] == 300
        again = await client.chat.completions.create(
            model="fake", messages=MESSAGES, temperature=0.5, seed=3, max_tokens=300,
            extra_body={**body, "options": {"top_p": 0.9}},
        )  # fmt: skip
    assert again.choices[0].message.content == found.choices[0].message.content


async def test_n_of_1_is_what_clients_send_by_default():
    async with served() as service, client_of(service) as client:
        found = await client.chat.completions.create(model="fake", messages=MESSAGES, n=1)
    assert found.metadata["strategy"] == "adaptive"


async def test_a_stream_ends_with_the_answer_the_decision_and_the_usage():
    async with served() as service, client_of(service) as client:
        pieces = [
            piece
            async for piece in await client.chat.completions.create(
                model="fake", messages=MESSAGES, stream=True, stream_options={"include_usage": True},
                extra_body={"include_trace": True},
            )
        ]  # fmt: skip
    assert pieces[0].choices[0].delta.role == "assistant"
    kinds = {piece.event["event"] for piece in pieces if getattr(piece, "event", None)}
    assert {"sampled", "done"} <= kinds
    said = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert "\\boxed{47}" in said
    assert pieces[-2].choices[0].finish_reason == "stop"
    assert pieces[-2].metadata["answer"] == "47"
    assert pieces[-1].usage.spent == service.accounts.all.spent


async def test_thinking_stands_in_reasoning():
    async with served(FakePolicy.reasoning(error_rate=0.0)) as service, client_of(service) as client:
        found = await client.chat.completions.create(model="fake", messages=MESSAGES)
    message = found.choices[0].message
    assert message.reasoning.startswith("12 + 30 = 42")
    assert "42" not in message.content
    assert "\\boxed" in message.content
    assert found.usage.completion_tokens_details.reasoning_tokens > 0


async def test_a_stream_without_news_says_that_it_is_being_worked_on():
    policy = FakePolicy.generative(error_rate=0.0)
    hold = policy.hold()
    found = []
    async with served(policy, keep_alive=0.01) as service, http_of(service) as http, anyio.create_task_group() as tasks:

        async def ask():
            body = {"model": "fake", "messages": MESSAGES, "stream": True}
            found.append((await http.post("/v1/chat/completions", json=body)).text)

        tasks.start_soon(ask)
        await until(lambda: hold.waiting)
        await anyio.sleep(0.05)
        hold.release()
    assert ": working\n\n" in found[0]
    assert found[0].endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"model": "other"}, 404, "no model 'other'"),
        ({"model": "fake@many"}, 404, "fake@N"),
        ({"model": 3}, 400, "model, a string"),
        ({"messages": []}, 400, "messages"),
        ({"messages": "hello"}, 400, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "role 'tool'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "texts"),
        ({"messages": [{"role": "user", "content": " "}]}, 400, "empty"),
        ({"budget_tokens": 0}, 400, "at least 1"),
        ({"budget_tokens": True}, 400, "at least 1"),
        ({"budget_tokens": 5001}, 400, "5,000"),
        ({"strategy": "nothing"}, 400, "unknown strategy"),
        ({"n": 4, "strategy": "beam_search"}, 400, "PRM"),
        ({"answers": "nothing"}, 400, "answer"),
        ({"answers": "code"}, 400, "run programs"),
        ({"tools": [{"type": "function"}]}, 400, "tools is not supported"),
        ({"stream": "yes"}, 400, "true or false"),
        ({"stream": 0}, 400, "true or false"),
        ({"options": False}, 400, "an object"),
        ({"unknown": 1}, 400, "unknown field"),
        ({"options": {"nothing": 1}}, 400, "nothing"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"deadline": -1}, 400, "deadline"),
        ({"min_gain": -1}, 400, "min_gain"),
        ({"budget_tokens": 10**400}, 400, "below 2^63"),
        ({"model": "fake@99999999999999999999"}, 404, "fake@N"),
        ({"n": 1025}, 400, "1,024"),
        ({"options": {"n": 10**9, "strategy": "majority"}}, 400, "1,024"),
        ({"n": 4, "options": {"vote_power": 10**400}}, 400, "below 2^63"),
        ({"max_tokens": 10**400}, 400, "below 2^63"),
        ({"seed": "x"}, 400, "whole number"),
        ({"strategy": ["majority"]}, 400, "strategy is a number, a text"),
        ({"options": {"deadline": "soon"}}, 400, "deadline is a number"),
        ({"options": {"id": {}}}, 400, "id is no field"),
        ({"options": {"budget_tokens": 10**6}}, 400, "budget_tokens is no field"),
        ({"answers": r"regex:(\w|\d)*!"}, 400, "hold up"),
        ({"answers": "regex:a{99999999999}"}, 400, "hold up"),
    ],
)
async def test_what_cannot_be_had_is_refused_and_costs_nothing(body, status, said):
    async with served(most_budget=5000) as service, http_of(service) as http:
        reply = await http.post("/v1/chat/completions", json={"model": "fake", "messages": MESSAGES, **body})
        assert (reply.status_code, reply.json()["error"]["type"]) == (
            status, {400: "invalid_request_error", 404: "not_found_error"}[status],
        )  # fmt: skip
        assert said in reply.json()["error"]["message"]
        assert service.accounts.all.statistics().granted == 0
        assert (
            await http.post("/v1/chat/completions", json={"model": "fake", "messages": MESSAGES})
        ).status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff"])
async def test_a_malformed_body_is_refused(body):
    async with served() as service, http_of(service) as http:
        reply = await http.post("/v1/chat/completions", content=body)
    assert reply.status_code == 400


@pytest.mark.parametrize("name", ["deadline", "min_gain", "temperature"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e400"])
async def test_what_is_not_a_number_is_refused(name, value):
    body = json.dumps({"model": "fake", "messages": MESSAGES})[:-1] + f', "{name}": {value}}}'
    async with served() as service, http_of(service) as http:
        reply = await http.post("/v1/chat/completions", content=body)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, name)


async def test_whole_numbers_may_have_a_point():
    body = {"model": "fake", "messages": MESSAGES, "budget_tokens": 600.0, "n": 2.0, "seed": 3.0}
    async with served() as service, http_of(service) as http:
        reply = await http.post("/v1/chat/completions", json=body)
        assert (reply.status_code, reply.json()["metadata"]["n"]) == (200, 2)
        reply = await http.post("/v1/chat/completions", json={**body, "n": 2.5})
        assert (reply.status_code, "whole number" in reply.text) == (400, True)


async def test_what_only_a_run_finds_to_be_impossible_is_the_clients_fault():
    policy = FakePolicy.generative(error_rate=0.0)
    policy.fail(ConfigError("that temperature cannot be"))
    async with served(policy) as service, http_of(service) as http:
        reply = await http.post(
            "/v1/chat/completions", json={"model": "fake", "messages": MESSAGES, "strategy": "greedy"}
        )
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_max_tokens_counts_beside_an_empty_max_completion_tokens():
    body = {"model": "fake", "messages": MESSAGES, "max_completion_tokens": None, "max_tokens": 3}
    async with served() as service, http_of(service) as http:
        reply = (await http.post("/v1/chat/completions", json=body | {"strategy": "greedy"})).json()
    assert reply["usage"]["spent"] == 3
    assert reply["choices"][0]["finish_reason"] == "length"


async def test_a_long_body_and_unknown_paths_are_refused():
    async with served(max_body=1000) as service, http_of(service) as http:
        assert (await http.post("/v1/chat/completions", content=b" " * 1001)).status_code == 413
        assert (await http.get("/v1/nothing")).json()["error"]["type"] == "not_found_error"
        assert (await http.get("/v1/chat/completions")).status_code == 405


async def test_the_budget_of_all_is_held_hard_and_what_is_left_can_still_be_had():
    async with served(total_budget=1000, default_budget=600) as service, client_of(service) as client:
        many = {"strategy": "majority", "n": 40}
        found = await client.chat.completions.create(model="fake", messages=MESSAGES, extra_body=many)
        spent = found.usage.spent
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(model="fake", messages=MESSAGES, extra_body=many)
        assert 400 < spent == service.accounts.all.spent <= 1000
        assert int(refused.value.response.headers["retry-after"]) >= 1
        assert f"{1000 - spent:,} are left; ask for at most that, as with fake@{1000 - spent}" in str(refused.value)
        with pytest.raises(openai.BadRequestError, match="1,000"):
            await client.chat.completions.create(model="fake@1001", messages=MESSAGES)


async def test_keys_have_budgets_of_their_own():
    keys = (Key.of("ann", "secret-a", 700), Key.of("bob", "secret-b"))
    async with served(keys=keys) as service:
        async with client_of(service, "secret-a") as ann, client_of(service, "secret-b") as bob:
            found = await ann.chat.completions.create(
                model="fake", messages=MESSAGES, extra_body={"strategy": "majority", "n": 40}
            )
            with pytest.raises(openai.RateLimitError, match="are left"):
                await ann.chat.completions.create(model="fake@600", messages=MESSAGES)
            await bob.chat.completions.create(model="fake", messages=MESSAGES)
        async with client_of(service, "secret-c") as nobody:
            with pytest.raises(openai.AuthenticationError):
                await nobody.models.list()
            with pytest.raises(openai.AuthenticationError):
                await nobody.chat.completions.create(model="fake", messages=MESSAGES)
        async with http_of(service) as http:
            refused = await http.get("/v1/models")
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            basic = {"Authorization": "Basic secret-a"}
            assert (await http.get("/v1/models", headers=basic)).status_code == 401
            metrics = (await http.get("/metrics")).text
    assert f'adaptive_ttc_serve_key_spent{{key="ann"}} {found.usage.spent}\n' in metrics
    assert 'adaptive_ttc_serve_key_requests{key="bob"} 1\n' in metrics
    assert "secret" not in metrics + repr(service.config)


async def test_models_health_and_metrics_are_told():
    async with (
        served(prm=FakePRM(lambda question, steps: 0.5)) as service,
        client_of(service) as client,
        http_of(service) as http,
    ):
        assert [one.id async for one in client.models.list()] == ["fake"]
        assert (await client.models.retrieve("fake@100")).default_budget == 600
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("other")
        await client.chat.completions.create(model="fake", messages=MESSAGES)
        assert (await http.get("/health")).json() == {"status": "ok"}
        metrics = (await http.get("/metrics")).text
        assert f"adaptive_ttc_serve_spent {service.accounts.all.spent}\n" in metrics
        assert "adaptive_ttc_policy_calls" in metrics
        described = (await http.get("/openapi.json")).json()
    assert described["paths"]["/v1/chat/completions"]["post"]["responses"].keys() >= {"200", "400", "429"}


class Wire:
    """One HTTP request by hand, whose client may leave."""

    def __init__(self, body):
        self.sent, self._left = [], anyio.Event()
        self._body = json.dumps(body).encode()
        self._told = False
        self.scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": "/v1/chat/completions", "raw_path": b"/v1/chat/completions", "query_string": b"", "headers": [],
        }  # fmt: skip

    def leave(self):
        self._left.set()

    async def receive(self):
        if not self._told:
            self._told = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_gives_its_tokens_back(stream):
    policy = FakePolicy.generative(error_rate=0.0)
    hold = policy.hold(after_tokens=5)
    async with served(policy, total_budget=1000) as service:
        wire = Wire({"model": "fake@900", "messages": MESSAGES, "stream": stream})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.app, wire.scope, wire.receive, wire.send)
            await until(lambda: hold.waiting)
            assert service.accounts.all.available == 100
            wire.leave()
        assert policy.in_flight == 0
        assert 5 <= service.accounts.all.spent < 100
        assert service.accounts.all.available == 1000 - service.accounts.all.spent


@pytest.mark.parametrize("body", [{}, {"stream": True}, {"stream": True, "include_trace": True}])
async def test_a_client_that_does_not_take_its_answer_is_left(body):
    async def never(message):
        await anyio.sleep_forever()

    async with served(write_timeout=0.01, max_concurrency=1) as service:
        wire = Wire({"model": "fake", "messages": MESSAGES, **body})
        with anyio.fail_after(10):
            await service.app(wire.scope, wire.receive, never)
        assert service.statistics().in_flight == service.statistics().reserved == 0
        other = Wire({"model": "fake", "messages": MESSAGES})
        await service.app(other.scope, other.receive, other.send)
        assert other.sent[0]["status"] == 200


async def test_answers_are_not_heaped_up_for_a_client_that_reads_nothing():
    """Over a real socket, whose buffers are small: what is not taken is not sent, and its place is free again."""
    policy = FakePolicy.generative(error_rate=0.0)
    async with served(policy, write_timeout=0.2, max_concurrency=1) as service:
        server = uvicorn.Server(uvicorn.Config(service.app, port=0, log_level="critical", lifespan="off"))
        serving = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        with socket.socket() as mute:
            mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            mute.connect(server.servers[0].sockets[0].getsockname())
            mute.setblocking(False)
            asked = {"strategy": "majority", "n": 400, "budget_tokens": 10**6, "stream": True, "include_trace": True}
            body = json.dumps({"model": "fake", "messages": MESSAGES, **asked}).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: s\r\nContent-Length: {len(body)}\r\n\r\n"
            await asyncio.get_running_loop().sock_sendall(mute, head.encode() + body)
            await until(lambda: service.statistics().answered)
            [connection] = server.server_state.connections or [None]
            if connection is not None:
                assert connection.transport.get_write_buffer_size() < 2**20
            assert service.statistics().in_flight == service.statistics().reserved == 0
        server.should_exit = True
        await serving


async def test_clients_that_leave_while_they_wait_or_write_take_no_place(caplog):
    policy = FakePolicy.generative(error_rate=0.0)
    hold = policy.hold()
    async with served(policy, max_concurrency=1, max_waiting=1) as service:
        first, leaves, third = (Wire({"model": "fake", "messages": MESSAGES}) for _ in range(3))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.app, first.scope, first.receive, first.send)
            await until(lambda: hold.waiting)
            tasks.start_soon(service.app, leaves.scope, leaves.receive, leaves.send)
            await anyio.wait_all_tasks_blocked()
            leaves.leave()
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(service.app, third.scope, third.receive, third.send)
            await anyio.wait_all_tasks_blocked()
            assert not third.sent
            hold.release()
        assert [one.sent[0]["status"] for one in (first, leaves, third)] == [200, 499, 200]
        assert service.accounts.all.statistics().granted == 2
        leaves.leave()
        await service.app(leaves.scope, leaves.receive, leaves.send)
    assert not caplog.records


@pytest.mark.parametrize("rounds", range(6))
async def test_whoever_is_cancelled_while_a_place_is_handed_over_gives_it_back(rounds):
    policy = FakePolicy.generative(error_rate=0.0)
    hold = policy.hold()
    async with served(policy, max_concurrency=1) as service:
        first, second = (Wire({"model": "fake", "messages": MESSAGES}) for _ in range(2))
        running = asyncio.create_task(service.app(first.scope, first.receive, first.send))
        await until(lambda: hold.waiting)
        waiting = asyncio.create_task(service.app(second.scope, second.receive, second.send))
        await anyio.wait_all_tasks_blocked()
        hold.release()
        await running
        for _ in range(rounds):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        third = Wire({"model": "fake", "messages": MESSAGES})
        with anyio.fail_after(10):
            await service.app(third.scope, third.receive, third.send)
        assert third.sent[0]["status"] == 200
        assert service.accounts.all.statistics().reserved == 0


async def test_more_than_may_wait_are_refused_and_those_that_wait_are_served():
    policy = FakePolicy.generative(error_rate=0.0)
    hold = policy.hold()
    async with served(policy, max_concurrency=1, max_waiting=1) as service, http_of(service) as http:
        statuses = []

        async def ask():
            reply = await http.post("/v1/chat/completions", json={"model": "fake", "messages": MESSAGES})
            statuses.append(reply.status_code)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await until(lambda: hold.waiting)
            tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            await ask()
            assert statuses == [429]
            hold.release()
    assert statuses == [429, 200, 200]


async def test_at_its_end_requests_come_back_with_what_they_have():
    policy = FakePolicy.generative(error_rate=0.0)
    async with served(policy) as service, http_of(service) as http:
        found = []

        async def ask():
            body = {"model": "fake", "messages": MESSAGES, "strategy": "majority", "n": 8, "budget_tokens": 5000}
            found.append(await http.post("/v1/chat/completions", json=body))

        async with anyio.create_task_group() as tasks:
            hold = policy.hold(lambda request: request.path >= (4,))
            tasks.start_soon(ask)
            await until(lambda: len(hold.waiting) == policy.in_flight == 4)
            service.end()
        [reply] = found
        assert reply.status_code == 200
        assert reply.json()["metadata"]["answer"] == "47"
        assert reply.json()["metadata"]["stopped"] == "stopped"
        assert (await http.get("/health")).status_code == 503
        late = await http.post("/v1/chat/completions", json={"model": "fake", "messages": MESSAGES})
        assert (late.status_code, late.json()["error"]["code"]) == (503, "ending")


async def test_an_engine_that_fails_is_told_and_what_was_paid_for_is_not_thrown_away():
    policy = FakePolicy.generative(error_rate=0.0)
    policy.fail(EngineError("the engine is broken"))
    async with served(policy) as service, client_of(service) as client:
        with pytest.raises(openai.InternalServerError, match="the engine is broken"):
            await client.chat.completions.create(model="fake", messages=MESSAGES, extra_body={"strategy": "greedy"})
        policy.fail(EngineError("the engine broke"), matching=lambda request: request.path == (2,))
        body = {"strategy": "majority", "n": 3, "budget_tokens": 2000}
        found = await client.chat.completions.create(model="fake", messages=MESSAGES, extra_body=body)
        assert found.metadata["answer"] == "47"
        assert "the engine broke" in found.metadata["error"]
        assert service.accounts.all.statistics().open_reservations == 0


@pytest.mark.parametrize("trace", [False, True])
async def test_a_stream_says_that_the_server_failed(trace, monkeypatch):
    async def failing(self, **_):
        raise RuntimeError("a bug")

    monkeypatch.setattr("adaptive_ttc.run.adaptive_run.AdaptiveRun.solve", failing)
    async with served() as service, http_of(service) as http:
        body = {"model": "fake", "messages": MESSAGES, "stream": True, "include_trace": trace}
        said = (await http.post("/v1/chat/completions", json=body)).text
        assert "its log says why" in said
        assert "a bug" not in said
        assert said.endswith("data: [DONE]\n\n")
        assert service.accounts.all.statistics().open_reservations == 0


async def test_web_pages_spend_nothing_without_a_key():
    body, page = {"model": "fake", "messages": MESSAGES}, {"Origin": "https://example.org"}
    async with served() as service, http_of(service) as http:
        assert (await http.post("/v1/chat/completions", json=body, headers=page)).status_code == 403
        assert service.accounts.all.statistics().granted == 0
    async with served(keys=(Key.of("ann", "secret-a"),)) as service, http_of(service) as http:
        page["Authorization"] = "Bearer secret-a"
        assert (await http.post("/v1/chat/completions", json=body, headers=page)).status_code == 200


async def test_pages_of_the_named_origins_may_ask():
    body, page, other = {"model": "fake", "messages": MESSAGES}, "https://example.org", "https://example.com"
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    async with served(cors_origins=(page,)) as service, http_of(service) as http:
        asked = await http.options("/v1/chat/completions", headers={"Origin": page, **preflight})
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, page)
        assert "authorization" in asked.headers["access-control-allow-headers"].lower()
        found = await http.post("/v1/chat/completions", json=body, headers={"Origin": page})
        assert (found.status_code, found.headers["access-control-allow-origin"]) == (200, page)
        assert (await http.options("/v1/chat/completions", headers={"Origin": other, **preflight})).status_code == 400
        refused = await http.post("/v1/chat/completions", json=body, headers={"Origin": other})
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers
    async with served(cors_origins=("*",)) as service, http_of(service) as http:
        assert (await http.post("/v1/chat/completions", json=body, headers={"Origin": other})).status_code == 200
    async with served() as service, http_of(service) as http:
        asked = await http.options("/v1/chat/completions", headers={"Origin": page, **preflight})
        assert (asked.status_code, "access-control-allow-origin" in asked.headers) == (405, False)


async def test_a_key_counts_by_its_bytes():
    async with served(keys=(Key.of("ann", "schl\u00fcssel"),)) as service, http_of(service) as http:
        sent = {b"Authorization": "Bearer schl\u00fcssel".encode()}
        assert (await http.get("/v1/models", headers=sent)).status_code == 200


def test_keys_are_read_from_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("BOB_KEY", "secret-b")
    path = tmp_path / "keys.toml"
    digest = Key.of("ann", "secret-a").digest.hex()
    path.write_text(f'[ann]\nsha256 = "{digest}"\nbudget = 1000\n[bob]\nenv = "BOB_KEY"\n')
    assert read_keys(path) == (Key.of("ann", "secret-a", 1000), Key.of("bob", "secret-b"))
    for text in (
        "",
        "ann = 3",
        "[ann]\n",
        '[ann]\nsha256 = "12"',
        '[ann]\nenv = "MISSING"',
        "[ann",
        '[ann]\nkey = "x"',
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"keys\.toml"):
            read_keys(path)


@pytest.mark.parametrize(
    "settings",
    [
        {"model": ""}, {"model": "a@b"}, {"default_budget": 0}, {"most_budget": 10}, {"total_budget": 10},
        {"count": "money"}, {"max_concurrency": 0}, {"max_waiting": -1}, {"keep_alive": 0}, {"write_timeout": 0},
        {"cors_origins": ("example.org",)}, {"cors_origins": ("https://example.org/page",)},
        {"keys": (Key.of("a", "x"), Key.of("a", "y"))}, {"keys": (Key.of("a", "x"), Key.of("b", "x"))},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        ServeConfig(**{"model": "fake", "default_budget": 600, **settings})
