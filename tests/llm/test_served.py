"""A real small language model behind vLLM's own server: whichever protocol is spoken, the solutions are the same."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="make test-llm runs it in an environment with vLLM")

from adaptive_ttc import Solution, Solver
from adaptive_ttc.evaluation.datasets import load_problems, problem_of
from tests.vllm.openai_servers import start

FOLDER = os.environ.get("ADAPTIVE_TTC_LLM", "")
ROWS = load_problems(Path(__file__).with_name("problems.jsonl"), limit=3)

pytestmark = [
    pytest.mark.skipif(not FOLDER, reason="make test-llm runs it with a real language model"),
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    [server] = start(tmp_path_factory.mktemp("servers"), 1, "--max-model-len", "8192", model=Path(FOLDER))
    yield server.url
    server.kill()


async def solve(url: str, **settings: Any) -> list[Solution]:
    settings = {"base_url": url, **settings}
    async with Solver.load(FOLDER, engine="openai", answers="number", policy_settings=settings) as solver:
        asked = (
            solver.solve(
                problem_of(row), strategy="majority", n=3, max_tokens=100, budget_tokens=300, temperature=0.3, seed=seed
            )
            for seed, row in enumerate(ROWS)
        )
        return list(await asyncio.gather(*asked))


async def test_ids_chats_and_texts_give_the_same_solutions(url: str, caplog: pytest.LogCaptureFixture) -> None:
    named = await solve(url)
    assert sum(solution.answer is not None for solution in named) >= 2
    for settings in ({"api": "chat"}, {"api": "text"}, {"api": "chat", "standard_fields": True}):
        solutions = await solve(url, **settings)
        for solution in solutions:
            assert 0 < solution.spent == solution.usage.completion_tokens <= 300
        pairs = [
            (one.prefix, other.prefix)
            for solution, expected in zip(solutions, named, strict=True)
            for one, other in zip(solution.candidates, expected.candidates, strict=True)
        ]
        # another company in a batch may round a sample onto another way
        same = [(one, other) for one, other in pairs if one.text == other.text]
        assert len(same) >= 6, [(one.text, other.text) for one, other in pairs]
        for one, other in same:
            assert (len(one.token_ids), one.finish) == (len(other.token_ids), other.finish)
    assert "is not believed" not in caplog.text
