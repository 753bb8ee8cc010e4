"""The page of the server by hand: what it tells to whom, what it keeps, and what browsers are told to allow."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace

import httpx2
import pytest

from adaptive_ttc.answers import Grader
from adaptive_ttc.events import DoneEvent, RunEvent
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.serve import Key, live
from adaptive_ttc.serve.accounts import Account, Accounts
from adaptive_ttc.serve.asked import RefusedError
from adaptive_ttc.serve.live import Live
from adaptive_ttc.tracing.page.board import LIVE_POLICY
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import Usage
from tests.serve.test_service import MESSAGES, client_of, served
from tests.tracing.runs import save_run

pytestmark = pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")


def http_of(service, address="http://127.0.0.1:8000"):
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=service.app), base_url=address)


async def told(service, account):
    """What the page is told first."""
    async with aclosing(service._live.messages(account)) as messages:
        return json.loads((await anext(messages)).removeprefix(b"data: "))


async def test_the_page_holds_nothing_of_anybody_and_may_ask_nobody_else():
    async with served() as service, client_of(service) as client, http_of(service) as http:
        await client.chat.completions.create(model="fake", messages=MESSAGES)
        reply = await http.get("/")
    assert reply.status_code == 200
    assert "12 + 30" not in reply.text
    assert reply.headers["content-security-policy"] == LIVE_POLICY
    assert "unsafe" not in LIVE_POLICY
    for part in ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "form-action 'none'"):
        assert part in LIVE_POLICY
    assert reply.headers["cache-control"] == "no-store"


async def test_a_settled_problem_is_told_with_its_tree():
    async with served() as service, client_of(service) as client, http_of(service) as http:
        found = await client.chat.completions.create(model="fake@900", messages=MESSAGES)
        message = await told(service, service.accounts.of(None))
        tree = await http.get(f"/live/{found.id}")
    [row] = message["problems"]
    assert message["order"] == [found.id] == [row["id"]]
    assert (row["question"], row["state"], row["answer"]) == (MESSAGES[0]["content"], "answered", "47")
    assert (row["budget"], row["spent"]) == (900, found.usage.spent)
    assert 0 < row["votes"] == row["voters"]
    assert message["head"]["spent"] == found.usage.spent
    assert 'id="tree"' in tree.text
    assert "<script" not in tree.text
    assert "sandbox" in tree.headers["content-security-policy"]


async def test_what_is_kept_of_a_problem_is_its_trace_alone():
    async with served() as service, client_of(service) as client:
        await client.chat.completions.create(model="fake", messages=MESSAGES)
        [one] = service._live._of(service.accounts.of(None))
        assert (one.stream, one.trace._listener) == (None, None)
        assert len(one.trace) > 5


async def test_each_account_sees_its_own_alone():
    keys = (Key.of("ann", "one", 5000), Key.of("bob", "two"))
    async with served(keys=keys) as service, client_of(service, "one") as client, http_of(service) as http:
        found = await client.chat.completions.create(model="fake", messages=MESSAGES)
        ann, bob = (service.accounts.of(f"Bearer {key}") for key in ("one", "two"))
        assert (await told(service, ann))["order"] == [found.id]
        assert (await told(service, bob))["order"] == []
        assert (await told(service, ann))["head"]["budget"] == 5000
        statuses = {}
        for key in ("one", "two", "three"):
            reply = await http.get(f"/live/{found.id}", headers={"Authorization": f"Bearer {key}"})
            statuses[key] = reply.status_code
        assert statuses == {"one": 200, "two": 404, "three": 401}
        for path in ("/live", f"/live/{found.id}", "/live?key=one"):
            assert (await http.get(path)).status_code == 401
        assert (await http.get("/")).status_code == 200


async def test_without_keys_it_is_shown_at_an_address_alone_and_to_no_other_page():
    async with served() as service:
        for address, status in (
            ("http://rebound.example", 403),
            ("http://127.0.0.1:8000", 404),
            ("http://[::1]:8000", 404),
            ("http://localhost", 404),
        ):
            async with http_of(service, address) as http:
                assert (await http.get("/live/none")).status_code == status, address
        async with http_of(service) as http:
            assert (await http.get("/live/none", headers={"Origin": "http://elsewhere.example"})).status_code == 403


async def test_those_who_watch_leave_when_the_server_ends_and_are_few(monkeypatch):
    monkeypatch.setattr(live, "EVERY", 0.0)
    monkeypatch.setattr(live, "MOST_WATCHERS", 1)
    async with served() as service:
        everybody = service.accounts.of(None)
        async with aclosing(service._live.messages(everybody)) as messages:
            await anext(messages)
            with pytest.raises(RefusedError, match="too many watch"):
                service._live.check_room()
            service.end()
            with pytest.raises(StopAsyncIteration):
                await anext(messages)
        service._live.check_room()


async def test_a_quiet_stream_gives_signs_of_life(monkeypatch):
    monkeypatch.setattr(live, "EVERY", 0.001)
    monkeypatch.setattr(live, "QUIET", 0.001)
    async with served() as service, aclosing(service._live.messages(service.accounts.of(None))) as messages:
        await anext(messages)
        assert (await anext(messages)).startswith(b":")


class Stream:
    """A closed stream."""

    def __init__(self, trace):
        self.trace, self.spent, self.usage = trace, 5, Usage(completion_tokens=40)


@pytest.fixture
def trace(tmp_path):
    """The trace of a run."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(save_run, tmp_path / "trace.json", strategy="beam_search", n=4, beam_width=2).result()
    return Trace.load(tmp_path / "trace.json")


@pytest.fixture
def kept():
    return Live(Accounts(None, ()), "generated", Grader())


async def test_what_is_kept_is_bounded(kept, trace, monkeypatch):
    ann, bob = (Account(name, Ledger(None)) for name in ("ann", "bob"))
    kept.began("first", bob, 10, Stream(trace))
    kept.left("first")
    for number in range(3 * live.KEPT):
        kept.began(f"{number}", ann, 10, Stream(trace))
        kept.left(f"{number}")
    assert [len(kept._of(ann)), len(kept._of(bob))] == [live.KEPT, 1]
    assert 'id="tree"' in await kept.tree(f"{3 * live.KEPT - 1}", ann)
    with pytest.raises(RefusedError, match="no such problem"):
        await kept.tree("0", ann)
    monkeypatch.setattr(live, "KEPT_BYTES", 3 * kept._of(ann)[0].size)
    kept.began("last", ann, 10, Stream(trace))
    kept.left("last")
    assert [one.id for one in kept._of(ann)] == [*(f"{3 * live.KEPT - number}" for number in (2, 1)), "last"]
    assert kept._of(bob) == []
    assert kept._size == sum(one.size for one in kept._kept) <= live.KEPT_BYTES


async def test_what_clients_wrote_counts_to_what_is_kept(kept, trace, monkeypatch):
    monkeypatch.setattr(live, "KEPT_BYTES", 2_500_000)
    long = Trace()
    for event in trace:
        long.record(replace(event, messages=(("user", "x" * 10**6),)) if isinstance(event, RunEvent) else event)
    account = Account("ann", Ledger(None))
    for number in range(4):
        kept.began(f"{number}", account, 10, Stream(long))
        kept.left(f"{number}")
    assert [one.id for one in kept._of(account)] == ["2", "3"]


async def test_one_whose_client_left_is_told_as_such(kept, trace):
    cut, account = Trace(), Account("ann", Ledger(None))
    for event in trace:
        if not isinstance(event, DoneEvent):
            cut.record(event)
    for id, found in (("cut", cut), ("never begun", None)):
        kept.began(id, account, 10, Stream(found))
        kept.left(id)
    assert [kept._row(one)["state"] for one in kept._of(account)] == ["left", "left"]
