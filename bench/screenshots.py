"""The pictures of the pages in docs/: of a server at work and of a run, both by the embedded pair.

    make screenshots        (or python bench/screenshots.py [--out FOLDER], where Playwright and Chromium are there)

``page_live.png``: `adaptive-ttc serve` while clients ask it. ``page_run.png`` and ``page_tree.png``:
`adaptive-ttc eval --dataset minimath-500 --limit 40 --shared-budget 24000 --seed 0 --html FILE`, and the search tree of
the problem that got most of that budget. It takes about two minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from PIL import Image

from adaptive_ttc.cli import main as command
from adaptive_ttc.evaluation.datasets import load_problems
from adaptive_ttc.serve import ServeConfig, Service
from adaptive_ttc.solver import Solver

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tests.browser.chromium import ARGUMENTS, CHROMIUM  # noqa: E402

CLIENTS = 5
RUN = ("eval", "--dataset", "minimath-500", "--limit", "40", "--shared-budget", "24000", "--seed", "0")


async def ask(url: str, questions: list[str]) -> None:
    """Clients that ask one question after the other."""

    async def client(mine: list[str]) -> None:
        async with httpx2.AsyncClient(base_url=url, timeout=600) as http:
            for number, question in enumerate(mine):
                asked = {"model": f"mini@{(800, 1600, 3000)[number % 3]}"}
                await http.post(
                    "/v1/chat/completions", json={**asked, "messages": [{"role": "user", "content": question}]}
                )

    await asyncio.gather(*(client(questions[number::CLIENTS]) for number in range(CLIENTS)))


async def live(browser: Any, out: Path) -> None:
    """The page of a server while clients ask it."""
    questions = [row["problem"] for row in load_problems("minimath-500", 60, 1, None)]
    async with Solver.mini(seed=0) as solver:
        service = Service(solver, ServeConfig(model="mini", total_budget=200_000))
        server = uvicorn.Server(uvicorn.Config(service.app, port=0, log_level="error", lifespan="off"))
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        asking = asyncio.create_task(ask(url, questions))
        page = await browser.new_page(viewport={"width": 1280, "height": 1000}, color_scheme="dark")
        await page.goto(url)
        await page.locator("#rows .badge:text-is('answered')").nth(24).wait_for(timeout=300_000)
        await page.locator("#rows tr.working button").first.click()
        await page.wait_for_selector("#tree details[id]")
        await page.mouse.move(5, 5)
        await page.wait_for_timeout(1500)
        await page.screenshot(path=out / "page_live.png")
        asking.cancel()
        service.end()
        server.should_exit = True
        await serving


async def of_run(browser: Any, html: Path, out: Path) -> None:
    """The page of a run, and the tree of the problem that got most."""
    page = await browser.new_page(viewport={"width": 1280, "height": 820})
    await page.goto(html.as_uri())
    await page.wait_for_selector("#rows button")
    await page.screenshot(path=out / "page_run.png")
    await page.select_option("#order", "spent")
    await page.wait_for_timeout(300)
    await page.locator("#rows button").first.click()
    await page.wait_for_selector("#tree")
    await page.set_viewport_size({"width": 1280, "height": 2600})
    box = await page.locator("#detail").bounding_box()
    await page.screenshot(path=out / "page_tree.png", clip={**box, "height": min(box["height"], 1130)})


async def take(html: Path, out: Path) -> None:
    """All pictures."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        await of_run(browser, html, out)
        await live(browser, out)
        await browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of the pictures")
    parser.add_argument("--page", type=Path, help="of that run, where it was written before")
    options = parser.parse_args()
    names = ("page_live.png", "page_run.png", "page_tree.png")
    with tempfile.TemporaryDirectory() as folder:
        html = options.page or Path(folder) / "run.html"
        if not html.exists():
            command([*RUN, "--html", str(html)])
        asyncio.run(take(html, options.out))
    for name in names:  # few colours are in them
        with Image.open(options.out / name) as picture:
            picture.convert("RGB").quantize(256, kmeans=4, dither=Image.Dither.NONE).save(
                options.out / name, optimize=True
            )


if __name__ == "__main__":
    main()
