"""Which tokens spell an answer out, and that this is known wherever log-probabilities are."""

import math
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_ttc.answers.confidence import answer_logprob
from adaptive_ttc.estimate.features import Attempt
from adaptive_ttc.run.retrace import retrace
from adaptive_ttc.solver import Solver
from adaptive_ttc.tracing.trace import Trace
from tests.doubles import TinyPolicy


def told(pieces, logprobs):
    """Of a solution of these tokens, whose last one may be an end of sequence, which has no text."""
    return answer_logprob("".join(pieces), logprobs, lambda n: len("".join(pieces[:n])))


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["So", " \\", "boxed", "{", "1", "2", "}", "."], -4.5),
        (["So \\boxed{", "12}", ".", ""], -1.0),
        (["\\boxed{1}", " no, ", "\\boxed", "{", "2", "}"], -4.0),
        (["\\boxed{7}"], 0.0),
    ],
)
def test_the_tokens_of_the_last_box_count_and_those_that_they_share(pieces, expected):
    assert told(pieces, [-float(n) for n in range(len(pieces))]) == pytest.approx(expected)


def test_without_an_answer_or_log_probabilities_nothing_is_known():
    assert math.isnan(told(["no ", "box"], [-1.0, -2.0]))
    assert math.isnan(told(["\\boxed{", "}"], [-1.0, -2.0]))
    assert math.isnan(told(["\\boxed{", "5", "}"], []))


@settings(deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=60), st.integers(0, 80), st.integers(0, 80))
def test_it_is_the_mean_over_all_tokens_that_hold_a_character_of_it(lengths, before, after):
    text = "x" * before + "\\boxed{12}" + "y" * after
    starts = list(accumulate([*lengths, *[2] * len(text)], initial=0))
    pieces = [text[first:last] for first, last in pairwise(starts)]
    logprobs = [-float(n % 7) for n in range(len(pieces))]
    begin = before + len("\\boxed{")
    own = [n for n, (first, last) in enumerate(pairwise(starts)) if first < begin + 2 and last > begin]
    assert told(pieces, logprobs) == pytest.approx(sum(logprobs[n] for n in own) / len(own))


async def test_it_comes_from_the_engine_to_the_evidence_and_back_out_of_a_trace(tmp_path):
    async with Solver(TinyPolicy()) as solver:
        solution = await solver.solve("how?", strategy="majority", n=6, vote_answer=2.0)
        solution.trace.save(tmp_path / "trace.json")
        again = await retrace(Trace.load(tmp_path / "trace.json"), solver.grader)
    known = [one for one in solution.candidates if one.answer is not None]
    assert known
    assert {one.prefix.answer_logprob for one in known} == {-0.5}
    assert [Attempt.of(one).answer_logprob for one in known] == [-0.5] * len(known)
    assert again.answer_classes == solution.answer_classes
    assert {one.prefix.answer_logprob for one in again.candidates if one.answer is not None} == {-0.5}
