"""Scores that are a policy's own confidence: the majority stays unless they beat it on problems not chosen on."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from adaptive_ttc.calibration.collect.__main__ import drawable
from adaptive_ttc.calibration.collect.arms import default_arms
from adaptive_ttc.calibration.collect.records import Weights
from adaptive_ttc.calibration.fit.accuracy import choose_vote
from adaptive_ttc.calibration.fit.inputs import FitData
from adaptive_ttc.calibration.fit.pipeline import Settings
from adaptive_ttc.prm import FakePRM, Traits
from tests.calibration.simulated import simulated_records

PROBLEMS = 60


def records(seed, tells):
    """Samples whose one score says whether they are right with weight ``tells``; the rest of it is noise."""
    rng = np.random.default_rng(seed)
    made = []
    for record in simulated_records(PROBLEMS, 16, seed, trees=0, beams=0):
        units = []
        for one in record.units["sample"]:
            score = float(np.clip(0.5 + tells * (0.5 if one.correct[0] else -0.5) + rng.normal(0, 0.1), 0.01, 0.99))
            attempts = tuple(replace(attempt, scores=(score,)) for attempt in one.unit.attempts)
            units.append(replace(one, unit=replace(one.unit, attempts=attempts)))
        made.append(replace(record, units={"sample": tuple(units)}))
    return made


def chosen(seed, tells, doubted):
    folds = np.arange(PROBLEMS) % 5
    return choose_vote(records(seed, tells), folds, aggregations=("last",), doubted=doubted)


def test_confidence_that_tells_nothing_leaves_the_majority():
    names = [chosen(seed, 0.0, True).vote.name for seed in range(6)]
    assert names == ["majority"] * 6
    # scores of a reward model are taken at their best, which is luck here
    assert any(chosen(seed, 0.0, False).vote.name != "majority" for seed in range(6))


def test_confidence_that_tells_right_from_wrong_votes():
    choice = chosen(0, 0.8, True)
    assert choice.vote.name != "majority"
    assert choice.crossfitted > choice.accuracy[:, 0].mean() + 0.05


def test_a_majority_that_stays_was_not_chosen_for_being_best():
    choice = chosen(1, 0.0, True)
    assert choice.crossfitted == pytest.approx(choice.accuracy[:, 0].mean())
    assert choice.optimism == pytest.approx(0)


def test_what_was_gathered_says_whether_its_scores_are_doubted():
    assert not FitData([], {}, {}, {}, Weights(), {}).doubted
    assert not Settings(Weights()).doubted


def test_models_of_whole_solutions_have_no_trees_among_their_default_arms():
    arms = default_arms(16)
    outcome, process = SimpleNamespace(traits=Traits(finished_only=True)), FakePRM(lambda question, steps: 0.5)
    whole = SimpleNamespace(whole_samples=True)
    default, asked = SimpleNamespace(arms=None), SimpleNamespace(arms=["dvts:4x4"])
    found = {
        name: {arm.strategy for arm in drawable(arms, SimpleNamespace(policy=policy, prm=prm), options)}
        for name, policy, prm, options in (
            ("outcome", None, outcome, default),
            ("whole", whole, process, default),
            ("process", None, process, default),
            ("asked", None, outcome, asked),
        )
    }
    assert "dvts" in found["process"] == found["asked"]
    assert found["outcome"] == found["whole"] == found["process"] - {"dvts", "beam_search"}
