"""Sampling strategies as transcripts: only ``next`` and ``send``, no event loop."""

import pytest

from adaptive_ttc.strategies import BestOfN, Greedy, Majority, WeightedBestOfN, make_strategy
from adaptive_ttc.strategies.requests import Expand
from adaptive_ttc.types import ROOT, Prefix


def solution(*path, text="\\boxed{1}", finish="eos", scores=()):
    return Prefix((1, 2, 0), text, scores, -1.0, finish, path)


def returned(search, reply):
    with pytest.raises(StopIteration) as stop:
        search.send(reply)
    return stop.value.value


def test_all_samples_are_asked_for_at_once():
    search = Majority(n=3, max_tokens=50, temperature=0.5, top_p=0.9).search()
    assert next(search) == Expand(prefixes=(ROOT,) * 3, max_tokens=50, temperature=0.5, top_p=0.9, score=False)
    children = tuple(solution(i) for i in range(3))
    assert returned(search, children) == children


@pytest.mark.parametrize(
    ("strategy", "scored"), [(Majority(n=2), False), (BestOfN(n=2), True), (WeightedBestOfN(n=2), True)]
)
def test_only_votes_that_need_scores_ask_for_them(strategy, scored):
    assert next(strategy.search()).score is scored


def test_greedy_is_one_sample_at_temperature_zero():
    assert next(Greedy().search()) == Expand(prefixes=(ROOT,), temperature=0.0)


def test_slices():
    search = Majority(n=5, slice_size=2).search()
    sizes = [len(next(search).prefixes)]
    sizes.append(len(search.send((solution(0), solution(1))).prefixes))
    sizes.append(len(search.send((solution(2), solution(3))).prefixes))
    assert sizes == [2, 2, 1]
    assert [prefix.path for prefix in returned(search, (solution(4),))] == [(i,) for i in range(5)]


@pytest.mark.parametrize("finish", ["budget", "abort"])
def test_a_slice_that_came_back_short_is_the_last(finish):
    search = Majority(n=6, slice_size=2).search()
    next(search)
    short = (solution(0), Prefix(finish=finish, path=(1,)))
    assert returned(search, short) == (solution(0),)


def test_what_got_no_token_is_no_candidate_but_a_cut_text_is_one():
    search = BestOfN(n=3).search()
    next(search)
    cut, nothing = solution(1, text="so", finish="budget"), Prefix(finish="budget", path=(2,))
    assert returned(search, (solution(0), cut, nothing)) == (solution(0), cut)


def test_evidence_is_kept_continued_and_counted():
    finished, truncated = solution(0, scores=(0.9,)), solution(1, text="long", finish="length")
    step = solution(2, text="a step\n\n", finish="stop", scores=(0.4,))
    search = WeightedBestOfN(n=5).search((finished, step, truncated))
    request = next(search)
    assert request.prefixes == (step, ROOT, ROOT)
    children = (solution(2, 0), solution(3), solution(4))
    assert returned(search, children) == (finished, truncated, *children)


def test_evidence_enough_needs_no_request():
    start = tuple(solution(i) for i in range(4))
    search = Majority(n=3).search(start)
    with pytest.raises(StopIteration) as stop:
        next(search)
    assert stop.value.value == start


def test_no_more_first_steps_are_continued_than_samples_were_asked_for():
    steps = tuple(solution(i, finish="stop") for i in range(4))
    assert next(Majority(n=2).search(steps)).prefixes == steps[:2]


def test_ended_samples_are_never_continued():
    """Trap 4: EOS and length end a solution, a stop string does not."""
    start = tuple(solution(i, finish=finish) for i, finish in enumerate(["eos", "length", "stop", "budget", "abort"]))
    assert next(Majority(n=5).search(start)).prefixes == start[2:]


def test_self_consistency_is_majority():
    assert make_strategy("self_consistency", n=4) == make_strategy("majority", n=4) == Majority(n=4)
    assert make_strategy("self_consistency").name == "majority"
