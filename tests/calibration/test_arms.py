"""Arms: names, kinds and units, the demand of many, and how a command line writes them."""

import pytest

from adaptive_ttc.calibration.collect.arms import Arm, default_arms, demand, parse_arms
from adaptive_ttc.calibration.collect.units import starts_of, with_starts
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.strategies.adaptive import request_of


@pytest.mark.parametrize(
    ("arm", "name", "kind", "units", "scored"),
    [
        (Arm("greedy"), "greedy", "greedy", 1, False),
        (Arm("majority", 16), "majority-16", "sample", 16, False),
        (Arm("weighted_best_of_n", 16), "weighted_best_of_n-16", "sample", 16, True),
        (Arm("dvts", 16, 4), "dvts-16-4", "dvts-4", 4, True),
        (Arm("beam_search", 16, 4), "beam_search-16-4", "beam_search-16-4", 1, True),
        (Arm("revision", 16, sequential=4), "revision-16-4", "revision-4", 4, True),
    ],
)
def test_an_arm_is_answered_by_units_of_one_kind(arm, name, kind, units, scored):
    assert (arm.name, arm.kind, arm.units, arm.scored) == (name, kind, units, scored)


def test_a_command_line_names_arms_once_each_and_aliases_too():
    words = ["greedy", "self_consistency:1,4", "majority:4,16", "dvts:16x4", "beam_search:16x4", "revision:16x4"]
    assert [arm.name for arm in parse_arms(words)] == [
        "greedy", "majority-1", "majority-4", "majority-16", "dvts-16-4", "beam_search-16-4", "revision-16-4",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("word", "remedy"),
    [
        ("dvts:16", "write dvts:16x4"),
        ("majority:16x4", "write majority:1,4,16"),
        ("greedy:4", "write greedy"),
        ("dvts:10x4", "take n=12"),
        ("revision:10x4", "take n=12"),
        ("majority:0", "at least 1"),
        ("majority:", "write majority:1,4,16"),
        ("best", "choose one of greedy"),
    ],
)
def test_a_word_that_names_no_arm_is_refused_with_the_remedy(word, remedy):
    with pytest.raises(ConfigError, match=remedy):
        parse_arms([word])


def test_an_arm_that_cannot_be_run_is_refused():
    with pytest.raises(ConfigError, match="revision:16x4"):
        Arm("revision", 16)
    with pytest.raises(ConfigError, match="no beam_width"):
        Arm("majority", 16, 4)


def test_the_default_arms_end_at_most():
    arms = default_arms(64)
    assert max(arm.n for arm in arms) == 64
    trees = [(arm.n, arm.beam_width) for arm in arms if arm.strategy == "dvts"]
    assert trees == [(4, 4), (8, 4), (16, 4), (32, 4), (64, 4), (2, 2), (4, 2), (8, 2), (16, 2), (32, 2)]
    assert [arm.name for arm in default_arms(3)] == [
        "greedy", "majority-1", "majority-2", "best_of_n-1", "best_of_n-2", "weighted_best_of_n-1",
        "weighted_best_of_n-2",
    ]  # fmt: skip
    assert {"beam_search-256-4", "best_of_n-256"} <= {arm.name for arm in default_arms()}


def test_the_demand_is_the_largest_of_all_arms_and_what_their_trees_start_from():
    assert demand(default_arms(64)) == {
        "greedy": 1, "sample": 64, "dvts-4": 16, "dvts-2": 16, "beam_search-4-4": 2, "beam_search-16-4": 2,
        "beam_search-64-4": 1, "revision-4": 4,
    }  # fmt: skip
    assert demand(parse_arms(["beam_search:16x4"])) == {"beam_search-16-4": 2, "sample": 32}
    assert demand(parse_arms(["beam_search:16x4", "majority:4"]), repeats=3) == {"beam_search-16-4": 3, "sample": 48}
    assert with_starts({"dvts-4": 3, "sample": 5, "greedy": 0}) == {"dvts-4": 3, "sample": 12}


def test_kinds_tell_their_strategy_and_the_samples_that_they_start_from():
    assert request_of("beam_search-16-4") == {"strategy": "beam_search", "n": 16, "beam_width": 4}
    assert request_of("revision-4") == {"strategy": "revision", "n": 4, "sequential": 4}
    assert starts_of("dvts-4", 3) == range(12, 16)
    assert starts_of("beam_search-16-4", 1) == range(16, 32)
    assert starts_of("revision-4", 3) == range(3, 4)
    assert not starts_of("sample", 3)
    for kind in ("dvts", "dvts-0", "sample-1", "beam_search-4", "tree-4"):
        with pytest.raises(ConfigError, match="they are greedy, sample, think-T, short_m_at_k-K-M, dvts-M"):
            request_of(kind)
