"""The PRMs that must pass the conformance suite; a new reader is added here."""

from __future__ import annotations

import pytest

from adaptive_ttc.prm import FakePRM, ImplicitPRM, RLHFlowPRM
from adaptive_ttc.prm.implicit import ImplicitConfig
from policies.replay import ReplayPRM
from tests.conformance.prm_suite import CASES, CHECKS, OTHERS, WHOLE, PRMCase, register
from tests.policies.recorded import scored_record
from tests.prm.tiny import FAMILIES, model_of, tokenizer_of


def rlhflow(name: str) -> RLHFlowPRM:
    return RLHFlowPRM(model_of(name), tokenizer_of(name), name=name, fingerprint=name)


def implicit() -> ImplicitPRM:
    config = ImplicitConfig(tuned="clean", reference="noisy", beta=0.02, scale=2.0, offset=0.5)
    models = model_of("tiny", 0), model_of("tiny", 1)
    return ImplicitPRM(*models, tokenizer_of("tiny"), config, name="implicit", fingerprint="implicit")


def right_so_far(question: str, steps: tuple[str, ...]) -> bool:
    return "= 8" not in steps[-1]


for family in FAMILIES:
    register(PRMCase(f"rlhflow-{family}", lambda family=family: rlhflow(family), long=5000))
register(PRMCase("implicit", implicit, long=5000))
register(PRMCase("fake", lambda: FakePRM.truthful(right_so_far)))
register(PRMCase("fake-short", lambda: FakePRM.truthful(right_so_far, max_context=500), long=500))
register(PRMCase("replay", lambda: ReplayPRM(scored_record(FakePRM.truthful(right_so_far), (WHOLE, *OTHERS)))))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("case", CASES)
async def test_conformance(case: str, check: str) -> None:
    await CHECKS[check](CASES[case])
