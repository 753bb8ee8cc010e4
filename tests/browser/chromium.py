"""A headless Chromium, the system's own, driven by Playwright; ``make test-browser`` installs the latter."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

try:
    from playwright.sync_api import sync_playwright
except ImportError:
    sync_playwright = None

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = (
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

needs_browser = pytest.mark.skipif(
    sync_playwright is None or CHROMIUM is None,
    reason="there is no chromium, or no playwright: see `make test-browser`",
)


@contextmanager
def launched():
    """A browser without a profile of its own; every context of it is new and empty."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def apart(function, *arguments, **named):
    """What a function returns in a thread in which no event loop runs; Playwright's does in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function, *arguments, **named).result()


def until(page, expression):
    """Wait until it is true on the page, whose policy lets Playwright's own waiting evaluate nothing."""
    for _ in range(500):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"it never came true: {expression}")
