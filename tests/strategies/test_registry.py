import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.strategies import Majority, Strategy, make_strategy, register, strategy_names


def test_an_unknown_strategy_lists_the_known_ones():
    with pytest.raises(ConfigError, match="unknown strategy 'bestofn'") as raised:
        make_strategy("bestofn")
    assert all(name in str(raised.value) for name in (*strategy_names(), "self_consistency"))


def test_an_unknown_option_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"majority has no option beams; it takes n, .*slice_size"):
        make_strategy("majority", beams=3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 0}, "n is a whole number of at least 1"),
        ({"n": 2.0}, "n is a whole number"),
        ({"n": True}, "n is a whole number"),
        ({"n": 8, "beam_width": 4}, "majority draws independent samples and has no beam_width"),
        ({"beam_width": 4}, "has no beam_width; leave it out"),
        ({"temperature": -0.1}, "temperature is at least 0"),
        ({"temperature": float("nan")}, "temperature is at least 0"),
        ({"top_p": 0}, "top_p is above 0"),
        ({"max_tokens": 0}, "max_tokens is a whole number"),
        ({"vote": "loudest"}, "majority, best, weighted, logit_weighted"),
        ({"vote_b": 1.0}, "strictly between 0 and 1"),
        ({"agg_strategy": "max"}, "last, min, prod, mean"),
        ({"slice_size": 0}, "slice_size is a whole number"),
    ],
)
def test_impossible_values_name_the_remedy(options, words):
    with pytest.raises(ConfigError, match=words):
        make_strategy("majority", **options)


def test_greedy_takes_no_other_n_or_temperature():
    for options in ({"n": 2}, {"temperature": 0.5}):
        with pytest.raises(ConfigError, match="take majority"):
            make_strategy("greedy", **options)


def test_a_vote_that_needs_scores_makes_any_strategy_scored():
    assert not Majority().scored
    assert Majority(vote="weighted").scored


@pytest.mark.parametrize("name", ["majority", "self_consistency"])
def test_a_name_is_given_once(name):
    with pytest.raises(ConfigError, match="already"):
        register(name)(type("Other", (Strategy,), {}))
    assert make_strategy("majority") == Majority()
