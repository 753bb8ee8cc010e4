"""The page of a run in a real browser: by keyboard, what it tells, and that nothing of a model's text is run."""

import json

import pytest

from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.tracing.page.board import RunProblem, render_run
from tests.browser.chromium import apart, needs_browser, until
from tests.browser.test_tree_page import EVIL, assert_readable
from tests.tracing.runs import save_run

pytestmark = needs_browser

AT = "document.activeElement.dataset.problem"


@pytest.fixture
def shown(opened, tmp_path):
    """Opens the page of a run over these questions."""

    def show(*questions, policy=None, run=None, **settings):
        problems = []
        for number, question in enumerate(questions):
            asked = run or {"strategy": "beam_search", "n": 8, "beam_width": 2}
            solution = apart(save_run, tmp_path / "trace.json", policy=policy, problem=question, **asked)
            correct = number % 2 == 0
            problems.append(RunProblem(name=f"p{number}", question=question, trace=solution.trace, correct=correct))
        path = tmp_path / "run.html"
        path.write_text(render_run(settings.pop("title", "a run"), problems, budget=9000), encoding="utf-8")
        return opened(path.as_uri(), **settings)

    return show


def test_the_keyboard_walks_through_problems_and_tree(shown):
    page = shown("one", "two", "three")
    page.focus("#order")
    page.keyboard.press("Tab")
    assert page.evaluate(AT) == "0"  # the table is one stop
    for key, at in (("ArrowDown", "1"), ("End", "2"), ("ArrowDown", "2"), ("Home", "0"), ("ArrowDown", "1")):
        page.keyboard.press(key)
        assert page.evaluate(AT) == at
    page.keyboard.press("Enter")
    page.wait_for_selector("#tree")
    assert page.text_content("#h-detail") == "Search tree: two"
    assert page.get_attribute("#rows button[data-problem='1']", "aria-current") == "true"
    assert "two" in page.text_content("#status")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#tree') !== null"):
            break
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    page.keyboard.press("Escape")
    assert page.evaluate(AT) == "1"


def test_rows_are_found_and_ordered(shown):
    page = shown("apples", "pears", "apples and pears")
    texts = "[...document.querySelectorAll('#rows button')].map((one) => one.textContent)"
    assert page.evaluate(texts) == ["apples", "pears", "apples and pears"]
    page.fill("#find", "PEARS")
    until(page, f"({texts}).length === 2")
    assert page.evaluate(texts) == ["pears", "apples and pears"]
    page.fill("#find", "wrong")
    until(page, f"({texts}).length === 1")
    page.fill("#find", "nothing like it")
    page.wait_for_selector("#none:not([hidden])")
    page.fill("#find", "")
    page.select_option("#order", "spent")
    until(page, f"({texts}).length === 3")
    spent = "[...document.querySelectorAll('#rows tr')].map((one) => parseInt(one.children[6].textContent))"
    until(page, f"({spent}).every((one, index, all) => !index || one <= all[index - 1])")


def test_it_tells_figures_in_words_too(shown):
    page = shown("one", "two")
    assert "50.0 %1 of 2" in page.text_content("#cards")
    assert "of 9,000" in page.text_content("#cards")
    label = page.get_attribute("#allocation svg", "aria-label")
    assert "2 problems" in label
    assert page.locator("#allocation rect[data-problem]").count() == 2
    page.locator("#allocation rect[data-problem]").nth(1).click()
    assert page.text_content("#h-detail") == "Search tree: two"
    for problem in page.locator("th[scope=row]").all():
        assert problem.locator("button").count() == 1
    assert page.locator("h1").count() == page.locator("main").count() == 1
    assert page.evaluate("[...document.querySelectorAll('input, select')].every((one) => one.labels.length)")


def test_nothing_hostile_runs(shown):
    policy = FakePolicy.scripted({EVIL: [f"{EVIL}</template>\n\n\\boxed{{{EVIL}}}"]})
    page = shown(EVIL, policy=policy, run={"strategy": "majority", "n": 1}, title=EVIL)
    page.click("#rows button")
    page.wait_for_selector("#tree")
    for selector in ("h1", "#rows button", "#rows td.answer", "#drawn .problem", "#tree .step"):
        assert "<script>window.hit=1</script>" in page.text_content(selector), selector
    assert page.evaluate("window.hit") is None
    assert page.locator("img").count() == 0
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_in(shown, scheme):
    page = shown("one", "two", color_scheme=scheme)
    page.click("#rows button")
    page.wait_for_selector("#tree")
    assert_readable(page, ["#rows button", ".badge.right", ".badge.wrong", "thead th", "#cards .note", ".hint", ".why"])


@pytest.mark.parametrize("width", [390, 820, 1400])
def test_it_fits_the_window(shown, width):
    page = shown("one", "two", viewport={"width": width, "height": 800})
    page.click("#rows button")
    page.wait_for_selector("#tree")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_large_run_is_shown(opened, shown, tmp_path):
    shown("one")
    path = tmp_path / "run.html"
    page = path.read_text(encoding="utf-8")
    begin = page.index('id="data">') + len('id="data">')
    end = page.index("</script>", begin)
    data = json.loads(page[begin:end])
    (row,) = data["problems"]
    row["decisions"] = [[0.1 * number, 50, 0.01 * number] for number in range(240)]  # as of ten times the problems
    data["problems"] = [row | {"id": str(number)} for number in range(550)]
    path.write_text(page[:begin] + json.dumps(data) + page[end:], encoding="utf-8")
    large = opened(path.as_uri())
    until(large, "document.querySelectorAll('#rows tr').length === 550")
    assert "132000 decisions" in large.get_attribute("#price svg", "aria-label")
    assert large.evaluate("document.querySelectorAll('#price circle').length") <= 3000
