"""short-m@k: the shortest of samples that run side by side vote, the others end early and are charged."""

import pytest

from adaptive_ttc import Solver
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.events import DecisionEvent, RequestEvent
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.strategies import make_strategy
from tests.doubles import in_virtual_time

QUESTION = "What is 17 + 25 + 31 + 46?"


def solve(policy, **options):
    async def run():
        async with Solver(policy) as solver:
            return await solver.solve(QUESTION, **{"seed": 3, **options})

    return in_virtual_time(run)


def test_the_first_to_end_are_the_shortest_of_all_and_the_others_stop():
    full = solve(FakePolicy.reasoning(again=0.7), strategy="majority", n=8)
    lengths = sorted(len(one.prefix.token_ids) for one in full.candidates)
    policy = FakePolicy.reasoning(again=0.7)
    short = solve(policy, strategy="short_m_at_k", n=8, m=3)
    assert [len(one.prefix.token_ids) for one in short.candidates] == lengths[:3]
    assert all(one.prefix.finished and one.answer for one in short.candidates)
    # whoever is left has an eighth more than the third at most
    most = max(lengths[2] + 16, lengths[2] * 9 // 8)
    drawn = {}
    for event in short.trace.of(RequestEvent):
        drawn[event.path] = drawn.get(event.path, 0) + len(event.token_ids)
    assert len(drawn) == 8
    assert max(drawn.values()) <= most
    assert short.spent == policy.completion_tokens == sum(drawn.values()) < full.spent
    assert any(event.what == "aborted the others" for event in short.trace.of(DecisionEvent))
    assert "The others were aborted, and charged as far as they came: " in short.explain()
    assert short.stopped == "settled"


def test_the_order_of_replies_changes_nothing():
    def run(turns, batch):
        policy = FakePolicy.reasoning(again=0.7, turn_tokens=turns, max_batch=batch)
        one = solve(policy, strategy="short_m_at_k", n=6, m=2)
        return [candidate.prefix for candidate in one.candidates], one.spent

    assert run(1, 64) == run(16, 2) == run(7, 1)


def test_equal_votes_go_to_the_shorter_thoughts():
    for seed in range(12):
        one = solve(FakePolicy.reasoning(error_rate=0.1, again=0.5), strategy="short_m_at_k", n=4, m=2, seed=seed)
        first, second = one.candidates
        if first.answer != second.answer and len(first.prefix.token_ids) < len(second.prefix.token_ids):
            assert one.answer == first.answer
            break
    else:
        raise AssertionError("no two answers differ")


def test_thinking_may_be_limited_in_a_race_too():
    one = solve(FakePolicy.reasoning(again=0.9), strategy="short_m_at_k", n=4, m=4, think_tokens=40)
    assert len(one.candidates) == 4
    assert all(candidate.prefix.thought <= 41 for candidate in one.candidates)


@pytest.mark.parametrize("budget", range(40, 900, 45))
def test_no_race_overspends(budget):
    policy = FakePolicy.reasoning(again=0.7)
    one = solve(policy, strategy="short_m_at_k", n=6, m=3, budget_tokens=budget)
    assert one.spent == policy.completion_tokens <= budget


def test_an_engine_of_whole_samples_is_aborted():
    policy = FakePolicy.reasoning(again=0.7, turn_tokens=4)
    policy.whole_samples = True
    one = solve(policy, strategy="short_m_at_k", n=8, m=2, max_tokens=600)
    assert len(one.candidates) == 2
    assert policy.aborted
    assert one.spent == policy.completion_tokens
    assert len(one.trace.of(RequestEvent)) == 8


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n": 2, "m": 3}, "take n=3 or more"),
        ({"n": 4, "m": 0}, "m is a whole number"),
        ({"n": 4, "slice_size": 2}, "no slice_size"),
        ({"n": 4, "beam_width": 2}, "no beam_width"),
    ],
)
def test_impossible_races_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        make_strategy("short_m_at_k", **options)


def test_three_are_waited_for_or_all_of_fewer():
    assert [make_strategy("short_m_at_k", n=n).awaited for n in (1, 2, 8)] == [1, 2, 3]
