"""The policy over HTTP passes the policy conformance suite, against servers of every manner that names tokens."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from adaptive_ttc.policies.openai import OpenAIPolicy
from tests.conformance.policy_suite import CHECKS, PolicyCase
from tests.policies.openai_server import LLAMA_CPP, OLD_VLLM, SGLANG, VLLM, Manner, ToyServer, folder


class EndlessWriter:
    """Plain letters without end; greedily all seeds write alike."""

    def write(self, request: Any) -> Iterator[tuple[int, float]]:
        for index in itertools.count(len(request.prompt_ids)):
            yield 33 + (index * 7 + (request.seed if request.temperature else 0)) % 94, -0.5


@cache
def server(manner: Manner, endless: bool) -> ToyServer:
    """One for all tests; its thread ends with the test run."""
    return ToyServer(manner, EndlessWriter(), pace=0.001) if endless else ToyServer(manner)


def policy(manner: Manner, endless: bool, *, max_batch: int = 64, **settings: Any) -> OpenAIPolicy:
    return OpenAIPolicy.from_pretrained(
        folder(), base_url=server(manner, endless).url, max_concurrency=max_batch, **settings
    )


CASES = {
    name: PolicyCase(
        f"openai-{name}",
        lambda manner=manner, **settings: policy(manner, False, **settings),
        lambda manner=manner, **settings: policy(manner, True, **settings),
        exact_pieces=False,
    )
    for name, manner in {"vllm": VLLM, "old-vllm": OLD_VLLM, "llama-cpp": LLAMA_CPP, "sglang": SGLANG}.items()
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("case", CASES)
async def test_conformance(case: str, check: str) -> None:
    await CHECKS[check](CASES[case])
