"""The page of a trace in a real browser: what its script does, and that nothing of the model's text is run.

Skipped where there is no Chromium and no ChromeDriver (Debian: ``apt-get install chromium chromium-driver``).
"""

import pytest

from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.tracing.page import render
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.tracing.tree import search_tree
from tests.tracing.browser import CHROMEDRIVER, CHROMIUM, Browser
from tests.tracing.runs import STEERING, save_run

pytestmark = pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="there is no chromium, or no chromedriver")

EVIL = "</script><script>window.hit=1</script><img src=x onerror=alert(2)><svg onload=alert(3)>\"'&{{ 7 * 7 }}</style>"
OPENED = "return [...document.querySelectorAll('#tree details.inner')].map((one) => one.open)"
AT = "return document.activeElement.parentElement.id"
INSIDE = "return document.getElementById('tree').contains(document.activeElement)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    one = Browser(tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


@pytest.fixture
def shown(browser, tmp_path):
    """Opens the page of a run; gives its tree."""

    def show(**arguments):
        save_run(tmp_path / "trace.json", **arguments)
        tree = search_tree(Trace.load(tmp_path / "trace.json"))
        page = tmp_path / "page.html"
        page.write_text(render(tree), encoding="utf-8")
        browser.open(page)
        return tree

    yield show
    assert browser.dialog() is None
    assert browser.messages() == []


BEAMS = {"strategy": "beam_search", "n": 16, "beam_width": 4}


def test_all_of_the_tree_is_there_and_nothing_is_loaded(browser, shown):
    tree = shown(**BEAMS)
    assert browser.run("return document.querySelectorAll('#tree details[id]').length") == len(tree.nodes)
    assert browser.run("return document.querySelectorAll('svg circle').length") >= len(tree.nodes)
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    width, needed = browser.run("return [innerWidth, document.documentElement.scrollWidth]")
    assert needed <= width


def test_the_buttons_open_close_and_hide(browser, shown):
    shown(**BEAMS)
    browser.click("button[data-do=open]")
    assert all(browser.run(OPENED))
    browser.click("button[data-do=close]")
    assert not any(browser.run(OPENED))
    browser.click("button[data-do=winning]")
    wins = "return [...document.querySelectorAll('#tree li.wins > details.inner')].every((one) => one.open)"
    assert browser.run(wins)
    assert 0 < sum(browser.run(OPENED)) < len(browser.run(OPENED))
    lost = "return [...document.querySelectorAll('#tree li.lost')].filter((one) => one.offsetParent !== null).length"
    browser.click("button[data-do=open]")
    before = browser.run(lost)
    browser.click("button[data-do=lost]")
    assert before > 0
    assert browser.run(lost) == 0
    assert browser.run("return document.querySelector('button[data-do=lost]').ariaPressed") == "true"
    browser.click("button[data-do=lost]")
    assert browser.run(lost) == before


def test_the_keys_move_open_and_close(browser, shown):
    shown(**BEAMS)
    browser.click("button[data-do=close]")
    browser.run("document.querySelector('#tree summary').focus()")
    first = "return document.querySelector('#tree details').open"
    for key, opened in (("ArrowRight", True), ("ArrowLeft", False), ("ArrowRight", True)):
        browser.press(key)
        assert browser.run(first) is opened
    rows = "return [...document.querySelectorAll('#tree summary')].indexOf(document.activeElement)"
    browser.press("ArrowDown")
    assert browser.run(rows) == 1
    browser.press("ArrowUp")
    assert browser.run(rows) == 0
    browser.press("ArrowRight")
    assert browser.run(rows) == 1
    browser.press("End")
    assert browser.run(rows) > 1
    browser.press("Home")
    assert browser.run(rows) == 0
    assert browser.run(INSIDE)


def test_a_dot_of_the_map_leads_to_its_place_in_the_outline(browser, shown):
    shown(**BEAMS)
    browser.click("button[data-do=close]")
    name = browser.run("return [...document.querySelectorAll('svg a')].at(-1).dataset.node")
    browser.run("document.querySelector('svg').scrollIntoView()")
    browser.click(f"svg a[data-node={name}] circle")
    assert browser.run("return location.hash") == f"#{name}"
    browser.run("return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert browser.run(AT) == name
    assert browser.run("return document.activeElement.offsetParent !== null")
    lit = f"return [...document.querySelectorAll('a[data-node={name}]')].every((one) => one.classList.contains('lit'))"
    assert browser.run(lit)


@pytest.mark.parametrize("text", [EVIL, STEERING])
def test_text_of_the_model_is_shown_and_never_run(browser, shown, text):
    policy = FakePolicy.scripted({text: [f"{text}\n\n\\boxed{{{text}}}"]})
    shown(policy=policy, problem=text, strategy="majority", n=1)
    assert browser.run("return window.hit") is None
    assert browser.run("return document.querySelectorAll('img, script').length") == 1
    assert browser.run("return document.title").startswith("Search tree: ")
    if text is EVIL:
        assert EVIL in browser.run("return document.querySelector('.problem').textContent")
