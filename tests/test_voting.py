"""Votes over answer classes: what they compute, and that nothing but the candidates decides."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.types import ROOT, Aggregation, Candidate, Prefix
from adaptive_ttc.voting import VOTES, VoteName, VoteWeights, aggregate, select, tally

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def candidate(answer: str | None, score: float | None = None) -> Candidate:
    return Candidate(ROOT, answer, answer, score)


scores = st.floats(0, 1)
scored = st.lists(st.builds(candidate, st.sampled_from(["1", "2", "3", None]), scores), max_size=12)
votes = st.sampled_from(VOTES)

# One problem on which the four votes disagree: "4" is frequent, "5" has the best single score, "6" the
# largest sum, and "7" the most evidence in log-odds.
SPLIT = (
    [candidate("4", 0.2) for _ in range(6)]
    + [candidate("5", 0.999), candidate("5", 0.01)]
    + [candidate("6", 0.48) for _ in range(5)]
    + [candidate("7", 0.95), candidate("7", 0.95)]
)


@pytest.mark.parametrize(
    ("vote", "winner"), [("majority", "4"), ("best", "5"), ("weighted", "6"), ("logit_weighted", "7")]
)
def test_each_vote_has_its_own_winner(vote: VoteName, winner: str) -> None:
    assert select(SPLIT, vote) == winner


def test_totals_are_those_of_the_definitions() -> None:
    candidates = [candidate("1", 0.8), candidate("1", 0.5), candidate("2", 0.9)]
    assert [(c.answer, c.votes) for c in tally(candidates, "weighted")] == [("1", 2), ("2", 1)]
    assert [c.weight for c in tally(candidates, "weighted")] == pytest.approx([1.3 / 2.2, 0.9 / 2.2])
    assert [c.weight for c in tally(candidates, "majority")] == pytest.approx([2 / 3, 1 / 3])
    assert [c.answer for c in tally(candidates, "best")] == ["2", "1"]
    by_logit = tally(candidates, "logit_weighted", b=0.7)
    against = math.log(0.8 / 0.2) + math.log(0.5 / 0.5) - 2 * math.log(0.7 / 0.3)
    assert [c.answer for c in by_logit] == ["2", "1"]
    assert [c.weight for c in by_logit] == pytest.approx([1.0, against / (math.log(0.9 / 0.1) - math.log(0.7 / 0.3))])


def test_a_low_score_counts_against_its_answer_in_the_logit_vote() -> None:
    candidates = [candidate("1", 0.6), *(candidate("2", 0.3) for _ in range(9))]
    assert select(candidates, "weighted") == "2"
    assert select(candidates, "logit_weighted") == "1"
    assert tally(candidates, "logit_weighted")[1].weight < 0


def test_where_every_total_is_negative_the_least_bad_class_wins_and_totals_stand() -> None:
    candidates = [candidate("1", 0.1), candidate("2", 0.2), candidate("2", 0.2)]
    classes = tally(candidates, "logit_weighted")
    assert [c.answer for c in classes] == ["1", "2"]
    assert classes[0].weight == pytest.approx(math.log(0.1 / 0.9))


@pytest.mark.parametrize("vote", VOTES)
def test_certain_scores_are_finite_and_do_not_cancel_to_nan(vote: VoteName) -> None:
    classes = tally([candidate("1", 1.0), candidate("1", 0.0), candidate("2", 1.0)], vote)
    assert all(math.isfinite(c.weight) for c in classes)
    if vote == "logit_weighted":
        assert classes[0].answer == "2"


@pytest.mark.parametrize("vote", VOTES)
def test_trap_5_missing_and_empty_answers_form_no_class(vote: VoteName) -> None:
    empty = [candidate(None, 0.99), candidate("", 0.99), candidate(None, None)] * 5
    assert tally(empty, vote) == ()
    assert select(empty, vote) is None
    assert select([], vote) is None
    assert select([*empty, candidate("8", 0.01)], vote) == "8"


@unhurried
@given(scored, votes, st.floats(0.05, 0.95), st.randoms())
def test_trap_11_the_order_of_the_candidates_changes_nothing(
    candidates: list[Candidate], vote: VoteName, b: float, rng: random.Random
) -> None:
    shuffled = rng.sample(candidates, len(candidates))
    assert tally(shuffled, vote, b) == tally(candidates, vote, b)


def test_trap_11_sums_are_exact_so_that_rounding_cannot_break_a_tie() -> None:
    terms = [0.1, 0.2, 0.3]
    assert 0.1 + 0.2 + 0.3 > 0.3 + 0.2 + 0.1  # addition of floats does depend on the order
    candidates = [candidate("1", s) for s in reversed(terms)] + [candidate("2", s) for s in terms]
    first, second = tally(candidates, "weighted")
    assert first.weight == second.weight
    assert first.answer == "1"


def test_trap_11_ties_break_by_the_best_score_then_by_the_text() -> None:
    assert select([candidate("1", 0.5), candidate("2", 0.7)], "majority") == "2"
    assert (
        select([candidate("1", 0.5), candidate("1", 0.5), candidate("2", 0.75), candidate("2", 0.25)], "weighted")
        == "2"
    )
    assert select([candidate("2"), candidate("1")], "majority") == "1"
    assert select([candidate("1"), candidate("2", 0.0)], "majority") == "2"


@unhurried
@given(scored, votes)
def test_a_class_never_loses_by_one_more_good_vote(candidates: list[Candidate], vote: VoteName) -> None:
    winner = select(candidates, vote)
    if winner is not None:
        assert select([*candidates, candidate(winner, 1.0)], vote) == winner


@unhurried
@given(scored, st.integers(1, 10))
def test_scaling_the_scores_leaves_the_weighted_and_the_best_vote_unchanged(
    candidates: list[Candidate], halvings: int
) -> None:
    exact = [candidate(c.answer, math.floor((c.score or 0) * 1024) / 1024) for c in candidates]
    scaled = [candidate(c.answer, (c.score or 0) / 2**halvings) for c in exact]
    for vote in ("weighted", "best"):
        assert tally(scaled, vote) == tally(exact, vote)


@unhurried
@given(scored, votes)
def test_repeating_every_candidate_changes_no_winner_and_no_share(candidates: list[Candidate], vote: VoteName) -> None:
    once, twice = tally(candidates, vote), tally(candidates * 2, vote)
    assert [c.answer for c in twice] == [c.answer for c in once]
    assert [c.votes for c in twice] == [2 * c.votes for c in once]


@unhurried
@given(st.sampled_from(["1", "2"]), scores, votes)
def test_one_candidate_wins_whatever_its_score(answer: str, score: float, vote: VoteName) -> None:
    (only,) = tally([candidate(answer, score)], vote)
    assert (only.answer, only.votes) == (answer, 1)


@unhurried
@given(scored, votes)
def test_votes_count_every_candidate_with_an_answer_once(candidates: list[Candidate], vote: VoteName) -> None:
    classes = tally(candidates, vote)
    assert sum(c.votes for c in classes) == sum(c.answer is not None for c in candidates)
    positive = [c.weight for c in classes if c.weight > 0]
    assert not positive or math.fsum(positive) == pytest.approx(1)


@pytest.mark.parametrize("vote", [vote for vote in VOTES if vote != "majority"])
def test_a_scored_vote_without_scores_is_refused_with_the_remedy(vote: VoteName) -> None:
    candidates = [candidate("1", 0.5), candidate("2")]
    with pytest.raises(ConfigError, match="reward model, or use the majority"):
        tally(candidates, vote)
    assert select([candidate("1", 0.5), candidate(None)], vote) == "1"


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match="majority, best, weighted, logit_weighted"):
        tally([], "median")  # type: ignore[arg-type]
    for b in (0.0, 1.0, math.nan):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            tally([], "logit_weighted", b)
    for score in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="probability"):
            tally([candidate("1", score)], "majority")
    with pytest.raises(ValueError, match="grade before voting"):
        tally([Candidate(ROOT, answer="1")], "majority")


@pytest.mark.parametrize(("how", "value"), [("last", 0.5), ("min", 0.25), ("prod", 0.0625), ("mean", 1.25 / 3)])
def test_aggregation(how: Aggregation, value: float) -> None:
    assert aggregate([0.25, 0.5, 0.5], how) == pytest.approx(value)
    assert aggregate([0.25], how) == 0.25


@unhurried
@given(st.lists(scores, min_size=1), st.sampled_from(["last", "min", "prod", "mean"]))
def test_an_aggregate_of_scores_is_a_score(steps: list[float], how: Aggregation) -> None:
    assert 0 <= aggregate(steps, how) <= 1


def test_aggregation_refuses_what_has_no_score() -> None:
    with pytest.raises(ValueError, match="no step scores"):
        aggregate([], "last")
    with pytest.raises(ValueError, match="probability"):
        aggregate([0.5, 1.5], "last")
    with pytest.raises(ConfigError, match="last, min, prod, mean"):
        aggregate([0.5], "median")  # type: ignore[arg-type]


def test_how_sure_the_policy_was_of_an_answer_counts_only_where_it_is_known_and_asked_for() -> None:
    def sure(answer: str, logprob: float) -> Candidate:
        return Candidate(Prefix(answer_logprob=logprob), answer, answer)

    told = [sure("1", -3.0), sure("1", -3.0), sure("2", -0.1)]
    assert select(told, "majority") == "1"
    assert select(told, "majority", weights=VoteWeights(answer=1.0)) == "2"
    untold = [candidate("1"), candidate("1"), candidate("2")]
    assert tally(untold, "majority", weights=VoteWeights(answer=1.0)) == tally(untold, "majority")
    assert VoteWeights(2.0, 1.0, 0.5).of(0.5, -3.0, 6, -0.1) == VoteWeights(2.0, 1.0, 0.5, 4.0).of(0.5, -3.0, 6)
    assert VoteWeights(answer=2.0).of(None, math.nan, 0, -math.inf) > 0
