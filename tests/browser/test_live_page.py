"""The page of a server in a real browser: problems as they are solved, whose they are, and what is hostile in them."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import anyio
import httpx2
import pytest
import uvicorn

from adaptive_ttc import Solver
from adaptive_ttc.errors import EngineError
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.serve import Key, ServeConfig, Service
from adaptive_ttc.wrappers import WrappedPolicy
from tests.browser.chromium import needs_browser, until
from tests.browser.test_tree_page import EVIL, assert_readable
from tests.doubles import TinyPolicy
from tests.tracing.runs import scored

pytestmark = [needs_browser, pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")]

BEAMS = {"strategy": "beam_search", "n": 4, "beam_width": 2}


class Gate(WrappedPolicy):
    """Lets ``first`` samples through, and the others once it is opened."""

    def __init__(self, policy, first):
        super().__init__(policy)
        self.open, self._first = threading.Event(), first

    async def sample(self, request):
        self._first -= 1
        while self._first < 0 and not self.open.is_set():  # noqa: ASYNC110
            await anyio.sleep(0.005)
        return await self._policy.sample(request)


class Broken(WrappedPolicy):
    async def sample(self, request):
        raise EngineError(EVIL)


@contextmanager
def serving(policy, **settings):
    """A server in a thread of its own; gives its address, and a function that asks it in another."""
    sent, ready, servers = [], threading.Event(), []

    async def serve():
        async with Solver(policy, FakePRM(scored)) as solver:
            service = Service(solver, ServeConfig(**{"model": "fake", "default_budget": 600, **settings}))
            config = uvicorn.Config(service.app, port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=2)
            server = uvicorn.Server(config)
            task = asyncio.create_task(server.serve())
            while not server.started:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            servers.append((server, service, server.servers[0].sockets[0].getsockname()[1]))
            ready.set()
            await task

    with ThreadPoolExecutor(4) as threads:
        running = threads.submit(asyncio.run, serve())
        assert ready.wait(30)
        server, service, port = servers[0]

        def ask(question, key=None, **beside):
            body = {"model": "fake", "messages": [{"role": "user", "content": question}], **beside}
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            url = f"http://127.0.0.1:{port}/v1/chat/completions"
            sent.append(threads.submit(httpx2.post, url, json=body, headers=headers, timeout=60))
            return sent[-1]

        try:
            yield f"http://127.0.0.1:{port}/", ask
        finally:
            service.end()
            server.should_exit = True
            for one in sent:
                one.result()
            running.result()


def test_a_problem_is_seen_while_it_is_solved_and_after(opened):
    gate = Gate(TinyPolicy(mean=30, step=4), first=6)
    with serving(gate) as (url, ask):
        page = opened(url)
        page.wait_for_selector("#connection.good")
        assert "Nothing is being solved" in page.text_content("#none")
        asked = ask("how much?", **BEAMS)
        page.wait_for_selector("#rows .badge:text-is('at work')")
        page.click("#rows button")
        page.wait_for_selector("#tree details[id]")
        assert "how much?" in page.text_content("#h-detail")
        page.focus("#tree summary >> nth=0")
        before = page.evaluate("document.activeElement.parentElement.dataset.key")
        drawn = page.locator("#tree details[id]").count()
        gate.open.set()
        answer = asked.result().json()["metadata"]["answer"]
        page.wait_for_selector("#rows .badge:text-is('answered')")
        page.wait_for_selector("#drawn .answer")
        assert page.text_content("#drawn dd.answer") == page.text_content("#rows .answer") == answer
        assert page.locator("#tree details[id]").count() > drawn
        assert page.evaluate("document.activeElement.parentElement.dataset.key") == before  # the reader's place
        assert page.text_content("#status").startswith(("Settled: how much?", "The search tree of how much?"))
        assert "lately settled" in page.text_content("#cards")


def test_updates_wait_while_the_reader_wants_it(opened):
    with serving(TinyPolicy(mean=12, step=4)) as (url, ask):
        page = opened(url)
        page.wait_for_selector("#connection.good")
        page.click("#pause")
        assert page.text_content("#connection") == "paused"
        ask("how much?", **BEAMS).result()
        time.sleep(0.8)  # longer than the server takes to tell
        assert page.locator("#rows tr").count() == 0
        page.click("#pause")
        page.wait_for_selector("#rows .badge:text-is('answered')")


def test_hostile_problems_answers_and_errors_stay_text(opened):
    policy = FakePolicy.scripted({EVIL: [f"{EVIL}\n\n\\boxed{{{EVIL}}}"]})
    with serving(policy) as (url, ask):
        ask(EVIL, strategy="majority", n=1).result()
        page = opened(url)
        page.click("#rows button")
        page.wait_for_selector("#tree details")
        for selector in ("#rows button", "#rows td.answer", "#h-detail", "#drawn .problem", "#tree .step"):
            assert "<script>window.hit=1</script>" in page.text_content(selector), selector
        assert page.evaluate("window.hit") is None
        assert page.locator("img, main script").count() == 0
    with serving(Broken(policy)) as (url, ask):
        assert ask("q", strategy="majority", n=1).result().status_code == 502
        page = opened(url)
        page.wait_for_selector("#rows .badge:text-is('failed')")
        assert "<script>window.hit=1</script>" in page.text_content("#rows .why")
        assert page.evaluate("window.hit") is None
        assert page.locator("img, main script").count() == 0


def test_a_key_shows_its_own_problems_alone_and_never_stands_in_an_address(opened):
    keys = (Key.of("ann", "ann's key", 1000), Key.of("bob", "bob's key"))
    with serving(TinyPolicy(mean=12, step=4), keys=keys) as (url, ask):
        for name in ("ann", "bob"):
            ask(f"a question of {name}", key=f"{name}'s key", **BEAMS).result()
        page, addresses = opened(url), []
        page.on("request", lambda request: addresses.append(request.url))
        page.wait_for_selector("#key:not([hidden])")
        assert not page.is_visible("main")
        assert page.locator("#rows tr").count() == 0
        page.evaluate("fetch('live').then((reply) => { window.status_ = reply.status })")
        until(page, "window.status_ === 401")
        for name, other in (("ann", "bob"), ("bob", "ann")):
            page.fill("#secret", f"{name}'s key")
            page.keyboard.press("Enter")
            page.wait_for_selector("#rows tr")
            assert page.locator("#rows tr").count() == 1
            assert f"a question of {name}" in page.text_content("#rows")
            assert f"a question of {other}" not in page.content()
            if name == "ann":
                assert "of 1,000" in page.text_content("#cards")
                foreign = (
                    "fetch('live/none', {headers: {Authorization: \"Bearer ann's key\"}}).then((one) => one.status)"
                )
                assert page.evaluate(foreign) == 404
            page.click("#forget")
            page.wait_for_selector("#key:not([hidden])")
            assert page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [0, 0, ""]
        assert all("key" not in address for address in addresses)


def test_a_wrong_key_is_told(browser):
    with serving(TinyPolicy(), keys=(Key.of("ann", "right"),)) as (url, _):
        page = browser.new_page()
        page.goto(url)
        page.fill("#secret", "wrong")
        page.click("#key button")
        page.wait_for_selector("#connection:text-is('that key is not known here')")
        assert page.evaluate("document.activeElement.id") == "secret"
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_readable_in(opened, scheme):
    with serving(TinyPolicy(mean=12, step=4)) as (url, ask):
        ask("how much?", **BEAMS).result()
        page = opened(url, color_scheme=scheme)
        page.wait_for_selector("#rows tr")
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(20, 23, 26)") is (scheme == "dark")
        assert_readable(page, ["#connection", "#rows button", "#rows .why", ".badge", "#cards dt", "#cards strong"])
