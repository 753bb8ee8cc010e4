"""The PRMs that must pass the conformance suite; a new reader is added here."""

from __future__ import annotations

import pytest

from adaptive_ttc.policies.replay import ReplayPRM
from adaptive_ttc.prm import EnsemblePRM, FakePRM, load_prm
from tests.conformance.prm_suite import CASES, CHECKS, OTHERS, WHOLE, PRMCase, register
from tests.policies.recorded import scored_record
from tests.prm.tiny import FAMILIES, implicit, rlhflow
from tests.prm.tiny_heads import math_shepherd, qwen_math, self_verification, skywork
from tests.prm.tiny_outcome import outcome_folder


def right_so_far(question: str, steps: tuple[str, ...]) -> bool:
    return "= 8" not in steps[-1]


for family in FAMILIES:
    register(PRMCase(f"rlhflow-{family}", lambda family=family: rlhflow(family), long=5000))
register(PRMCase("implicit", lambda: implicit("tiny"), long=5000))
register(PRMCase("implicit-uncached", lambda: implicit("tiny", prefix_cache_bytes=0), long=5000))
register(PRMCase("qwen-math", qwen_math, long=5000))
register(PRMCase("skywork", skywork, long=5000))
register(PRMCase("math-shepherd", math_shepherd, long=5000))
register(PRMCase("self-verification", self_verification, long=5000))
register(PRMCase("outcome", lambda: load_prm(outcome_folder()), long=5000))
register(PRMCase("ensemble", lambda: EnsemblePRM([skywork(), implicit("tiny")]), long=5000))
register(PRMCase("fake", lambda: FakePRM.truthful(right_so_far)))
register(PRMCase("fake-short", lambda: FakePRM.truthful(right_so_far, max_context=500), long=500))
register(PRMCase("replay", lambda: ReplayPRM(scored_record(FakePRM.truthful(right_so_far), (WHOLE, *OTHERS)))))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("case", CASES)
async def test_conformance(case: str, check: str) -> None:
    await CHECKS[check](CASES[case])
