"""The conformance suite of all policies, on the real engine."""

import pytest

pytest.importorskip("vllm", reason="make test-vllm runs it in an environment with vLLM")

from tests.conformance.policy_suite import CHECKS, PolicyCase, run_check
from tests.vllm.engines import endless, policy

CASE = PolicyCase("vllm", policy, endless, exact_pieces=False)


@pytest.mark.parametrize("check", CHECKS)
async def test_conformance(check: str) -> None:
    await run_check(check, CASE)
