"""A page of a real browser, of which everything is noticed that a page of ours must not do."""

import pytest

from tests.browser.chromium import launched


@pytest.fixture(scope="module")  # no longer: while it is there, Playwright's event loop runs in this thread
def browser():
    with launched() as one:
        yield one


@pytest.fixture
def opened(browser):
    """Opens pages; fails if one ran into an error, opened a dialog, or asked for more than it may."""
    contexts, wrong, told = [], [], []

    def open(url, **settings):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 1000}, **settings})
        contexts.append(context)
        origin = url.split("/", 3)[:3]

        def watch(route):
            if route.request.url.split("/", 3)[:3] != origin:
                wrong.append(f"asked {route.request.url}")
            route.continue_()

        context.route("**/*", watch)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"error {error}"))
        page.on("console", lambda said: told.append(said.text) if said.type == "error" else None)
        page.on("dialog", lambda dialog: (wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.goto(url)
        return page

    yield open
    for context in contexts:
        context.close()
    # a server that refuses or is gone is no error of the page's; what its policy forbids is one
    assert wrong + [text for text in told if not text.startswith("Failed to load resource")] == []
