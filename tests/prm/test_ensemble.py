"""Several reward models as one: how scores combine, what is charged, and what cannot be combined."""

from __future__ import annotations

import math

import pytest

from adaptive_ttc import Solver
from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.loading import MINI_PRM
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.prm import (
    ConfidencePRM,
    EnsemblePRM,
    FakePRM,
    GenerativeVerifier,
    ScoreRequest,
    VerifierSettings,
    load_prm,
)
from adaptive_ttc.prm.base import Traits, traits_of
from tests.prm.tiny_outcome import outcome_folder

ASKED = ScoreRequest("What is 3 + 4?", ("3 + 4 = 7.", "So it is \\boxed{7}."))


def constant(*scores: float, name: str = "fake-prm", **settings: object) -> FakePRM:
    return FakePRM(lambda question, steps: scores[len(steps) - 1], name=name, **settings)


async def scores_of(combine: str, *members: FakePRM) -> tuple[float, ...]:
    ensemble = EnsemblePRM(members, combine)
    return (await ensemble.score(ASKED)).scores


async def test_logits_are_averaged_and_the_least_is_taken_step_by_step():
    one, other = constant(0.9, 0.2, name="one"), constant(0.6, 0.8, name="other")
    odds = math.sqrt(0.9 / 0.1 * 0.6 / 0.4), math.sqrt(0.2 / 0.8 * 0.8 / 0.2)
    assert await scores_of("mean_logit", one, other) == pytest.approx([odd / (1 + odd) for odd in odds])
    assert await scores_of("least", one, other) == (0.6, 0.2)


async def test_members_are_closed_with_it():
    members = constant(0.5, name="one"), constant(0.5, name="other")
    await EnsemblePRM(members).aclose()
    assert all(member.closed for member in members)


async def test_a_member_that_is_sure_does_not_outvote_all_others():
    (first, _) = await scores_of("mean_logit", constant(0.0, 1.0, name="one"), constant(1.0, 1.0, name="other"))
    assert first == pytest.approx(0.5)


async def test_tokens_are_those_of_the_largest_member():
    large, small = constant(0.5, 0.5, name="large", parameters=1000), constant(0.5, 0.5, name="small", parameters=250)
    ensemble = EnsemblePRM([large, small])
    alone = large.count_tokens(ASKED)
    assert ensemble.parameters == 1000
    assert ensemble.count_tokens(ASKED) == math.ceil(alone * 1.25)
    assert (await ensemble.score(ASKED)).prm_tokens == ensemble.count_tokens(ASKED)


async def test_members_that_cost_nothing_cost_nothing():
    free = EnsemblePRM([ConfidencePRM(), ConfidencePRM()])
    assert free.count_tokens(ASKED) == 0
    assert traits_of(free) == Traits(logprobs=True, top_logprobs=20, free=True)
    assert not traits_of(EnsemblePRM([ConfidencePRM(), constant(0.5, 0.5)])).free


async def test_where_a_member_fails_there_is_no_score():
    broken = constant(0.5, 0.5, name="broken")
    broken.fail(EngineError("gone"))
    ensemble = EnsemblePRM([constant(0.5, 0.5), broken])
    with pytest.raises(EngineError, match="gone"):
        await ensemble.score(ASKED)


def test_the_order_of_members_is_nothing_and_the_combination_something():
    one, other = constant(0.5, name="one"), constant(0.5, name="other")
    assert EnsemblePRM([one, other]).fingerprint == EnsemblePRM([other, one]).fingerprint
    assert EnsemblePRM([one, other]).fingerprint != EnsemblePRM([one, other], "least").fingerprint
    assert EnsemblePRM([one, other]).name == "mean_logit:one+other"


def test_what_cannot_be_combined_is_refused():
    with pytest.raises(ConfigError, match="unknown combination 'max' of scores; choose one of mean_logit, least"):
        EnsemblePRM([constant(0.5), constant(0.5)], "max")
    with pytest.raises(ConfigError, match="at least two members; got 1"):
        EnsemblePRM([constant(0.5)])
    with pytest.raises(ConfigError, match="one scores steps, the other finished solutions alone"):
        EnsemblePRM([constant(0.5), load_prm(outcome_folder())])
    with pytest.raises(ConfigError, match="writes its verdicts"):
        EnsemblePRM([constant(0.5), GenerativeVerifier(FakePolicy.generative(), VerifierSettings())])
    with pytest.raises(ConfigError, match=r"name two or more reward models, such as least:owner/one\+owner/other"):
        load_prm("least:owner/one")


async def test_an_ensemble_is_loaded_by_its_name_and_solves():
    prm = load_prm(f"mean_logit:{MINI_PRM}+confidence:tail,top=0", device="cpu")
    async with Solver(FakePolicy.generative(), prm) as solver:
        solution = await solver.solve("What is 3 + 4?", strategy="weighted_best_of_n", n=4, budget_tokens=400)
    assert solution.spent <= 400
    assert all(0 < score < 1 for one in solution.candidates for score in one.prefix.scores)
    assert solution.usage.prm_tokens > 0
