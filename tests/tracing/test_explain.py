import re

import pytest

from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver
from tests.doubles import TinyPolicy

pytestmark = pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")


def explained(prm=True, policy=None, **arguments):
    belief = {"\\boxed{1}": 0.2, "\\boxed{2}": 0.9, "\\boxed{3}": 0.1}
    judge = FakePRM(lambda question, steps: next((value for held, value in belief.items() if held in steps[-1]), 0.5))
    with Solver(policy or TinyPolicy(mean=12, step=4), judge if prm else None) as solver:
        solution = solver.solve_sync("how much?", **arguments)
    return solution, solution.explain()


def rounds_in(text):
    """The numbers of every line about a round, by what they count."""
    lines = [line for line in text.splitlines() if re.match(r"  \d+: \d+ sampled", line)]
    return [{words: int(number) for number, words in re.findall(r"(\d+) ([a-z][a-z ]*)", line)} for line in lines]


def test_beam_search_is_told_round_by_round():
    solution, text = explained(strategy="beam_search", n=16, beam_width=4)
    assert text.startswith(
        f"beam_search: {len(solution.candidates)} candidates of 16 beams, 4 children for each one kept"
    )
    told = rounds_in(text)
    assert f"{len(told)} rounds of steps:" in text
    assert told[0]["sampled"] == 16
    assert sum(one["tokens"] for one in told) == solution.usage.completion_tokens
    assert sum(one.get("finished", 0) for one in told) == len(solution.candidates)
    assert any(one.get("gone on from") for one in told)
    assert any(one.get("merged with an equal one") for one in told)
    assert any(one.get("pruned") for one in told)
    assert "gone on from" not in told[-1]


def test_the_trees_of_dvts_are_counted():
    _, text = explained(strategy="dvts", n=16, beam_width=4)
    assert re.search(r"^4 trees side by side, \d+ rounds of steps:$", text, re.MULTILINE)


def test_looking_ahead_is_told():
    _, text = explained(strategy="beam_search", n=8, beam_width=2, lookahead=1)
    assert "rolled out to look ahead" in text


def test_a_search_that_the_budget_cut_says_so():
    _, text = explained(strategy="beam_search", n=16, beam_width=4, budget_tokens=30, policy=TinyPolicy(mean=400))
    assert any(one.get("cut short") for one in rounds_in(text))
    assert "30 generated tokens allowed" in text


def test_long_searches_are_shortened():
    _, text = explained(strategy="beam_search", n=2, beam_width=2, policy=TinyPolicy(mean=4000, step=3), max_steps=30)
    assert len(rounds_in(text)) == 12
    assert re.search(r"and 18 further rounds with \d+ steps", text)


@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.RevisionWarning")
def test_the_chains_of_a_revision_and_how_often_they_changed_their_answer():
    solution, text = explained(strategy="revision", n=12, sequential=4)
    answers = {one.prefix.path: one.answer_class for one in solution.candidates}
    revised = [path for path in answers if len(path) > 1]
    changed = sum(answers[path] != answers[path[:-1]] for path in revised)
    assert f"3 chains side by side: 3 first attempts, {len(revised)} attempts shown earlier ones;" in text
    assert f"{changed} of {len(revised)} changed the answer of the attempt before." in text
    assert 0 < changed < len(revised)


@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.RevisionWarning")
def test_a_revision_that_revised_nothing():
    _, text = explained(strategy="revision", n=2, sequential=1)
    assert "2 chains side by side: 2 first attempts, none revised." in text


def test_slices_are_told():
    _, text = explained(strategy="majority", n=10, slice_size=4)
    assert re.search(r"^Drawn in slices of 4, 4, 2", text, re.MULTILINE)


def test_the_margin_and_what_the_majority_would_have_said():
    told = [explained(strategy="best_of_n", n=9, seed=seed) for seed in range(10)]
    others = [(solution, text) for solution, text in told if solution.select_with("majority") != solution.answer]
    assert others
    for solution, text in others:
        assert text.endswith(f"The majority vote would have chosen {solution.select_with('majority')}.")
    for solution, text in told:
        winner, second = solution.answer_classes[:2]
        assert f"It holds {winner.votes} of {solution.effective_n} votes; next comes {second.answer}," in text
        assert f"with a weight of {second.weight:.4f} against {winner.weight:.4f}." in text
        assert ("majority vote" in text) == (solution.select_with("majority") != solution.answer)


def test_a_majority_is_told_in_votes_and_a_tie_as_one():
    seen = set()
    for seed in range(12):
        solution, text = explained(prm=False, strategy="majority", n=4, seed=seed)
        if len(solution.answer_classes) > 1:
            first, second = solution.answer_classes[:2]
            seen.add(first.votes == second.votes)
            assert f"next comes {second.answer}, with {second.votes}" in text
            assert ("the tie broke" in text) == (first.votes == second.votes)
    assert seen == {True, False}


def test_an_answer_without_rival():
    _, text = explained(prm=False, strategy="greedy")
    assert text.endswith("No candidate holds another answer.")


def test_a_search_that_gave_solutions_up_says_so():
    policy = TinyPolicy(mean=4000, step=3)
    solution, text = explained(strategy="beam_search", n=4, beam_width=2, policy=policy, max_steps=5)
    assert f"Candidates: {len(solution.candidates)} given up after max_steps=5 steps" in text
    assert "left after a step (give max_steps above 5, or a larger budget)" in solution.abstained


@pytest.mark.parametrize("strategy", ["majority", "weighted_best_of_n"])
def test_samples_that_would_all_be_the_same_are_drawn_once(strategy):
    solution, text = explained(strategy=strategy, n=8, temperature=0)
    assert len(solution.candidates) == 1
    assert "1 candidate of 8 planned, as all would be the same, at temperature 0" in text


def test_votes_alone_verify_nothing():
    said = "Settled, not verified"
    assert said in explained(prm=False, strategy="majority", n=8)[1]
    assert said not in explained(strategy="weighted_best_of_n", n=8)[1]
    assert said not in explained(prm=False, strategy="greedy")[1]
    assert said not in explained(prm=False, strategy="majority", n=8, budget_tokens=40)[1]
