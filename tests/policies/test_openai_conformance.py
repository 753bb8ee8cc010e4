"""The policy over HTTP passes the policy conformance suite, against servers of every manner."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import pytest

from adaptive_ttc.policies.openai import OpenAIPolicy
from tests.conformance.policy_suite import CHECKS, PolicyCase, run_check
from tests.policies.openai_server import ToyServer, folder
from tests.policies.server_profiles import MODEL, OLD_VLLM, PROFILES, TGI, Profile


class EndlessWriter:
    """Plain letters without end; greedily all seeds write alike."""

    def write(self, request: Any) -> Iterator[tuple[int, float]]:
        for index in itertools.count(len(request.prompt_ids)):
            yield 33 + (index * 7 + (request.seed if request.temperature else 0)) % 94, -0.5


@cache
def server(manner: Profile, endless: bool) -> ToyServer:
    """One for all tests; its thread ends with the test run."""
    return ToyServer(manner, EndlessWriter(), pace=0.001) if endless else ToyServer(manner)


def policy(manner: Profile, api: str, endless: bool, *, max_batch: int = 64, **settings: Any) -> OpenAIPolicy:
    url = server(manner, endless).url
    settings = {"model": MODEL, "max_concurrency": max_batch, **settings}
    return OpenAIPolicy.from_pretrained(folder(), base_url=url, api=api, **settings)


SERVERS = {
    **{one.name: (one, "tokens" if "ids" in one.prompts else "chat") for one in PROFILES},
    "tgi-text": (TGI, "text"),
    "old-vllm": (OLD_VLLM, "tokens"),
}
CASES = {
    name: PolicyCase(
        f"openai-{name}",
        partial(policy, manner, api, False),
        partial(policy, manner, api, True),
        exact_pieces=False,
        caches=api == "tokens",
        goes_on=api == "tokens",
        logprobs=api == "tokens" or (api == "chat" and manner == TGI),
    )
    for name, (manner, api) in SERVERS.items()
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("case", CASES)
async def test_conformance(case: str, check: str) -> None:
    await run_check(check, CASES[case])
