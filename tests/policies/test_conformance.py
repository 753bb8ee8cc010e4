"""The policies that must pass the conformance suite; a new one is added here."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from adaptive_ttc.policies.fake import EOS, FakePolicy
from adaptive_ttc.policies.replay import Recorder
from adaptive_ttc.policies.transformers import TransformersPolicy
from tests.conformance.policy_suite import CASES, CHECKS, PolicyCase, register, run_check
from tests.policies.recorded import replay_of
from tests.policies.tiny import folder


class EndlessWriter:
    """Counts without end."""

    def write(self, request: Any) -> Iterator[tuple[int, float]]:
        for index in itertools.count(len(request.prompt_ids)):
            yield (index * 7 + request.seed) % EOS, -0.5

    def cut(self, request: Any, tokens: Any) -> None:
        """Nothing to keep."""


def transformers(**settings: Any) -> TransformersPolicy:
    return TransformersPolicy.from_pretrained(folder(), **settings)


def endless() -> FakePolicy:
    return FakePolicy(EndlessWriter())


register(PolicyCase("fake", FakePolicy.generative, lambda **settings: FakePolicy(EndlessWriter(), **settings)))
register(
    PolicyCase(
        "fake-by-token",
        lambda **settings: FakePolicy.generative(turn_tokens=1, **settings),
        lambda **settings: FakePolicy(EndlessWriter(), turn_tokens=1, **settings),
    )
)
register(
    PolicyCase(
        "fake-recording",
        lambda **settings: Recorder(FakePolicy.generative(**settings)).policy,
        lambda **settings: Recorder(FakePolicy(EndlessWriter(), **settings)).policy,
    )
)
register(
    PolicyCase(
        "replay",
        lambda **settings: replay_of(FakePolicy.generative, 300),
        lambda **settings: replay_of(endless, 3000),
        any_settings=False,
        any_prompt=False,
    )
)
register(PolicyCase("transformers", transformers, lambda **settings: transformers(eos_token_ids=(), **settings)))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("case", CASES)
async def test_conformance(case: str, check: str) -> None:
    await run_check(check, CASES[case])
