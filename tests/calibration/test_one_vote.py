"""One vote: what a live run answers, what calibration measures, and what replays of both kinds reach."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptive_ttc.calibration.collect.records import ProblemRecord, UnitRecord
from adaptive_ttc.calibration.fit.accuracy import vote_accuracy
from adaptive_ttc.calibration.judge.replay import State, UnitOrder, VoteTotals, vote_totals
from adaptive_ttc.calibration.judge.sampling import Order, by_outlook
from adaptive_ttc.estimate.features import Attempt, Unit
from adaptive_ttc.estimate.gain import GainModel
from adaptive_ttc.estimate.table import Vote
from adaptive_ttc.run.vote import poll
from adaptive_ttc.strategies.registry import make_strategy
from adaptive_ttc.types import Candidate, Prefix
from adaptive_ttc.voting import VOTES

RIGHT = "a"


class Idle(GainModel):
    """Forecasts nothing."""

    def forecasts(self, states):
        return []


def sample(answer, score, logprob=-5.0):
    scores = () if score is None else (score,)
    return UnitRecord(Unit("sample", (Attempt(answer, scores, 10, logprob),), (), 10), (answer == RIGHT,))


def record_of(samples):
    return ProblemRecord("one", "?", RIGHT, 5, {"sample": tuple(samples)})


def live(samples, vote):
    """The answer of a live run that holds these samples."""
    attempts = [one.unit.attempts[0] for one in samples]
    candidates = [
        Candidate(
            Prefix(token_ids=(0,) * one.tokens, text="", logprob=one.logprob),
            *(one.answer, one.answer),
            one.scores[-1] if one.scores else None,
        )
        for one in attempts
    ]
    _, classes = poll(candidates, make_strategy("beam_search", **vote.options))
    return classes[0].answer if classes else None


def replayed(samples, vote, scored=True):
    order = UnitOrder(record_of(samples), 0)
    return VoteTotals(vote).totals(order, State((("sample", len(samples)),), scored))


def measured(samples, vote):
    return float(vote_accuracy(samples, np.ones((1, len(samples)), dtype=bool), [vote])[0, 0])


def sampled(samples, vote):
    """By the rules for samples alone, after all of them."""
    rule = by_outlook("outlook", Idle(), vote)
    return float(Order.of(record_of(samples), 0).accuracy(rule.weigh, rule.total)[-1])


def test_one_unscored_solution_does_not_outvote_a_scored_one():
    samples = [sample("a", 0.9), sample("b", None)]
    for vote in (Vote("weighted"), Vote("best"), Vote("logit_weighted", 0.95)):
        assert replayed(samples, vote).keys() == {"a"}
        assert live(samples, vote) == "a"
        assert (measured(samples, vote), sampled(samples, vote)) == (1.0, 1.0)


def test_where_no_solution_is_scored_the_majority_decides():
    samples = [sample("a", None), sample("a", None), sample("b", None), sample(None, 0.7)]
    for name in VOTES:
        assert live(samples, Vote(name)) == "a"
        assert replayed(samples, Vote(name)) == {"a": 2.0, "b": 1.0}
        assert (measured(samples, Vote(name)), sampled(samples, Vote(name))) == (1.0, 1.0)


def test_before_scoring_the_majority_is_weighed_as_the_live_one_is():
    vote = Vote("weighted", logprob=4.0)
    samples = [sample("a", 0.1, -1.0), sample("b", 0.9, -30.0)]
    unscored = [sample("a", None, -1.0), sample("b", None, -30.0)]
    found = replayed(samples, vote, scored=False)
    assert found == replayed(unscored, vote)
    assert max(found, key=found.get) == live(unscored, vote) == "a"


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c", None]),
            st.one_of(st.none(), st.integers(1, 19).map(lambda twentieths: twentieths / 20)),
            st.integers(-30, -1),
        ),
        min_size=1,
        max_size=7,
    ),
    st.sampled_from(VOTES),
    st.sampled_from([Vote(), Vote(b=0.3), Vote(power=2.0, logprob=3.0, length=0.1)]),
)
def test_a_live_run_the_measured_accuracy_and_replays_hold_one_vote(drawn, name, given_vote):
    vote, samples = replace(given_vote, name=name), [sample(*one) for one in drawn]
    totals = replayed(samples, vote)
    assert totals == pytest.approx(vote_totals([one.unit.attempts[0] for one in samples], vote))
    answer, order = live(samples, vote), UnitOrder(record_of(samples), 0)
    if not totals:
        assert answer is None
        assert measured(samples, vote) == 0.0
        return
    assert totals[answer] == pytest.approx(max(totals.values()))
    assert measured(samples, vote) == pytest.approx(order.accuracy(totals))
    scored = any(one.unit.attempts[0].answer and one.unit.attempts[0].scores for one in samples)
    if vote.weights.even or scored or name == "majority":
        assert sampled(samples, vote) == pytest.approx(order.accuracy(totals))
