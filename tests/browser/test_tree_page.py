"""The page of a trace in a real browser: what its script does, and that nothing of the model's text is run."""

import pytest

from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.tracing.page import render
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.tracing.tree import search_tree
from tests.browser.chromium import apart, needs_browser, until
from tests.tracing.runs import STEERING, save_run

pytestmark = needs_browser

EVIL = "</script><script>window.hit=1</script><img src=x onerror=alert(2)><svg onload=alert(3)>\"'&{{ 7 * 7 }}</style>"
OPENED = "[...document.querySelectorAll('#tree details.inner')].map((one) => one.open)"
AT = "document.activeElement.parentElement.id"
INSIDE = "document.getElementById('tree').contains(document.activeElement)"


@pytest.fixture
def shown(opened, tmp_path):
    """Opens the page of a run; gives it and its tree."""

    def show(**arguments):
        apart(save_run, tmp_path / "trace.json", **arguments)
        tree = search_tree(Trace.load(tmp_path / "trace.json"))
        page = tmp_path / "page.html"
        page.write_text(render(tree), encoding="utf-8")
        return opened(page.as_uri()), tree

    return show


BEAMS = {"strategy": "beam_search", "n": 16, "beam_width": 4}


def test_all_of_the_tree_is_there_and_nothing_is_loaded(shown):
    page, tree = shown(**BEAMS)
    assert page.locator("#tree details[id]").count() == len(tree.nodes)
    assert page.locator("svg circle").count() >= len(tree.nodes)
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0
    width, needed = page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
    assert needed <= width


def test_the_buttons_open_close_and_hide(shown):
    page, _ = shown(**BEAMS)
    page.click("button[data-do=open]")
    assert all(page.evaluate(OPENED))
    page.click("button[data-do=close]")
    assert not any(page.evaluate(OPENED))
    page.click("button[data-do=winning]")
    assert page.evaluate("[...document.querySelectorAll('#tree li.wins > details.inner')].every((one) => one.open)")
    assert 0 < sum(page.evaluate(OPENED)) < len(page.evaluate(OPENED))
    lost = "[...document.querySelectorAll('#tree li.lost')].filter((one) => one.offsetParent !== null).length"
    page.click("button[data-do=open]")
    before = page.evaluate(lost)
    page.click("button[data-do=lost]")
    assert before > 0
    assert page.evaluate(lost) == 0
    assert page.get_attribute("button[data-do=lost]", "aria-pressed") == "true"
    page.click("button[data-do=lost]")
    assert page.evaluate(lost) == before


def test_the_keys_move_open_and_close(shown):
    page, _ = shown(**BEAMS)
    page.click("button[data-do=close]")
    page.focus("#tree summary >> nth=0")
    for key, opened in (("ArrowRight", True), ("ArrowLeft", False), ("ArrowRight", True)):
        page.keyboard.press(key)
        assert page.evaluate("document.querySelector('#tree details').open") is opened
    row = "[...document.querySelectorAll('#tree summary')].indexOf(document.activeElement)"
    page.keyboard.press("ArrowDown")
    assert page.evaluate(row) == 1
    page.keyboard.press("ArrowUp")
    assert page.evaluate(row) == 0
    page.keyboard.press("ArrowRight")
    assert page.evaluate(row) == 1
    page.keyboard.press("End")
    assert page.evaluate(row) > 1
    page.keyboard.press("Home")
    assert page.evaluate(row) == 0
    assert page.evaluate(INSIDE)


def test_a_dot_of_the_map_leads_to_its_place_in_the_outline(shown):
    page, _ = shown(**BEAMS)
    page.click("button[data-do=close]")
    name = page.evaluate("[...document.querySelectorAll('svg a')].at(-1).dataset.node")
    page.click(f"svg a[data-node={name}] circle")
    until(page, f"{AT} === '{name}'")
    assert page.evaluate("location.hash") == f"#{name}"
    assert page.evaluate("document.activeElement.offsetParent !== null")
    lit = f"[...document.querySelectorAll('a[data-node={name}]')].every((one) => one.classList.contains('lit'))"
    assert page.evaluate(lit)


@pytest.mark.parametrize("text", [EVIL, STEERING])
def test_text_of_the_model_is_shown_and_never_run(shown, text):
    policy = FakePolicy.scripted({text: [f"{text}\n\n\\boxed{{{text}}}"]})
    page, _ = shown(policy=policy, problem=text, strategy="majority", n=1)
    assert page.evaluate("window.hit") is None
    assert page.evaluate("document.querySelectorAll('img, script').length") == 1
    assert page.title().startswith("Search tree: ")
    if text is EVIL:
        assert EVIL in page.locator(".problem").text_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(shown, scheme, opened, tmp_path):
    shown(**BEAMS)
    page = opened((tmp_path / "page.html").as_uri(), color_scheme=scheme)
    assert_readable(page, ["dd.problem", "dt", ".legend", ".outcome", "#tree .score"])


def assert_readable(page, selectors):
    """A contrast of at least 4.5 between text and ground (WCAG 2, level AA)."""
    script = """selector => {
      const light = (colour) => {
        const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((one) => one / 255);
        const [r, g, b] = parts.map((one) => one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const clear = (colour) => colour === "transparent" || /, 0\\)$/.test(colour);
      const text = [...document.querySelectorAll(selector)].find((one) => one.textContent.trim());
      let under = text;
      while (clear(getComputedStyle(under).backgroundColor)) under = under.parentElement;
      const two = [getComputedStyle(text).color, getComputedStyle(under).backgroundColor].map(light);
      return (Math.max(...two) + 0.05) / (Math.min(...two) + 0.05);
    }"""
    found = {selector: page.evaluate(script, selector) for selector in selectors}
    assert {selector: contrast for selector, contrast in found.items() if contrast < 4.5} == {}
